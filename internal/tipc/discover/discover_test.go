package discover_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/wire"
)

// bus is a broadcast medium without delay between hosts of a test.
type bus struct {
	t     *testing.T
	now   mono.Time
	hosts []*host
	queue []datagram
	log   []string // "time from type prevnode dest"
}

type datagram struct {
	from *host
	dst  wire.MediaAddr
	pkt  []byte
}

// host is a discovery with the simplest peer table that keeps the kernel's rules.
type host struct {
	*discover.Discovery
	bus   *bus
	media wire.MediaAddr
	rnd   uint32
	peers map[uint32]discover.Dest // by address
	up    map[uint32]bool          // the link is up

	finalized []uint32
	dups      []uint32
	learned   []wire.MediaAddr
}

var broadcast = wire.MediaAddr{Media: wire.MediaUDP, Broadcast: true, IP: netip.MustParseAddrPort("228.0.18.103:6118")}

func udp(n int) wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(n)}), wire.UDPPort)}
}

func nodeID(s string) (id wire.NodeID) { copy(id[:], s); return id }

// add starts another host. c.Random must differ between hosts.
func (b *bus) add(n int, c discover.Config, e discover.Bearer) *host {
	b.t.Helper()
	h := &host{bus: b, media: udp(n), rnd: c.Random, peers: map[uint32]discover.Dest{}, up: map[uint32]bool{}}
	c.Out, c.Up = h, h
	h.Discovery = discover.New(c)
	b.hosts = append(b.hosts, h)
	e.Addr, e.Broadcast = h.media, broadcast
	if err := h.BearerEnable(b.now, 0, e); err != nil {
		b.t.Fatal(err)
	}
	b.deliver()
	return h
}

func (h *host) Send(bearer int, dst wire.MediaAddr, pkt []byte, _ *buf.Buf) {
	m := wire.Msg(pkt)
	h.bus.log = append(h.bus.log, fmt.Sprintf("%v %d %d %08x %08x", h.bus.now, h.media.IP.Addr().As4()[3], m.Type(), m.PrevNode(), m.DestDomain()))
	h.bus.queue = append(h.bus.queue, datagram{h, dst, append([]byte(nil), pkt...)})
}

func (h *host) CheckDest(now mono.Time, d discover.Dest) (respond, duplicate bool) {
	if h.Own() == 0 || d.Addr == 0 || d.Addr == h.Own() {
		h.bus.t.Errorf("CheckDest of %x at %x", d.Addr, h.Own())
	}
	if p, ok := h.peers[d.Addr]; ok && p.Media != d.Media && h.up[d.Addr] {
		return false, true
	}
	h.peers[d.Addr] = d
	return !h.up[d.Addr], false
}

func (h *host) TryAddr(id wire.NodeID, addr, trial uint32) uint32 {
	if p, ok := h.peers[addr]; ok {
		if p.ID == id {
			return 0
		}
		return addr ^ h.rnd
	}
	for a, p := range h.peers {
		if p.ID == id {
			return a
		}
	}
	if addr == trial {
		return addr ^ h.rnd
	}
	return 0
}

func (h *host) Finalize(_ mono.Time, addr uint32) { h.finalized = append(h.finalized, addr) }

func (h *host) DuplicateAddr(_ mono.Time, _ int, addr uint32, _ wire.MediaAddr) {
	h.dups = append(h.dups, addr)
}

func (h *host) LearnPeer(_ mono.Time, _ int, a wire.MediaAddr) { h.learned = append(h.learned, a) }

// linkUp and linkDown play the link layer.
func (h *host) linkUp(addr uint32)   { h.up[addr] = true; h.AddDest(0) }
func (h *host) linkDown(addr uint32) { h.up[addr] = false; h.RemoveDest(h.bus.now, 0) }

func (b *bus) deliver() {
	for len(b.queue) > 0 {
		d := b.queue[0]
		b.queue = b.queue[1:]
		m, err := wire.Validate(d.pkt)
		if err != nil {
			b.t.Fatalf("sent an invalid message: %v", err)
		}
		for _, h := range b.hosts {
			if h != d.from && (d.dst == broadcast || d.dst == h.media) {
				h.Receive(b.now, 0, d.from.media, m)
			}
		}
	}
}

// run advances time by d.
func (b *bus) run(d time.Duration) {
	end := b.now.Add(d)
	for {
		next := mono.Never
		for _, h := range b.hosts {
			next = next.Min(h.Deadline())
		}
		if next > end {
			b.now = end
			return
		}
		b.now = next
		for _, h := range b.hosts {
			if h.Deadline() <= b.now {
				h.Tick(b.now)
				if h.Deadline() <= b.now {
					b.t.Fatalf("deadline %v not after Tick(%v)", h.Deadline(), b.now)
				}
			}
		}
		b.deliver()
	}
}

// times returns when a host sent a type of message.
func (b *bus) times(n int, typ int) (ts []string) {
	for _, l := range b.log {
		f := strings.Fields(l)
		if f[1] == fmt.Sprint(n) && f[2] == fmt.Sprint(typ) {
			ts = append(ts, f[0])
		}
	}
	return ts
}

// TestCapturedFrames builds the discovery frames of the two kernels in ../shared/captures (udp.pcap, eth.pcap) from
// what they knew, and compares octet by octet. Kernels send the same trial every 125 ms for a second, then, a timer
// interval after it, requests.
func TestCapturedFrames(t *testing.T) {
	eth := func(s string) wire.MediaAddr {
		b, _ := hex.DecodeString(s)
		return wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte(b)}
	}
	for _, c := range []struct {
		name, id         string
		media            wire.MediaAddr
		random, hash     uint32
		peer             wire.MediaAddr
		peerFrame        string
		trial, req, resp string
	}{
		{
			name: "udp node2", id: "node2", media: udp(2), random: 0x4bcc, hash: 0xe0a54bcc, peer: udp(3),
			peerFrame: "5bf0004c07ffac3a000000005d6f64650000126700000003080017e60a09000300000000000000000000000000000000000000" + "00244cac3a000000006e6f6465330000000000000000000000",
			trial:     "5bf0004c47ffcbcc000000005c6f64650000126700000003080017e60a0900020000000000000000000000000000000000000000e0a54bcc000000006e6f6465320000000000000000000000",
			req:       "5bf0004c07ffcbcc000000005c6f64650000126700000003080017e60a0900020000000000000000000000000000000000000000e0a54bcc000000006e6f6465320000000000000000000000",
			resp:      "5bf0004c27ffcbcc5d6f64655c6f64650000126700000003080017e60a0900020000000000000000000000000000000000000000e0a54bcc000000006e6f6465320000000000000000000000",
		},
		{
			name: "eth node3", id: "node3", media: eth("ae194c5de00b"), random: 0x113e, hash: 0xdee2113e, peer: eth("821cd92b8781"),
			peerFrame: "5bf0004c07ffe3f9000000005c6f64650000126700000001821cd92b87810000000000000000000000000000000000000000" + "0000469e63f9000000006e6f6465320000000000000000000000",
			trial:     "5bf0004c47ff913e000000005d6f64650000126700000001ae194c5de00b00000000000000000000000000000000000000000000dee2113e000000006e6f6465330000000000000000000000",
			req:       "5bf0004c07ff913e000000005d6f64650000126700000001ae194c5de00b00000000000000000000000000000000000000000000dee2113e000000006e6f6465330000000000000000000000",
			resp:      "5bf0004c27ff913e5c6f64655d6f64650000126700000001ae194c5de00b00000000000000000000000000000000000000000000dee2113e000000006e6f6465330000000000000000000000",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := &recorder{}
			d := discover.New(discover.Config{ID: nodeID(c.id), Random: c.random, NetHash: c.hash, Out: rec, Up: rec})
			if err := d.BearerEnable(0, 0, discover.Bearer{Addr: c.media, Broadcast: broadcast}); err != nil {
				t.Fatal(err)
			}
			var sent []string
			for d.Deadline() <= 1300e6 {
				now := d.Deadline()
				d.Tick(now)
				for ; len(sent) < len(rec.sent); sent = append(sent, fmt.Sprintf("%v %s", now, rec.sent[len(sent)])) {
				}
			}
			pkt, _ := hex.DecodeString(c.peerFrame)
			d.Receive(1300e6, 0, c.peer, pkt)
			if got := rec.sent[len(rec.sent)-1]; got != c.resp {
				t.Errorf("response\n got %s\nwant %s", got, c.resp)
			}
			if rec.dst[len(rec.dst)-1] != c.peer {
				t.Errorf("response went to %v", rec.dst[len(rec.dst)-1])
			}
			// The last trial was at 875 ms; at 1000 ms the address is final, and 125 ms later the first request goes.
			for i, s := range sent {
				want := c.trial
				if i == len(sent)-1 {
					want = c.req
				}
				if !strings.HasSuffix(s, " "+want) {
					t.Errorf("frame %d\n got %s\nwant %s", i, s, want)
				}
			}
			if n := len(sent); n != 9 || !strings.HasPrefix(sent[8], "1.125s ") {
				t.Errorf("%d frames, the last %s; want 8 trials and a request at 1.125s", n, sent[n-1])
			}
		})
	}
}

// recorder is an Output and Upcalls that takes any peer.
type recorder struct {
	sent []string
	dst  []wire.MediaAddr
}

func (r *recorder) Send(_ int, dst wire.MediaAddr, pkt []byte, _ *buf.Buf) {
	r.sent, r.dst = append(r.sent, hex.EncodeToString(pkt)), append(r.dst, dst)
}
func (r *recorder) CheckDest(mono.Time, discover.Dest) (bool, bool)      { return true, false }
func (r *recorder) TryAddr(wire.NodeID, uint32, uint32) uint32           { return 0 }
func (r *recorder) Finalize(mono.Time, uint32)                           {}
func (r *recorder) DuplicateAddr(mono.Time, int, uint32, wire.MediaAddr) {}
func (r *recorder) LearnPeer(mono.Time, int, wire.MediaAddr)             {}

func TestNeighboursMeet(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{ID: nodeID("node2"), Random: 22}, discover.Bearer{})
	h3 := b.add(3, discover.Config{ID: nodeID("node3"), Random: 33}, discover.Bearer{})
	h4 := b.add(4, discover.Config{ID: nodeID("node4"), Random: 44, NetID: 1}, discover.Bearer{})
	b.run(1250 * time.Millisecond)
	if h2.Own() != 0x5c6f6465 || h3.Own() != 0x5d6f6465 {
		t.Fatalf("addresses %x %x", h2.Own(), h3.Own())
	}
	if len(h2.finalized) != 1 || h2.finalized[0] != h2.Own() {
		t.Errorf("finalized %x", h2.finalized)
	}
	if p := h2.peers[h3.Own()]; p.ID != h3.ID() || p.Media != h3.media || p.Caps != wire.CapsAll || p.Signature != 33|0x8000 {
		t.Errorf("node2 knows %+v", h2.peers)
	}
	if p := h3.peers[h2.Own()]; p.ID != h2.ID() || p.Media != h2.media {
		t.Errorf("node3 knows %+v", h3.peers)
	}
	if len(h4.peers) != 0 || h4.Stats().OtherNet == 0 {
		t.Errorf("a node of another cluster was met: %+v", h4.Stats())
	}
}

func TestPollingInterval(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{Addr: 0x01001002, Legacy: true}, discover.Bearer{})
	check := func(want string) {
		t.Helper()
		if got := fmt.Sprint(b.times(2, wire.TypeDscRequest)); got != want {
			t.Errorf("requests at\n     %s\nwant %s", got, want)
		}
		b.log = nil
	}
	b.run(4 * time.Second)
	check("[0s 125ms 375ms 875ms 1.875s 2.875s 3.875s]") // doubles to 1 s
	h.linkUp(7)
	b.run(6 * time.Minute)
	check("[4.875s 6.875s 10.875s 18.875s 34.875s 1m6.875s 2m6.875s 3m6.875s 4m6.875s 5m6.875s]") // doubles to 60 s
	h.linkUp(8)
	h.linkDown(7)
	b.run(time.Second)
	check("[]")
	h.linkDown(8) // the last one: search quickly again
	h.linkDown(8) // too many are harmless
	b.run(2 * time.Second)
	check("[6m5.125s 6m5.375s 6m5.875s 6m6.875s]")
}

func TestSearchForOneNodeEnds(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{Addr: 0x01001002, Legacy: true}, discover.Bearer{Domain: 0x01001003})
	b.run(time.Second)
	h.linkUp(0x01001003)
	b.run(time.Hour)
	if h.Deadline() != mono.Never {
		t.Errorf("deadline %v; want none", h.Deadline())
	}
	b.log = nil
	h.linkDown(0x01001003)
	b.run(time.Second)
	if len(b.times(2, wire.TypeDscRequest)) == 0 {
		t.Error("no search after the node was lost")
	}
}

func TestDomain(t *testing.T) {
	for _, c := range []struct {
		domain2, domain3 uint32
		meet             bool
	}{
		{0, 0, true},
		{0x01001000, 0x01001000, true}, // own cluster
		{0x01000000, 0, true},          // own zone
		{0x01001003, 0, true},          // that node
		{0x01001004, 0, false},
		{0, 0x02000000, false},
	} {
		b := &bus{t: t}
		h2 := b.add(2, discover.Config{Addr: 0x01001002, Legacy: true, Random: 1}, discover.Bearer{Domain: c.domain2})
		h3 := b.add(3, discover.Config{Addr: 0x01001003, Legacy: true, Random: 2}, discover.Bearer{Domain: c.domain3})
		b.run(2 * time.Second)
		if got := len(h2.peers) == 1; got != c.meet {
			t.Errorf("domains %x %x: node2 met node3: %v", c.domain2, c.domain3, got)
		}
		if got := len(h3.peers) == 1; got != c.meet {
			t.Errorf("domains %x %x: node3 met node2: %v", c.domain2, c.domain3, got)
		}
		if !c.meet && h2.Stats().OutOfScope+h3.Stats().OutOfScope == 0 {
			t.Errorf("domains %x %x: not counted", c.domain2, c.domain3)
		}
	}
}

func TestCollisionMovesTheNewcomer(t *testing.T) {
	b := &bus{t: t}
	// Exchanging two words of the identity keeps the hash.
	h2 := b.add(2, discover.Config{ID: nodeID("aaaabbbb"), Random: 0x1111}, discover.Bearer{})
	b.run(2 * time.Second)
	h3 := b.add(3, discover.Config{ID: nodeID("bbbbaaaa"), Random: 0x2222}, discover.Bearer{})
	b.run(3 * time.Second)
	if want := discover.AddrOf(nodeID("aaaabbbb")); h2.Own() != want || h3.Own() != want^0x1111 {
		t.Errorf("addresses %x and %x; want %x and %x", h2.Own(), h3.Own(), want, want^0x1111)
	}
	if h3.Stats().Restarts != 1 || h2.Stats().Restarts != 0 {
		t.Errorf("restarts %d %d", h2.Stats().Restarts, h3.Stats().Restarts)
	}
	if h2.peers[h3.Own()].ID != h3.ID() || h3.peers[h2.Own()].ID != h2.ID() {
		t.Error("they did not meet")
	}
}

func TestCollisionWhileBothTry(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{ID: nodeID("aaaabbbb"), Random: 0x1111}, discover.Bearer{})
	h3 := b.add(3, discover.Config{ID: nodeID("bbbbaaaa"), Random: 0x2222}, discover.Bearer{})
	h4 := b.add(4, discover.Config{ID: nodeID("ccccdddd"), Random: 0x4444}, discover.Bearer{})
	b.run(4 * time.Second)
	as := map[uint32]bool{h2.Own(): true, h3.Own(): true, h4.Own(): true}
	if len(as) != 3 || as[0] {
		t.Errorf("addresses %v", as)
	}
	for _, h := range b.hosts {
		if len(h.peers) != 2 {
			t.Errorf("%x met %d", h.Own(), len(h.peers))
		}
	}
}

// A node whose identity is known by another address gets that one back.
func TestKnownPeerKeepsItsAddress(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{ID: nodeID("node2"), Random: 1}, discover.Bearer{})
	b.run(2 * time.Second)
	h2.peers[0x77] = discover.Dest{Addr: 0x77, ID: nodeID("node3")}
	h3 := b.add(3, discover.Config{ID: nodeID("node3"), Random: 2}, discover.Bearer{})
	b.run(3 * time.Second)
	if h3.Own() != 0x77 {
		t.Errorf("address %x; want 77", h3.Own())
	}
}

// Suggestions of several neighbours: the first counts.
func TestFirstSuggestionCounts(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{ID: nodeID("node2"), Random: 1}, discover.Bearer{})
	fail := func(tried, sugg uint32) {
		h2.Receive(b.now, 0, udp(3), dsc(func(m wire.Msg) {
			m.SetType(wire.TypeDscTrialFail)
			m.SetDestDomain(tried)
			m.SetSuggNodeAddr(sugg)
		}))
	}
	first := h2.Trial()
	b.run(500 * time.Millisecond)
	fail(first, 0) // nothing suggested
	fail(first, 5)
	fail(first, 6)
	b.run(999 * time.Millisecond)
	if h2.Own() != 0 || h2.Trial() != 5 {
		t.Fatalf("own %x trial %x", h2.Own(), h2.Trial())
	}
	b.run(125 * time.Millisecond)
	if h2.Own() != 5 {
		t.Errorf("own %x", h2.Own())
	}
	fail(5, 7) // too late
	if h2.Own() != 5 || h2.Trial() != 5 {
		t.Errorf("own %x trial %x after a late refusal", h2.Own(), h2.Trial())
	}
	if s := h2.Stats(); s.Refused != 3 || s.Restarts != 1 {
		t.Errorf("%+v", s)
	}
}

// Nobody can keep a node from starting by refusing every address.
func TestEndlessRefusal(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{ID: nodeID("node2"), Random: 1}, discover.Bearer{})
	for range 10 * discover.MaxTrialRestarts {
		h2.Receive(b.now, 0, udp(3), dsc(func(m wire.Msg) {
			m.SetType(wire.TypeDscTrialFail)
			m.SetDestDomain(h2.Trial())
			m.SetSuggNodeAddr(h2.Trial() + 1)
		}))
		b.run(125 * time.Millisecond)
	}
	if h2.Own() == 0 {
		t.Fatal("still in trial")
	}
	if n := h2.Stats().Restarts; n != discover.MaxTrialRestarts {
		t.Errorf("%d restarts", n)
	}
}

func TestDuplicateAddress(t *testing.T) {
	b := &bus{t: t}
	h2 := b.add(2, discover.Config{Addr: 0x100, Random: 1}, discover.Bearer{})
	b.add(3, discover.Config{Addr: 0x100, Random: 2}, discover.Bearer{})
	b.run(10 * time.Second)
	if len(h2.peers) != 0 {
		t.Error("a peer with the own address was taken")
	}
	if n := len(h2.dups); n < 5 || n > 11 || h2.dups[0] != 0x100 {
		t.Errorf("alerts %x; want about one a second", h2.dups)
	}
	if s := h2.Stats(); s.Duplicates <= uint64(len(h2.dups)) {
		t.Errorf("%d duplicates counted, %d reported", s.Duplicates, len(h2.dups))
	}

	// Two peers with one address: the second is reported while the link to the first is up.
	b = &bus{t: t}
	h2 = b.add(2, discover.Config{Addr: 0x100, Random: 1}, discover.Bearer{})
	b.add(3, discover.Config{Addr: 0x200, Random: 2}, discover.Bearer{})
	b.run(time.Second)
	h2.linkUp(0x200)
	b.add(4, discover.Config{Addr: 0x200, Random: 3}, discover.Bearer{})
	b.run(time.Second)
	if len(h2.dups) == 0 || h2.dups[0] != 0x200 {
		t.Errorf("alerts %x", h2.dups)
	}
	if h2.peers[0x200].Media != udp(3) {
		t.Errorf("the impostor took over: %+v", h2.peers)
	}
}

func TestResetAndCarrier(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{Addr: 0x100}, discover.Bearer{})
	b.run(2 * time.Second)
	h.linkUp(7)
	b.run(time.Hour)
	b.log = nil
	start := b.now
	h.BearerSetUp(b.now, 0, false)
	if h.Deadline() != mono.Never {
		t.Error("a timer runs without carrier")
	}
	h.Receive(b.now, 0, udp(3), dsc(nil))
	if len(h.peers) != 0 {
		t.Error("received without carrier")
	}
	b.run(time.Hour)
	h.BearerSetUp(b.now, 0, true)
	b.run(500 * time.Millisecond)
	back := start.Add(time.Hour)
	want := fmt.Sprint([]mono.Time{back, back + 125e6, back + 375e6})
	if got := fmt.Sprint(b.times(2, wire.TypeDscRequest)); got != want {
		t.Errorf("requests at %v; want %v", got, want)
	}
	h.BearerSetAddr(0, udp(9))
	b.log = nil
	h.BearerReset(b.now, 0)
	if len(b.log) != 1 {
		t.Errorf("reset sent %q", b.log)
	}
	if m := wire.Msg(b.queue[len(b.queue)-1].pkt); m.MediaInfo()[11] != 9 {
		t.Errorf("tells address % x", m.MediaInfo())
	}
	h.BearerDisable(0)
	if h.Deadline() != mono.Never {
		t.Error("a timer runs without bearer")
	}
}

// A trial on a second bearer extends the trial of the node.
func TestSecondBearerDuringTrial(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{ID: nodeID("node2"), Random: 1}, discover.Bearer{})
	b.run(600 * time.Millisecond)
	if err := h.BearerEnable(b.now, 1, discover.Bearer{Addr: udp(12), Broadcast: broadcast}); err != nil {
		t.Fatal(err)
	}
	if err := h.BearerEnable(b.now, 1, discover.Bearer{}); err != discover.ErrInUse {
		t.Errorf("enabled twice: %v", err)
	}
	b.run(900 * time.Millisecond)
	if h.Own() != 0 {
		t.Error("trial ended early")
	}
	b.run(250 * time.Millisecond)
	if h.Own() == 0 || len(h.finalized) != 1 {
		t.Errorf("own %x, finalized %x", h.Own(), h.finalized)
	}
}

// The address is final with the first message after the trial too, should the timer be late.
func TestReceiveEndsTrial(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{ID: nodeID("node2"), Random: 1}, discover.Bearer{})
	h.Receive(999e6, 0, udp(3), dsc(nil))
	if len(h.peers) != 0 || h.Stats().InTrial != 1 {
		t.Errorf("a peer was met during the trial: %+v", h.Stats())
	}
	h.Receive(1000e6, 0, udp(3), dsc(nil))
	if h.Own() == 0 || len(h.finalized) != 1 || len(h.peers) != 1 {
		t.Errorf("own %x, peers %v", h.Own(), h.peers)
	}
}

func TestIdentity(t *testing.T) {
	d := discover.New(discover.Config{Out: &recorder{}, Up: &recorder{}})
	e := discover.Bearer{Addr: udp(2), Broadcast: broadcast}
	if err := d.BearerEnable(0, 0, e); err != discover.ErrNoIdentity {
		t.Errorf("bearer without identity: %v", err)
	}
	if err := d.SetID(wire.NodeID{}); err != discover.ErrNoIdentity {
		t.Errorf("no identity: %v", err)
	}
	if err := d.SetID(discover.IDOfIP(netip.MustParseAddr("10.9.0.2"))); err != nil {
		t.Error(err)
	}
	if d.Trial() != 0x0a090002 {
		t.Errorf("trial %x", d.Trial())
	}
	if err := d.BearerEnable(0, 3, e); err == nil {
		t.Error("bearer 3 was taken")
	}
	if err := d.BearerEnable(0, 2, e); err != nil {
		t.Error(err)
	}
	if err := d.SetID(nodeID("x")); err != discover.ErrIdentity {
		t.Errorf("identity changed: %v", err)
	}
	if d := discover.New(discover.Config{Addr: 0x1001002}); d.ID() != nodeID("1001002") {
		t.Errorf("identity of an address: %q", d.ID())
	}
	for _, c := range []struct {
		id   wire.NodeID
		want uint32
	}{
		{nodeID("node2"), 0x5c6f6465},
		{nodeID("node3"), 0x5d6f6465},
		{nodeID("abcdabcd"), 0x61626364}, // the words cancel: or
		{wire.NodeID{}, 0},
		{discover.IDOfMAC([6]byte{0xae, 0x19, 0x4c, 0x5d, 0xe0, 0x0b}), 0xae194c5d ^ 0xe00b0000},
		{discover.IDOfIP(netip.MustParseAddr("::ffff:10.0.0.1")), 0x0a000001},
		{discover.IDOfIP(netip.MustParseAddr("2001:db8::1")), 0x20010db8 ^ 1},
	} {
		if got := discover.AddrOf(c.id); got != c.want {
			t.Errorf("AddrOf(%q) = %x; want %x", c.id, got, c.want)
		}
	}
}

func TestLearnPeer(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{Addr: 0x100}, discover.Bearer{Learn: true})
	h.Receive(b.now, 0, udp(3), dsc(nil))
	h.Receive(b.now, 0, h.media, dsc(nil))
	h.Receive(b.now, 0, udp(4), dsc(func(m wire.Msg) { m.SetBcNetID(1) }))
	if len(h.learned) != 1 || h.learned[0] != udp(3) {
		t.Errorf("learned %v", h.learned)
	}
	b = &bus{t: t}
	h = b.add(2, discover.Config{Addr: 0x100}, discover.Bearer{})
	h.Receive(b.now, 0, udp(3), dsc(nil))
	if len(h.learned) != 0 {
		t.Errorf("learned %v on a multicast bearer", h.learned)
	}
}

func TestInScope(t *testing.T) {
	for _, c := range []struct {
		legacy       bool
		domain, addr uint32
		want         bool
	}{
		{false, 0, 5, true}, {false, 5, 5, true}, {false, 0x01001000, 0x01001005, false},
		{true, 0x01001000, 0x01001005, true}, {true, 0x01000000, 0x01001005, true},
		{true, 0x01002000, 0x01001005, false}, {true, 0x02000000, 0x01001005, false}, {true, 0x01001004, 0x01001005, false},
	} {
		if got := discover.InScope(c.legacy, c.domain, c.addr); got != c.want {
			t.Errorf("InScope(%v, %x, %x) = %v", c.legacy, c.domain, c.addr, got)
		}
	}
}
