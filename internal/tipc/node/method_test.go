package node

import (
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

func TestSelectMethod(t *testing.T) {
	const now = mono.Time(100e9)
	full := bcBase{canBcast: true, canRcast: true, ratio: 10}
	full.calcThreshold(50) // 6
	for _, c := range []struct {
		name  string
		base  func(*bcBase)
		caps  wire.Caps
		m     Method
		dests int
		rcast bool
	}{
		{name: "few destinations", dests: 6, rcast: true},
		{name: "many destinations", dests: 7, rcast: false},
		{name: "back to broadcast", m: Method{Rcast: true}, dests: 7, rcast: false},
		{name: "no broadcast medium", base: func(b *bcBase) { b.canBcast = false }, dests: 50, rcast: true},
		{name: "no broadcast medium, whatever the user wants", base: func(b *bcBase) { b.canBcast = false },
			m: Method{Mandatory: true}, dests: 50, rcast: true},
		{name: "a peer without replicast", base: func(b *bcBase) { b.canRcast = false }, dests: 1, rcast: false},
		{name: "mandatory broadcast", m: Method{Mandatory: true}, dests: 1, rcast: false},
		{name: "mandatory replicast", m: Method{Mandatory: true, Wish: true}, dests: 50, rcast: true},
		{name: "forced broadcast", base: func(b *bcBase) { b.forced = ModeBroadcast }, dests: 1, rcast: false},
		{name: "forced replicast", base: func(b *bcBase) { b.forced = ModeReplicast }, dests: 50, rcast: true},
		{name: "old cluster, too early", caps: wire.CapsAll &^ wire.CapMcastRbctl, m: Method{Expires: now + 1}, dests: 1, rcast: false},
		{name: "old cluster, late enough", caps: wire.CapsAll &^ wire.CapMcastRbctl, m: Method{Expires: now}, dests: 1, rcast: true},
		{name: "new cluster switches at once", m: Method{Expires: now + 1}, dests: 1, rcast: true},
	} {
		b := full
		if c.base != nil {
			c.base(&b)
		}
		if c.caps == 0 {
			c.caps = wire.CapsAll
		}
		b.selectMethod(now, c.dests, c.caps, &c.m)
		if c.m.Rcast != c.rcast {
			t.Errorf("%s: replicast %v", c.name, c.m.Rcast)
		}
	}
}

func TestThreshold(t *testing.T) {
	b := bcBase{ratio: 10}
	for size, want := range map[int]int{0: 1, 1: 1, 9: 1, 10: 2, 19: 2, 20: 3, 1000: 101} {
		if b.calcThreshold(size); b.threshold != want {
			t.Errorf("%d peers: threshold %d, want %d", size, b.threshold, want)
		}
	}
}

func TestModeAndRatioSettings(t *testing.T) {
	for _, c := range []struct {
		bcast, rcast bool
		ok           map[Mode]bool
		ratio        bool
	}{
		{false, false, map[Mode]bool{}, false},
		{true, false, map[Mode]bool{ModeBroadcast: true}, false},
		{false, true, map[Mode]bool{ModeReplicast: true}, false},
		{true, true, map[Mode]bool{ModeBroadcast: true, ModeReplicast: true, ModeSelect: true}, true},
	} {
		b := bcBase{canBcast: c.bcast, canRcast: c.rcast, ratio: 10}
		for m := Mode(0); m < 6; m++ {
			if err := b.setMode(m); (err == nil) != c.ok[m] {
				t.Errorf("%+v: set %v: %v", c, m, err)
			} else if err == nil && b.mode() != m {
				t.Errorf("set %v, is %v", m, b.mode())
			}
		}
		if err := b.setRatio(25, 8); (err == nil) != c.ratio {
			t.Errorf("%+v: set ratio: %v", c, err)
		}
		if c.ratio {
			if b.threshold != 3 {
				t.Errorf("threshold %d after ratio 25 %% of 8", b.threshold)
			}
			for _, r := range []int{0, 101, -1} {
				if b.setRatio(r, 8) == nil {
					t.Errorf("ratio %d accepted", r)
				}
			}
		}
	}
}

// A way that the user fixes in the middle of the traffic is changed to in order, too.
func TestFixedMethodKeepsOrder(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.add(1, 0), w.add(2, 0), w.add(3, 0)
	w.run(3 * sec)
	f := &mflow{h: a, port: 5, dests: all(2, 3), size: func() int { return w.r.IntN(5000) }}
	w.loss[0] = 0.2
	for i := range 20 {
		f.method.Mandatory, f.method.Wish = true, i%2 == 0
		f.pump(5)
		w.run(sec / 50)
	}
	w.loss[0] = 0
	w.run(5 * sec)
	f.check(b, c)
	if f.sw < 10 {
		t.Errorf("the way changed %d times only", f.sw)
	}
}
