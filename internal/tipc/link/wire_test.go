package link

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// capture keeps what a link sends.
type capture struct{ pkts [][]byte }

func (c *capture) Send(pkt []byte, own *buf.Buf) { c.pkts = append(c.pkts, slices.Clone(pkt)) }

func (c *capture) take(t testing.TB) wire.Msg {
	t.Helper()
	if len(c.pkts) != 1 {
		t.Fatalf("%d packets sent", len(c.pkts))
	}
	m := c.pkts[0]
	c.pkts = nil
	return m
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testLink makes the link that node3 had in the captures, to node2 over a UDP bearer called U.
func testLink() (*Link, *end) {
	const node2, node3 = 0x5c6f6465, 0x5d6f6465
	e := &end{own: node3, peer: node2, got: map[uint32][]uint32{}}
	e.snd = NewBcastSender(BcastConfig{Own: node3, NetID: 4711, Name: "broadcast-link", MTU: 3584, MinWin: 50, MaxWin: 50, Inputq: &e.bcq})
	e.rcv = NewBcastReceiver(BcastConfig{Own: node3, NetID: 4711, Peer: node2, PeerCaps: wire.CapsAll, MTU: 65535, MinWin: 50, MaxWin: 50,
		BcSnd: e.snd, Inputq: &e.mcq, Namedq: &e.namedq})
	l := New(Config{Own: node3, Peer: node2, SelfName: "node3", PeerName: "node2", IfName: "U", Bearer: 0, Plane: 'A', Session: 0x29d2,
		MTU: 14000, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 50, PeerCaps: wire.CapsAll, BcSnd: e.snd, BcRcv: e.rcv,
		Inputq: &e.inputq[0], Namedq: &e.namedq})
	l.SetAbortLimit(4)
	l.Reset(0)
	l.Event(ResetEvt)
	e.links[0] = l
	return l, e
}

// The frames that Linux sent in the capture, octet by octet.
func TestFramesOfTheKernel(t *testing.T) {
	l, e := testLink()
	var out capture
	want := func(what, frame string) {
		t.Helper()
		if got := out.take(t); !bytes.Equal(got, unhex(t, frame)) {
			t.Errorf("%s\n%x, want\n%x", what, got, unhex(t, frame))
		}
	}
	l.Timeout(0, &out)
	want("RESET", "4f400038 20000000 00008000 5d6f6465 00000001 29d34000 5d6f6465 5c6f6465 00000000 0dac0000"+
		"55000000 00000000 00000000 00000000")

	// The peer's RESET makes us send ACTIVATE.
	reset := wire.Msg(unhex(t, "4f400038 20000000 00008000 5c6f6465 00000001 29d34000 5c6f6465 5d6f6465 00000000 0dac0000"+
		"55000000 00000000 00000000 00000000"))
	if rc := l.Receive(0, reset, &out); rc != 0 || l.State() != Establishing {
		t.Fatalf("%d %v", rc, l.State())
	}
	l.Timeout(0, &out)
	want("ACTIVATE", "4f400038 400129d3 00008000 5d6f6465 00000001 29d34000 5d6f6465 5c6f6465 00000000 0dac0000"+
		"55000000 00000000 00000000 00000000")

	activate := slices.Clone(reset)
	activate.SetType(wire.TypeActivate)
	activate.SetDestSessionValid(true)
	activate.SetDestSession(0x29d3)
	if rc := l.Receive(0, activate, &out); rc != UpEvent {
		t.Fatalf("result %d", rc)
	}
	l.Event(EstablishEvt)
	l.BuildStateMsg(0, &out)
	want("STATE", "4f40002c 00000000 00000001 5d6f6465 00000001 29d34000 5d6f6465 5c6f6465 00000000 00000000 00040000")
	AddBcPeer(0, e.snd, l, &out)
	want("BCAST_PROTOCOL", "4b400028 00000000 00000001 5d6f6465 00000000 00004000 5d6f6465 5c6f6465 00000000 00000000")

	xmit(t, l, bulkBuf(e), &out, 0)
	out.take(t)
	l.rcvNxt, e.rcv.state = 3, Established
	l.sndNxtState = 3
	l.checkpoint = l.sndNxt
	l.Timeout(0, &out)
	want("probe", "4f48002c 00000000 00020003 5d6f6465 00000003 29d31001 5d6f6465 5c6f6465 00000000 00000000 00040000")
}

func bulkBuf(e *end) *buf.Buf { return dataBuf(e, wire.UserNameDistr, wire.TypePublication, 40, 1, 20) }

func TestValidateMsg(t *testing.T) {
	msgOf := func(typ uint8, session uint16, f func(m wire.Msg)) wire.Msg {
		m := make(wire.Msg, 60)
		wire.Init(m, 1, wire.UserLinkProtocol, typ, 40, 2)
		m.SetSession(session)
		if f != nil {
			f(m)
		}
		return m
	}
	const R, A, S = wire.TypeReset, wire.TypeActivate, wire.TypeState
	for _, c := range []struct {
		name      string
		typ       uint8
		session   uint16
		inSession bool
		up        bool
		f         func(m wire.Msg)
		want      bool
	}{
		{"first RESET", R, 5, false, false, nil, true},
		{"RESET of this session", R, 100, true, true, nil, false},
		{"RESET of an old session", R, 99, true, true, nil, false},
		{"RESET of a new session", R, 101, true, true, nil, true},
		{"first ACTIVATE", A, 5, false, false, nil, true},
		{"ACTIVATE of this session", A, 100, true, true, nil, true},
		{"ACTIVATE of an old session", A, 99, true, true, nil, false},
		{"ACTIVATE of a new session", A, 101, true, true, nil, true},
		{"STATE without session", S, 100, false, true, nil, false},
		{"STATE", S, 100, true, true, func(m wire.Msg) { m.SetSeqNo(7) }, true},
		{"STATE of an old session", S, 99, true, true, func(m wire.Msg) { m.SetSeqNo(7) }, false},
		{"STATE of a new session", S, 101, true, true, func(m wire.Msg) { m.SetSeqNo(7) }, false},
		{"STATE seen before", S, 100, true, true, func(m wire.Msg) { m.SetSeqNo(6) }, false},
		{"STATE later", S, 100, true, true, func(m wire.Msg) { m.SetSeqNo(2000) }, true},
		{"STATE while down", S, 100, true, false, func(m wire.Msg) { m.SetSeqNo(7) }, true},
		{"STATE while down with an acknowledgement", S, 100, true, false, func(m wire.Msg) { m.SetSeqNo(7); m.SetAck(1) }, false},
		{"type 3", 3, 100, false, false, nil, false},
		{"data", 0, 1, true, true, func(m wire.Msg) { m.SetUser(wire.UserLow) }, true},
	} {
		l, _ := testLink()
		l.inSession, l.peerSession, l.rcvNxtState = c.inSession, 100, 7
		if c.up {
			l.state = Established
		}
		if got := l.ValidateMsg(msgOf(c.typ, c.session, c.f)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestGapAckBlocks(t *testing.T) {
	type blk = wire.GapAckBlock
	for name, c := range map[string]struct {
		in   []uint16
		want []blk
	}{
		"empty":            {nil, nil},
		"one":              {[]uint16{7}, []blk{{Ack: 7}}},
		"run":              {[]uint16{7, 8, 9}, []blk{{Ack: 9}}},
		"kernel's example": {[]uint16{1, 2, 3, 4, 10, 11, 13, 14, 15, 20}, []blk{{Ack: 4, Gap: 5}, {Ack: 11, Gap: 1}, {Ack: 15, Gap: 4}, {Ack: 20, Gap: 0}}},
		"wrap":             {[]uint16{65534, 65535, 1, 2, 5}, []blk{{Ack: 65535, Gap: 1}, {Ack: 2, Gap: 2}, {Ack: 5, Gap: 0}}},
	} {
		var q buf.Queue
		for _, n := range c.in {
			b := buf.Get(24)
			b.Msg.SetSeqNo(n)
			q.PushBack(b)
		}
		var dst [maxBlocks]blk
		if got := dst[:gapAckBlocks(&dst, &q)]; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var q buf.Queue
	for n := range uint16(200) {
		b := buf.Get(24)
		b.Msg.SetSeqNo(2 * n)
		q.PushBack(b)
	}
	var dst [maxBlocks]blk
	if n := gapAckBlocks(&dst, &q); n != maxBlocks || dst[maxBlocks-1] != (blk{Ack: 126, Gap: 1}) {
		t.Errorf("%d blocks, last %v", n, dst[maxBlocks-1])
	}
}

// What a STATE message with gaps frees and sends again, against hand-made tables. Packets 1 to 10 are under way.
func TestAdvance(t *testing.T) {
	type blk = wire.GapAckBlock
	for name, c := range map[string]struct {
		acked, gap uint16
		uc         []blk
		left, retr []uint16
	}{
		"nothing":                    {0, 0, nil, []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
		"some":                       {4, 0, nil, []uint16{5, 6, 7, 8, 9, 10}, nil},
		"all":                        {10, 0, nil, nil, nil},
		"never sent":                 {11, 0, nil, []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
		"far ahead":                  {30000, 0, nil, []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
		"gap":                        {2, 3, nil, []uint16{3, 4, 5, 6, 7, 8, 9, 10}, []uint16{3, 4, 5}},
		"gap past the end":           {8, 100, nil, []uint16{9, 10}, []uint16{9, 10}},
		"gap past half the circle":   {8, 40000, nil, []uint16{9, 10}, []uint16{9, 10}},
		"blocks":                     {2, 1, []blk{{Ack: 5, Gap: 2}, {Ack: 9, Gap: 0}}, []uint16{3, 6, 7, 10}, []uint16{3, 6, 7}},
		"last block":                 {2, 1, []blk{{Ack: 10, Gap: 0}}, []uint16{3}, []uint16{3}},
		"block never sent":           {2, 1, []blk{{Ack: 11, Gap: 0}}, []uint16{3, 4, 5, 6, 7, 8, 9, 10}, []uint16{3}},
		"block lies, next does not":  {2, 1, []blk{{Ack: 50000, Gap: 0}, {Ack: 5, Gap: 0}}, []uint16{3, 6, 7, 8, 9, 10}, []uint16{3}},
		"blocks out of order":        {2, 1, []blk{{Ack: 8, Gap: 1}, {Ack: 5, Gap: 1}}, []uint16{3, 9, 10}, []uint16{3, 9}},
		"overlapping":                {2, 4, []blk{{Ack: 4, Gap: 1}, {Ack: 8, Gap: 0}}, []uint16{3, 4, 5, 6, 9, 10}, []uint16{3, 4, 5, 6}},
		"block gap past the end":     {2, 1, []blk{{Ack: 5, Gap: 60000}}, []uint16{3, 6, 7, 8, 9, 10}, []uint16{3, 6, 7, 8, 9, 10}},
		"255 useless blocks":         {2, 1, make([]blk, 255), []uint16{3, 4, 5, 6, 7, 8, 9, 10}, []uint16{3}},
		"old acknowledgement, stale": {65000, 0, nil, []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
	} {
		for _, base := range []uint16{0, 65530} { // once across the wrap
			l, e := testLink()
			l.state = Established
			l.sndNxt = base + 1
			for range 10 {
				xmit(t, l, dataBuf(e, wire.UserLow, wire.TypeDirect, 32, 1, 20), nil, 0)
			}
			shifted := make([]blk, len(c.uc))
			for i, k := range c.uc {
				shifted[i] = blk{Ack: k.Ack + base, Gap: k.Gap}
			}
			ga, _, ok := wire.ParseGapAck(wire.AppendGapAck(nil, nil, shifted))
			if !ok {
				t.Fatal("record")
			}
			var out capture
			released, retransmitted, rc := l.advance(10*ms, c.acked+base, c.gap, ga, &out)
			var left, retr []uint16
			for b := l.transmq.Front(); b != nil; b = b.Next() {
				left = append(left, b.Msg.SeqNo()-base)
			}
			for _, p := range out.pkts {
				retr = append(retr, wire.Msg(p).SeqNo()-base)
			}
			if !slices.Equal(left, c.left) || !slices.Equal(retr, c.retr) || released != 10-len(left) || retransmitted != (len(retr) > 0) || rc != 0 {
				t.Errorf("%s: left %v, sent again %v; want %v and %v", name, left, retr, c.left, c.retr)
			}
		}
	}
}

func TestRetransmissionIsLimited(t *testing.T) {
	l, e := testLink()
	l.state = Established
	xmit(t, l, dataBuf(e, wire.UserLow, wire.TypeDirect, 32, 1, 20), nil, 0)
	var out capture
	nack := func(at int64) int {
		out.pkts = nil
		l.advance(msTime(at), 0, 1, wire.GapAck{}, &out)
		return len(out.pkts)
	}
	for _, c := range []struct {
		at   int64 // µs
		want int
	}{{0, 0}, {999, 0}, {1000, 1}, {1500, 0}, {2000, 1}} {
		if got := nack(c.at); got != c.want {
			t.Errorf("after %d µs: %d", c.at, got)
		}
	}
	// After ten tolerances it is given up.
	if rc := l.stateAt(15_001_000, t); rc != 0 || !l.IsUp() {
		t.Fatal("given up too early")
	}
	if rc := l.stateAt(15_001_001, t); rc != DownEvent || l.State() != Resetting {
		t.Fatalf("%d %v", rc, l.State())
	}
}

func (l *Link) stateAt(us int64, t testing.TB) Events {
	_, _, rc := l.advance(msTime(us), 0, 1, wire.GapAck{}, nil)
	return rc
}
