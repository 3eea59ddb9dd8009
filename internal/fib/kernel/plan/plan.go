package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Plan is the way from what is to what shall be.
type Plan struct {
	Before  Record   // to be written before the first operation
	Ops     []Op     // to be done in order
	After   Record   // to be written when a Plan has no operations any more
	Missing []string // devices of ports that are not there, if that is allowed
	Orphans []string // what is of our making and not on record: it is removed like what is
}

// Done is the record for the next plan, when the operations of this one were done.
func (p Plan) Done() Record {
	r := p.Before
	r.Leaving = nil
	return r
}

// Make plans the way from what is there, and what the record says about it, to FIBs that are valid and have back ends. Where
// the kernel does things by itself (addresses of the IPv6 link, for one) a second plan, after the first was done, may have
// operations; one after it has none. With lenient, devices that are not there are left out and listed; else they are an
// error. Errors are *FieldError: what is there does not allow what is asked for.
func Make(fibs []FIB, r Record, k *Kernel, lenient bool) (Plan, error) {
	m := &maker{want: want(fibs), rec: r, k: k, before: r.clone(), where: map[string]place{}, done: map[string]bool{}, downed: map[string]bool{}}
	m.before.FIBs = slices.Clone(fibs)
	m.spaces = map[string]bool{}
	for _, s := range r.Spaces {
		m.spaces[s] = true
	}
	for _, space := range slices.Backward(sortedKeys(k.Spaces)) {
		for name, l := range k.Spaces[space] {
			m.where[name] = place{space, l}
		}
	}
	for name, l := range k.Links {
		m.where[name] = place{"", l}
	}
	if _, can := k.Settings[Path{"", forceDefault}]; can {
		m.want.forceForwarding()
	}
	if err := m.check(lenient); err != nil {
		return Plan{}, err
	}
	m.leaving(fibs)
	m.open()
	m.leave()
	m.clean()
	m.vrfs()
	m.closeVLANs() // one of them may have the VLAN that another is to get
	m.enter(false)
	m.home()
	m.vlans() // now what they are on is there
	m.enter(true)
	m.addressRoutes()
	m.close()
	return Plan{m.before, m.ops, m.after(fibs), m.missing, m.orphans}, nil
}

type maker struct {
	want    *wanted
	rec     Record
	k       *Kernel
	before  Record
	ops     []Op
	missing []string
	orphans []string
	spaces  map[string]bool // namespaces on record
	known   map[uint32]bool // tables of FIBs on record or wanted
	where   map[string]place
	done    map[string]bool // links that were made by this plan
	downed  map[string]bool // ports that this plan takes down on their way
}

type place struct {
	space string
	link  Link
}

// find returns where a device is, and itself.
func (m *maker) find(device string) (space string, l Link, ok bool) {
	p, ok := m.where[device]
	return p.space, p.link, ok
}

func (m *maker) do(o Op) { m.ops = append(m.ops, o) }

// check refuses what cannot be, before anything is done.
func (m *maker) check(lenient bool) error {
	tables := map[uint32]string{} // of VRF devices of others
	for name, l := range m.k.Links {
		if _, ours := m.rec.Links[name]; l.Kind == "vrf" && !ours {
			tables[l.Table] = name
		}
	}
	for name, f := range m.want.vrfs {
		if _, ours := m.rec.Links[name]; !ours {
			if _, there := m.k.Links[name]; there {
				return &FieldError{"name", name, "a name that no device has: the VRF device gets it"}
			}
		}
		if other := tables[f.ID]; other != "" {
			return &FieldError{"id", fmt.Sprint(f.ID), "a table that no other VRF device has; it is that of " + other}
		}
	}
	for name := range m.want.spaces {
		if _, there := m.k.Spaces[name]; there && !m.spaces[name] {
			return &FieldError{"name", name, "a name that no network namespace has"}
		}
	}
	for _, d := range m.want.order {
		t := m.want.targets[d]
		if err := m.checkPort(d, t); err != nil {
			if !lenient {
				return err
			}
			m.missing = append(m.missing, d)
			m.drop(d)
		}
	}
	return nil
}

func (m *maker) checkPort(d string, t target) error {
	_, l, there := m.find(d)
	_, made := m.rec.Links[d]
	if t.port.VLAN != 0 {
		if _, _, ok := m.find(t.port.Parent); !ok {
			return &FieldError{"parent", t.port.Parent, "a device that exists"}
		}
		if there && !made {
			return &FieldError{"device", d, "a name that no device has: the VLAN subinterface gets it"}
		}
		return nil
	}
	_, parked := m.rec.Parked[d]
	_, vrf := m.rec.Links[l.Master]
	switch {
	case !there:
		return &FieldError{"device", d, "a device that exists"}
	case made:
		return &FieldError{"device", d, "a device that was not made for a FIB"}
	case l.Loopback:
		return &FieldError{"device", d, "a device that leads somewhere"}
	case l.Kind == "vrf":
		return &FieldError{"device", d, "a port, not a VRF device"}
	case l.Master != "" && !vrf && !parked:
		return &FieldError{"device", d, "a device by itself; it is part of " + l.Master}
	}
	return nil
}

// drop leaves a port out. Its rules stay: they hold no packet and wait for it.
func (m *maker) drop(d string) {
	delete(m.want.targets, d)
	delete(m.want.vlans, d)
	m.want.order = slices.DeleteFunc(m.want.order, func(o string) bool { return o == d })
}

// leaving keeps FIBs on record that are not asked for any more, or are now otherwise.
func (m *maker) leaving(fibs []FIB) {
	m.before.Leaving = nil
	m.known = map[uint32]bool{}
	for _, f := range slices.Concat(m.rec.Leaving, m.rec.FIBs, fibs) {
		m.known[f.ID] = true
	}
	type what struct {
		id      uint32
		backend Backend
		title   string
	}
	stays := map[what]bool{}
	for _, f := range fibs {
		stays[what{f.ID, f.Backend, f.Title()}] = true
	}
	for _, old := range slices.Concat(m.rec.Leaving, m.rec.FIBs) {
		if w := (what{old.ID, old.Backend, old.Title()}); !stays[w] {
			stays[w] = true // once
			m.before.Leaving = append(m.before.Leaving, FIB{ID: old.ID, Name: old.Name, Backend: old.Backend})
		}
	}
}

// open makes what FIBs are: namespaces, the ends of tables, the order of rules, settings.
func (m *maker) open() {
	for _, s := range sortedKeys(m.want.spaces) {
		if !m.spaces[s] {
			m.before.Spaces = append(m.before.Spaces, s)
		}
		// Its loopback comes up last: without, its making was cut short.
		if links, there := m.k.Spaces[s]; !there || !links["lo"].Up {
			m.do(Op{Verb: AddSpace, Space: s})
		}
	}
	for _, r := range m.missingRoutes(m.want.routes) {
		m.do(Op{Verb: AddRoute, Route: r})
	}
	for _, f := range []Family{IPv4, IPv6, MR4, MR6} {
		for _, r := range m.missingRules(f, func(r Rule) bool { return r.L3mdev || r.Table == tableLocal }) {
			m.do(Op{Verb: AddRule, Family: f, Rule: r})
		}
		if early, ok := m.earlyLocal(f); ok && m.want.tables {
			m.do(Op{Verb: DelRule, Family: f, Rule: early})
		}
	}
	for _, p := range sortedPaths(m.want.settings) {
		m.set(p, m.want.settings[p])
	}
}

// set plans a setting. What is made by us has no past to come back to; what does not exist cannot be set, except when
// it comes with what this plan makes, and then a later plan sets it.
func (m *maker) set(p Path, value string) {
	was, ok := m.k.Settings[p]
	if !ok || was == value {
		return
	}
	_, known := m.before.Settings[p.Name]
	if _, ours := m.before.Links[deviceOf(p.Name)]; p.Space == "" && !known && !ours {
		m.before.Settings[p.Name] = was
	}
	if p.Space == "" && p.Name == forwardAll {
		m.rememberForwarding()
	}
	m.do(Op{Verb: Setting, Space: p.Space, Path: p.Name, Value: value})
}

// rememberForwarding puts on record what writing forwardAll changes besides, so that a later plan brings it back.
func (m *maker) rememberForwarding() {
	for p, was := range m.k.Settings {
		d := deviceOf(p.Name)
		_, known := m.before.Settings[p.Name]
		_, ours := m.before.Links[d]
		if ok := p.Space == "" && p.Name == fmt.Sprintf("net/ipv6/conf/%s/forwarding", d); ok && !known && !ours {
			m.before.Settings[p.Name] = was
		}
	}
}

// deviceOf is the device that a setting is of, "" if it is of none.
func deviceOf(path string) string {
	_, after, _ := strings.Cut(path, "/conf/")
	device, _, _ := strings.Cut(after, "/")
	return device
}

// away says whether a setting is of a port in a namespace: it is brought back when the port is.
func (m *maker) away(path string) bool {
	t, port := m.want.targets[deviceOf(path)]
	return port && t.space != ""
}

func sortedPaths(s map[Path]string) []Path {
	return slices.SortedFunc(maps.Keys(s), func(a, b Path) int {
		if a.Space != b.Space {
			return cmp.Compare(a.Space, b.Space)
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// earlyLocal is the rule for table local where the kernel makes it, before ours.
func (m *maker) earlyLocal(f Family) (Rule, bool) {
	if f != IPv4 && f != IPv6 {
		return Rule{}, false
	}
	for _, r := range m.k.Rules[f] {
		if r.Priority == prefLocal && r.Table == tableLocal && !r.Other && r.Iif == "" && r.Oif == "" && r.Mask == 0 {
			return r, true
		}
	}
	return Rule{}, false
}

// missingRules are those that are wanted and not there.
func (m *maker) missingRules(f Family, which func(Rule) bool) []Rule {
	there, l3mdev := map[Rule]bool{}, false
	rules, known := m.k.Rules[f]
	if !known {
		return nil
	}
	for _, r := range rules {
		there[r] = true
		l3mdev = l3mdev || r.L3mdev // another's does as well
	}
	var l []Rule
	for r := range m.want.rules[f] {
		if which(r) && !there[r] && !(r.L3mdev && l3mdev) {
			l = append(l, r)
		}
	}
	slices.SortFunc(l, compareRules)
	return l
}

func (m *maker) missingRoutes(wanted map[Route]bool) []Route {
	var l []Route
	for r := range wanted {
		if _, family := m.k.Rules[r.family()]; family && !m.k.Routes[r] {
			l = append(l, r)
		}
	}
	slices.SortFunc(l, compareRoutes)
	return l
}

// leave takes ports down that go from one FIB to another or home, so that nothing passes on the way.
func (m *maker) leave() {
	for _, old := range m.rec.FIBs {
		for _, p := range old.Ports {
			d := p.Title()
			if t, stays := m.want.targets[d]; stays && t.fib.ID == old.ID && t.fib.Backend == old.Backend {
				continue
			}
			if space, l, there := m.find(d); there && l.Up {
				m.do(Op{Verb: SetDown, Space: space, Device: d})
				m.downed[d] = true
			}
		}
	}
}

// clean removes rules of ours that are not wanted, except those that hold FIBs that still are.
func (m *maker) clean() {
	for _, f := range []Family{IPv4, IPv6} {
		for _, r := range m.k.Rules[f] {
			if r.Protocol == ProtocolSetup && !r.L3mdev && r.Table != tableLocal && !m.want.rules[f][r] {
				if !m.known[r.Table] {
					m.orphans = append(m.orphans, "rule "+r.words(f))
				}
				m.do(Op{Verb: DelRule, Family: f, Rule: r})
			}
		}
	}
}

// vrfs makes VRF devices, and the rules of back end rules.
func (m *maker) vrfs() {
	for _, name := range sortedKeys(m.want.vrfs) {
		f := m.want.vrfs[name]
		right := func(_ string, l Link) bool { return l.Kind == "vrf" && l.Table == f.ID }
		m.link(name, f.ID, Alias(f.ID), right, Op{Verb: AddVRF, Device: name, Table: f.ID})
		if l, there := m.k.Links[name]; !there || !l.Up || m.done[name] {
			m.do(Op{Verb: SetUp, Device: name})
		}
	}
	for _, f := range []Family{IPv4, IPv6} {
		for _, r := range m.missingRules(f, func(r Rule) bool { return !r.L3mdev && r.Table != tableLocal }) {
			m.do(Op{Verb: AddRule, Family: f, Rule: r})
		}
	}
}

// vlans makes VLAN subinterfaces.
func (m *maker) vlans() {
	for _, name := range sortedKeys(m.want.vlans) {
		t := m.want.vlans[name]
		add := Op{Verb: AddVLAN, Device: name, To: t.port.Parent, VLAN: t.port.VLAN}
		m.link(name, t.fib.ID, t.vlanAlias(), t.rightVLAN, add)
	}
	for _, d := range sortedKeys(m.want.parents) {
		_, l, there := m.find(d)
		if old, known := m.before.Parked[d]; there && !known {
			m.before.Parked[d] = Parked{Up: l.Up, Parent: true}
		} else if known && !old.Parent {
			continue // it comes home, and up
		}
		if there && !l.Up {
			m.do(Op{Verb: SetUp, Device: d})
		}
	}
}

func (t target) vlanAlias() string {
	return fmt.Sprintf("%s vlan %d on %s", Alias(t.fib.ID), t.port.VLAN, t.port.Parent)
}

// rightVLAN says whether a device is the VLAN subinterface that is wanted. From another namespace its parent is not seen.
func (t target) rightVLAN(space string, l Link) bool {
	return l.Kind == "vlan" && l.VLAN == t.port.VLAN && (l.Parent == t.port.Parent || space != "" && l.Alias == t.vlanAlias())
}

// closeVLANs removes VLAN subinterfaces that are not wanted, or not as they are.
func (m *maker) closeVLANs() {
	m.closeLinks("vlan")
	for _, name := range sortedKeys(m.want.vlans) {
		if space, l, there := m.find(name); there && l.Kind == "vlan" && !m.want.vlans[name].rightVLAN(space, l) {
			m.do(Op{Verb: DelLink, Space: space, Device: name})
			delete(m.where, name)
		}
	}
}

// link makes one device, in place of one of ours of that name that is not the right one.
func (m *maker) link(name string, id uint32, alias string, right func(string, Link) bool, add Op) {
	space, l, there := m.find(name)
	m.before.Links[name] = id
	if there && !right(space, l) {
		m.do(Op{Verb: DelLink, Space: space, Device: name})
		there = false
	}
	if !there {
		m.do(add)
		m.done[name] = true
	}
	if !there {
		space = ""
	}
	if !there || l.Alias != alias {
		m.do(Op{Verb: SetAlias, Space: space, Device: name, Value: alias})
	}
}

// addressRoutes gives the tables of back end rules the routes of addresses, and removes routes that are not wanted.
func (m *maker) addressRoutes() {
	for _, d := range m.want.order {
		t := m.want.targets[d]
		if t.mark == 0 {
			continue
		}
		_, l, _ := m.find(d)
		addresses := slices.Clone(m.effective(d, t))
		for _, a := range l.Addresses {
			if !a.ours() && !slices.ContainsFunc(addresses, func(b Address) bool { return b.Prefix == a.Prefix }) {
				addresses = append(addresses, a)
			}
		}
		off, known := m.k.Settings[noIPv6(d)]
		for _, r := range addressRoutes(t.fib.ID, d, addresses, known && off == "0" || !known && m.done[d]) {
			m.want.routes[r] = true
		}
	}
	var surplus []Route
	for r := range m.k.Routes {
		if !m.want.routes[r] {
			surplus = append(surplus, r)
		}
	}
	slices.SortFunc(surplus, compareRoutes)
	for _, r := range surplus {
		if r.Type != typeUnreachable { // these go last, with the tables
			m.do(Op{Verb: DelRoute, Route: r})
		}
	}
	for _, r := range m.missingRoutes(m.want.routes) {
		if r.Type != typeUnreachable {
			m.do(Op{Verb: AddRoute, Route: r})
		}
	}
}

// close removes what FIBs were that are not wanted any more.
func (m *maker) close() {
	m.closeLinks("vrf")
	for _, name := range sortedKeys(m.k.Links) {
		l := m.k.Links[name]
		_, recorded := m.rec.Links[name]
		_, parked := m.rec.Parked[name]
		_, port := m.want.targets[name]
		made := (l.Kind == "vrf" || l.Kind == "vlan") && strings.HasPrefix(l.Alias, AliasPrefix)
		switch {
		case made && !recorded:
			m.orphans = append(m.orphans, "device "+name)
			m.do(Op{Verb: DelLink, Device: name})
		case l.Mark != 0 && !parked && !port && !recorded:
			m.orphans = append(m.orphans, "classifier on "+name)
			m.do(Op{Verb: ClearMark, Device: name, Clsact: true})
		}
		if l.Group == PortGroup && !parked && !port && !recorded && !made {
			m.orphans = append(m.orphans, "group of "+name)
			m.do(Op{Verb: SetGroup, Device: name})
		}
	}
	for _, s := range m.rec.Spaces {
		if _, wanted := m.want.spaces[s]; wanted {
			continue
		}
		if _, there := m.k.Spaces[s]; there {
			m.do(Op{Verb: DelSpace, Space: s})
		}
	}
	m.flush()
	for _, f := range []Family{IPv4, IPv6, MR4, MR6} {
		for _, r := range m.k.Rules[f] {
			switch {
			case r.Protocol != ProtocolSetup || m.want.rules[f][r]:
			case r.L3mdev:
				m.closeL3mdev(f, r)
			case r.Table == tableLocal:
				if _, early := m.earlyLocal(f); !early && !m.want.tables {
					m.do(Op{Verb: AddRule, Family: f, Rule: Rule{Priority: prefLocal, Table: tableLocal, Protocol: protocolKernel}})
				}
				m.do(Op{Verb: DelRule, Family: f, Rule: r})
			}
		}
	}
	for _, path := range sortedKeys(m.rec.Settings) {
		m.restore(path)
	}
}

// closeLinks removes devices of a kind that were made and are not wanted any more.
func (m *maker) closeLinks(kind string) {
	for _, name := range sortedKeys(m.rec.Links) {
		space, l, there := m.find(name)
		if there && !m.linkWanted(name) && l.Kind == kind {
			m.do(Op{Verb: DelLink, Space: space, Device: name})
		}
	}
}

// closeL3mdev removes our rule for VRF devices, which says that there was none before, and the one that the kernel made when
// it got its first VRF device; it stays if there are other VRF devices now.
func (m *maker) closeL3mdev(f Family, ours Rule) {
	others := false
	for name, l := range m.k.Links {
		_, made := m.rec.Links[name]
		others = others || l.Kind == "vrf" && !made && !strings.HasPrefix(l.Alias, AliasPrefix)
	}
	kernels := Rule{Priority: prefL3mdev, L3mdev: true, Protocol: protocolKernel}
	there := slices.Contains(m.k.Rules[f], kernels)
	switch {
	case others && !there:
		m.do(Op{Verb: AddRule, Family: f, Rule: kernels})
	case !others && there:
		m.do(Op{Verb: DelRule, Family: f, Rule: kernels})
	}
	m.do(Op{Verb: DelRule, Family: f, Rule: ours})
}

func (m *maker) linkWanted(name string) bool {
	_, vrf := m.want.vrfs[name]
	_, vlan := m.want.vlans[name]
	return vrf || vlan || slices.Contains(m.missing, name)
}

// flush empties tables that are no FIB's any more. Nobody looks into them for that: the record of Done does not have the
// FIB any more.
func (m *maker) flush() {
	used := map[uint32]bool{}
	for _, f := range m.before.FIBs {
		used[f.ID] = f.Backend != Netns
	}
	tables := map[uint32]bool{}
	for r := range m.k.Routes {
		if !m.known[r.Table] && !slices.Contains(m.orphans, fmt.Sprintf("table %d", r.Table)) {
			m.orphans = append(m.orphans, fmt.Sprintf("table %d", r.Table))
		}
	}
	for _, f := range m.before.Leaving {
		tables[f.ID] = !used[f.ID] && f.Backend != Netns
	}
	for r := range m.k.Routes {
		if !used[r.Table] {
			tables[r.Table] = true
		}
	}
	for t, yes := range tables {
		if !yes {
			delete(tables, t)
		}
	}
	for _, t := range slices.Sorted(maps.Keys(tables)) {
		m.do(Op{Verb: FlushTable, Table: t})
	}
}

// restore brings a setting back that is not wanted any more.
func (m *maker) restore(path string) {
	if m.settingWanted(path) || m.away(path) {
		return
	}
	was := m.rec.Settings[path]
	if is, ok := m.k.Settings[Path{"", path}]; ok && is != was {
		if path == forwardAll {
			m.rememberForwarding()
		}
		m.do(Op{Verb: Setting, Path: path, Value: was})
	}
}

func (m *maker) settingWanted(path string) bool {
	_, home := m.want.settings[Path{"", path}]
	return home || m.want.ofDevices[path]
}

// after is the record when all is done.
func (m *maker) after(fibs []FIB) Record {
	r := Record{FIBs: slices.Clone(fibs), Links: map[string]uint32{}, Parked: map[string]Parked{}, Settings: map[string]string{}, Asked: map[string][]netip.Prefix{}}
	for name, id := range m.before.Links {
		if m.linkWanted(name) {
			r.Links[name] = id
		}
	}
	for _, s := range m.before.Spaces {
		if _, ok := m.want.spaces[s]; ok {
			r.Spaces = append(r.Spaces, s)
		}
	}
	for d, p := range m.before.Parked {
		_, port := m.want.targets[d]
		if !port && m.want.parents[d] {
			p = Parked{Up: p.Up, Parent: true}
		}
		if port || m.want.parents[d] || slices.Contains(m.missing, d) {
			r.Parked[d] = p
		}
	}
	for d, t := range m.want.targets {
		if len(t.port.Addresses) > 0 {
			r.Asked[d] = t.port.Addresses
		}
	}
	for path, was := range m.before.Settings {
		if m.settingWanted(path) || m.away(path) {
			r.Settings[path] = was
		}
	}
	return r
}
