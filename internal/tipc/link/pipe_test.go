package link

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

const (
	ms  = mono.Time(1e6)
	sec = 1000 * ms
)

// pipe joins ends in virtual time: packets of one bearer reach all other ends, if they are broadcast, or the only one.
type pipe struct {
	t      testing.TB
	r      *rand.Rand
	now    mono.Time
	ends   []*end
	flying tipctest.Air[*end]
	loss   [2]float64
	dup    float64
	jitter mono.Time
	tap    func(from *end, bearer int, m wire.Msg) bool // false: drop
}

// end is a node as links see it, in its simplest form: one peer, up to two links, the broadcast links.
type end struct {
	p         *pipe
	own, peer uint32
	snd, rcv  *Link
	links     [2]*Link
	inputq    [2]buf.Queue
	mcq       buf.Queue
	namedq    buf.Queue
	bcq       buf.Queue
	timer     mono.Time

	got     map[uint32][]uint32 // by port: numbers of the messages that arrived
	gotMc   []uint32
	names   []uint32
	wakeups []uint32 // ports
	downs   int
	noUp    bool
}

// port is an end's output on one bearer, or the broadcast output.
type port struct {
	e      *end
	bearer int
	bcast  bool
}

func (o port) Send(pkt []byte, own *buf.Buf) { o.e.p.send(o.e, o.bearer, pkt) }

func (p *pipe) send(from *end, bearer int, pkt []byte) {
	if _, err := wire.Validate(pkt); err != nil {
		p.t.Fatalf("node %x sent %x: %v", from.own, pkt, err)
	}
	if p.tap != nil && !p.tap(from, bearer, pkt) {
		return
	}
	for _, to := range p.ends {
		if to == from {
			continue
		}
		p.flying.Send(p.r, tipctest.Flight[*end]{At: p.now, From: from, To: to, Bearer: bearer, Pkt: pkt},
			tipctest.Noise{Loss: p.loss[bearer], Dup: p.dup, Jitter: p.jitter})
	}
}

type options struct {
	mtu    int
	maxWin int
	caps   wire.Caps
	eager  bool
	links  int
}

// newPipe makes two ends with their links reset and ready to be established.
func newPipe(t testing.TB, seed uint64, o options) *pipe {
	p := &pipe{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: 1000 * sec}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, time %v", seed, p.now-1000*sec)
		}
	})
	if o.mtu == 0 {
		o.mtu = 1500
	}
	if o.maxWin == 0 {
		o.maxWin = 50
	}
	if o.caps == 0 {
		o.caps = wire.CapsAll
	}
	if o.links == 0 {
		o.links = 1
	}
	for i := range uint32(2) {
		e := &end{p: p, own: 0x1001 + i, peer: 0x1002 - i, got: map[uint32][]uint32{}}
		e.snd = NewBcastSender(BcastConfig{Own: e.own, NetID: 4711, Name: "broadcast-link", MTU: 3584, MinWin: 50, MaxWin: 50, Inputq: &e.bcq})
		e.rcv = NewBcastReceiver(BcastConfig{Own: e.own, NetID: 4711, Name: "broadcast-link:peer", MTU: 65535, MinWin: 50, MaxWin: 50,
			Peer: e.peer, PeerCaps: o.caps, BcSnd: e.snd, Inputq: &e.mcq, Namedq: &e.namedq})
		for b := range o.links {
			l := New(Config{Own: e.own, Peer: e.peer, SelfName: fmt.Sprintf("node%d", i), PeerName: fmt.Sprintf("node%d", 1-i),
				IfName: fmt.Sprintf("eth%d", b), Bearer: b, Plane: byte('A' + b), Session: uint16(p.r.Uint32()),
				MTU: o.mtu, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: o.maxWin,
				PeerCaps: o.caps, BcSnd: e.snd, BcRcv: e.rcv, Inputq: &e.inputq[b], Namedq: &e.namedq})
			l.SetAbortLimit(4)
			l.SetBundleEager(o.eager)
			l.Reset(p.now)
			l.Event(ResetEvt)
			e.links[b] = l
		}
		e.timer = p.now + mono.Time(i)*ms
		p.ends = append(p.ends, e)
	}
	return p
}

// up lets time pass until all links are up at both ends.
func (p *pipe) up() {
	p.t.Helper()
	for range 100 {
		p.run(100 * ms)
		ok := true
		for _, e := range p.ends {
			for _, l := range e.links {
				ok = ok && (l == nil || l.IsUp())
			}
			ok = ok && e.rcv.bcPeerIsUp
		}
		if ok {
			return
		}
	}
	p.t.Fatalf("links do not come up: %v %v", p.ends[0].links[0].state, p.ends[1].links[0].state)
}

func (p *pipe) run(d mono.Time) {
	end := p.now + d
	for {
		next := min(end, p.flying.Next())
		for _, e := range p.ends {
			next = min(next, e.timer)
		}
		p.now = max(p.now, next)
		for f, ok := p.flying.Arrived(p.now); ok; f, ok = p.flying.Arrived(p.now) {
			f.To.receive(f.Bearer, f.Pkt)
		}
		for _, e := range p.ends {
			if e.timer <= p.now {
				e.timer = p.now + 375*ms
				for b, l := range e.links {
					if l != nil && l.Timeout(p.now, port{e, b, false})&DownEvent != 0 {
						e.down(b)
						e.drain()
					}
				}
			}
			e.flush()
		}
		if p.now >= end {
			return
		}
	}
}

func (e *end) flush() {
	for b, l := range e.links {
		if l != nil {
			l.Flush(e.p.now, port{e, b, false})
		}
	}
}

// receive does what a node does for a packet (net/tipc/node.c tipc_rcv), without the node states.
func (e *end) receive(bearer int, pkt []byte) {
	m, err := wire.Validate(pkt)
	if err != nil {
		return
	}
	now, l, bc := e.p.now, e.links[bearer], port{e, 0, true}
	out := port{e, bearer, false}
	if m.NonSeq() {
		if !e.rcv.IsUp() {
			return
		}
		var rc Events
		if m.User() == wire.UserBcastProtocol {
			rc = e.rcv.BcNackReceive(now, m, bc)
		} else {
			rc = e.rcv.Receive(now, m, nil)
		}
		if rc&SendState != 0 {
			l.BuildStateMsg(now, out)
		}
		e.drain()
		return
	}
	if m.User() == wire.UserLinkProtocol {
		if m.Type() != wire.TypeState {
			e.rcv.BcInitReceive(m)
		} else if !m.BcAckInvalid() {
			ga, ok := e.rcv.GapAck(m, false)
			if !ok {
				return
			}
			rc := e.rcv.BcAckReceive(now, m.BcastAck(), m.BcGap(), ga, bc, bc) | e.rcv.BcSyncReceive(now, m, bc)
			if rc&SendState != 0 && !m.Probe() {
				l.BuildStateMsg(now, out)
			}
		}
	} else if !m.BcAckInvalid() {
		e.rcv.BcAckReceive(now, m.BcastAck(), 0, wire.GapAck{}, bc, nil)
	}
	var rc Events
	if len(m)%2 == 0 {
		rc = l.ReceiveBuf(now, buf.Copy(m), out)
	} else {
		rc = l.Receive(now, m, out)
	}
	if rc&UpEvent != 0 && !e.noUp {
		e.up(bearer)
	}
	if rc&DownEvent != 0 {
		e.down(bearer)
	}
	e.drain()
}

func (e *end) up(bearer int) {
	l, out := e.links[bearer], port{e, bearer, false}
	if l.IsUp() {
		return
	}
	l.Event(EstablishEvt)
	l.SetActive(true)
	l.BuildStateMsg(e.p.now, out)
	if e.snd.BcPeers() == 0 {
		AddBcPeer(e.p.now, e.snd, l, out)
	}
}

func (e *end) down(bearer int) {
	e.downs++
	l, out := e.links[bearer], port{e, bearer, false}
	if e.snd.BcPeers() > 0 {
		RemoveBcPeer(e.p.now, e.snd, e.rcv, port{e, 0, true})
	}
	l.Event(ResetEvt)
	l.Reset(e.p.now)
	l.BuildResetMsg(e.p.now, out)
}

func (e *end) drain() {
	for i := range e.inputq {
		for b := e.inputq[i].PopFront(); b != nil; b = e.inputq[i].PopFront() {
			m := b.Msg
			switch {
			case m.User() == wire.UserSockWakeup:
				e.wakeups = append(e.wakeups, m.DestPort())
			case m.ErrCode() == wire.CodeOK:
				e.got[m.OrigPort()] = append(e.got[m.OrigPort()], tipctest.Number(m))
			}
			b.Release()
		}
	}
	for b := e.mcq.PopFront(); b != nil; b = e.mcq.PopFront() {
		e.gotMc = append(e.gotMc, tipctest.Number(b.Msg))
		b.Release()
	}
	for b := e.namedq.PopFront(); b != nil; b = e.namedq.PopFront() {
		e.names = append(e.names, tipctest.Number(b.Msg))
		b.Release()
	}
	for b := e.bcq.PopFront(); b != nil; b = e.bcq.PopFront() {
		e.wakeups = append(e.wakeups, b.Msg.DestPort())
		b.Release()
	}
}

// message puts a data message with that number on q, in packets that fit l.
func (e *end) message(l *Link, port uint32, imp wire.User, typ uint8, n uint32, size int, q *buf.Queue) {
	h := wire.BasicHeaderSize
	if typ == wire.TypeMcast {
		h = wire.McastHeaderSize
	}
	hdr := make(wire.Msg, h)
	wire.Init(hdr, e.own, imp, typ, h, e.peer)
	hdr.SetOrigPort(port)
	p := make([]byte, max(4, size))
	tipctest.Fill(p, n)
	if err := msg.Build(hdr, p, l.MSS(), q); err != nil {
		e.p.t.Fatal(err)
	}
}

// sender sends numbered messages from one port as fast as its link takes them.
type sender struct {
	e       *end
	bearer  int // -1: broadcast
	port    uint32
	imp     wire.User
	size    func() int
	n       uint32
	waiting bool
}

func (s *sender) pump(count int) {
	if i := slices.Index(s.e.wakeups, s.port); i >= 0 {
		s.e.wakeups = slices.Delete(s.e.wakeups, i, i+1)
		s.waiting = false
	}
	var l *Link
	var out Output
	typ := uint8(wire.TypeDirect)
	if s.bearer < 0 {
		l, out, typ = s.e.snd, port{s.e, 0, true}, wire.TypeMcast
	} else {
		l, out = s.e.links[s.bearer], port{s.e, s.bearer, false}
	}
	for ; count > 0 && !s.waiting; count-- {
		size := 20
		if s.size != nil {
			size = s.size()
		}
		var q buf.Queue
		s.n++
		s.e.message(l, s.port, s.imp, typ, s.n, size, &q)
		switch err := l.Xmit(s.e.p.now, &q, out); err {
		case nil:
		case ErrLinkCong:
			s.waiting = true
		default:
			s.e.p.t.Fatalf("port %d: %v", s.port, err)
		}
		if !q.Empty() {
			s.e.p.t.Fatal("Xmit left packets on the queue")
		}
	}
}
