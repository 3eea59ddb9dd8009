package monitor

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// ringWorld is a full mesh of nodes that exchange records in rounds.
type ringWorld struct {
	t     *testing.T
	mons  []*Monitor
	state map[[2]int]*State // link of a to b, while up
	dead  map[int]bool
}

func newRing(t *testing.T, n int) *ringWorld {
	w := &ringWorld{t: t, state: map[[2]int]*State{}, dead: map[int]bool{}}
	for i := range n {
		w.mons = append(w.mons, New(0, addr(i), 0))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, i := range r.Perm(n) {
		for _, j := range r.Perm(n) {
			if i != j {
				w.mons[i].PeerUp(addr(j))
				w.state[[2]int{i, j}] = &State{}
			}
		}
	}
	return w
}

func addr(i int) uint32 { return 1000 + uint32(i)*17 }

// round lets every link exchange one STATE message and every timer run once. It returns the number of links that are
// supervised regularly.
func (w *ringWorld) round() (monitored int) {
	var buf [MaxRecord]byte
	for i := range w.mons {
		if w.dead[i] {
			continue
		}
		for j := range w.mons {
			s := w.state[[2]int{i, j}]
			if s == nil {
				continue
			}
			if !w.dead[j] {
				n := w.mons[j].Prep(buf[:], w.state[[2]int{j, i}])
				w.mons[i].Receive(buf[:n], addr(j), s)
			}
			w.mons[i].Update(addr(j), s)
			if s.Monitoring {
				monitored++
			}
			if w.dead[j] && (s.Monitoring || s.Probing) || s.Reset {
				w.mons[i].PeerDown(addr(j)) // probes are not answered
				delete(w.state, [2]int{i, j})
			}
		}
	}
	return monitored
}

func TestDomainSize(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 2: 2, 4: 2, 5: 3, 33: 6, 36: 6, 37: 7, 4096: 64, 100000: 64} {
		if got := domSize(n); got != want {
			t.Errorf("%d nodes: domain of %d, want %d", n, got, want)
		}
	}
}

func TestInactiveBelowThreshold(t *testing.T) {
	w := newRing(t, 32)
	for range 3 {
		if got := w.round(); got != 32*31 {
			t.Fatalf("%d of %d links supervised", got, 32*31)
		}
	}
	var buf [MaxRecord]byte
	if n := w.mons[0].Prep(buf[:], &State{}); n != 0 {
		t.Errorf("an inactive monitor sends %d octets", n)
	}
	if w.mons[0].Active() {
		t.Error("active with 32 nodes")
	}
}

// In a large cluster each node supervises few links, and yet the loss of any node is noticed by all others.
func TestRingSupervision(t *testing.T) {
	const n = 60
	w := newRing(t, n)
	got := 0
	for range 10 {
		got = w.round()
	}
	for _, m := range w.mons { // domains that the cluster has outgrown are corrected by the timer
		m.Tick(m.Deadline())
	}
	for range 10 {
		got = w.round()
	}
	if got >= n*(n-1)/2 || got < n*(domSize(n)-1) {
		t.Fatalf("%d of %d links are supervised", got, n*(n-1))
	}
	for i, m := range w.mons {
		locals := 0
		for p := range m.Peers() {
			if p.Local {
				locals++
			}
		}
		if locals != domSize(n)-1 {
			t.Fatalf("node %d has %d nodes in its domain", i, locals)
		}
	}
	for _, s := range w.state {
		if s.Probing || s.Reset {
			t.Fatal("a healthy peer is probed")
		}
	}
	w.dead[17], w.dead[18] = true, true
	for range 20 {
		w.round()
	}
	for i := range n {
		for j := range n {
			up := w.state[[2]int{i, j}] != nil
			if i != j && !w.dead[i] && up == w.dead[j] {
				t.Fatalf("node %d sees node %d up: %v", i, j, up)
			}
		}
	}
}

func TestShrinkingBelowThreshold(t *testing.T) {
	w := newRing(t, 40)
	for range 5 {
		w.round()
	}
	m := w.mons[0]
	for j := 39; j >= 32; j-- {
		m.PeerDown(addr(j))
		m.Remove(addr(j))
	}
	if m.Active() || len(m.ring) != 32 {
		t.Fatalf("%d nodes, active %v", len(m.ring), m.Active())
	}
	s := State{Probing: true}
	if m.Update(addr(1), &s); s.Probing || !s.Monitoring {
		t.Errorf("below the threshold: %+v", s)
	}
	m.Remove(addr(0)) // itself
	m.Remove(4242)
	m.PeerDown(4242)
	for j := 1; j < 32; j++ {
		m.Remove(addr(j))
	}
	if len(m.ring) != 1 {
		t.Errorf("%d nodes left", len(m.ring))
	}
}

func TestTimerCorrectsDomain(t *testing.T) {
	m := New(0, 1000, 7)
	if m.Deadline() != 120_007*1e6 {
		t.Errorf("deadline %v", m.Deadline())
	}
	m.self.applied = 5
	m.Tick(m.Deadline() - 1)
	if m.self.applied != 5 {
		t.Error("ran too early")
	}
	m.Tick(m.Deadline())
	if m.self.applied != 0 {
		t.Error("the domain was not corrected")
	}
}

func TestRecordChecks(t *testing.T) {
	rec := func(members int) []byte {
		b := make([]byte, recordLen(members))
		putHeader(b, len(b), 5, 6, members)
		return b
	}
	change := func(b []byte, off int, v uint16) []byte {
		binary.BigEndian.PutUint16(b[off:], v)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"empty", nil, false},
		{"15 octets", rec(0)[:15], false},
		{"no member", rec(0), true},
		{"64 members", rec(64), true},
		{"65 members", rec(65), false},
		{"claims 65535 members", change(rec(2), 6, 65535), false},
		{"claims fewer", change(rec(2), 6, 1), false},
		{"claims more", change(rec(2), 6, 3), false},
		{"own length wrong", change(rec(2), 0, 23), false},
		{"octets behind", append(rec(2), 0), false},
		{"octets missing", rec(2)[:23], false},
	} {
		if _, _, _, ok := parse(c.b); ok != c.ok {
			t.Errorf("%s: accepted %v", c.name, ok)
		}
	}
	r := record{gen: 3, upMap: 5, members: []uint32{1, 2, 3}}
	var b [MaxRecord]byte
	n := r.put(b[:], 9)
	gen, acked, members, ok := parse(b[:n])
	var back record
	back.load(b[:n], gen, members)
	if !ok || gen != 3 || acked != 9 || back.upMap != 5 || len(back.members) != 3 || back.members[2] != 3 {
		t.Errorf("round trip: %v %d %d %+v", ok, gen, acked, back)
	}
}

func FuzzReceive(f *testing.F) {
	var b [MaxRecord]byte
	r := record{gen: 3, upMap: 5, members: []uint32{addr(1), addr(2), addr(3)}}
	f.Add(b[:r.put(b[:], 1)], uint8(2))
	f.Add(make([]byte, 16), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, from uint8) {
		m := New(0, addr(0), 0)
		m.SetThreshold(3)
		for j := 1; j < 8; j++ {
			m.PeerUp(addr(j))
		}
		var s State
		for k := range 4 {
			m.Receive(data, addr(int(from+uint8(k))%9), &s)
			m.Update(addr(int(from)%9), &s)
			m.PeerDown(addr(k + 1))
		}
		if n := m.Prep(b[:], &s); n > MaxRecord {
			t.Fatal(n)
		}
		if m.Threshold() != 3 {
			t.Fatal("threshold")
		}
	})
}
