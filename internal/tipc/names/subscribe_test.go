package names

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// brief is what the tests below look at in an event.
type brief struct {
	Kind         wire.EventKind
	Lower, Upper uint32
	Port         wire.SocketAddr
}

func drain(s *Subscriber) (out []brief) {
	for e, ok := s.Next(); ok; e, ok = s.Next() {
		out = append(out, brief{e.Kind, e.Lower, e.Upper, e.Port})
	}
	return out
}

func mustSubscribe(t testing.TB, s *Subscriber, now mono.Time, sub wire.Subscr) {
	t.Helper()
	if err := s.Subscribe(now, sub); err != nil {
		t.Fatal(err)
	}
}

// TestPortsAndService shows the two filters: every binding, or the first and last of each range.
func TestPortsAndService(t *testing.T) {
	tab := NewTable(Config{Own: own})
	ports, service := tab.NewSubscriber(nil, 0), tab.NewSubscriber(nil, 0)
	p1 := mustPublish(t, tab, sr(100, 1, 5), wire.ScopeCluster, 1, 1)
	p2 := mustPublish(t, tab, sr(100, 1, 5), wire.ScopeCluster, 2, 1)
	mustSubscribe(t, ports, 0, wire.Subscr{Range: sr(100, 5, 9), Timeout: wire.WaitForever, Filter: wire.SubPorts})
	mustSubscribe(t, service, 0, wire.Subscr{Range: sr(100, 5, 9), Timeout: wire.WaitForever, Filter: wire.SubService})
	mustRemote(t, tab, sr(100, 1, 5), peerA, 3, 1)
	mustRemote(t, tab, sr(100, 6, 6), peerA, 4, 1)
	mustRemote(t, tab, sr(100, 10, 11), peerA, 5, 1) // outside
	tab.Withdraw(0, p1)
	tab.Withdraw(0, p2)
	tab.purge(peerA)
	const pub, wd = wire.EventPublished, wire.EventWithdrawn
	at := func(port, node uint32) wire.SocketAddr { return wire.SocketAddr{Port: port, Node: node} }
	want := []brief{
		{pub, 1, 5, at(1, own)}, {pub, 1, 5, at(2, own)}, {pub, 1, 5, at(3, peerA)}, {pub, 6, 6, at(4, peerA)},
		{wd, 1, 5, at(1, own)}, {wd, 1, 5, at(2, own)}, {wd, 1, 5, at(3, peerA)}, {wd, 6, 6, at(4, peerA)},
	}
	if d := cmp.Diff(want, drain(ports)); d != "" {
		t.Errorf("ports (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]brief{want[0], want[3], want[6], want[7]}, drain(service)); d != "" {
		t.Errorf("service (-want +got):\n%s", d)
	}
}

// TestNodeAndLinkState: following nodes and links are subscriptions like others.
func TestNodeAndLinkState(t *testing.T) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	for _, typ := range []uint32{NodeState, LinkState} {
		mustSubscribe(t, s, 0, wire.Subscr{Range: sr(typ, 0, ^uint32(0)), Timeout: wire.WaitForever, Filter: wire.SubPorts})
	}
	const linkID = peerA&0xffff<<16 | 1
	mustRemote(t, tab, sr(NodeState, peerA, peerA), peerA, 0, peerA)
	link := mustPublish(t, tab, sr(LinkState, peerA, peerA), wire.ScopeNode, linkID, linkID)
	tab.purge(peerA)
	tab.Withdraw(0, link)
	want := []brief{
		{wire.EventPublished, peerA, peerA, wire.SocketAddr{Node: peerA}},
		{wire.EventPublished, peerA, peerA, wire.SocketAddr{Port: linkID, Node: own}},
		{wire.EventWithdrawn, peerA, peerA, wire.SocketAddr{Node: peerA}},
		{wire.EventWithdrawn, peerA, peerA, wire.SocketAddr{Port: linkID, Node: own}},
	}
	if d := cmp.Diff(want, drain(s)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestPurgeOrder: what a lost node had published is withdrawn in the order of publication.
func TestPurgeOrder(t *testing.T) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	for _, i := range []uint32{5, 1, 9, 3} {
		mustRemote(t, tab, sr(100, i, i), peerA, i, 1)
	}
	tab.removeRemote(sr(100, 9, 9), wire.SocketAddr{Port: 9, Node: peerA}, 1)
	mustSubscribe(t, s, 0, wire.Subscr{Range: sr(100, 0, 10), Timeout: wire.WaitForever, Filter: wire.SubPorts | SubNoStatus})
	tab.purge(peerA)
	var got []uint32
	for _, e := range drain(s) {
		got = append(got, e.Lower)
	}
	if d := cmp.Diff([]uint32{5, 1, 3}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTimeout(t *testing.T) {
	tab := NewTable(Config{Own: own})
	var ready Ready
	s := tab.NewSubscriber(&ready, 0)
	sub := wire.Subscr{Range: sr(100, 1, 9), Timeout: 1500, Filter: wire.SubPorts, UserHandle: [8]byte{1, 2}}
	start := mono.Time(7 * time.Second)
	mustSubscribe(t, s, start, sub)
	end := start.Add(1500 * time.Millisecond)
	if d := tab.Deadline(); d != end {
		t.Errorf("deadline %v", d)
	}
	tab.Tick(end - 1)
	if s.Pending() != 0 {
		t.Error("too early")
	}
	tab.Tick(end)
	e, ok := s.Next()
	want := wire.Event{Kind: wire.EventTimeout, Lower: 1, Upper: 9, Subscr: sub}
	if !ok || e.Event != want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, e.Event))
	}
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeNode, 1, 1)
	if s.Pending() != 0 || s.Len() != 0 || tab.Deadline() != mono.Never {
		t.Error("the subscription lives on")
	}
	if s.Cancel(sub) {
		t.Error("cancelled what had expired")
	}
}

// TestCancelIsExact: a cancellation has to repeat every octet; of equal subscriptions it takes one.
func TestCancelIsExact(t *testing.T) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	sub := wire.Subscr{Range: sr(100, 1, 9), Timeout: 5000, Filter: wire.SubPorts}
	mustSubscribe(t, s, 0, sub)
	mustSubscribe(t, s, 0, sub)
	for i := range 4 {
		other := sub
		switch i {
		case 0:
			other.Range.Upper++
		case 1:
			other.Timeout++
		case 2:
			other.Filter = wire.SubService
		case 3:
			other.UserHandle[7] = 1
		}
		if s.Cancel(other) {
			t.Errorf("cancelled by %+v", other)
		}
	}
	for i := range 3 {
		if s.Cancel(sub) != (i < 2) {
			t.Errorf("cancellation %d", i)
		}
	}
	if st := tab.Stats(); st.Subscriptions != 0 || st.Services != 0 {
		t.Errorf("left: %+v", st)
	}
}

// TestRequestByteOrder: records in either order make the same subscription, and events come back in that order.
func TestRequestByteOrder(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		tab := NewTable(Config{Own: own})
		s := tab.NewSubscriber(nil, 0)
		sub := wire.Subscr{Range: sr(100, 1, 9), Timeout: wire.WaitForever, Filter: wire.SubPorts, UserHandle: [8]byte{8, 7, 6}}
		var rec [wire.SubscrSize]byte
		wire.PutSubscr(rec[:], sub, order)
		if err := s.Request(0, rec); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, tab, sr(100, 2, 3), wire.ScopeNode, 1, 1)
		e, ok := s.Next()
		if !ok || e.Order != order || e.Lower != 2 || e.Subscr != sub {
			t.Errorf("%v: %+v %v", order, e, ok)
		}
		sub.Filter |= wire.SubCancel
		wire.PutSubscr(rec[:], sub, order)
		if err := s.Request(0, rec); err != nil || s.Len() != 0 {
			t.Errorf("%v: cancel: %v, %d left", order, err, s.Len())
		}
	}
}

func TestSubscriptionErrors(t *testing.T) {
	tab := NewTable(Config{Own: own, MaxSubscriptions: 3})
	a, b := tab.NewSubscriber(nil, 0), tab.NewSubscriber(nil, 0)
	ok := wire.Subscr{Range: sr(100, 1, 1), Timeout: wire.WaitForever, Filter: wire.SubService}
	both, swapped := ok, ok
	both.Filter = wire.SubPorts | wire.SubService
	swapped.Range.Lower = 2
	if err := a.Subscribe(0, both); err != ErrFilter {
		t.Errorf("both filters: %v", err)
	}
	if err := a.Subscribe(0, swapped); err != ErrRange {
		t.Errorf("swapped bounds: %v", err)
	}
	if tab.Stats().Services != 0 {
		t.Error("a refused subscription left a service behind")
	}
	for i, s := range []*Subscriber{a, b, a} {
		if err := s.Subscribe(0, ok); err != nil {
			t.Errorf("subscription %d: %v", i, err)
		}
	}
	if err := b.Subscribe(0, ok); err != ErrTooManySubscr {
		t.Errorf("fourth: %v", err)
	}
	a.Close()
	if err := b.Subscribe(0, ok); err != nil {
		t.Errorf("after Close of the other: %v", err)
	}
	if err := a.Subscribe(0, ok); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
}

// TestOverflow: who does not read loses its subscriptions, and nobody else does.
func TestOverflow(t *testing.T) {
	for name, cfg := range map[string]struct {
		limit, total int
	}{"own limit": {10, 1000}, "total": {1000, 10}} {
		tab := NewTable(Config{Own: own, MaxQueuedEvents: cfg.total})
		var ready Ready
		slow, quick := tab.NewSubscriber(&ready, cfg.limit), tab.NewSubscriber(&ready, 1000)
		sub := wire.Subscr{Range: sr(100, 0, 100), Timeout: 1000, Filter: wire.SubPorts}
		mustSubscribe(t, quick, 0, sub) // older, so it is told last
		mustSubscribe(t, slow, 0, sub)
		mustSubscribe(t, slow, 0, wire.Subscr{Range: sr(200, 0, 100), Timeout: wire.WaitForever})
		n := 0
		for i := range uint32(20) {
			mustPublish(t, tab, sr(100, i, i), wire.ScopeNode, 1, 1)
			n += len(drain(quick))
		}
		if !slow.Overflowed() || slow.Pending() != 0 || slow.Len() != 0 {
			t.Errorf("%s: slow: overflow %v, %d events, %d subscriptions", name, slow.Overflowed(), slow.Pending(), slow.Len())
		}
		if err := slow.Subscribe(0, sub); err != ErrClosed {
			t.Errorf("%s: subscribe after overflow: %v", name, err)
		}
		if quick.Overflowed() || n != 20 {
			t.Errorf("%s: quick: overflow %v, %d events", name, quick.Overflowed(), n)
		}
		for range 2 {
			if s := ready.Pop(); s != slow && s != quick {
				t.Errorf("%s: ready %p", name, s)
			}
		}
		slow.Close()
		tab.Tick(mono.Time(time.Hour))
		drain(quick)
		if st := tab.Stats(); st.QueuedEvents != 0 || st.Subscriptions != 0 || st.Overflows != 1 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// TestOverflowInFirstReport: the bound also holds for what is reported at once.
func TestOverflowInFirstReport(t *testing.T) {
	tab := NewTable(Config{Own: own})
	for i := range uint32(20) {
		mustPublish(t, tab, sr(100, i, i), wire.ScopeNode, 1, 1)
	}
	s := tab.NewSubscriber(nil, 10)
	mustSubscribe(t, s, 0, wire.Subscr{Range: sr(100, 0, 100), Timeout: 5, Filter: wire.SubPorts})
	if !s.Overflowed() || s.Pending() != 0 || s.Len() != 0 || tab.Deadline() != mono.Never {
		t.Errorf("overflow %v, %d events, %d subscriptions", s.Overflowed(), s.Pending(), s.Len())
	}
}

// TestQueueInParts reads slower than events come, so that the queue is compacted on the way.
func TestQueueInParts(t *testing.T) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	mustSubscribe(t, s, 0, wire.Subscr{Range: sr(100, 0, ^uint32(0)), Timeout: wire.WaitForever, Filter: wire.SubPorts})
	next := uint32(0)
	check := func(n int) {
		for range n {
			e, ok := s.Next()
			if !ok || e.Lower != next {
				t.Fatalf("event %d: %+v %v", next, e, ok)
			}
			next++
		}
	}
	for i := range uint32(10000) {
		mustPublish(t, tab, sr(100, i, i), wire.ScopeNode, 1, 1)
		check(int(i & 1))
	}
	if c := cap(s.queue); c > 16384 {
		t.Errorf("queue has room for %d with %d unread", c, s.Pending())
	}
	check(s.Pending())
	if s.queue != nil || tab.Stats().QueuedEvents != 0 {
		t.Error("an empty queue keeps its memory")
	}
	s.Drop() // nothing there: nothing happens
}

// TestReadyOrder: subscribers come in the order in which they got something, once, and not after Close.
func TestReadyOrder(t *testing.T) {
	tab := NewTable(Config{Own: own})
	var ready Ready
	var subs []*Subscriber
	for i := range uint32(3) {
		s := tab.NewSubscriber(&ready, 0)
		mustSubscribe(t, s, 0, wire.Subscr{Range: sr(100, i, i), Timeout: wire.WaitForever, Filter: wire.SubPorts})
		subs = append(subs, s)
	}
	for k, i := range []uint32{2, 0, 1, 2, 0} {
		mustPublish(t, tab, sr(100, i, i), wire.ScopeNode, uint32(k), 1)
	}
	subs[0].Close()
	subs[0].Close()
	for _, want := range []*Subscriber{subs[2], subs[1], nil, nil} {
		if got := ready.Pop(); got != want {
			t.Errorf("got %p, want %p", got, want)
		}
	}
	mustPublish(t, tab, sr(100, 1, 2), wire.ScopeNode, 9, 1)
	if ready.Pop() != subs[2] || ready.Pop() != subs[1] || ready.Pop() != nil {
		t.Error("not ready again")
	}
}

// TestManyEqualSubscriptions: equal subscriptions expire one by one without a search among them.
func TestManyEqualSubscriptions(t *testing.T) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	sub := wire.Subscr{Range: sr(100, 0, 9), Timeout: 10, Filter: wire.SubPorts}
	for i := range MaxSubscriptions {
		mustSubscribe(t, s, mono.Time(i), sub)
	}
	if err := s.Subscribe(0, sub); err != ErrTooManySubscr {
		t.Errorf("one more: %v", err)
	}
	tab.Tick(mono.Time(10*time.Millisecond) + 9)
	if s.Pending() != 10 || s.Len() != MaxSubscriptions-10 || !s.Cancel(sub) {
		t.Errorf("%d events, %d left", s.Pending(), s.Len())
	}
	tab.Tick(mono.Time(time.Second))
	if s.Pending() != MaxSubscriptions-1 || s.Len() != 0 || s.Cancel(sub) {
		t.Errorf("%d events, %d left", s.Pending(), s.Len())
	}
}
