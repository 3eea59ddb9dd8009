package node

import (
	"fmt"
	"slices"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// mflow sends numbered multicast messages from one port.
type mflow struct {
	h       *host
	port    uint32
	dests   func() []uint32
	local   bool
	size    func() int
	method  Method
	n       uint32
	sentTo  map[uint32][]uint32
	waiting int
	sw      int // switches of method
}

func (f *mflow) pump(n int) {
	f.waiting -= min(f.waiting, f.h.wakeup[f.port])
	f.h.wakeup[f.port] = 0
	if f.sentTo == nil {
		f.sentTo = map[uint32][]uint32{}
	}
	for ; n > 0 && f.waiting == 0; n-- {
		size := 20
		if f.size != nil {
			size = f.size()
		}
		f.n++
		b := f.h.message(0, f.port, wire.TypeMcast, wire.McastHeaderSize, f.n, size)
		var q buf.Queue
		if err := fragment(f.h.BcastMTU(), 0, b, &q); err != nil {
			f.h.w.t.Fatal(err)
		}
		d := Dests{Local: f.local, Remote: f.dests()}
		was := f.method.Rcast
		cong, err := f.h.Multicast(f.h.w.now, &q, &f.method, &d)
		if err != nil {
			f.h.w.t.Fatalf("multicast: %v", err)
		}
		if was != f.method.Rcast {
			f.sw++
		}
		f.waiting += cong
		for _, a := range d.Remote {
			f.sentTo[a] = append(f.sentTo[a], f.n)
		}
		if f.local {
			f.sentTo[f.h.addr] = append(f.sentTo[f.h.addr], f.n)
		}
	}
}

func (f *mflow) check(hosts ...*host) {
	f.h.w.t.Helper()
	for _, h := range hosts {
		got := h.gotMc[source{f.h.addr, f.port}]
		want := f.sentTo[h.addr] // broadcasts reach everybody; what counts is that those it was for have it
		if !slices.Equal(intersect(got, want), want) {
			f.h.w.t.Fatalf("sender %d:%d, receiver %d: got %d messages, want %d; first difference at %d", f.h.addr, f.port, h.addr,
				len(got), len(want), firstDiff(intersect(got, want), want))
		}
		if !increasing(got) {
			f.h.w.t.Fatalf("sender %d:%d, receiver %d: doubled or out of order: %v", f.h.addr, f.port, h.addr, got)
		}
	}
}

// intersect keeps the elements of got that are in want.
func intersect(got, want []uint32) []uint32 {
	in := map[uint32]bool{}
	for _, n := range want {
		in[n] = true
	}
	var out []uint32
	for _, n := range got {
		if in[n] {
			out = append(out, n)
		}
	}
	return out
}

func firstDiff(a, b []uint32) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func increasing(s []uint32) bool {
	for i := 1; i < len(s); i++ {
		if s[i] <= s[i-1] {
			return false
		}
	}
	return true
}

func all(addrs ...uint32) func() []uint32 {
	return func() []uint32 { return slices.Clone(addrs) }
}

func TestBroadcastUnderLoss(t *testing.T) {
	for seed := range seeds(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			bearers := [][]int{{0}, {0, 1}}[seed%2]
			var hosts []*host
			for a := uint32(1); a <= 5; a++ {
				hosts = append(hosts, w.add(a, bearers...))
			}
			w.run(4 * sec)
			loss := float64(seed%4) * 0.05
			w.loss = [MaxBearers]float64{loss, loss}
			w.jitter = []mono.Time{0, 2_000_000}[seed/2%2]
			size := func() int {
				if w.r.IntN(8) == 0 {
					return w.r.IntN(6000)
				}
				return w.r.IntN(100)
			}
			f := &mflow{h: hosts[0], port: 5, dests: all(2, 3, 4, 5), local: true, size: size, method: Method{Mandatory: true}}
			g := &mflow{h: hosts[2], port: 6, dests: all(1, 2, 4, 5), size: size, method: Method{Mandatory: true}}
			u := &flow{h: hosts[0], to: 2, port: 7}
			for range 60 {
				f.pump(8)
				g.pump(8)
				u.pump(5)
				w.run(sec / 20)
			}
			w.run(30 * sec)
			f.check(hosts...)
			g.check(hosts...)
			u.check(hosts[1])
			if f.n < 200 {
				t.Fatalf("seed %d: only %d messages", seed, f.n)
			}
			if loss > 0 {
				li, _ := hosts[0].Link(BcastLinkName)
				if li.Stats.Retransmitted == 0 {
					t.Errorf("seed %d: nothing was retransmitted", seed)
				}
			}
		})
	}
}

func TestMethodSwitchKeepsOrder(t *testing.T) {
	for seed := range seeds(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			var hosts []*host
			for a := uint32(1); a <= 5; a++ {
				hosts = append(hosts, w.add(a, 0))
			}
			w.run(4 * sec)
			w.loss[0] = float64(seed%3) * 0.05
			w.jitter = 1_000_000
			h := hosts[0]
			everybody := []uint32{2, 3, 4, 5}
			f := &mflow{h: h, port: 5, dests: func() []uint32 { return slices.Clone(everybody) }, size: func() int { return w.r.IntN(3000) }}
			for i := range 100 {
				if w.r.IntN(4) == 0 { // the operator changes the mode
					if err := h.SetBcastMode([]Mode{ModeBroadcast, ModeReplicast, ModeSelect}[w.r.IntN(3)]); err != nil {
						t.Fatal(err)
					}
				}
				f.pump(1 + w.r.IntN(6))
				w.run(mono.Time(w.r.Int64N(int64(sec / 20))))
				_ = i
			}
			w.run(30 * sec)
			f.check(hosts[1:]...)
			if f.sw < 2 {
				t.Fatalf("only %d switches", f.sw)
			}
			for _, h := range hosts {
				if !h.defq.Empty() {
					t.Fatalf("node %d: %d messages wait for a twin", h.addr, h.defq.Len())
				}
			}
		})
	}
}

// Few destinations get copies, many a broadcast, and copies reach nobody else.
func TestRatio(t *testing.T) {
	w := newWorld(t, 1)
	var hosts []*host
	for a := uint32(1); a <= 4; a++ {
		hosts = append(hosts, w.add(a, 0))
	}
	w.run(4 * sec)
	f := &mflow{h: hosts[0], port: 5, dests: all(2)}
	f.pump(1)
	if !f.method.Rcast {
		t.Error("one destination of three: broadcast")
	}
	w.run(sec)
	if len(hosts[2].gotMc[source{1, 5}]) != 0 {
		t.Error("a replicast message reached a node that it was not for")
	}
	f = &mflow{h: hosts[0], port: 6, dests: all(2, 3)}
	f.pump(1)
	if f.method.Rcast {
		t.Error("two destinations of three: replicast")
	}
	w.run(sec)
	f.check(hosts[1], hosts[2])
	if err := hosts[0].SetBcastRatio(100); err != nil {
		t.Fatal(err)
	}
	f = &mflow{h: hosts[0], port: 7, dests: all(2, 3, 4)}
	if f.pump(1); !f.method.Rcast {
		t.Error("ratio 100 %: broadcast")
	}
	w.run(sec)
	f.check(hosts[1:]...)
}

func TestNoBroadcastMedium(t *testing.T) {
	w := newWorld(t, 1)
	a := w.add(1)
	tb := testBearer(0)
	tb.Replicast = true
	a.bearers = []int{0}
	a.BearerEnable(w.now, 0, tb)
	b, c := w.add(2, 0), w.add(3, 0)
	w.run(3 * sec)
	if a.BcastMode() != 0 || a.SetBcastMode(ModeBroadcast) != ErrNoProto {
		t.Error("broadcast is offered on a medium without it")
	}
	f := &mflow{h: a, port: 5, dests: all(2, 3)}
	f.pump(10)
	if !f.method.Rcast {
		t.Error("broadcast was used on a medium without it")
	}
	w.run(sec)
	f.check(b, c)
}

// Broadcasts of before a node came must not reach it, and those of after it all must.
func TestLateComer(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	w.run(3 * sec)
	f := &mflow{h: a, port: 5, dests: all(2), method: Method{Mandatory: true}}
	f.pump(30)
	w.run(sec)
	c := w.add(3, 0)
	w.run(3 * sec)
	f.dests = all(2, 3)
	f.pump(30)
	w.run(sec)
	f.check(b, c)
	if got := c.gotMc[source{1, 5}]; len(got) != 30 || got[0] != 31 {
		t.Errorf("the late comer got %d messages", len(got))
	}
	// A node that goes away must not hold up the others.
	c.dead = true
	w.run(5 * sec)
	f.dests = all(2)
	for range 20 {
		f.pump(30)
		w.run(sec / 10)
	}
	w.run(sec)
	f.check(b)
	if f.n != 60+600 {
		t.Errorf("only %d messages could be sent", f.n)
	}
}

func TestNameBroadcast(t *testing.T) {
	for _, rc := range []int{0, 1} {
		w := newWorld(t, 1)
		a, b, c := w.add(1, 0), w.add(2, 0), w.add(3, 0)
		w.run(3 * sec)
		for i := range uint32(20) {
			m := buf.Get(wire.IntHeaderSize + 4)
			wire.Init(m.Msg, 1, wire.UserNameDistr, wire.TypePublication, wire.IntHeaderSize, 0)
			m.Msg.SetSize(len(m.Msg))
			m.Msg.Data()[3] = byte(i)
			m.Msg.Data()[2] = 0
			a.Broadcast(w.now, m, rc)
		}
		w.run(sec)
		for _, h := range []*host{b, c} {
			if got := h.names[1]; len(got) != 20 || !increasing(got) {
				t.Errorf("rcDests %d: node %d got %v", rc, h.addr, got)
			}
		}
	}
}

func TestDests(t *testing.T) {
	var d Dests
	for _, a := range []uint32{5, 1, 7, 5, 1} {
		d.Add(1, a)
	}
	if !d.Local || !slices.Equal(d.Remote, []uint32{5, 7}) {
		t.Errorf("%+v", d)
	}
	if d.Reset(); d.Local || len(d.Remote) != 0 {
		t.Errorf("%+v after Reset", d)
	}
}
