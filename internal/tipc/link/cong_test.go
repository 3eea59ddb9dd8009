package link

import (
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// fill sends n messages of the given importance from port i each and returns the number of senders that have to wait.
func fill(t *testing.T, l *Link, e *end, imp wire.User, n int) (waiting int) {
	t.Helper()
	for i := range n {
		b := dataBuf(e, imp, wire.TypeDirect, 32, 1, 9000) // two do not fit a bundle
		b.Msg.SetOrigPort(uint32(i + 1))
		var q buf.Queue
		q.PushBack(b)
		switch err := l.Xmit(0, &q, nil); err {
		case nil:
		case ErrLinkCong:
			waiting++
		default:
			t.Fatal(err)
		}
	}
	return waiting
}

func TestBacklogLimits(t *testing.T) {
	for imp := range wire.SystemImportance {
		l, e := testLink()
		l.state = Established
		limit := 2 * (imp + 1) * 50
		if n := fill(t, l, e, wire.User(imp), 50+limit); n != 0 {
			t.Errorf("importance %d: %d wait too early", imp, n)
		}
		if n := fill(t, l, e, wire.User(imp), 3); n != 3 {
			t.Errorf("importance %d: %d of 3 wait", imp, n)
		}
		if a, b := l.QueueLens(); a != 50 || b != limit+3 {
			t.Errorf("importance %d: %d sent, %d wait", imp, a, b)
		}
		// Other levels are not affected.
		if other := wire.User((imp + 1) % 4); fill(t, l, e, other, 1) != 0 {
			t.Errorf("importance %d stops %d", imp, other)
		}
		if l.Stats().LinkCongs != 3 {
			t.Errorf("%d congestions", l.Stats().LinkCongs)
		}
		// One is woken for each place that gets free, in order.
		for n := range uint16(4) {
			before := e.inputq[0].Len()
			l.release(n + 1)
			l.advanceBacklog(0, nil)
			l.prepareWakeup()
			if woken := e.inputq[0].Len() - before; woken != 0 && n < 3 {
				t.Errorf("importance %d: %d woken above the limit", imp, woken)
			}
		}
		b := e.inputq[0].Front()
		if b == nil || b.Msg.User() != wire.UserSockWakeup || b.Msg.DestPort() != 1 || b.Msg.OrigNode() != l.peer {
			t.Errorf("importance %d: no wakeup", imp)
		}
	}
}

func TestResetWakesAll(t *testing.T) {
	l, e := testLink()
	l.state = Established
	fill(t, l, e, wire.UserLow, 50+100+7)
	l.Reset(0)
	if n := e.inputq[0].Len(); n != 7 {
		t.Errorf("%d woken", n)
	}
	if a, b := l.QueueLens(); a+b != 0 || l.sndNxt != 1 || l.backlog[0].len != 0 {
		t.Error("not empty")
	}
}

func TestInternalMessagesOverflow(t *testing.T) {
	l, e := testLink()
	l.state = Established
	limit := l.backlog[wire.SystemImportance].limit
	if limit != 65535/(14000/20) {
		t.Errorf("limit %d", limit)
	}
	send := func() error {
		b := dataBuf(e, wire.UserNameDistr, 0, 40, 1, 9000)
		var q buf.Queue
		q.PushBack(b)
		return l.Xmit(0, &q, nil)
	}
	for range 50 + limit {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(); err != ErrNoBufs {
		t.Errorf("%v", err)
	}
	var q buf.Queue
	q.PushBack(dataBuf(e, wire.UserLow, wire.TypeDirect, 32, 1, 14001-32))
	if err := l.Xmit(0, &q, nil); err != ErrMsgSize || !q.Empty() {
		t.Errorf("too large: %v", err)
	}
	if err := l.Xmit(0, &q, nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestBundlingFromBacklog(t *testing.T) {
	l, e := testLink()
	l.state = Established
	var out capture
	send := func(imp wire.User, size int) {
		xmit(t, l, dataBuf(e, imp, wire.TypeDirect, 32, 1, size), &out, 0)
	}
	for range 50 {
		send(wire.UserLow, 100)
	}
	for range 300 {
		send(wire.UserLow, 100)
	}
	send(wire.UserHigh, 100)
	for range 10 {
		send(wire.UserLow, 100)
	}
	if _, n := l.QueueLens(); n != 5 {
		// 300 messages of 132 octets, 105 to a packet of 13928; the other importance; and 10, which must not overtake that.
		t.Errorf("%d packets wait", n)
	}
	out.pkts = nil
	l.release(50)
	l.advanceBacklog(0, &out)
	st := l.Stats()
	if st.SentBundles != 4 || st.SentBundled != 310 {
		t.Errorf("%d messages in %d bundles", st.SentBundled, st.SentBundles)
	}
	if len(out.pkts) != 5 {
		t.Errorf("%d packets", len(out.pkts))
	}
	for i, lv := range l.backlog {
		if lv.len != 0 || lv.target != nil {
			t.Errorf("importance %d: %+v", i, lv)
		}
	}
	if m := wire.Msg(out.pkts[0]); m.User() != wire.UserBundler || m.SeqNo() != 51 || m.Size() > l.MSS() {
		t.Errorf("%x", m[:40])
	}
}

func TestCongestionWindow(t *testing.T) {
	type step struct {
		released int
		retr     bool
		flight   int // packets under way and waiting after it
		window   int
		ssthresh int
	}
	for name, steps := range map[string][]step{
		"slow start":                 {{16, false, 60, 66, 8191}, {16, false, 80, 82, 8191}},
		"no pressure":                {{16, false, 10, 50, 8191}},
		"silence":                    {{500, false, 1000, 550, 8191}, {0, false, 5, 50, 300}},
		"loss, then avoidance":       {{1000, false, 2000, 1050, 8191}, {1, true, 2000, 525, 525}, {1, false, 2000, 526, 525}, {526, false, 2000, 527, 525}, {526, false, 2000, 527, 525}, {1, false, 2000, 528, 525}},
		"loss in a small window":     {{0, true, 60, 50, 300}},
		"never above the maximum":    {{9000, false, 9000, 8191, 8191}, {9000, false, 9000, 8191, 8191}},
		"loss with a middle window":  {{300, false, 400, 350, 8191}, {1, true, 400, 300, 300}},
		"half of a very large flock": {{4000, false, 9000, 4050, 8191}, {3, true, 9000, 2025, 2025}},
	} {
		l, _ := testLink()
		l.SetQueueLimits(50, 8191)
		for i, s := range steps {
			l.transmq.Purge()
			for n := range s.flight {
				b := buf.Get(24)
				b.Msg.SetSeqNo(uint16(n))
				l.transmq.PushBack(b)
			}
			l.sndNxt = uint16(s.flight)
			l.updateCwin(s.released, s.retr)
			if l.window != s.window || l.ssthresh != s.ssthresh {
				t.Errorf("%s, step %d: window %d, threshold %d; want %d and %d", name, i, l.window, l.ssthresh, s.window, s.ssthresh)
			}
		}
	}
	l, _ := testLink()
	l.SetQueueLimits(50, 8191)
	for _, n := range []uint16{1, 3, 4} { // a hole
		for range 30 {
			b := buf.Get(24)
			b.Msg.SetSeqNo(n)
			l.transmq.PushBack(b)
		}
	}
	l.sndNxt = 5
	if l.updateCwin(10, false); l.window != 50 {
		t.Error("window grew in spite of a hole")
	}
}

// A window that the operator enlarges lets what waits go first.
func TestLargerWindowKeepsOrder(t *testing.T) {
	p := newPipe(t, 1, options{})
	p.up()
	s := &sender{e: p.ends[0], port: 1, size: func() int { return 1000 }}
	s.pump(120)
	l := p.ends[0].links[0]
	l.SetQueueLimits(100, 200)
	s.pump(10)
	p.run(5 * sec)
	tipctest.InOrder(t, "port 1", p.ends[1].got[1], s.n)
}

func TestBundleEager(t *testing.T) {
	p := newPipe(t, 1, options{eager: true})
	p.up()
	pkts, bundles := 0, 0
	p.tap = func(from *end, _ int, m wire.Msg) bool {
		if m.User() == wire.UserBundler {
			bundles++
		}
		if from == p.ends[0] && m.User() != wire.UserLinkProtocol {
			pkts++
		}
		return true
	}
	s := &sender{e: p.ends[0], port: 1}
	l := p.ends[0].links[0]
	s.pump(1)
	if pkts != 0 || !l.Pending() {
		t.Fatal("the first message was not held back")
	}
	s.pump(100) // 101 messages of 52 octets: 27 to a packet of 1428
	if !l.Pending() {
		t.Error("nothing is held back")
	}
	p.ends[0].flush()
	if l.Pending() || pkts != 4 || bundles != 4 {
		t.Errorf("%d packets, %d bundles", pkts, bundles)
	}
	s.size = func() int { return 3000 }
	s.pump(1)
	if l.Pending() {
		t.Error("fragments are held back")
	}
	s.size = nil
	s.pump(1)
	s.size = func() int { return 1380 }
	s.pump(1)
	if l.Pending() {
		t.Error("a large message left a small one behind")
	}
	p.run(sec)
	tipctest.InOrder(t, "port 1", p.ends[1].got[1], s.n)
	// What is held back is not lost when the peer claims to have it, nor sent after that.
	s.size = nil
	s.pump(1)
	l.release(l.sndNxt - 1)
	if l.Pending() {
		t.Error("freed, but still held back")
	}
	p.ends[0].flush()
	s.pump(3)
	l.Reset(p.now)
	if l.Pending() {
		t.Error("held back after a reset")
	}
}
