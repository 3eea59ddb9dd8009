package service

import (
	"maps"
	"net/netip"

	"midplane/internal/fib/service/spec"
)

// protoKernel is shown for routes of addresses, as the kernel does (RTPROT_KERNEL).
const protoKernel = "kernel"

// connected are the routes that the addresses of a FIB's ports make: to the network on the link, and to this host itself.
// A port's addresses are those that it was given or else those that its device has. Those of the IPv6 link are no FIB's
// business.
func (s *Service) connected(f *fibState) map[netip.Prefix]spec.Route {
	m := map[netip.Prefix]spec.Route{}
	add := func(r spec.Route) {
		if old, twice := m[r.Dst]; !twice || old.Type != spec.Local && r.Type == spec.Local || old.Type == r.Type && r.Hops[0].Dev < old.Hops[0].Dev {
			m[r.Dst] = r
		}
	}
	for key, p := range s.ports {
		if p.fib != f.ID {
			continue
		}
		addrs := p.Addrs
		if addrs == nil {
			addrs = s.links.Addrs(f.ID, key)
		}
		for _, a := range addrs {
			if a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() {
				continue
			}
			add(spec.Route{Dst: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Type: spec.Local, Proto: protoKernel, Hops: []spec.Hop{{Dev: key}}})
			if !a.IsSingleIP() {
				add(spec.Route{Dst: a.Masked(), Proto: protoKernel, Hops: []spec.Hop{{Dev: key}}})
			}
		}
	}
	return m
}

// connect brings the routes of addresses in line with the ports. s.mu is held.
func (s *Service) connect(f *fibState) {
	if f.t == nil {
		return // the state is being read
	}
	want := s.connected(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, st := range maps.Clone(f.static) {
		if r, ok := want[p]; ok && (st.implied && same(st.Route, r) || !st.implied && st.under != nil && same(st.under.Route, r)) {
			delete(want, p)
			continue
		}
		switch {
		case st.implied:
			delete(f.static, p)
			s.settle(f, p, st.active)
		case st.under != nil:
			st.under = nil
		}
	}
	for p, r := range want {
		n := &staticRoute{Route: r, implied: true}
		if st := f.static[p]; st != nil {
			st.under = n
			continue
		}
		f.static[p] = n
		s.settle(f, p, false)
	}
}

func same(a, b spec.Route) bool { return a.Type == b.Type && a.Hops[0] == b.Hops[0] }

// wantedRoutes counts the static routes that somebody asked for.
func (f *fibState) wantedRoutes() (n int) {
	for _, st := range f.static {
		if !st.implied {
			n++
		}
	}
	return n
}
