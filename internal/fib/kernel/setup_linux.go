package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

// The routes that come with FIBs and addresses, and those that are parked.

// routeHeader is a struct rtmsg.
type routeHeader struct {
	family                       plan.Family
	bits                         int
	table                        uint32
	protocol, scope, typ, rflags uint8
}

// bytes leaves the table, which may be larger than an octet, to RTA_TABLE.
func (h routeHeader) bytes() []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[5], b[6], b[7] = byte(h.family), byte(h.bits), h.protocol, h.scope, h.typ
	binary.NativeEndian.PutUint32(b[8:], uint32(h.rflags))
	if h.table < 256 {
		b[4] = byte(h.table)
	}
	return b
}

func encodeSetup(r plan.Route, index int) ([]byte, error) {
	h := routeHeader{family: familyOf(r.Prefix.Addr()), bits: r.Prefix.Bits(), table: r.Table, protocol: ProtocolSetup, scope: r.Scope, typ: r.Type}
	return encode(h.bytes(), func(e *netlink.AttributeEncoder) {
		if r.Prefix.Bits() > 0 {
			e.Bytes(unix.RTA_DST, r.Prefix.Addr().AsSlice())
		}
		e.Uint32(unix.RTA_TABLE, r.Table)
		if r.Metric != 0 {
			e.Uint32(unix.RTA_PRIORITY, r.Metric)
		}
		if index != 0 {
			e.Uint32(unix.RTA_OIF, uint32(index))
		}
		if r.Source.IsValid() {
			e.Bytes(unix.RTA_PREFSRC, r.Source.AsSlice())
		}
	})
}

// setupRoutes dumps the routes of ProtocolSetup of all tables.
func (r *rtnl) setupRoutes(device func(index int) string) (map[plan.Route]bool, error) {
	m := map[plan.Route]bool{}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		part := map[plan.Route]bool{}
		h := routeHeader{family: f, protocol: ProtocolSetup}
		err := r.dump(unix.RTM_GETROUTE, h.bytes(), func() { clear(part) }, func(body []byte) error {
			route, err := decodeSetup(body, device)
			part[route] = true
			return err
		})
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for k := range part {
			m[k] = true
		}
	}
	return m, nil
}

func decodeSetup(body []byte, device func(int) string) (plan.Route, error) {
	if len(body) < unix.SizeofRtMsg {
		return plan.Route{}, errShort
	}
	r := plan.Route{Table: uint32(body[4]), Type: body[7]}
	a := netip.IPv6Unspecified()
	if plan.Family(body[0]) == plan.IPv4 {
		a, r.Scope = netip.IPv4Unspecified(), body[6]
	}
	index := 0
	err := attributes(body, unix.SizeofRtMsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.RTA_DST:
			a = address(d)
		case unix.RTA_TABLE:
			r.Table = d.Uint32()
		case unix.RTA_PRIORITY:
			r.Metric = d.Uint32()
		case unix.RTA_OIF:
			index = int(d.Uint32())
		case unix.RTA_PREFSRC:
			r.Source = address(d)
		}
	})
	r.Prefix = netip.PrefixFrom(a, int(body[1]))
	if r.Type != unix.RTN_UNREACHABLE { // IPv6 gives these the loopback device
		r.Device = device(index)
	}
	return r, err
}

// through dumps the routes that other programs have set through a device, in all tables, in a form that does not depend on
// its index or on what the kernel counts. router says which of them come from routers on the link.
func (r *rtnl) through(index int) (routes [][]byte, router [][]byte, err error) {
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		h := routeHeader{family: f}
		body, err := encode(h.bytes(), func(e *netlink.AttributeEncoder) { e.Uint32(unix.RTA_OIF, uint32(index)) })
		if err != nil {
			return nil, nil, err
		}
		var part, ra [][]byte
		err = r.dump(unix.RTM_GETROUTE, body, func() { part, ra = nil, nil }, func(body []byte) error {
			b, err := normal(body)
			if err != nil || b == nil {
				return err
			}
			switch body[5] {
			case unix.RTPROT_KERNEL, unix.RTPROT_REDIRECT, ProtocolSetup, ProtocolRoute:
			case unix.RTPROT_RA:
				ra = append(ra, b)
			default:
				part = append(part, b)
			}
			return nil
		})
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		routes, router = append(routes, part...), append(router, ra...)
	}
	return routes, router, nil
}

// rtaGateway are the attributes of a route that lead to a gateway: such a route needs others before it.
var rtaGateway = []uint16{unix.RTA_GATEWAY, unix.RTA_VIA}

// normal takes out of a route what is not the same for the same route, and returns nil for one that is not of one device.
func normal(body []byte) ([]byte, error) {
	if len(body) < unix.SizeofRtMsg {
		return nil, errShort
	}
	l, err := netlink.UnmarshalAttributes(body[unix.SizeofRtMsg:])
	if err != nil {
		return nil, err
	}
	h := append([]byte(nil), body[:unix.SizeofRtMsg]...)
	binary.NativeEndian.PutUint32(h[8:], binary.NativeEndian.Uint32(h[8:])&(unix.RTNH_F_ONLINK|unix.RTNH_F_PERVASIVE))
	kept := l[:0]
	for _, a := range l {
		switch a.Type {
		case unix.RTA_MULTIPATH, rtaNexthopID:
			return nil, nil
		case unix.RTA_CACHEINFO, unix.RTA_EXPIRES, unix.RTA_OIF:
		default:
			kept = append(kept, a)
		}
	}
	b, err := netlink.MarshalAttributes(kept)
	return append(h, b...), err
}

// withDevice is the reverse of normal.
func withDevice(route []byte, index int) []byte {
	b, _ := encode(nil, func(e *netlink.AttributeEncoder) { e.Uint32(unix.RTA_OIF, uint32(index)) })
	return append(append([]byte(nil), route...), b...)
}

func hasGateway(route []byte) bool {
	found := false
	_ = attributes(route, unix.SizeofRtMsg, func(d *netlink.AttributeDecoder) {
		for _, t := range rtaGateway {
			found = found || d.Type() == t
		}
	})
	return found
}
