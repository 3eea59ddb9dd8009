package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

const sec = mono.Time(1e9)

// world joins several Tables by networks, one per bearer number, in virtual time. Discovery is replaced by CheckDest
// calls each second. Everything random comes from one seeded source.
type world struct {
	t       testing.TB
	r       *rand.Rand
	now     mono.Time
	hosts   []*host
	flying  tipctest.Air[*host]
	loss    [MaxBearers]float64                   // probability that a datagram is lost
	dup     float64                               // probability that it arrives twice
	jitter  mono.Time                             // added delay, up to this
	cut     func(from, to *host, bearer int) bool // datagrams that never arrive
	tap     func(from, to *host, bearer int, m wire.Msg)
	nextDsc mono.Time
	noDsc   bool
	sent    int
}

// source is a sending socket.
type source struct{ node, port uint32 }

// host is one node: its Table and what reached the layer above.
type host struct {
	*Table
	w       *world
	addr    uint32
	sig     uint16
	bearers []int
	wcaps   wire.Caps // what the code of the node understands; an old end uses no more than that with anybody

	got    map[source][]uint32 // unicast payload numbers by sender
	gotMc  map[source][]uint32
	names  map[uint32][]uint32
	events []string
	wakeup map[uint32]int // by port
	onMsg  func(m wire.Msg)
	defq   buf.Queue
	dead   bool
}

func media(addr uint32, bearer int) wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(bearer), byte(addr >> 8), byte(addr)}), 6118)}
}

func identity(addr uint32) (id wire.NodeID) {
	copy(id[:], fmt.Sprintf("node%d", addr))
	return id
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 77)), now: 1000 * sec}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, time %v", seed, w.now-1000*sec)
		}
	})
	return w
}

// seeds is how many seeds a randomised test runs: a sixth of n with -short, what NODE_SEEDS says if that is set.
func seeds(n uint64) uint64 {
	if env, err := strconv.ParseUint(os.Getenv("NODE_SEEDS"), 10, 64); err == nil {
		return env
	}
	if testing.Short() {
		return (n + 5) / 6
	}
	return n
}

func testBearer(id int) Bearer {
	return Bearer{
		Name: fmt.Sprintf("udp:U%d", id), MTU: 1500, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 50,
		Broadcast: wire.MediaAddr{Media: wire.MediaUDP, Broadcast: true},
	}
}

// add makes a node with the given bearers enabled.
func (w *world) add(addr uint32, bearers ...int) *host {
	h := &host{w: w, addr: addr, bearers: bearers, wcaps: wire.CapsAll}
	h.start()
	w.hosts = append(w.hosts, h)
	return h
}

// start makes the node's Table anew, as after a restart.
func (h *host) start() {
	w := h.w
	h.dead = false
	h.sig = uint16(w.r.Uint32())
	h.got, h.gotMc, h.names = map[source][]uint32{}, map[source][]uint32{}, map[uint32][]uint32{}
	h.events, h.wakeup = nil, map[uint32]int{}
	h.defq.Purge()
	tab, err := New(Config{Own: h.addr, ID: identity(h.addr), Random: w.r.Uint32(), Rand: w.r.Uint32, Out: h, Up: h})
	if err != nil {
		w.t.Fatal(err)
	}
	h.Table = tab
	for _, b := range h.bearers {
		if err := tab.BearerEnable(w.now, b, testBearer(b)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Send implements buf.Output.
func (h *host) Send(bearer int, dst wire.MediaAddr, pkt []byte, _ *buf.Buf) {
	w := h.w
	w.sent++
	if h.dead {
		return
	}
	for _, to := range w.hosts {
		if to == h || !(dst.Broadcast || dst == media(to.addr, bearer)) {
			continue
		}
		if w.cut != nil && w.cut(h, to, bearer) {
			continue
		}
		if w.tap != nil {
			w.tap(h, to, bearer, pkt)
		}
		w.flying.Send(w.r, tipctest.Flight[*host]{At: w.now, From: h, To: to, Bearer: bearer, Pkt: pkt},
			tipctest.Noise{Loss: w.loss[bearer], Dup: w.dup, Jitter: w.jitter})
	}
}

// run lets time pass.
func (w *world) run(d mono.Time) {
	end := w.now + d
	for {
		next := min(end, w.flying.Next())
		for _, h := range w.hosts {
			if !h.dead {
				next = min(next, h.Deadline())
			}
		}
		if !w.noDsc {
			next = min(next, max(w.nextDsc, w.now))
		}
		w.now = max(w.now, next)
		if !w.noDsc && w.now >= w.nextDsc {
			w.nextDsc = w.now + sec/4
			w.discover()
		}
		for f, ok := w.flying.Arrived(w.now); ok; f, ok = w.flying.Arrived(w.now) {
			if !f.To.dead {
				if len(f.Pkt)%2 == 0 {
					f.To.ReceiveBuf(w.now, f.Bearer, media(f.From.addr, f.Bearer), buf.Copy(f.Pkt))
				} else {
					f.To.Receive(w.now, f.Bearer, media(f.From.addr, f.Bearer), f.Pkt)
				}
			}
		}
		for _, h := range w.hosts {
			if !h.dead {
				h.Tick(w.now)
			}
		}
		if w.now >= end {
			return
		}
	}
}

// discover lets everybody hear of everybody else.
func (w *world) discover() {
	for _, to := range w.hosts {
		for _, from := range w.hosts {
			if to != from {
				w.hear(to, from)
			}
		}
	}
}

func (w *world) hear(to, from *host) {
	for _, b := range from.bearers {
		if to.dead || from.dead || w.cut != nil && w.cut(from, to, b) {
			continue
		}
		if _, ok := from.Bearer(b); !ok {
			continue
		}
		to.CheckDest(w.now, Dest{Bearer: b, Addr: from.addr, ID: identity(from.addr), Caps: from.wcaps & to.wcaps, Signature: from.sig, Media: media(from.addr, b)})
	}
}

// Upcalls.

func (h *host) Deliver(now mono.Time, q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		m := b.Msg
		if m.User() == wire.UserSockWakeup {
			h.wakeup[m.DestPort()]++
		} else if m.ErrCode() == wire.CodeOK && m.DataSize() >= 4 {
			k := source{m.OrigNode(), m.OrigPort()}
			h.got[k] = append(h.got[k], tipctest.Number(m))
		}
		if h.onMsg != nil {
			h.onMsg(m)
		}
		b.Release()
	}
}

func (h *host) DeliverMulticast(now mono.Time, q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		var in buf.Queue
		in.PushBack(b)
		FilterMcast(h.addr, &h.defq, &in)
		for c := in.PopFront(); c != nil; c = in.PopFront() {
			if c.Msg.ErrCode() == wire.CodeOK && c.Msg.DataSize() >= 4 {
				k := source{c.Msg.OrigNode(), c.Msg.OrigPort()}
				h.gotMc[k] = append(h.gotMc[k], tipctest.Number(c.Msg))
			}
			c.Release()
		}
	}
}

func (h *host) DeliverNames(now mono.Time, q *buf.Queue, from uint32) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		h.names[from] = append(h.names[from], tipctest.Number(b.Msg))
		b.Release()
	}
}

func (h *host) event(kind string, args ...any) {
	h.events = append(h.events, kind+" "+fmt.Sprint(args...))
}

func (h *host) NodeUp(now mono.Time, a uint32, c wire.Caps)   { h.event("node up", a) }
func (h *host) NodeDown(now mono.Time, a uint32, c wire.Caps) { h.event("node down", a) }
func (h *host) LinkUp(now mono.Time, a, id uint32, b int)     { h.event("link up", a, " ", b) }
func (h *host) LinkDown(now mono.Time, a, id uint32, b int)   { h.event("link down", a, " ", b) }
func (h *host) Discovery(now mono.Time, b int, src wire.MediaAddr, m wire.Msg) {
	h.event("discovery", b)
}

// message builds a whole data message from port with number n and size octets of payload.
func (h *host) message(to, port uint32, typ uint8, hdrsz int, n uint32, size int) *buf.Buf {
	size = max(size, 4)
	b := buf.Get(hdrsz + size)
	wire.Init(b.Msg, h.addr, wire.UserLow, typ, hdrsz, to)
	b.Msg.SetSize(hdrsz + size)
	b.Msg.SetOrigPort(port)
	b.Msg.SetDestPort(2000)
	tipctest.Fill(b.Msg.Data(), n)
	return b
}

func (h *host) peerState(addr uint32) State {
	if p := h.find(addr); p != nil {
		return p.state
	}
	return numStates
}

// flow sends numbered messages from one port to one node, as fast as the link takes them.
type flow struct {
	h       *host
	to      uint32
	port    uint32
	short   bool // connection messages with the short header
	size    func() int
	n       uint32 // sent
	blocked bool
	lost    bool // the node was unreachable
}

// pump sends up to n more messages.
func (f *flow) pump(n int) {
	if f.h.wakeup[f.port] > 0 {
		f.h.wakeup[f.port] = 0
		f.blocked = false
	}
	for ; n > 0 && !f.blocked; n-- {
		typ, hdrsz := uint8(wire.TypeDirect), wire.BasicHeaderSize
		if f.short {
			typ, hdrsz = wire.TypeConn, wire.ShortHeaderSize
		}
		size := 20
		if f.size != nil {
			size = f.size()
		}
		var q buf.Queue
		b := f.h.message(f.to, f.port, typ, hdrsz, f.n+1, size)
		if err := fragment(f.h.MTU(f.to, f.port), f.to, b, &q); err != nil {
			f.h.w.t.Fatal(err)
		}
		switch err := f.h.Xmit(f.h.w.now, &q, f.to, f.port); err {
		case nil:
			f.n++
		case ErrLinkCong:
			f.n++
			f.blocked = true
		case ErrHostUnreach:
			f.lost = true
			return
		default:
			f.h.w.t.Fatalf("xmit: %v", err)
		}
	}
}

// check requires that the receiver has exactly the messages 1 to f.n in order.
func (f *flow) check(to *host) {
	f.h.w.t.Helper()
	tipctest.InOrder(f.h.w.t, fmt.Sprintf("flow %d:%d", f.h.addr, f.port), to.got[source{f.h.addr, f.port}], f.n)
}

// fragment puts a message on q as packets of at most mtu octets. The header is a template of full length, so that
// fragments of a message with the short header know the node they go to.
func fragment(mtu int, to uint32, b *buf.Buf, q *buf.Queue) error {
	h := b.Msg.Hdrsz()
	hdr := make(wire.Msg, wire.MaxHeaderSize)
	copy(hdr, b.Msg[:h])
	hdr.SetDestNode(to)
	err := msg.Build(hdr, b.Msg[h:], mtu, q)
	b.Release()
	return err
}
