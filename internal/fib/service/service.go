// Package service is the FIBs of a daemon: the tables, what users want to be in them, the feeds that fill them, and what
// of it the kernel and the forwarder are told. Each part but the tables may be absent. What users set at run time is kept
// in a directory and is there after a crash (package journal); what the configuration file says is not kept, and wins.
//
// A FIB's routes have two sources: static ones, of users and the configuration, and those of one other, a feed or a
// loaded file. A static route hides that of the source with the same prefix, which comes back when the static one goes.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"midplane/fib"
	"midplane/internal/fib/service/journal"
	"midplane/internal/fib/service/spec"
)

// Options say what a Service has. The zero value is tables in memory that are gone with the process.
type Options struct {
	Set     *fib.Set  // nil: a new one
	Dir     string    // state directory; "": nothing is kept
	NoSync  bool      // do not wait for the disk (see journal.Open)
	Links   Links     // nil: no devices
	Kernel  Kernel    // nil: none
	Feeds   Feeds     // nil: none
	Forward Forwarder // nil: none
	Backend string    // of FIBs that do not say one; "": none without Kernel, else the first that works
	Log     *slog.Logger
	Config  []spec.Op // what the configuration file says
	Seed    uint64    // of the forwarder's flow hash (package flowhash)
}

// Links names the devices of FIBs. It must be safe for concurrent use and not block.
type Links interface {
	// Index returns the interface index of a device in a FIB's namespace.
	Index(id fib.ID, device string) (uint32, bool)
	// Name is the opposite; "" if there is none.
	Name(id fib.ID, index uint32) string
	// Addrs returns the addresses of a device, with the lengths of their networks.
	Addrs(id fib.ID, device string) []netip.Prefix
	// Tags returns on which link, and with which VLAN tags, the frames of a device are; 0: on itself, without.
	Tags(id fib.ID, device string) (link uint32, outer, inner uint16)
}

type noLinks struct{}

func (noLinks) Index(fib.ID, string) (uint32, bool)          { return 0, false }
func (noLinks) Name(fib.ID, uint32) string                   { return "" }
func (noLinks) Addrs(fib.ID, string) []netip.Prefix          { return nil }
func (noLinks) Tags(fib.ID, string) (uint32, uint16, uint16) { return 0, 0, 0 }

// Kernel is the kernel side, see package kernel. All methods may block.
type Kernel interface {
	// Apply makes FIBs and ports all that there are. It fails when a FIB that goes has processes.
	Apply(ctx context.Context, fibs []KernelFIB) error
	// Restore is Apply after a start, when it is too late to refuse that a FIB goes.
	Restore(ctx context.Context, fibs []KernelFIB) error
	// Bound returns the back end that a FIB got, and its device.
	Bound(id fib.ID) (backend, device string)
	// SyncRoutes makes the routes that keep returns true for all the routes of a FIB in its kernel table; nil is none.
	SyncRoutes(ctx context.Context, t *fib.Table, keep func(netip.Prefix) bool) error
	// UpdateRoutes puts the routes of prefixes, as they are in the table now, into the kernel table, and takes others out.
	UpdateRoutes(ctx context.Context, t *fib.Table, put, del []netip.Prefix) error
	SetNeigh(id fib.ID, n spec.Neigh, add bool) error
	DelNeigh(id fib.ID, n spec.Neigh) error
	FlushNeighs(id fib.ID, dev string) (int, error)
	Neighs(id fib.ID, dev string) ([]spec.NeighInfo, error)
}

// KernelFIB is a FIB as the kernel shall have it.
type KernelFIB struct {
	spec.FIB
	Ports []spec.Port
}

// Feeds makes feeds.
type Feeds interface {
	// Check returns a *fib.FieldError when the kind or a parameter is wrong.
	Check(spec.Feed) error
	// Start runs a feed. What it says about a FIB goes to what target returns for the number of a table; target fails
	// when there is no such FIB or another source has it. Start does not wait for the other end.
	Start(f spec.Feed, target func(table uint32) (*Source, error)) (Feed, error)
}

// Feed is a feed that runs.
type Feed interface {
	Info() spec.FeedInfo // State, Err and Counts
	Resync() error
	Close() error // the feed writes nothing more when it has returned; its routes stay
	Withdraw()    // after Close: its routes and next hops go
}

// Service is the FIBs of a daemon. All methods are safe for concurrent use. Changes take turns, and block while the disk
// and the kernel work; reading blocks only while the one FIB that it is about is written to.
type Service struct {
	set     *fib.Set
	links   Links
	kern    Kernel
	feeds   Feeds
	forward Forwarder
	log     *slog.Logger
	def     string // back end
	seed    uint64
	dir     string
	store   *journal.Store

	mu        sync.RWMutex // of what users want; not held while a dump is written
	fibs      map[fib.ID]*fibState
	names     map[string]fib.ID
	hops      map[uint32]*hopState
	hopIDs    map[fib.NextHopID]uint32 // the other way round
	ports     map[string]*portState
	neighs    map[neighKey]*item[spec.Neigh]
	running   map[string]*feedState
	statics   int
	forwarded []ForwardPort // what the forwarder was told
	tables    uint64        // number of the last file of a table
	later     []func()      // for the end of the change that is under way
	leaving   []*fibState   // FIBs that the change under way removes
	byTable   sync.Map      // uint32: *fibState; for feeds, which must not wait for a change that waits for them
	loading   bool          // the journal or the configuration is being read: what cannot be realised yet is kept
	closed    bool

	ways   ways
	counts counts
	wg     sync.WaitGroup // of goroutines that read tables
}

// item is something wanted, and whether the configuration says it.
type item[T any] struct {
	v      T
	config bool
}

type fibState struct {
	spec.FIB
	config bool
	t      *fib.Table // nil while the state is read

	mu     sync.RWMutex                   // of the fields below, and held by whoever writes to t
	static map[netip.Prefix]*staticRoute  // all that are wanted
	shadow map[netip.Prefix]fib.NextHopID // of the source, hidden by static ones; held
	source *Source                        // who else writes, nil nobody
	load   *item[spec.Load]               // the file that was loaded, if that is the source
	via    map[string]uint32              // the devices of the loaded file, as they were when it was read; 0: not there
	gone   bool
	stale  bool // it has routes of before the start

	// With a kernel side and kernel "all": what its table is to be told, by a goroutine of its own.
	dirty map[netip.Prefix]struct{}
	all   bool // everything
	work  chan struct{}
	stop  chan struct{}
}

func newFIBState(v spec.FIB, config bool) *fibState {
	return &fibState{FIB: v, config: config, static: map[netip.Prefix]*staticRoute{}, shadow: map[netip.Prefix]fib.NextHopID{}}
}

type staticRoute struct {
	spec.Route
	config bool
	active bool // it is in the table

	implied bool         // it is of an address of a port; nobody asked for it
	under   *staticRoute // the implied one of the same prefix
}

type hopState struct {
	spec.NextHop
	config bool
	id     fib.NextHopID // 0: pending, its device is missing
}

type portState struct {
	spec.Port
	fib    fib.ID
	config bool
}

type neighKey struct {
	fib fib.ID
	dev string
	dst netip.Addr
}

type feedState struct {
	spec.Feed
	config bool
	run    Feed
	err    error // it did not start

	missed misses
}

type counts struct {
	changes, refused, snapshots atomic.Uint64
	kernelErrs, feedErrs        atomic.Uint64
}

// Open makes the Service: it reads the state directory, realises it and what the configuration says, and starts the feeds.
func Open(ctx context.Context, o Options) (*Service, error) {
	s := &Service{
		set: o.Set, links: o.Links, kern: o.Kernel, feeds: o.Feeds, forward: o.Forward, log: o.Log, def: o.Backend, dir: o.Dir, seed: o.Seed,
		fibs: map[fib.ID]*fibState{}, names: map[string]fib.ID{}, hops: map[uint32]*hopState{}, hopIDs: map[fib.NextHopID]uint32{},
		ports: map[string]*portState{}, neighs: map[neighKey]*item[spec.Neigh]{}, running: map[string]*feedState{},
	}
	if s.set == nil {
		s.set = &fib.Set{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.links == nil {
		s.links = noLinks{}
	}
	if s.kern == nil {
		s.def = spec.None
	}
	s.ways.init(s.set)
	if _, ok := s.set.Table(holdID); ok { // what was hidden before the start comes again with its source
		if err := s.set.Remove(holdID); err != nil {
			return nil, err
		}
	}
	if err := s.restore(ctx, o); err != nil {
		if s.store != nil {
			s.store.Close()
		}
		return nil, err
	}
	return s, nil
}

// restore brings back what is wanted: first the configuration, which wins, then the state directory.
func (s *Service) restore(ctx context.Context, o Options) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = true
	for _, op := range o.Config {
		if err := op.Check(); err != nil {
			return fmt.Errorf("configuration: %s: %w", op.About(), err)
		}
		if _, err := s.do(&op, true); err != nil {
			return fmt.Errorf("configuration: %s: %w", op.About(), err)
		}
	}
	if s.dir != "" {
		var rep journal.Report
		var err error
		s.store, rep, err = journal.Open(s.dir, !o.NoSync, func(p []byte) error { return s.replay(p) })
		if err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
		if rep.Dropped > 0 {
			s.log.Warn("state directory: the journal ends in a record that is not whole", "dropped octets", rep.Dropped, "kept in", "journal.damaged")
		}
		s.log.Info("FIB state", "dir", s.dir, "records", rep.Records, "fibs", len(s.fibs), "static routes", s.statics)
	}
	if err := s.realiseAll(); err != nil {
		return err
	}
	if err := s.loadFiles(); err != nil {
		return err
	}
	s.restoreKernel(ctx)
	s.retry()
	s.loading = false
	s.adoptAll()
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		f := s.running[name]
		if err := s.startFeed(f); err != nil {
			f.err = err
			s.log.Error("feed", "name", name, "err", err)
		}
	}
	return nil
}

// realiseAll makes in the tables what is wanted, after it was read: the history of it would undo, for a moment, what a
// forwarder goes by.
func (s *Service) realiseAll() error {
	for _, id := range slices.Sorted(maps.Keys(s.fibs)) {
		f := s.fibs[id]
		t, err := s.table(f.FIB)
		if err != nil {
			return err
		}
		f.t = t
		s.byTable.Store(uint32(id), f)
	}
	for _, groups := range []bool{false, true} { // which hold the others
		for _, id := range slices.Sorted(maps.Keys(s.hops)) {
			if h := s.hops[id]; (h.Group != nil) == groups {
				s.retryHop(h)
			}
		}
	}
	s.retry()
	return nil
}

// replay does again what a record says. What the configuration has is passed over; so is what does not go any more.
func (s *Service) replay(payload []byte) error {
	var ops []spec.Op
	var err error
	if payload[0] == '[' {
		err = json.Unmarshal(payload, &ops)
	} else {
		ops = make([]spec.Op, 1)
		err = json.Unmarshal(payload, &ops[0])
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for i := range ops {
		err := ops[i].Check()
		if err == nil {
			_, err = s.do(&ops[i], false)
		}
		if err != nil {
			s.log.Warn("state directory: passed over", "what", ops[i].About(), "do", string(ops[i].Do), "err", err)
		}
	}
	return nil
}

// undo takes a change back.
type undo func()

// Apply carries operations out in order, all or none: after an error everything is as before. Lookups see them one by
// one. They are kept when it returns. Errors: *fib.FieldError, *fib.OpError with ErrExists, ErrNotFound, ErrInUse,
// ErrTooMany, ErrFull; *ConfigError; those of the kernel and the disk.
func (s *Service) Apply(ctx context.Context, ops ...spec.Op) error {
	if len(ops) == 0 {
		return nil
	}
	if len(ops) > spec.MaxBatch {
		return &fib.FieldError{Field: "batch", Value: strconv.Itoa(len(ops)), Want: fmt.Sprint("at most ", spec.MaxBatch, " operations")}
	}
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			s.counts.refused.Add(1)
			return batchError(ops, i, err)
		}
	}
	ticket, err := s.apply(ctx, ops)
	if err != nil {
		s.counts.refused.Add(1)
		return err
	}
	s.counts.changes.Add(uint64(len(ops)))
	if s.store != nil {
		return s.store.Wait(ticket)
	}
	return nil
}

// BatchError says which operation of a batch failed; nothing of the batch was done.
type BatchError struct {
	Index int // from 0
	About string
	Err   error
}

// Error implements error.
func (e *BatchError) Error() string {
	return fmt.Sprintf("operation %d (%s): %v; nothing was changed", e.Index+1, e.About, e.Err)
}

// Unwrap returns the cause.
func (e *BatchError) Unwrap() error { return e.Err }

func batchError(ops []spec.Op, i int, err error) error {
	if len(ops) == 1 {
		return err
	}
	return &BatchError{i, ops[i].About(), err}
}

var errClosed = errors.New("the daemon stops")

func (s *Service) apply(ctx context.Context, ops []spec.Op) (ticket uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errClosed
	}
	var undos []undo
	back := func() {
		for _, u := range slices.Backward(undos) {
			u()
		}
		s.leaving = nil
		s.runLater()
	}
	for i := range ops {
		u, err := s.do(&ops[i], false)
		if err != nil {
			back()
			return 0, batchError(ops, i, err)
		}
		undos = append(undos, u)
	}
	if err := s.tellKernel(ctx, ops); err != nil {
		back()
		s.untellKernel(ctx, ops)
		return 0, err
	}
	if ticket, err = s.record(ops); err != nil {
		back()
		s.untellKernel(ctx, ops)
		return 0, err
	}
	s.afterwards(ops)
	return ticket, nil
}

// record appends operations to the journal, and compacts it when it has grown.
func (s *Service) record(ops []spec.Op) (uint64, error) {
	if s.store == nil {
		return 0, nil
	}
	var payload []byte
	var err error
	if len(ops) == 1 {
		payload, err = json.Marshal(ops[0])
	} else {
		payload, err = json.Marshal(ops)
	}
	if err != nil {
		return 0, err
	}
	ticket, err := s.store.Append(payload)
	if err != nil {
		return 0, err
	}
	if base, size := s.store.Sizes(); size > max(minJournal, 2*base) {
		if err := s.compact(); err != nil {
			s.log.Error("state directory", "err", err) // the journal is still there, and grows
		}
	}
	return ticket, nil
}

// minJournal is how large the journal gets at least before it is compacted; it is bounded by this or twice the snapshot,
// and one batch.
const minJournal = 1 << 20

// compact writes a snapshot of all that is wanted and not of the configuration.
func (s *Service) compact() error {
	s.counts.snapshots.Add(1)
	return s.store.Compact(func(emit func([]byte) error) error {
		for op := range s.wanted() {
			p, err := json.Marshal(op)
			if err != nil {
				return err
			}
			if err := emit(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close stops the feeds and closes the state directory. Kernel state stays; tables end with their memory.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var running []Feed
	for _, f := range s.running {
		if f.run != nil {
			running = append(running, f.run)
		}
	}
	for _, f := range s.fibs {
		f.close()
	}
	s.mu.Unlock()
	var errs []error
	for _, f := range running {
		errs = append(errs, f.Close())
	}
	s.wg.Wait()
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// Set returns the tables.
func (s *Service) Set() *fib.Set { return s.set }

// ConfigError says that something is set in the configuration file, and can be changed only there.
type ConfigError struct{ What string }

// Error implements error.
func (e *ConfigError) Error() string {
	return e.What + ": it is set in the configuration file: change it there and restart the daemon"
}

// find returns a FIB by its name or number.
func (s *Service) find(which string) (*fibState, error) {
	if id, ok := s.names[which]; ok {
		return s.fibs[id], nil
	}
	if n, err := strconv.ParseUint(which, 10, 32); err == nil {
		if f := s.fibs[fib.ID(n)]; f != nil {
			return f, nil
		}
	}
	return nil, &fib.OpError{Op: "find", What: "fib " + which, Err: fib.ErrNotFound}
}

// title is how a FIB is shown: by its name, or number.
func (f *fibState) title() string {
	if f.Name != "" {
		return f.Name
	}
	return f.ID.String()
}

// NotAllowed marks the error as one about what may be done, for package fibapi.
func (e *ConfigError) NotAllowed() {}
