package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/fpm"
	"midplane/internal/fib/kernel"
	"midplane/internal/fib/mirror"
	"midplane/internal/fib/rtnl"
	fibs "midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
)

// feeder starts feeds of FIBs.
type feeder struct {
	set *fib.Set
	log *slog.Logger
}

var _ fibs.Feeds = (*feeder)(nil)

// feedKind is a kind of feed: which parameters it has, and how it is started.
type feedKind struct {
	params []string
	needs  bool // a FIB
	start  func(*feeder, spec.Feed, func(uint32) (feed.Table, fib.ID, error), func(uint32) (*fibs.Source, error)) (fibs.Feed, error)
	check  func(spec.Feed) error
}

var feedKinds = map[string]feedKind{
	"fpm": {params: []string{"listen", "table", "silent"}, start: startFPM, check: checkFPM},
	"bgp": {params: []string{"asn", "routerid", "neighbor", "port", "device", "password", "ttl", "paths", "restart", "viadefault", "advertise"}, needs: true,
		start: startBGP, check: checkBGP},
	"kernel": {params: []string{"table", "netns"}, needs: true, start: startMirror, check: checkMirror},
}

// Check implements service.Feeds.
func (f *feeder) Check(v spec.Feed) error {
	k, ok := feedKinds[v.Kind]
	if !ok {
		return &fib.FieldError{Field: "kind", Value: v.Kind, Want: strings.Join(slices.Sorted(maps.Keys(feedKinds)), ", ")}
	}
	for p, value := range v.Params {
		if !slices.Contains(k.params, p) {
			return &fib.FieldError{Field: p, Value: value, Want: "with kind " + v.Kind + " only " + strings.Join(k.params, ", ")}
		}
	}
	if k.needs && v.FIB == "" {
		return &fib.FieldError{Field: "fib", Value: "", Want: "the FIB that the feed is for"}
	}
	return k.check(v)
}

// Start implements service.Feeds.
func (f *feeder) Start(v spec.Feed, target func(uint32) (*fibs.Source, error)) (fibs.Feed, error) {
	open := func(table uint32) (feed.Table, fib.ID, error) {
		s, err := target(table)
		if err != nil {
			return nil, 0, err
		}
		return s, s.ID(), nil
	}
	return feedKinds[v.Kind].start(f, v, open, target)
}

// tableParam is the number of the sender's table, 0 if it is not given.
func tableParam(v spec.Feed) (uint32, error) {
	s, ok := v.Params["table"]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, &fib.FieldError{Field: "table", Value: s, Want: "the number of a routing table, from 1"}
	}
	return uint32(n), nil
}

func checkFPM(v spec.Feed) error {
	if _, err := netip.ParseAddrPort(listenAddr(v)); err != nil {
		return &fib.FieldError{Field: "listen", Value: v.Params["listen"], Want: "an address with a port, such as 127.0.0.1:2620"}
	}
	if s, ok := v.Params["silent"]; ok && s != "true" && s != "false" {
		return &fib.FieldError{Field: "silent", Value: s, Want: "true or false"}
	}
	n, err := tableParam(v)
	if err == nil && n != 0 && v.FIB == "" {
		err = &fib.FieldError{Field: "table", Value: v.Params["table"], Want: "none without fib: then each table goes to the FIB of its number"}
	}
	return err
}

func listenAddr(v spec.Feed) string {
	if s := v.Params["listen"]; s != "" {
		return s
	}
	return fmt.Sprintf("127.0.0.1:%d", fpm.Port)
}

// fpmFeed is zebra, which connects to us.
type fpmFeed struct {
	*running
	server  *fpm.Server
	restart func() // ends the connection: zebra replays with the next
}

func startFPM(f *feeder, v spec.Feed, open func(uint32) (feed.Table, fib.ID, error), target func(uint32) (*fibs.Source, error)) (fibs.Feed, error) {
	only, err := tableParam(v)
	if err != nil {
		return nil, err
	}
	c := fpm.Config{Silent: v.Params["silent"] == "true", Feed: feed.Config{Open: open}}
	if only != 0 {
		c.Feed.Open = func(table uint32) (feed.Table, fib.ID, error) {
			if table != only {
				return nil, 0, feed.ErrTable
			}
			return open(table)
		}
	}
	session := fpm.NewSession(f.set, c)
	for _, t := range f.leftovers(v, target) {
		if err := session.Adopt(t); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", listenAddr(v))
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", v.Name, err)
	}
	server, kl := fpm.NewServer(session), &killListener{Listener: l}
	serve := func(ctx context.Context) error { return server.Serve(ctx, kl) } // ends when the listener failed
	return &fpmFeed{run(v.Name, f.log, 0, serve, server.Flush), server, kl.kill}, nil
}

// leftovers are the tables that a feed speaks for and that have routes from before the daemon was started.
func (f *feeder) leftovers(v spec.Feed, target func(uint32) (*fibs.Source, error)) (tables []uint32) {
	if v.FIB != "" {
		only, _ := tableParam(v) // checked
		n, _ := strconv.ParseUint(v.FIB, 10, 32)
		if only == 0 {
			only = uint32(n)
		}
		if s, err := target(only); err == nil && s.Stale() {
			return []uint32{only}
		}
		return nil
	}
	for _, t := range f.set.Tables() {
		if v4, v6 := t.Len(); v4+v6 == 0 {
			continue
		}
		if s, err := target(uint32(t.ID())); err == nil && s.Stale() {
			tables = append(tables, uint32(t.ID()))
		}
	}
	return tables
}

// killListener can end the connections that it accepted.
type killListener struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (l *killListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = map[net.Conn]struct{}{}
	}
	k := &killConn{c, l}
	l.conns[k] = struct{}{}
	return k, nil
}

func (l *killListener) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.(*killConn).Conn.Close() // the server sees it
	}
}

type killConn struct {
	net.Conn
	l *killListener
}

func (c *killConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// Resync implements service.Feed: zebra replays all it has when it connects again.
func (r *fpmFeed) Resync() error {
	r.restart()
	return nil
}

// Info implements service.Feed.
func (r *fpmFeed) Info() spec.FeedInfo {
	c, refused := r.server.Counters()
	i := spec.FeedInfo{State: "waiting", Counts: feedCounts(c.Feed)}
	switch {
	case c.Connected && c.Resyncing:
		i.State = "resyncing"
	case c.Connected:
		i.State = "synced"
	case c.Connects > 0:
		i.State = "disconnected"
	}
	if err := r.failure(); err != nil {
		i.State, i.Err = "failed", err.Error()
	}
	if i.Err == "" {
		i.Err = c.LastFailure
		if err := r.server.LastError(); err != nil && !c.Connected {
			i.Err = err.Error()
		}
	}
	for k, n := range map[string]uint64{"connects": c.Connects, "resyncs": c.Resyncs, "octets": c.Octets, "frames": c.Frames,
		"bad_version": c.BadVersion, "bad_length": c.BadLength, "bad_partial": c.BadPartial, "cut": c.Cut, "other_types": c.OtherTypes,
		"not_for_fibs": c.NotForFIBs, "offloaded": c.Offloaded, "failed": c.Failed, "refused_connections": refused} {
		i.Counts[k] = n
	}
	return i
}

func feedCounts(c feed.Counters) map[string]uint64 {
	return map[string]uint64{"routes": uint64(max(c.Routes, 0)), "objects": uint64(max(c.Objects, 0)), "added": c.Added, "replaced": c.Replaced, "refreshed": c.Refreshed,
		"unchanged": c.Unchanged, "deleted": c.Deleted, "missing": c.Missing, "foreign": c.Foreign, "swept": c.Swept, "refused": c.Refused, "full": c.Full}
}

func checkMirror(v spec.Feed) error {
	_, err := tableParam(v)
	return err
}

// mirrorFeed is a kernel table.
type mirrorFeed struct {
	*running
	m *mirror.Mirror
}

func startMirror(f *feeder, v spec.Feed, open func(uint32) (feed.Table, fib.ID, error), target func(uint32) (*fibs.Source, error)) (fibs.Feed, error) {
	n, err := strconv.ParseUint(v.FIB, 10, 32)
	if err != nil {
		return nil, err
	}
	table, err := tableParam(v)
	if err != nil {
		return nil, err
	}
	if table == 0 {
		table = uint32(n)
	}
	source, err := target(table)
	if err != nil {
		return nil, err
	}
	m, err := mirror.New(mirror.Config{Set: f.set, Tables: map[uint32]fib.ID{table: fib.ID(n)}, Open: open, Namespace: v.Params["netns"], Skip: ownRoute, Adopt: source.Stale(), Keep: true})
	if err != nil {
		return nil, err
	}
	return &mirrorFeed{run(v.Name, f.log, retryFeed, m.Run, m.Flush), m}, nil
}

// retryFeed is how long after an error the kernel is read again.
const retryFeed = time.Second

// ownRoute says whether a route of the kernel was put there by a FIB's kernel side: the guard that keeps packets in their
// FIB, or a route of ours.
func ownRoute(r *rtnl.Route) bool {
	return r.Protocol == kernel.ProtocolRoute || ownGuard(r)
}

// ownGuard says whether a route of the kernel is one that no FIB has because it is there to keep packets in their FIB.
func ownGuard(r *rtnl.Route) bool {
	return r.Protocol == kernel.ProtocolSetup && (r.Type == rtnl.RouteUnreachable || r.Type == rtnl.RouteMulticast)
}

// Resync implements service.Feed.
func (r *mirrorFeed) Resync() error {
	r.m.Resync()
	return nil
}

// Info implements service.Feed.
func (r *mirrorFeed) Info() spec.FeedInfo {
	s := r.m.Status()
	i := spec.FeedInfo{State: "resyncing", Counts: feedCounts(s.Feed)}
	if s.Synced {
		i.State = "synced"
	}
	if err := errors.Join(r.failure(), s.Err); err != nil && !s.Synced {
		i.State, i.Err = "failed", err.Error()
	}
	for k, n := range map[string]uint64{"messages": s.Messages, "dumped": s.Dumped, "ignored": s.Ignored, "rejected": s.Rejected, "overflows": s.Overflows,
		"interrupts": s.Interrupts, "resyncs": s.Resyncs, "retries": s.Retries, "dead": s.Dead, "links": s.Links} {
		i.Counts[k] = n
	}
	return i
}
