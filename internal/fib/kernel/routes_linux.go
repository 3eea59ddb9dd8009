package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/kernel/plan"
	"midplane/internal/sys"
)

// metricRoute is that of mirrored routes: behind those of addresses and what others set by default (IP6_RT_PRIO_USER is 1024).
const metricRoute = 1074

const (
	rtaNexthopID = 30 // RTA_NH_ID
	loopback     = 1  // LOOPBACK_IFINDEX
	maxWeight    = 256
)

// table is where the routes of a FIB are.
type table struct {
	s       *space
	id      uint32
	devices map[uint32]int // VRF devices by their tables
}

// table finds the table of a FIB. The caller holds k.mu and closes the spaces.
func (k *Kernel) table(id fib.ID) (*table, error) {
	if k.closed {
		return nil, errClosed
	}
	f, err := k.fib(id)
	if err != nil {
		return nil, err
	}
	t := &table{id: f.ID, devices: map[uint32]int{}}
	space := ""
	if f.Backend == Netns {
		t.id, space = plan.TableMain, f.Title()
	}
	if t.s, err = k.space(space); err != nil {
		return nil, err
	}
	if f.Backend == VRF {
		for _, other := range k.FIBs() {
			if other.Backend == VRF {
				if l, err := t.s.h.LinkByName(other.Title()); err == nil {
					t.devices[other.ID] = l.Attrs().Index
				}
			}
		}
	}
	return t, nil
}

// canonical is a route as the kernel shows it, so that it can be compared with what it shows.
func (t *table) canonical(r Route) (Route, error) {
	if !masked(r.Prefix) {
		return r, &fib.FieldError{Field: "prefix", Value: r.Prefix.String(), Want: "a masked IPv4 or IPv6 prefix"}
	}
	switch r.Type {
	case fib.Lookup:
		index := t.devices[uint32(r.Table)]
		if index == 0 {
			return r, &sys.UnsupportedError{Feature: fmt.Sprintf("a route that leads into FIB %d, in the kernel (both need back end vrf)", r.Table)}
		}
		return Route{Prefix: r.Prefix, Type: fib.Unicast, Hops: []RouteHop{{Device: uint32(index), Weight: 1}}}, nil
	case fib.Local:
		hop := RouteHop{Device: loopback, Weight: 1}
		if len(r.Hops) > 0 {
			hop.Device = r.Hops[0].Device
		}
		return Route{Prefix: r.Prefix, Type: fib.Local, Hops: []RouteHop{hop}}, nil
	case fib.Blackhole, fib.Unreachable, fib.Prohibit:
		return Route{Prefix: r.Prefix, Type: r.Type}, nil
	case fib.Unicast:
		return canonicalHops(r)
	}
	return r, &fib.FieldError{Field: "type", Value: r.Type.String(), Want: "unicast, local, blackhole, unreachable, prohibit or lookup"}
}

func canonicalHops(r Route) (Route, error) {
	if len(r.Hops) == 0 || len(r.Hops) > fib.MaxMembers {
		return r, &fib.FieldError{Field: "hops", Value: fmt.Sprint(len(r.Hops)), Want: fmt.Sprintf("1 to %d", fib.MaxMembers)}
	}
	hops := slices.Clone(r.Hops)
	for i := range hops {
		h := &hops[i]
		h.Weight = max(h.Weight, 1)
		switch {
		case h.Device == 0:
			return r, &fib.FieldError{Field: "device", Value: "0", Want: "the interface that packets leave by"}
		case h.Weight > maxWeight:
			return r, &fib.FieldError{Field: "weight", Value: fmt.Sprint(h.Weight), Want: "1 to 256"}
		case h.Gateway.IsValid() && h.Gateway.Is4() && r.Prefix.Addr().Is6():
			return r, &sys.UnsupportedError{Feature: "an IPv4 gateway of an IPv6 route"}
		}
	}
	slices.SortFunc(hops, func(a, b RouteHop) int {
		if a.Device != b.Device {
			return int(int64(a.Device) - int64(b.Device))
		}
		return a.Gateway.Compare(b.Gateway)
	})
	c := Route{Prefix: r.Prefix, Type: fib.Unicast, Hops: hops}
	if len(hops) == 1 || apart(c) {
		for i := range hops {
			hops[i].Weight = 1
		}
	}
	return c, nil
}

func same(a, b Route) bool { return a.Type == b.Type && slices.Equal(a.Hops, b.Hops) }

var routeTypes = map[fib.Type]uint8{
	fib.Unicast: unix.RTN_UNICAST, fib.Local: unix.RTN_LOCAL, fib.Blackhole: unix.RTN_BLACKHOLE, fib.Unreachable: unix.RTN_UNREACHABLE, fib.Prohibit: unix.RTN_PROHIBIT,
}

// encode makes the body of a request about a route that is canonical. onlink spares the kernel the question whether gateways
// are on the link.
func (t *table) encode(r Route, onlink bool) ([]byte, error) {
	h := routeHeader{family: familyOf(r.Prefix.Addr()), bits: r.Prefix.Bits(), table: t.id, protocol: ProtocolRoute, typ: routeTypes[r.Type]}
	flags := uint8(0)
	if onlink {
		flags = unix.RTNH_F_ONLINK
	}
	if h.family == plan.IPv4 {
		switch {
		case r.Type == fib.Local:
			h.scope = unix.RT_SCOPE_HOST
		case r.Type == fib.Unicast && !slices.ContainsFunc(r.Hops, func(h RouteHop) bool { return h.Gateway.IsValid() }):
			h.scope = unix.RT_SCOPE_LINK
		}
	}
	single := len(r.Hops) == 1
	if single && r.Hops[0].Gateway.IsValid() {
		h.rflags = flags
	}
	return encode(h.bytes(), func(e *netlink.AttributeEncoder) {
		if r.Prefix.Bits() > 0 {
			e.Bytes(unix.RTA_DST, r.Prefix.Addr().AsSlice())
		}
		e.Uint32(unix.RTA_TABLE, t.id)
		e.Uint32(unix.RTA_PRIORITY, metricRoute)
		switch {
		case single:
			e.Uint32(unix.RTA_OIF, r.Hops[0].Device)
			gateway(e, r.Prefix, r.Hops[0].Gateway)
		case len(r.Hops) > 1:
			e.Do(unix.RTA_MULTIPATH, func() ([]byte, error) { return multipath(r, flags) })
		}
	})
}

func gateway(e *netlink.AttributeEncoder, p netip.Prefix, g netip.Addr) {
	switch {
	case !g.IsValid():
	case g.Is6() && p.Addr().Is4():
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
		e.Bytes(unix.RTA_VIA, append(b, g.AsSlice()...))
	default:
		e.Bytes(unix.RTA_GATEWAY, g.AsSlice())
	}
}

// multipath makes a list of struct rtnexthop.
func multipath(r Route, flags uint8) ([]byte, error) {
	var all []byte
	for _, h := range r.Hops {
		e := netlink.NewAttributeEncoder()
		gateway(e, r.Prefix, h.Gateway)
		a, err := e.Encode()
		if err != nil {
			return nil, err
		}
		b := make([]byte, unix.SizeofRtNexthop)
		binary.NativeEndian.PutUint16(b, uint16(len(b)+len(a)))
		if h.Gateway.IsValid() {
			b[2] = flags
		}
		b[3] = uint8(h.Weight - 1)
		binary.NativeEndian.PutUint32(b[4:], h.Device)
		all = append(append(all, b...), a...)
	}
	return all, nil
}

func decodeRoute(body []byte) (Route, error) {
	if len(body) < unix.SizeofRtMsg {
		return Route{}, errShort
	}
	r := Route{}
	for t, n := range routeTypes {
		if n == body[7] {
			r.Type = t
		}
	}
	a := netip.IPv6Unspecified()
	if plan.Family(body[0]) == plan.IPv4 {
		a = netip.IPv4Unspecified()
	}
	hop := RouteHop{Weight: 1}
	var hops []RouteHop
	var bad error
	err := attributes(body, unix.SizeofRtMsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.RTA_DST:
			a = address(d)
		case unix.RTA_OIF:
			hop.Device = d.Uint32()
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			hop.Gateway = decodeGateway(d)
		case unix.RTA_MULTIPATH:
			hops, bad = decodeMultipath(d.Bytes())
		}
	})
	if err == nil {
		err = bad
	}
	r.Prefix = netip.PrefixFrom(a, int(body[1]))
	if hops == nil && hop.Device != 0 {
		hops = []RouteHop{hop}
	}
	if r.Type == fib.Unicast || r.Type == fib.Local {
		r.Hops = hops
	}
	return r, err
}

func decodeGateway(d *netlink.AttributeDecoder) netip.Addr {
	b := d.Bytes()
	if d.Type() == unix.RTA_VIA && len(b) > 2 {
		b = b[2:]
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func decodeMultipath(b []byte) ([]RouteHop, error) {
	var l []RouteHop
	for len(b) > 0 {
		if len(b) < unix.SizeofRtNexthop {
			return nil, errShort
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return nil, errShort
		}
		h := RouteHop{Weight: int(b[3]) + 1, Device: binary.NativeEndian.Uint32(b[4:])}
		err := attributes(b[:n], unix.SizeofRtNexthop, func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.RTA_GATEWAY || d.Type() == unix.RTA_VIA {
				h.Gateway = decodeGateway(d)
			}
		})
		if err != nil {
			return nil, err
		}
		l = append(l, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return l, nil
}

// dump reads all mirrored routes of the table. Hops that the kernel keeps as routes of their own, as IPv6 does for those
// without a gateway, are put together.
func (t *table) dump() (map[netip.Prefix]Route, error) {
	all := map[netip.Prefix]Route{}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		part := map[netip.Prefix]Route{}
		err := t.s.rt.routes(f, t.id, ProtocolRoute, func() { clear(part) }, func(body []byte) error {
			r, err := decodeRoute(body)
			if old, ok := part[r.Prefix]; ok {
				r.Hops = append(old.Hops, r.Hops...)
			}
			part[r.Prefix] = r
			return err
		})
		if err != nil {
			return nil, err
		}
		for p, r := range part {
			if r.Type == fib.Unicast {
				if c, err := canonicalHops(r); err == nil {
					r = c
				}
			}
			all[p] = r
		}
	}
	return all, nil
}

// SyncRoutes implements API.
func (k *Kernel) SyncRoutes(ctx context.Context, id fib.ID, routes iter.Seq[Route]) (SyncReport, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.closeSpaces()
	t, err := k.table(id)
	if err != nil {
		return SyncReport{}, err
	}
	var rep SyncReport
	want := map[netip.Prefix]Route{}
	for r := range routes {
		c, err := t.canonical(r)
		if err != nil {
			rep.skip(err)
			delete(want, r.Prefix)
			continue
		}
		want[c.Prefix] = c
	}
	have, err := t.dump()
	if err != nil {
		return rep, err
	}
	var del []Route
	for p, h := range have {
		if _, ok := want[p]; !ok {
			del = append(del, h)
		}
	}
	if err := t.remove(ctx, del); err != nil {
		return rep, err
	}
	rep.Deleted = len(del)
	var set []Route
	for p, w := range want {
		h, there := have[p]
		switch {
		case there && same(h, w):
			rep.Kept++
			continue
		case there:
			rep.Replaced++
			if len(h.Hops) > 1 || len(w.Hops) > 1 {
				if err := t.remove(ctx, []Route{h}); err != nil {
					return rep, err
				}
			}
		default:
			rep.Added++
		}
		set = append(set, w)
	}
	slices.SortFunc(set, func(a, b Route) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	refused, err := t.set(ctx, set)
	for _, e := range refused {
		rep.skip(e)
		rep.Added-- // which of them it was does not matter to who reads it: it is not there
	}
	return rep, err
}

func (r *SyncReport) skip(err error) {
	r.Skipped++
	if r.SkippedErr == nil {
		r.SkippedErr = err
	}
}

// set adds or replaces routes, and returns why the kernel refused some. Networks on the link come before gateways in them.
func (t *table) set(ctx context.Context, l []Route) ([]error, error) {
	refused, err := t.setWith(ctx, l, false)
	if err != nil || len(refused) == 0 {
		return nil, err
	}
	var again []Route
	for i := range refused {
		again = append(again, l[i])
	}
	refused, err = t.setWith(ctx, again, true)
	var errs []error
	for i, e := range refused {
		errs = append(errs, fmt.Errorf("%v: %w", again[i].Prefix, e))
	}
	return errs, err
}

func (t *table) setWith(ctx context.Context, l []Route, onlink bool) (map[int]error, error) {
	refused := map[int]error{}
	var ms []netlink.Message
	var of []int // which route a message is about
	send := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := t.s.rt.batch(ms, func(i int, err error) { refused[of[i]] = err })
		ms, of = ms[:0], of[:0]
		return err
	}
	for i, r := range l {
		parts, flags := []Route{r}, uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
		if apart(r) {
			flags, parts = unix.NLM_F_CREATE, nil
			for _, h := range r.Hops {
				parts = append(parts, Route{Prefix: r.Prefix, Type: r.Type, Hops: []RouteHop{h}})
			}
		}
		for _, p := range parts {
			b, err := t.encode(p, onlink)
			if err != nil {
				return refused, err
			}
			ms, of = append(ms, message(unix.RTM_NEWROUTE, flags, b)), append(of, i)
		}
		if len(ms) >= batchSize {
			if err := send(); err != nil {
				return refused, err
			}
		}
	}
	return refused, send()
}

// apart says whether the hops of a route have to be routes of their own: IPv6 has no others without gateways
// (net/ipv6/route.c, ip6_route_multipath_add). It does not have weights for them either.
func apart(r Route) bool {
	return r.Prefix.Addr().Is6() && len(r.Hops) > 1 && slices.ContainsFunc(r.Hops, func(h RouteHop) bool { return !h.Gateway.IsValid() })
}

func (t *table) remove(ctx context.Context, l []Route) error {
	var ms []netlink.Message
	for _, r := range l {
		b, err := t.encode(Route{Prefix: r.Prefix}, false)
		if err != nil {
			return err
		}
		b[6] = unix.RT_SCOPE_NOWHERE
		for range max(len(r.Hops), 1) { // IPv6 may have one route a hop
			ms = append(ms, message(unix.RTM_DELROUTE, 0, b))
		}
	}
	var first error
	for at := 0; at < len(ms); at += batchSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := t.s.rt.batch(ms[at:min(at+batchSize, len(ms))], func(_ int, err error) {
			if first == nil && !isAny(err, unix.ESRCH) {
				first = err
			}
		})
		if err != nil {
			return err
		}
	}
	return first
}

// UpdateRoutes implements API.
func (k *Kernel) UpdateRoutes(ctx context.Context, id fib.ID, replace []Route, del []netip.Prefix) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.closeSpaces()
	t, err := k.table(id)
	if err != nil {
		return err
	}
	var gone []Route
	for _, p := range del {
		if !masked(p) {
			return &fib.FieldError{Field: "prefix", Value: p.String(), Want: "a masked IPv4 or IPv6 prefix"}
		}
		gone = append(gone, Route{Prefix: p, Hops: make([]RouteHop, 2)})
	}
	var set []Route
	for _, r := range replace {
		c, err := t.canonical(r)
		if err != nil {
			return err
		}
		if len(c.Hops) > 1 {
			gone = append(gone, c)
		}
		set = append(set, c)
	}
	if err := t.remove(ctx, gone); err != nil {
		return err
	}
	refused, err := t.set(ctx, set)
	if err == nil && len(refused) > 0 {
		err = refused[0]
	}
	return err
}
