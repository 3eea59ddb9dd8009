package stack_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// A world is a bus with stacks on it, in virtual time. Everybody hears broadcasts; whoever writes packets by hand
// (raw_test.go) hands them to inject or puts them on the bus with send.

const (
	delay    = mono.Time(100 * time.Microsecond) // from one host to the next
	maxSteps = 400_000                           // events in one test; more is a hang
	busMTU   = 1500
)

type world struct {
	t      testing.TB
	r      *rand.Rand
	now    mono.Time
	hosts  []*host
	flying []flight
	steps  int
	limit  int // of steps
	spare  *buf.Batch

	addrs  []uint32 // fixed addresses by host number; nil: found by trial
	domain uint32   // that hosts look for peers in; 0: all

	// mangle, if set, sees each packet before it is on its way, and says what is to arrive instead.
	mangle func(from *host, dst wire.MediaAddr, pkt []byte) [][]byte
	each   func() // after each event
}

type host struct {
	w    *world
	n    int
	s    *stack.Stack
	at   wire.MediaAddr
	sent int // datagrams
	dead bool
}

type flight struct {
	at   mono.Time
	to   *host
	src  wire.MediaAddr
	data []byte
}

func busAddr(n int) wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), wire.UDPPort)}
}

var busBroadcast = wire.MediaAddr{
	Media: wire.MediaUDP, Broadcast: true, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{228, 0, 18, 103}), wire.UDPPort),
}

func idOf(n int) (id wire.NodeID) {
	copy(id[:], fmt.Sprintf("node%d", n))
	return id
}

func newWorld(t testing.TB, seed uint64) *world {
	return &world{t: t, r: rand.New(rand.NewPCG(seed, 2)), now: mono.Time(time.Hour), limit: maxSteps, spare: &buf.Batch{}}
}

// add makes host number n (1 to 250) and enables its bearer.
func (w *world) add(n int) *host {
	w.t.Helper()
	h := &host{w: w, n: n, at: busAddr(n)}
	h.start()
	w.hosts = append(w.hosts, h)
	return h
}

// start makes the host's stack anew, as after a restart.
func (h *host) start() {
	w := h.w
	w.t.Helper()
	cfg := stack.Config{ID: idOf(h.n), Rand: w.r.Uint32}
	if w.addrs != nil {
		cfg.Addr = w.addrs[h.n]
	}
	s, err := stack.New(w.now, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	h.s = s
	_, err = s.BearerEnable(w.now, stack.Bearer{
		Name: "udp:U0", MTU: busMTU, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 50, Addr: h.at, Broadcast: busBroadcast,
		Domain: w.domain,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	h.flush()
}

// flush lets the stack finish, and puts what it sends on the bus. It must follow each call into the stack.
func (h *host) flush() {
	w := h.w
	for {
		h.s.Settle(w.now)
		full := h.s.TakeOutput(w.spare)
		if full == nil {
			return
		}
		for i := range full.Len() {
			h.sent++
			w.send(h, full.Datagrams[i].Dst, full.Bytes(i))
		}
		full.Reset()
		w.spare = full
	}
}

// send puts a packet on the bus. from nil: the sender is none of the hosts.
func (w *world) send(from *host, dst wire.MediaAddr, pkt []byte) {
	pkts := [][]byte{append([]byte(nil), pkt...)}
	if w.mangle != nil && from != nil {
		pkts = w.mangle(from, dst, pkts[0])
	}
	for _, to := range w.hosts {
		if to == from || !(dst.Broadcast || dst == to.at) {
			continue
		}
		src := busAddr(251)
		if from != nil {
			src = from.at
		}
		for _, p := range pkts {
			w.late(flight{w.now + delay, to, src, append([]byte(nil), p...)})
		}
	}
}

// inject has a host receive a packet at once.
func (h *host) inject(src wire.MediaAddr, pkt []byte) {
	h.s.HandlePacket(h.w.now, 0, src, append([]byte(nil), pkt...))
	h.flush()
}

// next is when something happens next.
func (w *world) next() mono.Time {
	t := mono.Never
	if len(w.flying) > 0 {
		t = w.flying[0].at
	}
	for _, h := range w.hosts {
		if !h.dead {
			t = t.Min(h.s.Deadline())
		}
	}
	return t
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		t := w.next()
		if t > end {
			w.now = end
			return
		}
		w.now = max(w.now, t)
		if w.steps++; w.steps > w.limit {
			w.t.Fatalf("hang: more than %d events by %v", w.limit, w.now)
		}
		if len(w.flying) > 0 && w.flying[0].at <= w.now {
			f := w.flying[0]
			w.flying = w.flying[1:]
			if !f.to.dead {
				f.to.s.HandlePacket(w.now, 0, f.src, f.data)
				f.to.flush()
			}
		} else {
			for _, h := range w.hosts {
				if !h.dead && h.s.Deadline() <= w.now {
					h.s.Tick(w.now)
					h.flush()
				}
			}
		}
		if w.each != nil {
			w.each()
		}
	}
}

// meet runs until all hosts are in contact with each other.
func (w *world) meet() {
	w.t.Helper()
	for range 100 {
		w.run(100 * time.Millisecond)
		if w.allUp() {
			w.run(100 * time.Millisecond)
			return
		}
	}
	w.t.Fatal("no contact within 10 s")
}

func (w *world) allUp() bool {
	for _, h := range w.hosts {
		for _, k := range w.hosts {
			if h != k && !h.dead && !k.dead && !h.up(k) {
				return false
			}
		}
	}
	return true
}

func (h *host) addr() uint32 { return h.s.Addr() }

// up says whether h is in contact with k.
func (h *host) up(k *host) bool { return k.addr() != 0 && h.s.Nodes().IsUp(k.addr()) }

// link is h's link to k, if it exists.
func (h *host) link(k *host) (li node.LinkInfo, ok bool) {
	for li := range h.s.Nodes().Links(false) {
		if li.Peer == k.addr() && !li.Broadcast {
			return li, true
		}
	}
	return li, false
}

func (h *host) socket(typ socket.Type) *socket.Sock {
	h.w.t.Helper()
	s, err := h.s.Sockets().Create(h.w.now, typ)
	if err != nil {
		h.w.t.Fatal(err)
	}
	return s
}

func (h *host) bound(typ socket.Type, r wire.ServiceRange) *socket.Sock {
	h.w.t.Helper()
	s := h.socket(typ)
	if err := s.Bind(h.w.now, r, wire.ScopeCluster); err != nil {
		h.w.t.Fatal(err)
	}
	h.flush()
	return s
}

// connect makes a connection from h to a listening socket of k.
func (h *host) connect(typ socket.Type, l *socket.Sock, k *host) (client, server *socket.Sock) {
	w := h.w
	w.t.Helper()
	client = h.socket(typ)
	if err := client.Connect(w.now, socket.Dest{Kind: socket.SocketDest, Addr: l.LocalAddr()}); err != socket.ErrInProgress {
		w.t.Fatal(err)
	}
	h.flush()
	w.run(10 * time.Millisecond)
	server, err := l.Accept(w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	k.flush()
	w.run(10 * time.Millisecond)
	if err := client.ConnectResult(); err != nil {
		w.t.Fatal(err)
	}
	return client, server
}

func service(typ, inst uint32) socket.Dest {
	return socket.Dest{Kind: socket.ServiceDest, Range: wire.ServiceRange{Type: typ, Lower: inst, Upper: inst}}
}

func rangeOf(typ, lower, upper uint32) wire.ServiceRange {
	return wire.ServiceRange{Type: typ, Lower: lower, Upper: upper}
}
