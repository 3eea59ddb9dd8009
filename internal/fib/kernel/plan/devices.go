package plan

import (
	"slices"
)

// enter brings the ports into their FIBs: VLAN subinterfaces or others.
func (m *maker) enter(vlans bool) {
	for _, d := range m.want.order {
		if t := m.want.targets[d]; (t.port.VLAN != 0) == vlans {
			m.enterOne(d, t)
		}
	}
}

func (m *maker) enterOne(d string, t target) {
	space, l, _ := m.find(d)
	if m.done[d] {
		space, l = "", Link{Kind: "vlan"}
	}
	if old, parked := m.before.Parked[d]; (!parked || old.Parent) && t.port.VLAN == 0 {
		m.park(d, l, t)
	}
	if p, parked := m.before.Parked[d]; parked && l.Group != PortGroup { // it is what somebody has set: that comes back
		p.Group = l.Group
		m.before.Parked[d] = p
	}
	m.device(d, space, l, t)
}

func (m *maker) park(d string, l Link, t target) {
	p := Parked{Up: l.Up, Routes: m.k.Through[d], Clsact: l.Clsact}
	if old, ok := m.before.Parked[d]; ok {
		p.Up = old.Up
	}
	for _, a := range l.Addresses {
		if a.ours() {
			p.Addresses = append(p.Addresses, a)
		}
	}
	m.before.Parked[d] = p
	if len(p.Routes) > 0 || t.mark != 0 { // what the network's routers said is not brought back: they say it again
		m.do(Op{Verb: ParkRoutes, Device: d, Routes: p.Routes})
	}
}

// remember puts on record what a device loses when it goes into a namespace.
func (m *maker) remember(d string) {
	for _, s := range passing(d) {
		was, ok := m.k.Settings[Path{"", s}]
		if _, known := m.before.Settings[s]; ok && !known {
			m.before.Settings[s] = was
		}
	}
}

// device plans for one device to be as its target says.
func (m *maker) device(d, space string, l Link, t target) {
	if m.downed[d] {
		l = l.down()
	}
	if m.done[l.Master] { // its VRF device was made anew
		l = l.alone()
	}
	if space != t.space {
		if space == "" && t.port.VLAN == 0 {
			m.remember(d)
		}
		m.do(Op{Verb: Move, Space: space, Device: d, To: t.space})
		space, l = t.space, Link{Kind: l.Kind, Group: l.Group}
	}
	if l.Master != t.master {
		m.do(Op{Verb: SetMaster, Space: space, Device: d, To: t.master})
		l = l.alone()
	}
	for _, s := range sortedKeys(t.settings) {
		if t.port.VLAN == 0 {
			m.set(Path{"", s}, t.settings[s])
		} else if is, ok := m.k.Settings[Path{"", s}]; !ok && m.done[d] || ok && is != t.settings[s] {
			m.do(Op{Verb: Setting, Path: s, Value: t.settings[s]}) // it goes with the device
		}
	}
	m.mark(d, l, t.mark)
	m.group(d, space, l, t.mark != 0)
	m.addresses(d, space, l, t)
	if !l.Up {
		m.do(Op{Verb: SetUp, Space: space, Device: d})
	}
}

func (m *maker) mark(d string, l Link, mark uint32) {
	switch {
	case l.Mark == mark:
	case mark != 0:
		m.do(Op{Verb: SetMark, Device: d, Mark: mark})
	default:
		m.do(Op{Verb: ClearMark, Device: d, Clsact: !m.before.Parked[d].Clsact})
	}
}

// group brings a device into the group of ports, or back into its own.
func (m *maker) group(d, space string, l Link, port bool) {
	want := m.before.Parked[d].Group
	if port {
		want = PortGroup
	}
	if port || l.Group == PortGroup {
		if l.Group != want {
			m.do(Op{Verb: SetGroup, Space: space, Device: d, Group: want})
		}
	}
}

// down is the device after it is taken down: addresses of IPv6 are gone (addrconf_ifdown).
func (l Link) down() Link {
	master := l.Master
	l = l.alone()
	l.Up, l.Master = false, master
	return l
}

// alone is the device after its master has changed, for which a VRF device takes it down and up (vrf.c, cycle_netdev).
func (l Link) alone() Link {
	l.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(a Address) bool { return a.Prefix.Addr().Is6() })
	l.Master = ""
	return l
}

func (m *maker) addresses(d, space string, l Link, t target) {
	for _, a := range t.port.Addresses {
		if !slices.Contains(m.before.Asked[d], a) {
			m.before.Asked[d] = append(slices.Clip(m.before.Asked[d]), a)
		}
	}
	for _, a := range m.surplus(d, l, t) {
		m.do(Op{Verb: DelAddress, Space: space, Device: d, Address: a})
	}
	for _, a := range m.effective(d, t) {
		if !slices.ContainsFunc(l.Addresses, func(h Address) bool { return h.does(a) }) {
			m.do(Op{Verb: AddAddress, Space: space, Device: d, Address: a})
		}
	}
}

// effective are the addresses that a port shall have: those that are asked for or, when none are, those that it had.
func (m *maker) effective(d string, t target) []Address {
	if !t.extra {
		return t.addresses
	}
	l := slices.Clone(m.before.Parked[d].Addresses)
	_, now, _ := m.find(d)
	for _, a := range now.Addresses {
		known := slices.ContainsFunc(l, func(b Address) bool { return b.Prefix == a.Prefix }) || slices.Contains(m.before.Asked[d], a.Prefix)
		// Back end rules takes care of all; others only of what came to be as it is in back end rules.
		if a.ours() && !known && (t.mark != 0 || a.NoPrefixRoute) {
			a.NoPrefixRoute = false
			l = append(l, a)
		}
	}
	for i := range l {
		l[i].NoPrefixRoute = l[i].NoPrefixRoute || t.mark != 0
	}
	return l
}

// surplus are the addresses that a port shall not have, or not in this way.
func (m *maker) surplus(d string, l Link, t target) []Address {
	var s []Address
	want := m.effective(d, t)
	for _, a := range l.Addresses {
		if !a.ours() {
			continue
		}
		asked := slices.ContainsFunc(want, func(b Address) bool { return b.Prefix == a.Prefix })
		right := slices.ContainsFunc(want, func(b Address) bool { return a.does(b) })
		if asked && !right || !asked && (!t.extra || slices.Contains(m.before.Asked[d], a.Prefix)) {
			s = append(s, a)
		}
	}
	return s
}

// home brings devices back that are no ports any more.
func (m *maker) home() {
	for _, d := range sortedKeys(m.rec.Parked) {
		p := m.rec.Parked[d]
		_, port := m.want.targets[d]
		space, l, there := m.find(d)
		parent := m.want.parents[d]
		switch {
		case port || !there || slices.Contains(m.missing, d) || p.Parent && parent:
		case p.Parent:
			if !p.Up && l.Up {
				m.do(Op{Verb: SetDown, Device: d})
			}
		default:
			p.Up = p.Up || parent
			m.back(d, space, l, p)
		}
	}
}

func (m *maker) back(d, space string, l Link, p Parked) {
	if m.downed[d] {
		l = l.down()
	}
	if space != "" {
		m.do(Op{Verb: Move, Space: space, Device: d})
		l = Link{Kind: l.Kind, Group: l.Group}
	}
	if l.Master != "" {
		m.do(Op{Verb: SetMaster, Device: d})
		l = l.alone()
	}
	m.mark(d, l, 0)
	m.group(d, "", l, false)
	if l.Clsact && l.Mark == 0 && !p.Clsact {
		m.do(Op{Verb: ClearMark, Device: d, Clsact: true})
	}
	for _, a := range l.Addresses {
		if a.ours() && !slices.ContainsFunc(p.Addresses, a.same) {
			m.do(Op{Verb: DelAddress, Device: d, Address: a})
		}
	}
	if p.Up && !l.Up {
		m.do(Op{Verb: SetUp, Device: d})
	}
	for _, a := range p.Addresses {
		if !slices.ContainsFunc(l.Addresses, a.same) {
			a.NoDAD = true // it was in use
			m.do(Op{Verb: AddAddress, Device: d, Address: a})
		}
	}
	if !p.Up && l.Up {
		m.do(Op{Verb: SetDown, Device: d})
	}
	var routes [][]byte
	for _, r := range p.Routes {
		if !slices.ContainsFunc(m.k.Through[d], func(b []byte) bool { return string(b) == string(r) }) {
			routes = append(routes, r)
		}
	}
	if p.Up && len(routes) > 0 {
		m.do(Op{Verb: BackRoutes, Device: d, Routes: routes})
	}
}
