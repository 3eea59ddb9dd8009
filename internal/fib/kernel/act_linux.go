package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

// OpError says which operation failed.
type OpError struct {
	Op  string // in the words of ip(8)
	Err error
}

// Error implements error.
func (e *OpError) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap gives the kernel's own error.
func (e *OpError) Unwrap() error { return e.Err }

// act does one operation.
func (k *Kernel) act(o plan.Op) error {
	err := k.dispatch(o)
	if err != nil {
		return &OpError{o.String(), err}
	}
	return nil
}

func (k *Kernel) dispatch(o plan.Op) error {
	switch o.Verb {
	case plan.AddSpace:
		return k.makeSpace(o.Space)
	case plan.DelSpace:
		return k.delSpace(o.Space)
	}
	s, err := k.space(o.Space)
	if err != nil {
		return err
	}
	switch o.Verb {
	case plan.AddRule, plan.DelRule:
		return s.rule(o)
	case plan.AddRoute, plan.DelRoute:
		return s.route(o)
	case plan.FlushTable:
		return s.flush(o.Table)
	case plan.Setting:
		return s.in(func() error { return writeSetting(o.Path, o.Value) })
	case plan.AddVRF:
		return done(s.h.LinkAdd(&netlink.Vrf{LinkAttrs: attrs(o.Device), Table: o.Table}), unix.EEXIST)
	case plan.AddVLAN:
		return s.addVLAN(o)
	}
	return k.link(s, o)
}

// done takes what is as it should be already for done.
func done(err error, already ...unix.Errno) error {
	if isAny(err, already...) {
		return nil
	}
	return err
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// link does the operations on one device.
func (k *Kernel) link(s *space, o plan.Op) error {
	l, err := s.h.LinkByName(o.Device)
	if err != nil {
		if o.Verb == plan.DelLink || o.Verb == plan.DelAddress {
			if _, gone := err.(netlink.LinkNotFoundError); gone {
				return nil
			}
		}
		return err
	}
	switch o.Verb {
	case plan.DelLink:
		return done(s.h.LinkDel(l), unix.ENODEV)
	case plan.SetAlias:
		return s.h.LinkSetAlias(l, o.Value)
	case plan.SetUp:
		return s.h.LinkSetUp(l)
	case plan.SetDown:
		return s.h.LinkSetDown(l)
	case plan.SetMaster:
		if o.To == "" {
			return s.h.LinkSetNoMaster(l)
		}
		m, err := s.h.LinkByName(o.To)
		if err != nil {
			return err
		}
		return s.h.LinkSetMaster(l, m)
	case plan.Move:
		return k.move(s, l, o.To)
	case plan.AddAddress, plan.DelAddress:
		return s.address(l, o)
	case plan.SetMark:
		return s.setMark(l, o.Mark)
	case plan.ClearMark:
		return s.clearMark(l, o.Clsact)
	case plan.SetGroup:
		return s.h.LinkSetGroup(l, int(o.Group))
	case plan.ParkRoutes:
		return s.parkRoutes(l, o.Routes)
	case plan.BackRoutes:
		return s.backRoutes(l, o.Routes)
	}
	return fmt.Errorf("unknown operation %d", o.Verb)
}

func (k *Kernel) move(s *space, l netlink.Link, to string) error {
	target, err := k.space(to)
	if err != nil {
		return err
	}
	fd := target.ns
	if fd == nil {
		if fd, err = os.Open("/proc/self/ns/net"); err != nil {
			return err
		}
		defer fd.Close()
	}
	return s.h.LinkSetNsFd(l, int(fd.Fd()))
}

func (s *space) addVLAN(o plan.Op) error {
	p, err := s.h.LinkByName(o.To)
	if err != nil {
		return err
	}
	a := attrs(o.Device)
	a.ParentIndex = p.Attrs().Index
	err = done(s.h.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: o.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}), unix.EEXIST)
	if isAny(err, unix.EOPNOTSUPP) {
		return unsupported("VLAN subinterfaces (CONFIG_VLAN_8021Q)", "", err)
	}
	return err
}

func (s *space) address(l netlink.Link, o plan.Op) error {
	b, err := encodeAddress(l.Attrs().Index, l.Attrs().Name, o.Address)
	if err != nil {
		return err
	}
	if o.Verb == plan.DelAddress {
		return done(s.rt.do(unix.RTM_DELADDR, 0, b), unix.EADDRNOTAVAIL)
	}
	return done(s.rt.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b), unix.EEXIST)
}

func (s *space) rule(o plan.Op) error {
	b, err := encodeRule(o.Family, o.Rule)
	if err != nil {
		return err
	}
	if o.Verb == plan.AddRule {
		return done(s.rt.do(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b), unix.EEXIST)
	}
	return done(s.rt.do(unix.RTM_DELRULE, 0, b), unix.ENOENT)
}

func (s *space) route(o plan.Op) error {
	index := 0
	if o.Route.Device != "" {
		l, err := s.h.LinkByName(o.Route.Device)
		if _, gone := err.(netlink.LinkNotFoundError); gone && o.Verb == plan.DelRoute {
			return nil
		}
		if err != nil {
			return err
		}
		index = l.Attrs().Index
	}
	b, err := encodeSetup(o.Route, index)
	if err != nil {
		return err
	}
	if o.Verb == plan.DelRoute {
		return done(s.rt.do(unix.RTM_DELROUTE, 0, b), unix.ESRCH)
	}
	return done(s.rt.do(unix.RTM_NEWROUTE, addFlags(b), b), unix.EEXIST)
}

// addFlags add a route beside others of its prefix and metric that have other devices. IPv6 does so without NLM_F_APPEND,
// which there makes one route of them (fib6_add_rt2node).
func addFlags(route []byte) uint16 {
	if plan.Family(route[0]) == plan.IPv4 {
		return unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	return unix.NLM_F_CREATE
}

// flush removes the routes of ours from a table.
func (s *space) flush(table uint32) error {
	for _, protocol := range []uint8{ProtocolRoute, ProtocolSetup} {
		for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
			var l [][]byte
			if err := s.rt.routes(f, table, protocol, func() { l = l[:0] }, func(b []byte) error {
				l = append(l, slices.Clone(b))
				return nil
			}); err != nil {
				return err
			}
			if err := s.rt.delete(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// routes dumps the routes of a protocol of one table, or of all for table 0.
func (r *rtnl) routes(f plan.Family, table uint32, protocol uint8, restart func(), each func(body []byte) error) error {
	h := routeHeader{family: f, table: table, protocol: protocol}
	body, err := encode(h.bytes(), func(e *nl.AttributeEncoder) {
		if table != 0 {
			e.Uint32(unix.RTA_TABLE, table)
		}
	})
	if err != nil {
		return err
	}
	err = r.dump(unix.RTM_GETROUTE, body, restart, each)
	if isAny(err, unix.ENOENT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) { // no such table, or family
		restart()
		return nil
	}
	return err
}

// delete removes routes as they were dumped.
func (r *rtnl) delete(l [][]byte) error {
	var messages []nl.Message
	for _, b := range l {
		d, err := deletable(b)
		if err != nil {
			return err
		}
		messages = append(messages, message(unix.RTM_DELROUTE, 0, d))
	}
	var first error
	err := r.batch(messages, func(_ int, err error) {
		if first == nil && !isAny(err, unix.ESRCH) {
			first = err
		}
	})
	if err != nil {
		return err
	}
	return first
}

// deletable keeps of a dumped route what names it.
func deletable(body []byte) ([]byte, error) {
	if len(body) < unix.SizeofRtMsg {
		return nil, errShort
	}
	l, err := nl.UnmarshalAttributes(body[unix.SizeofRtMsg:])
	if err != nil {
		return nil, err
	}
	h := slices.Clone(body[:unix.SizeofRtMsg])
	clear(h[8:])
	h[6] = unix.RT_SCOPE_NOWHERE // whichever
	unreachable := h[7] == unix.RTN_UNREACHABLE || h[7] == unix.RTN_PROHIBIT || h[7] == unix.RTN_BLACKHOLE
	kept := slices.DeleteFunc(l, func(a nl.Attribute) bool {
		switch a.Type {
		case unix.RTA_DST, unix.RTA_TABLE, unix.RTA_PRIORITY, unix.RTA_PREFSRC, unix.RTA_SRC:
			return false
		case unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA:
			return unreachable // IPv6 gives these the loopback device
		}
		return true
	})
	b, err := nl.MarshalAttributes(kept)
	return append(h, b...), err
}

// parkRoutes removes routes through a device, and those that routers on the link have announced.
func (s *space) parkRoutes(l netlink.Link, routes [][]byte) error {
	index := l.Attrs().Index
	_, router, err := s.rt.through(index)
	if err != nil {
		return err
	}
	var full [][]byte
	for _, r := range slices.Concat(routes, router) {
		full = append(full, withDevice(r, index))
	}
	return s.rt.delete(full)
}

// backRoutes brings routes back. One that does not work any more, as when its gateway's network is gone, is left out: it was
// the administrator's, and so is its absence.
func (s *space) backRoutes(l netlink.Link, routes [][]byte) error {
	ordered := slices.Clone(routes)
	slices.SortStableFunc(ordered, func(a, b []byte) int {
		switch ga, gb := hasGateway(a), hasGateway(b); {
		case ga == gb:
			return 0
		case gb:
			return -1
		}
		return 1
	})
	for _, r := range ordered {
		full := withDevice(r, l.Attrs().Index)
		err := s.rt.do(unix.RTM_NEWROUTE, addFlags(full), full)
		if err != nil && !isAny(err, unix.EEXIST, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.ENETDOWN) {
			return err
		}
	}
	return nil
}

// writeSetting writes a file below /proc/sys.
func writeSetting(name, value string) error {
	return os.WriteFile(filepath.Join(procSys, name), []byte(value), 0)
}

// makeSpace makes a namespace that says whose it is, with its loopback up.
func (k *Kernel) makeSpace(name string) error {
	if err := k.addSpace(name); err != nil {
		return err
	}
	s, err := k.space(name)
	if err != nil {
		return err
	}
	lo, err := s.h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := s.h.LinkSetAlias(lo, k.mine(name)); err != nil {
		return err
	}
	return s.h.LinkSetUp(lo)
}
