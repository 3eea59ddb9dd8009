package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// beacon is a node that broadcasts a number each period and keeps what it hears.
type beacon struct {
	seg     *Segment
	period  time.Duration
	size    int
	next    mono.Time
	n       uint32
	out     *buf.Batch
	heard   map[int][]uint32 // by sender
	times   []mono.Time      // of hearing
	stuck   bool             // does not move its deadline
	unicast wire.MediaAddr   // sends here instead
}

func newBeacon(w *World, period time.Duration) *beacon {
	return &beacon{seg: w.segs[0], period: period, size: 24, out: &buf.Batch{}, heard: map[int][]uint32{}}
}

func (b *beacon) HandlePacket(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte) {
	from := b.seg.hostOf(src)
	b.heard[from] = append(b.heard[from], binary.BigEndian.Uint32(pkt[20:]))
	b.times = append(b.times, now)
}

func (b *beacon) Tick(now mono.Time) {
	if b.period == 0 {
		return
	}
	if !b.stuck {
		b.next = now.Add(b.period)
	}
	m := make(wire.Msg, b.size)
	wire.Init(m, 1, wire.UserLow, 0, 24, 0)
	m.SetSize(b.size)
	binary.BigEndian.PutUint32(m[20:], b.n)
	b.n++
	dst := b.seg.broadcastAddr()
	if !b.unicast.IsZero() {
		dst = b.unicast
	}
	b.out.Send(0, dst, m)
}

func (b *beacon) Deadline() mono.Time {
	if b.period == 0 {
		return mono.Never
	}
	return b.next
}

func (b *beacon) Settle(mono.Time) {}

func (b *beacon) TakeOutput(empty *buf.Batch) *buf.Batch {
	if b.out.Len() == 0 {
		return nil
	}
	full := b.out
	b.out = empty
	return full
}

// beacons starts a beacon on each of n hosts.
func beacons(seed uint64, n int, p Profile, period time.Duration) (*World, []*beacon) {
	w := NewWorld(seed, n, []Profile{p})
	bs := make([]*beacon, n)
	for i := range bs {
		bs[i] = newBeacon(w, period)
		w.Host(i).Start(bs[i], nil)
	}
	return w, bs
}

func TestClock(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		c := clock{base: mono.Time(r.Int64N(1e15) - 5e14), ppm: r.Int64N(20001) - 10000}
		at := mono.Time(r.Int64N(int64(time.Hour)))
		d := c.local(at)
		g := c.global(d)
		if c.local(g) < d || g > 0 && c.local(g-1) >= d {
			t.Fatalf("%+v: global(%d) = %d, which reads %d; one before reads %d", c, d, g, c.local(g), c.local(g-1))
		}
		if diff := g - at; diff > 0 || diff < -2 {
			t.Fatalf("%+v: %d reads %d, which is first read at %d", c, at, d, g)
		}
	}
	c := clock{ppm: 10000}
	if got := c.local(mono.Time(100 * time.Second)); got != mono.Time(101*time.Second) {
		t.Errorf("1%% fast: 100s reads %v", got)
	}
	if c.global(mono.Never) != mono.Never {
		t.Error("never is not never")
	}
}

func TestEventHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var h eventHeap
	var want []event
	for range 50 {
		for range r.IntN(100) {
			e := event{at: mono.Time(r.IntN(50))}
			h.push(e)
			e.seq = h.seq
			want = append(want, e)
		}
		slices.SortFunc(want, func(a, b event) int {
			if a.before(&b) {
				return -1
			}
			return 1
		})
		for range r.IntN(100) {
			if len(want) == 0 {
				break
			}
			if e := h.pop(); e.at != want[0].at || e.seq != want[0].seq {
				t.Fatalf("got %d/%d, want %d/%d", e.at, e.seq, want[0].at, want[0].seq)
			}
			want = want[1:]
		}
	}
}

func TestPerfectNetwork(t *testing.T) {
	w, bs := beacons(1, 3, Profile{Delay: time.Millisecond}, 10*time.Millisecond)
	if err := w.Run(mono.Time(time.Second)); err != nil {
		t.Fatal(err)
	}
	for i, b := range bs {
		for from, got := range b.heard {
			if from == i {
				t.Errorf("%d hears itself", i)
			}
			for n, x := range got {
				if x != uint32(n) {
					t.Fatalf("%d heard from %d %v", i, from, got)
				}
			}
			if len(got) != 100 {
				t.Errorf("%d heard %d from %d", i, len(got), from)
			}
		}
		if len(b.heard) != 2 || b.times[0] != 1e6 {
			t.Errorf("%d heard %d hosts, first at %v", i, len(b.heard), b.times[0])
		}
	}
}

func TestFaultyNetwork(t *testing.T) {
	count := func(got []uint32) (dup, late int) {
		seen := map[uint32]bool{}
		high := uint32(0)
		for _, x := range got {
			if seen[x] {
				dup++
			} else if x < high {
				late++
			}
			seen[x] = true
			high = max(high, x)
		}
		return dup, late
	}
	const n = 10000
	run := func(p Profile) (recv, dup, late int, w *World) {
		w, bs := beacons(7, 2, p, time.Millisecond)
		if err := w.Run(mono.Time(n*time.Millisecond) - 1); err != nil {
			t.Fatal(err)
		}
		for _, b := range bs { // what is under way
			b.period = 0
		}
		w.Run(mono.Time(time.Hour))
		got := bs[0].heard[1]
		dup, late = count(got)
		return len(got), dup, late, w
	}
	near := func(what string, got, want int) {
		t.Helper()
		if got < want*8/10 || got > want*12/10 {
			t.Errorf("%s: %d; want about %d", what, got, want)
		}
	}
	recv, dup, late, w := run(Profile{Loss: 0.1, Delay: time.Millisecond, Jitter: 20 * time.Millisecond})
	near("lost", n-recv, n/10)
	if dup != 0 || late != 0 {
		t.Errorf("only loss: %d repeated, %d late", dup, late)
	}
	if s := w.Stats(); s.Sent != 2*n || int(s.Lost+s.Delivered) != 2*n {
		t.Errorf("%+v", s)
	}
	recv, dup, late, _ = run(Profile{Dup: 0.05, Delay: time.Millisecond})
	near("repeated", dup, n/20)
	if recv-dup != n || late != 0 {
		t.Errorf("only repeated: %d of %d, %d late", recv-dup, n, late)
	}
	recv, dup, late, _ = run(Profile{Reorder: 0.1, ReorderBy: 50 * time.Millisecond, Delay: time.Millisecond})
	near("late", late, n/10)
	if recv != n || dup != 0 {
		t.Errorf("only reordered: %d of %d, %d repeated", recv, n, dup)
	}
	// 66 octets with lower headers, each ms = 66 kB/s, on 33 kB/s.
	recv, _, _, _ = run(Profile{Bandwidth: 33000, Queue: 100 * time.Millisecond})
	near("within the bandwidth", recv, n/2)
}

func TestCutStopStall(t *testing.T) {
	w, bs := beacons(1, 3, Profile{}, 10*time.Millisecond)
	at := func(d time.Duration, f func()) { w.At(mono.Time(d), f) }
	at(101*time.Millisecond, func() { w.Cut(0, 0, 1, true) })
	at(201*time.Millisecond, func() { w.Cut(0, 0, 1, false) })
	at(301*time.Millisecond, func() { w.Host(2).Stop() })
	at(401*time.Millisecond, func() { bs[2] = newBeacon(w, 0); w.Host(2).Start(bs[2], nil) })
	at(501*time.Millisecond, func() { w.Host(0).Stall(99 * time.Millisecond) })
	if err := w.Run(mono.Time(time.Second - 1)); err != nil {
		t.Fatal(err)
	}
	has := func(got []uint32, from, to uint32) bool {
		for x := from; x < to; x++ {
			if !slices.Contains(got, x) {
				return false
			}
		}
		return true
	}
	// Host 0 was stalled for 9 of its periods, so it sent 91, and what came meanwhile it got at once.
	if got := bs[1].heard[0]; len(got) != 81 || has(got, 11, 12) || !has(got, 0, 11) || !has(got, 21, 91) {
		t.Errorf("cut one way: host 1 heard from 0 %v", got)
	}
	if got := bs[0].heard[1]; len(got) != 100 || !slices.IsSorted(got) {
		t.Errorf("host 0 heard from 1 %v", got)
	}
	if got := bs[0].times; !slices.IsSorted(got) || slices.Contains(got, mono.Time(550*time.Millisecond)) {
		t.Errorf("host 0 heard at %v", got)
	}
	if got := bs[0].heard[2]; len(got) != 31 {
		t.Errorf("stopped: host 0 heard from 2 %v", got)
	}
	if got := bs[2].heard[1]; len(got) != 59 || got[0] != 41 {
		t.Errorf("started again: host 2 heard from 1 %v", got)
	}
	if p := w.segs[0].paths[0][1]; p.lost != 10 || p.dropsSince(mono.Time(150*time.Millisecond)) != 6 || p.dropsSince(0) != 10 {
		t.Errorf("%+v", p)
	}
}

func TestSkewedTimers(t *testing.T) {
	w := NewWorld(1, 2, []Profile{{}})
	slow, fast := newBeacon(w, time.Millisecond), newBeacon(w, time.Millisecond)
	w.Host(0).SetClock(-5e9, -10000)
	w.Host(1).SetClock(7e9, 10000)
	slow.next, fast.next = w.Host(0).Time(), w.Host(1).Time()
	w.Host(0).Start(slow, nil)
	w.Host(1).Start(fast, nil)
	w.Run(mono.Time(10 * time.Second))
	if slow.n < 9899 || slow.n > 9901 || fast.n < 10099 || fast.n > 10101 {
		t.Errorf("%d and %d ticks; want 9900 and 10100", slow.n, fast.n)
	}
}

func TestViolationsOfNodes(t *testing.T) {
	for _, c := range []struct {
		name, want string
		f          func(*beacon)
	}{
		{"too large", "with MTU 14000", func(b *beacon) { b.size = 14001 }},
		{"timer loop", "again and again", func(b *beacon) { b.stuck = true }},
		{"unknown destination", "host 0 sends to 10.9.9.9:6118", func(b *beacon) {
			b.unicast = (&Segment{id: 9}).addr(0x909)
		}},
	} {
		w := NewWorld(1, 2, []Profile{{}})
		b := newBeacon(w, time.Millisecond)
		c.f(b)
		w.Host(0).Start(b, nil)
		if err := w.Run(1e9); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

func TestSameSeedSameWorld(t *testing.T) {
	run := func(seed uint64, traced bool) (uint64, string) {
		w := NewWorld(seed, 4, []Profile{{Loss: 0.1, Dup: 0.1, Reorder: 0.2, ReorderBy: time.Millisecond, Jitter: time.Millisecond}})
		var sb strings.Builder
		if traced {
			w.TraceTo(&sb)
		}
		for i := range 4 {
			w.Host(i).Start(newBeacon(w, 3*time.Millisecond), nil)
		}
		w.Run(mono.Time(time.Second))
		return w.Hash(), sb.String()
	}
	a, _ := run(1, false)
	b, trace := run(1, true)
	c, _ := run(2, false)
	if a != b {
		t.Error("the trace changes what happens")
	}
	if a == c {
		t.Error("the seed changes nothing")
	}
	if n := strings.Count(trace, "\n"); n < 1000 {
		t.Errorf("trace of %d lines", n)
	}
	w := NewWorld(1, 2, nil)
	w.TraceKeep(3)
	for i := range 5 {
		w.Tracef("line %d", i)
	}
	if got := fmt.Sprint(len(w.Trace()), strings.HasSuffix(w.Trace()[2], "line 4")); got != "3 true" {
		t.Error(got)
	}
}
