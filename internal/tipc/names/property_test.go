package names

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// machine runs a Table and the model side by side.
type machine struct {
	t     *Table
	m     *model
	nowMs int64
	pubs  []*Publication // local ones, bound or not
	subs  []*Subscriber
	msubs []*mSubscriber
	ready Ready
}

func (x *machine) now() mono.Time { return mono.Time(x.nowMs * int64(time.Millisecond)) }

const mOwn = 0x01001005

func newMachine(legacy bool) *machine {
	x := &machine{t: NewTable(Config{Own: mOwn, LegacyAddr: legacy}), m: &model{own: mOwn, legacy: legacy}}
	for range 2 {
		x.subs = append(x.subs, x.t.NewSubscriber(&x.ready, 0))
		x.msubs = append(x.msubs, &mSubscriber{})
	}
	return x
}

var (
	genType  = rapid.SampledFrom([]uint32{0, 1, 2, 100, 100 + hashSize, 101})
	genInst  = rapid.Uint32Range(0, 9)
	genPort  = rapid.Uint32Range(1, 3)
	genKey   = rapid.Uint32Range(1, 3)
	genNode  = rapid.SampledFrom([]uint32{7, 8, 9})
	genScope = rapid.SampledFrom([]wire.Scope{wire.ScopeCluster, wire.ScopeNode})
	genRange = rapid.Custom(func(t *rapid.T) wire.ServiceRange {
		a, b := genInst.Draw(t, "a"), genInst.Draw(t, "b")
		return wire.ServiceRange{Type: genType.Draw(t, "type"), Lower: min(a, b), Upper: max(a, b)}
	})
	genSubscr = rapid.Custom(func(t *rapid.T) wire.Subscr {
		s := wire.Subscr{
			Range:   genRange.Draw(t, "range"),
			Timeout: rapid.SampledFrom([]uint32{wire.WaitForever, 0, 5, 10}).Draw(t, "timeout"),
			Filter:  rapid.SampledFrom([]wire.SubscrFilter{0, 1, 2, 3, 0x21, 0x41, 0x81, 0x22, 0x42}).Draw(t, "filter"),
		}
		if rapid.IntRange(0, 9).Draw(t, "swap") == 0 {
			s.Range.Lower, s.Range.Upper = s.Range.Upper, s.Range.Lower
		}
		return s
	})
)

func (x *machine) check(t *rapid.T) {
	var got, want []wire.NameItem
	for p := range x.t.Publications() {
		got = append(got, wire.NameItem{Range: p.Range, Port: p.Addr.Port, Key: p.Key ^ p.Addr.Node<<8 ^ uint32(p.Scope)<<24})
	}
	for _, p := range x.m.list() {
		want = append(want, wire.NameItem{Range: p.r, Port: p.addr.Port, Key: p.key ^ p.addr.Node<<8 ^ uint32(p.scope)<<24})
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("publications (-want +got):\n%s", d)
	}
	for i, s := range x.subs {
		if s.Pending() != len(x.msubs[i].events) || s.Len() != len(x.msubs[i].subs) {
			t.Fatalf("subscriber %d has %d events and %d subscriptions, want %d and %d", i, s.Pending(), s.Len(),
				len(x.msubs[i].events), len(x.msubs[i].subs))
		}
		for _, w := range x.msubs[i].events {
			if e, ok := s.Next(); !ok || e.Event != w {
				t.Fatalf("subscriber %d: event (-want +got):\n%s", i, cmp.Diff(w, e.Event))
			}
		}
		x.msubs[i].events = nil
	}
	x.checkSizes(t)
}

func (x *machine) checkSizes(t interface{ Fatalf(string, ...any) }) {
	st := x.t.Stats()
	ranges := 0
	for _, sc := range x.m.services {
		ranges += len(sc.ranges)
	}
	n := len(x.m.list())
	if st.Services != len(x.m.services) || st.Ranges != ranges || st.Publications != n || st.Subscriptions != x.m.subs ||
		st.QueuedEvents != 0 || len(x.t.index) != n {
		t.Fatalf("stats %+v; want %d services, %d ranges, %d publications, %d subscriptions", st, len(x.m.services), ranges, n, x.m.subs)
	}
	for _, sc := range x.t.services {
		checkTree(t, &sc.ranges)
		checkTree(t, &sc.subs)
	}
}

func (x *machine) publish(t *rapid.T) {
	r, scope := genRange.Draw(t, "range"), genScope.Draw(t, "scope")
	addr, key := wire.SocketAddr{Port: genPort.Draw(t, "port"), Node: mOwn}, genKey.Draw(t, "key")
	p, err := x.t.Publish(x.now(), r, scope, addr, key)
	want := x.m.insert(r, addr, key, scope)
	if (err == nil) != want || !want && err != ErrDuplicate {
		t.Fatalf("publish: %v, want ok %v", err, want)
	}
	if err == nil {
		x.pubs = append(x.pubs, p)
	}
}

func (x *machine) withdraw(t *rapid.T) {
	if len(x.pubs) == 0 {
		t.Skip("none")
	}
	p := rapid.SampledFrom(x.pubs).Draw(t, "p")
	bound := p.Bound()
	x.t.Withdraw(x.now(), p)
	if bound && !x.m.remove(p.Range, p.Addr, p.Key) {
		t.Fatalf("the model lacks %+v", p)
	}
	if p.Bound() {
		t.Fatalf("still bound")
	}
}

func (x *machine) remote(t *rapid.T) {
	r, addr, key := genRange.Draw(t, "range"), wire.SocketAddr{Port: genPort.Draw(t, "port"), Node: genNode.Draw(t, "node")}, genKey.Draw(t, "key")
	if rapid.Bool().Draw(t, "withdraw") {
		if got, want := x.t.removeRemote(r, addr, key), x.m.remove(r, addr, key); got != want {
			t.Fatalf("remote withdrawal: %v, want %v", got, want)
		}
		return
	}
	if err, want := x.t.insertRemote(r, addr, key), x.m.insert(r, addr, key, wire.ScopeCluster); (err == nil) != want {
		t.Fatalf("remote publication: %v, want ok %v", err, want)
	}
}

// purge compares as sets what is withdrawn, because the model does not keep a node's publications in order; that order
// is TestPurgeOrder's matter.
func (x *machine) purge(t *rapid.T) {
	x.check(t)
	node := genNode.Draw(t, "node")
	x.t.purge(node)
	for _, p := range x.m.list() {
		if p.addr.Node == node {
			x.m.remove(p.r, p.addr, p.key)
		}
	}
	for i, s := range x.subs {
		var n int
		for e, ok := s.Next(); ok; e, ok = s.Next() {
			if e.Port.Node != node || e.Kind != wire.EventWithdrawn {
				t.Fatalf("purge reported %+v", e)
			}
			n++
		}
		if n != len(x.msubs[i].events) {
			t.Fatalf("purge reported %d events, want %d", n, len(x.msubs[i].events))
		}
		x.msubs[i].events = nil
	}
}

func (x *machine) lookup(t *rapid.T) {
	typ, inst := genType.Draw(t, "type"), genInst.Draw(t, "inst")
	node := rapid.SampledFrom([]uint32{0, 0, mOwn, 7, mOwn &^ 0xfff, mOwn &^ 0xffffff}).Draw(t, "node")
	a, ok := x.t.Lookup(typ, inst, node)
	wa, wok := x.m.lookup(typ, inst, node)
	if a != wa || ok != wok {
		t.Fatalf("lookup {%d,%d} at %x: %v %v, want %v %v", typ, inst, node, a, ok, wa, wok)
	}
}

func (x *machine) multicast(t *rapid.T) {
	r := genRange.Draw(t, "range")
	scope := rapid.SampledFrom([]wire.Scope{wire.ScopeCluster, wire.ScopeNode, ScopeAny}).Draw(t, "scope")
	head := []uint32{1, 2}
	ports := x.t.AppendMulticastPorts(slices.Clone(head), r, scope)
	nodes, local := x.t.AppendMulticastNodes(slices.Clone(head), r)
	wports, wnodes, wlocal := x.m.multicast(r, scope)
	if !slices.Equal(ports, append(slices.Clone(head), wports...)) || !slices.Equal(nodes, append(head, wnodes...)) || local != wlocal {
		t.Fatalf("multicast %v: %v %v %v, want %v %v %v", r, ports, nodes, local, wports, wnodes, wlocal)
	}
}

func (x *machine) group(t *rapid.T) {
	typ, inst, scope := genType.Draw(t, "type"), genInst.Draw(t, "inst"), genScope.Draw(t, "scope")
	port, all := genPort.Draw(t, "port"), rapid.Bool().Draw(t, "all")
	if got, want := x.t.AppendGroup(nil, typ, inst, scope, port, all), x.m.group(typ, inst, scope, port, all); !slices.Equal(got, want) {
		t.Fatalf("group: %v, want %v", got, want)
	}
}

func (x *machine) subscribe(t *rapid.T) {
	i, s := rapid.IntRange(0, 1).Draw(t, "i"), genSubscr.Draw(t, "s")
	err, want := x.subs[i].Subscribe(x.now(), s), x.m.subscribe(x.msubs[i], s, x.nowMs)
	if (err == nil) != want {
		t.Fatalf("subscribe: %v, want ok %v", err, want)
	}
}

func (x *machine) cancel(t *rapid.T) {
	i, s := rapid.IntRange(0, 1).Draw(t, "i"), genSubscr.Draw(t, "s")
	if l := x.msubs[i].subs; len(l) > 0 && rapid.Bool().Draw(t, "known") {
		s = rapid.SampledFrom(l).Draw(t, "sub").s
	}
	want := x.m.cancel(x.msubs[i], s)
	if rapid.Bool().Draw(t, "by filter") {
		s.Filter |= wire.SubCancel
		if err := x.subs[i].Subscribe(x.now(), s); err != nil {
			t.Fatalf("cancel by filter: %v", err)
		}
	} else if got := x.subs[i].Cancel(s); got != want {
		t.Fatalf("cancel: %v, want %v", got, want)
	}
}

func (x *machine) tick(t *rapid.T) {
	x.nowMs += rapid.Int64Range(0, 12).Draw(t, "ms")
	next := int64(-1)
	for _, sc := range x.m.services {
		for _, n := range sc.subs {
			if n.expires >= 0 && (next < 0 || n.expires < next) {
				next = n.expires
			}
		}
	}
	want := mono.Never
	if next >= 0 {
		want = mono.Time(next * int64(time.Millisecond))
	}
	if d := x.t.Deadline(); d != want {
		t.Fatalf("deadline %v, want %v", d, want)
	}
	x.t.Tick(x.now())
	x.m.expire(x.nowMs)
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newMachine(rapid.Bool().Draw(t, "legacy"))
		t.Repeat(map[string]func(*rapid.T){
			"publish": x.publish, "publish2": x.publish, "withdraw": x.withdraw, "remote": x.remote, "remote2": x.remote, "purge": x.purge,
			"lookup": x.lookup, "multicast": x.multicast, "group": x.group,
			"subscribe": x.subscribe, "cancel": x.cancel, "tick": x.tick,
			"": x.check,
		})
		for i, s := range x.subs {
			s.Close()
			for len(x.msubs[i].subs) > 0 {
				x.m.unsubscribe(x.msubs[i].subs[0])
			}
		}
		x.checkSizes(t)
		if x.t.Deadline() != mono.Never {
			t.Fatalf("a timer is left")
		}
	})
}
