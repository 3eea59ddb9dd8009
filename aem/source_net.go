package aem

import (
	"errors"
	"net/netip"

	"midplane/internal/aem/source"
	"midplane/internal/fib/rtnl"
)

// LinkChange is that a network link is new, another or gone.
type LinkChange struct {
	Index   int
	Name    string
	Up      bool // set up by the administrator
	Running bool // it carries traffic
	MTU     int
	Gone    bool
	Lost    bool // only this is set: more changed than the kernel's queue holds, so look yourself
}

// AddrChange is that an address is new, another or gone.
type AddrChange struct {
	Index  int // of the link
	Prefix netip.Prefix
	Peer   netip.Addr // of a point-to-point link
	Gone   bool
	Lost   bool // as in LinkChange
}

// RouteChange is that a route of the kernel is new, another or gone.
type RouteChange struct {
	Dst      netip.Prefix
	Table    uint32
	Metric   uint32
	Gateway  netip.Addr // of the first path
	Index    int        // link of the first path
	Paths    int
	Protocol uint8 // RTPROT_…
	Gone     bool
	Lost     bool // as in LinkChange
}

// Links is the source of changes of links, in the network namespace in which it was started.
func Links() Source[LinkChange] {
	const up, running = 0x1, 0x40 // IFF_UP, IFF_RUNNING
	return changes("links", source.LinkGroups, LinkChange{Lost: true}, func(m source.Message, emit func(LinkChange) error) error {
		if m.Kind != source.NewLink && m.Kind != source.DelLink {
			return nil
		}
		l, err := source.DecodeLink(m.Payload)
		if err == nil {
			_ = emit(LinkChange{Index: l.Index, Name: l.Name, Up: l.Flags&up != 0, Running: l.Flags&running != 0, MTU: l.MTU, Gone: m.Kind == source.DelLink})
		}
		return err
	})
}

// Addrs is the source of changes of addresses.
func Addrs() Source[AddrChange] {
	return changes("addresses", source.AddrGroups, AddrChange{Lost: true}, func(m source.Message, emit func(AddrChange) error) error {
		if m.Kind != source.NewAddr && m.Kind != source.DelAddr {
			return nil
		}
		a, err := source.DecodeAddr(m.Payload)
		if err == nil {
			_ = emit(AddrChange{Index: a.Index, Prefix: a.Prefix, Peer: a.Peer, Gone: m.Kind == source.DelAddr})
		}
		return err
	})
}

// Routes is the source of changes of the kernel's routes, of all tables.
func Routes() Source[RouteChange] {
	var r rtnl.Route
	return changes("routes", source.RouteGroups, RouteChange{Lost: true}, func(m source.Message, emit func(RouteChange) error) error {
		if m.Kind != source.NewRoute && m.Kind != source.DelRoute {
			return nil
		}
		if err := rtnl.DecodeRoute(m.Payload, &r); err != nil {
			return err
		}
		c := RouteChange{Dst: r.Dst, Table: r.Table, Metric: r.Priority, Paths: len(r.Paths), Protocol: r.Protocol, Gone: m.Kind == source.DelRoute}
		if len(r.Paths) > 0 {
			c.Gateway, c.Index = r.Paths[0].Gateway, int(r.Paths[0].Device)
		}
		_ = emit(c)
		return nil
	})
}

func changes[T any](name string, groups uint32, lost T, one func(source.Message, func(T) error) error) Source[T] {
	b := make([]byte, 64<<10)
	return &fdSource[T]{
		name: name,
		open: func() (int, error) { return source.Netlink(groups) },
		read: func(fd int, emit func(T) error) error {
			for {
				err := readAll(fd, b, func(b []byte) error {
					for len(b) > 0 {
						m, rest, err := source.NextMessage(b)
						if err != nil {
							return err
						}
						if b = rest; one(m, emit) != nil {
							_ = emit(lost) // it was something, and cannot be read
						}
					}
					return nil
				})
				if !errors.Is(err, source.ErrOverflow) {
					return err
				}
				_ = emit(lost)
			}
		},
	}
}
