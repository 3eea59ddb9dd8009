package daemon

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"midplane/fib"
	"midplane/internal/fib/bgp"
	"midplane/internal/fib/feed"
	fibs "midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
)

// bgpConfig reads the parameters of a feed of kind bgp. Peers are ADDRESS@ASN, separated by commas.
func bgpConfig(v spec.Feed) (bgp.Config, error) {
	var c bgp.Config
	var err error
	bad := func(field, want string) {
		if err == nil {
			err = &fib.FieldError{Field: field, Value: v.Params[field], Want: want}
		}
	}
	number := func(field string, least, most int64, or int64) int64 {
		s, ok := v.Params[field]
		if !ok {
			return or
		}
		n, perr := strconv.ParseInt(s, 10, 64)
		if perr != nil || n < least || n > most {
			bad(field, fmt.Sprintf("a number from %d to %d", least, most))
		}
		return n
	}
	truth := func(field string) bool {
		s := v.Params[field]
		if s != "" && s != "true" && s != "false" {
			bad(field, "true or false")
		}
		return s == "true"
	}
	c.ASN = uint32(number("asn", 1, 1<<32-1, 0))
	if c.ASN == 0 {
		bad("asn", "the number of this autonomous system")
	}
	var perr error
	if c.RouterID, perr = netip.ParseAddr(v.Params["routerid"]); perr != nil || !c.RouterID.Is4() {
		bad("routerid", "an IPv4 address")
	}
	c.Port = int(number("port", -1, 65535, -1))
	c.Device = v.Params["device"]
	c.MaxPaths = int(number("paths", 1, fib.MaxMembers, 1))
	c.Restart = time.Duration(number("restart", 0, 4095, 0)) * time.Second
	c.ViaDefault, c.Advertise = truth("viadefault"), truth("advertise")
	ttl := uint8(number("ttl", 0, 255, 0))
	for p := range strings.SplitSeq(v.Params["neighbor"], ",") {
		addr, asn, _ := strings.Cut(p, "@")
		a, aerr := netip.ParseAddr(addr)
		n, nerr := strconv.ParseUint(asn, 10, 32)
		if aerr != nil || nerr != nil || n == 0 {
			bad("neighbor", "ADDRESS@ASN, several with commas between")
			break
		}
		c.Peers = append(c.Peers, bgp.Peer{Address: a, ASN: uint32(n), Device: c.Device, Password: v.Params["password"], TTL: ttl, AddPath: c.MaxPaths > 1})
	}
	return c, err
}

func checkBGP(v spec.Feed) error {
	_, err := bgpConfig(v)
	return err
}

// bgpFeed is a BGP speaker in this process.
type bgpFeed struct {
	*running
	s *bgp.Speaker
}

func startBGP(f *feeder, v spec.Feed, open func(uint32) (feed.Table, fib.ID, error), target func(uint32) (*fibs.Source, error)) (fibs.Feed, error) {
	c, err := bgpConfig(v)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(v.FIB, 10, 32)
	if err != nil {
		return nil, err
	}
	source, err := target(uint32(n))
	if err != nil {
		return nil, err
	}
	c.Set, c.FIB, c.Open, c.Adopt, c.Keep, c.Log = f.set, fib.ID(n), open, source.Stale(), true, f.log.With("feed", v.Name)
	s, err := bgp.New(c)
	if err != nil {
		return nil, err
	}
	return &bgpFeed{run(v.Name, f.log, 0, s.Run, s.Flush), s}, nil
}

// Resync implements service.Feed. BGP sessions tell every change, and what was not told is not to be had by asking.
func (r *bgpFeed) Resync() error {
	return failf("unsupported", "resync: a feed of kind bgp has nothing to compare with but its sessions")
}

// Info implements service.Feed.
func (r *bgpFeed) Info() spec.FeedInfo {
	s := r.s.Status()
	i := spec.FeedInfo{State: "waiting", Counts: feedCounts(s.Feed)}
	up := 0
	for _, p := range s.Peers {
		if p.State == "ESTABLISHED" {
			up++
		} else if i.Err == "" && p.Reason != "" {
			i.Err = fmt.Sprintf("%s: %s", p.Address, p.Reason)
		}
	}
	switch {
	case up > 0 && s.Idle:
		i.State = "synced"
	case up > 0:
		i.State = "resyncing"
	}
	if err := r.failure(); err != nil {
		i.State, i.Err = "failed", err.Error()
	}
	for k, n := range map[string]uint64{"peers": uint64(len(s.Peers)), "established": uint64(up), "prefixes": uint64(s.Prefixes), "unresolved": uint64(s.Unresolved),
		"nexthops": uint64(s.NextHops), "updates": s.Updates, "withdrawn": s.Withdrawn, "resolved": s.Resolved, "invalid": s.Invalid} {
		i.Counts[k] = n
	}
	return i
}
