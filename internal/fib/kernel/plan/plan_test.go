package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// maxPlans bounds the way to where nothing is left to do: one plan that does it, one for what the kernel made by itself,
// one for what that took along.
const maxPlans = 4

// host is a box, and the file with the record.
type host struct {
	*box
	disk  []byte
	first map[string][]Address // of the devices at the beginning
}

func (h *host) record() Record {
	var r Record
	if h.disk != nil {
		if err := json.Unmarshal(h.disk, &r); err != nil {
			panic(err)
		}
	}
	return r
}

func (h *host) save(r Record) {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	h.disk = b
}

// fatal is what rapid.T and testing.T have in common.
type fatal interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// converge is the driver's loop. It ends after crash operations, if that is not negative, as SIGKILL would end it, and says
// whether it came to the end.
func (h *host) converge(t fatal, fibs []FIB, crash int, lenient bool) bool {
	t.Helper()
	rec := h.record()
	for range maxPlans {
		p, err := Make(fibs, rec, h.observe(Need(fibs, rec)), lenient)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if len(p.Ops) == 0 {
			h.save(p.After)
			return true
		}
		h.save(p.Before)
		for _, o := range p.Ops {
			if crash == 0 {
				return false
			}
			crash--
			if err := h.do(o); err != nil {
				t.Fatalf("%v\nplan:\n%s", err, words(p.Ops))
			}
		}
		rec = p.Done()
	}
	p, _ := Make(fibs, rec, h.observe(Need(fibs, rec)), lenient)
	t.Fatalf("it does not settle: %s", words(p.Ops))
	return false
}

func words(ops []Op) string {
	var l []string
	for _, o := range ops {
		l = append(l, o.String())
	}
	return strings.Join(l, "\n")
}

// observe shows what was asked for, and no more.
func (h *host) observe(n Needs) *Kernel {
	k := h.Kernel
	k.Spaces, k.Settings, k.Through = map[string]map[string]Link{}, map[Path]string{}, map[string][][]byte{}
	for _, s := range n.Spaces {
		if l, ok := h.Spaces[s]; ok {
			k.Spaces[s] = maps.Clone(l)
		}
	}
	for _, p := range n.Settings {
		if v, ok := h.Settings[p]; ok {
			k.Settings[p] = v
		}
	}
	for p, v := range h.Settings {
		for _, pattern := range n.Patterns {
			if ok, _ := path.Match(pattern, p.Name); ok && p.Space == "" {
				k.Settings[p] = v
			}
		}
	}
	for _, d := range n.Devices {
		k.Through[d] = slices.Clone(h.Through[d])
	}
	k.Links, k.Routes = maps.Clone(h.Links), maps.Clone(h.Routes)
	k.Rules = map[Family][]Rule{}
	for f, l := range h.Rules {
		k.Rules[f] = slices.Clone(l)
	}
	return &k
}

// snapshot is all of a box that somebody may miss, in an order that does not depend on how it came to be.
func (h *host) snapshot(moved map[string]bool) any {
	links := map[string]Link{}
	for n, l := range h.Links {
		l.Addresses = slices.Clone(l.Addresses)
		slices.SortFunc(l.Addresses, func(a, b Address) int { return strings.Compare(a.Prefix.String(), b.Prefix.String()) })
		l.Clsact = l.Clsact && !moved[n]
		links[n] = l
	}
	rules := map[Family][]string{}
	for f, l := range h.Rules {
		for _, r := range l {
			rules[f] = append(rules[f], fmt.Sprint(r))
		}
		slices.Sort(rules[f])
	}
	through := map[string][][]byte{}
	for d, l := range h.Through {
		if len(l) > 0 {
			through[d] = slices.SortedFunc(slices.Values(l), bytes.Compare)
		}
	}
	return []any{links, maps.Clone(h.Spaces), rules, maps.Clone(h.Routes), maps.Clone(h.Settings), through}
}

var snapshots = []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, Path{}, Route{})}

func pick[T any](t *rapid.T, label string, l ...T) T { return rapid.SampledFrom(l).Draw(t, label) }

var pool = []string{"192.0.2.1/24", "192.0.2.2/24", "198.51.100.1/31", "203.0.113.1/32", "2001:db8::1/64", "2001:db8::2/128"}

func drawAddresses(t *rapid.T) []netip.Prefix {
	l := []netip.Prefix{}
	for _, s := range pool {
		if rapid.IntRange(0, 2).Draw(t, s) == 0 {
			l = append(l, netip.MustParsePrefix(s))
		}
	}
	return l
}

var devices = []string{"eth0", "eth1", "eth2", "eth3"}

// drawHost makes a box as somebody may have left it.
func drawHost(t *rapid.T) *host {
	h := &host{box: newBox()}
	if rapid.Bool().Draw(t, "force_forwarding") {
		h.Settings[Path{"", forceDefault}] = "0"
	}
	for _, d := range devices {
		h.Links[d] = Link{Kind: "veth", Clsact: rapid.Bool().Draw(t, "clsact"), Group: pick[uint32](t, "group", 0, 5)}
		h.addSettings("", d)
		h.Settings[Path{"", "net/ipv4/conf/" + d + "/arp_ignore"}] = pick(t, "arp_ignore", "0", "1", "2")
		for _, a := range drawAddresses(t) {
			if a.Addr().Is4() {
				_ = h.do(Op{Verb: AddAddress, Device: d, Address: Address{Prefix: a, Label: pick(t, "label", "", d+":1")}})
			}
		}
		if rapid.Bool().Draw(t, "up") {
			h.up("", d)
			for _, a := range drawAddresses(t) {
				if a.Addr().Is6() {
					_ = h.do(Op{Verb: AddAddress, Device: d, Address: Address{Prefix: a, Metric: uint32(pick(t, "metric", 0, 7))}})
				}
			}
			for i := range rapid.IntRange(0, 2).Draw(t, "routes") {
				h.Through[d] = append(h.Through[d], fmt.Appendf(nil, "route %d of %s", i, d))
			}
		}
	}
	if rapid.Bool().Draw(t, "another VRF") {
		_ = h.do(Op{Verb: AddVRF, Device: "other", Table: 5})
	}
	if rapid.IntRange(0, 4).Draw(t, "forwarding") == 0 {
		h.Settings[Path{"", "net/ipv6/conf/all/forwarding"}] = "1"
	}
	return h
}

// drawFIBs makes FIBs that are valid with each other.
func drawFIBs(t *rapid.T) []FIB {
	var l []FIB
	free := slices.Clone(devices)
	for _, id := range []uint32{1, 10, 300, 4294967295} {
		if rapid.Bool().Draw(t, "there") {
			continue
		}
		f := FIB{ID: id, Name: pick(t, "name", "", fmt.Sprintf("cust%d", id)), Backend: pick(t, "backend", VRF, Rules, Netns), Forward: rapid.Bool().Draw(t, "forward")}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			if rapid.IntRange(0, 2).Draw(t, "vlan") == 0 {
				vlan := rapid.IntRange(1, 3).Draw(t, "id")
				p := Port{Parent: pick(t, "parent", devices...), VLAN: vlan, Device: pick(t, "device", "", fmt.Sprintf("v%d-%d", id, vlan))}
				if rapid.Bool().Draw(t, "given") {
					p.Addresses = drawAddresses(t)
				}
				f.Ports = append(f.Ports, p)
				continue
			}
			if len(free) == 0 {
				continue
			}
			d := pick(t, "port", free...)
			free = slices.DeleteFunc(free, func(o string) bool { return o == d })
			p := Port{Device: d, NoDAD: rapid.Bool().Draw(t, "nodad")}
			if rapid.Bool().Draw(t, "given") {
				p.Addresses = drawAddresses(t)
			}
			f.Ports = append(f.Ports, p)
		}
		if Validate(append(slices.Clone(l), f)) == nil {
			l = append(l, f)
		}
	}
	return l
}

// check says whether a box is as FIBs ask, by going through what they ask one by one.
func (h *host) check(t fatal, fibs []FIB) {
	t.Helper()
	has := func(f Family, r Rule) bool { r.Protocol = ProtocolSetup; return slices.Contains(h.Rules[f], r) }
	rules, tables, apart := 0, map[uint32]bool{}, false
	for _, f := range fibs {
		if f.Backend == Netns {
			if h.Spaces[f.Title()] == nil {
				t.Fatalf("no namespace %s", f.Title())
			}
		} else {
			tables[f.ID] = true
			for _, p := range []string{"0.0.0.0/0", "::/0"} {
				if !h.Routes[Route{Table: f.ID, Prefix: netip.MustParsePrefix(p), Type: typeUnreachable, Metric: MetricUnreachable}] {
					t.Fatalf("table %d has no end", f.ID)
				}
			}
		}
		_, can := h.Settings[Path{"", forceDefault}]
		if f.Forward && f.Backend != Netns && !can && h.Settings[Path{"", forwardAll}] != "1" {
			t.Fatalf("FIB %d does not forward", f.ID)
		}
		for _, p := range f.Ports {
			if f.Forward && f.Backend != Netns && can && h.Settings[Path{"", "net/ipv6/conf/" + p.Title() + "/force_forwarding"}] != "1" {
				t.Fatalf("FIB %d does not forward on %s", f.ID, p.Title())
			}
		}
		if f.Backend == VRF {
			if l := h.Links[f.Title()]; l.Kind != "vrf" || l.Table != f.ID || !l.Up || l.Alias != Alias(f.ID) {
				t.Fatalf("VRF device %s: %+v", f.Title(), l)
			}
			for _, v := range []string{"ipv4", "ipv6"} {
				if is := h.Settings[Path{"", "net/" + v + "/conf/" + f.Title() + "/forwarding"}]; is != digit(f.Forward) {
					t.Fatalf("VRF device %s: %s forwarding %q, want %v", f.Title(), v, is, f.Forward)
				}
			}
		}
		for _, fam := range []Family{IPv4, IPv6} {
			if f.Backend == Rules {
				rules++
				apart = true
				if !has(fam, Rule{Priority: prefMark, Table: f.ID, Mark: f.ID, Mask: 0xffffffff}) {
					t.Fatalf("no rule for mark %d", f.ID)
				}
			}
		}
		for _, p := range f.Ports {
			h.checkPort(t, f, p)
			if f.Backend == Rules {
				for _, fam := range []Family{IPv4, IPv6} {
					rules += 2
					if !has(fam, Rule{Priority: prefIif, Table: f.ID, Iif: p.Title()}) || !has(fam, Rule{Priority: prefOif, Table: f.ID, Oif: p.Title()}) {
						t.Fatalf("no rules for %s", p.Title())
					}
				}
			}
		}
	}
	for _, fam := range []Family{IPv4, IPv6} {
		early := slices.ContainsFunc(h.Rules[fam], func(r Rule) bool { return r.Priority == prefLocal && r.Table == tableLocal })
		if early == (len(tables) > 0) {
			t.Fatalf("rule for table local first: %v, tables %v", early, tables)
		}
		var late []Rule
		for _, r := range h.Rules[fam] {
			if r.Table == tableLocal && r.Priority != prefLocal {
				late = append(late, r)
			}
		}
		if len(late) != min(len(tables), 1) || len(late) > 0 && (late[0].Suppress == PortGroup) != apart {
			t.Fatalf("late rules for table local %v, FIBs of back end rules %v", late, apart)
		}
		for _, r := range h.Rules[fam] {
			if r.Protocol == ProtocolSetup && r.Table != tableLocal && !r.L3mdev {
				rules--
			}
		}
	}
	if rules != 0 {
		t.Fatalf("%d rules too few or many", rules)
	}
	for r := range h.Routes {
		if !tables[r.Table] {
			t.Fatalf("stray route %v", r)
		}
	}
}

func (h *host) checkPort(t fatal, f FIB, p Port) {
	t.Helper()
	space, master, mark := "", "", uint32(0)
	switch f.Backend {
	case VRF:
		master = f.Title()
	case Rules:
		mark = f.ID
	case Netns:
		space = f.Title()
	}
	l, ok := h.space(space)[p.Title()]
	if !ok || !l.Up || l.Master != master || l.Mark != mark || (l.Group == PortGroup) != (mark != 0) {
		t.Fatalf("port %s of %s: there %v, %+v", p.Title(), f.Title(), ok, l)
	}
	has := map[netip.Prefix]bool{}
	for _, a := range l.Addresses {
		has[a.Prefix] = true
		if a.ours() && a.NoPrefixRoute != (f.Backend == Rules) {
			t.Fatalf("port %s: %+v", p.Title(), a)
		}
		host := Route{Table: f.ID, Prefix: netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen()), Type: typeLocal, Device: p.Title(), Scope: scopeHost, Source: a.Prefix.Addr()}
		if a.Prefix.Addr().Is6() {
			host.Scope, host.Source, host.Metric = 0, netip.Addr{}, metricIPv6
		}
		if f.Backend == Rules && !h.Routes[host] {
			t.Fatalf("no route %v", host)
		}
	}
	for _, a := range p.Addresses {
		if !has[a] {
			t.Fatalf("port %s of %s has no %v: %v", p.Title(), f.Title(), a, l.Addresses)
		}
		delete(has, a)
	}
	delete(has, linkLocal(p.Title()).Prefix)
	if p.Addresses == nil { // what it had, and nothing that others were asked for
		for _, a := range h.first[p.Title()] {
			delete(has, a.Prefix)
		}
		if len(has) > 0 {
			t.Fatalf("port %s of %s has %v too", p.Title(), f.Title(), has)
		}
	}
	if p.Addresses != nil && len(has) > 0 {
		t.Fatalf("port %s has %v too", p.Title(), has)
	}
}

// However it was, FIBs come to be as they are asked for, in a few plans; then nothing is left to do; a crash anywhere changes
// nothing of that; and when they go, everything is as it was.
func TestFIBsComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHost(t)
		before := &host{box: &box{Kernel: *h.observe(Needs{Devices: devices})}}
		before.Settings = maps.Clone(h.Settings)
		h.first = map[string][]Address{}
		for d, l := range h.Links {
			h.first[d] = l.Addresses
		}
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			fibs := drawFIBs(t)
			for crashes := rapid.IntRange(0, 2).Draw(t, "crashes"); crashes > 0; crashes-- {
				if h.converge(t, fibs, rapid.IntRange(0, 60).Draw(t, "crash"), false) {
					break
				}
				if rapid.Bool().Draw(t, "recover") { // the record alone says what to do
					fibs = h.record().FIBs
				}
			}
			h.converge(t, fibs, -1, rapid.Bool().Draw(t, "lenient"))
			h.check(t, fibs)
			p, err := Make(fibs, h.record(), h.observe(Need(fibs, h.record())), false)
			if err != nil || len(p.Ops) > 0 {
				t.Fatalf("the second time: %v\n%s", err, words(p.Ops))
			}
		}
		h.converge(t, nil, rapid.IntRange(-1, 60).Draw(t, "crash"), false)
		h.converge(t, nil, -1, false)
		if d := cmp.Diff(before.snapshot(h.moved), h.snapshot(h.moved), snapshots...); d != "" {
			t.Fatalf("not as before:\n%s", d)
		}
		if r := h.record(); !r.Empty() {
			t.Fatalf("on record: %+v", r)
		}
	})
}
