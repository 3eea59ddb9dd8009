package trie

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"midplane/internal/fib/image"
)

// crowd draws prefixes that meet in few double blocks: below one of two places at 24 or 36 bits, or below one of them.
func crowd(r *rand.Rand) (Key, uint) {
	k := Key{Hi: 0x20010d<<40 | r.Uint64N(2)<<41}
	n := uint(25 + r.IntN(36))
	switch r.IntN(4) {
	case 0:
		n = 33 + uint(r.IntN(4))
	case 1:
		n = 44 + uint(r.IntN(5))
	}
	k.Hi |= r.Uint64N(1<<12) << 28
	if r.IntN(3) != 0 { // below few children
		k.Hi = k.Hi&^(0xff8<<28) | 1<<34
	}
	k.Hi |= r.Uint64N(1<<12)<<16 | r.Uint64N(1<<12)<<4
	return mask(k, n), n
}

// sound decodes all double blocks and encodes them anew: what edits made of a block is what it is when made from nothing.
func (w *world) sound() {
	w.t.Helper()
	var visit func(slot uint32, depth uint)
	visit = func(slot uint32, depth uint) {
		if image.IsTable(slot) {
			d := subTable(slot)
			for i := range d.size() {
				visit(refOf(d.at, i).load(w.m), d.end())
			}
			return
		}
		if !image.IsRef(slot) {
			return
		}
		at := image.At(slot)
		if w.tree.double(depth) {
			o := outlineOf(w.m, at)
			if err := o.check(w.m, at); err != nil {
				w.t.Fatalf("block at depth %d: %v", depth, err)
			}
			var b double
			if size := b.decode(w.m, at); !b.same(w.m, at, size) {
				w.t.Fatalf("block at depth %d: %d prefixes, %d children: another encoding", depth, len(b.exact), len(b.child))
			}
		}
		w.tree.children(at, depth, func(r ref) { visit(r.load(w.m), w.tree.below(depth)) })
	}
	d := w.tree.rootTable()
	if d.bits == 0 {
		visit(w.tree.rootRef().load(w.m), 0)
	}
	for i := uint32(0); d.bits != 0 && i < d.size(); i++ {
		visit(refOf(d.at, i).load(w.m), d.end())
	}
}

func TestDoubleBlocks(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 8))
			w := newWorld(t, 1, 1<<20)
			hops := []int{3, 300, 100_000}[seed%3]
			most := 200 << (seed % 4)
			var l []slowKey
			for step := range 6000 {
				switch n := len(l); {
				case n > 0 && (r.IntN(2) == 0 || n > most):
					i := r.IntN(n)
					w.delete(l[i].k, l[i].n)
					l[i] = l[n-1]
					l = l[:n-1]
				case n > 0 && r.IntN(4) == 0: // another next hop
					s := l[r.IntN(n)]
					w.insert(s.k, s.n, uint32(1+r.IntN(hops)))
				default:
					k, n := crowd(r)
					if w.slow[slowKey{k, n}] == 0 {
						l = append(l, slowKey{k, n})
					}
					w.insert(k, n, uint32(1+r.IntN(hops)))
				}
				if step < 300 || step%50 == 0 {
					w.sound()
				}
				if step%1000 == 7 {
					w.check(r, 300)
				}
			}
			w.check(r, 1000)
			for _, s := range l {
				w.delete(s.k, s.n)
			}
			w.check(r, 10)
			if w.arena.Free() != w.full {
				t.Fatalf("an empty tree holds %d words", w.full-w.arena.Free())
			}
		})
	}
}

// A block with all prefixes and children that there can be.
func TestFullestDoubleBlock(t *testing.T) {
	w := newWorld(t, 1, 1<<20)
	r := rand.New(rand.NewPCG(5, 5))
	place := Key{Hi: 0x20010d << 40}
	nh := uint32(0)
	for _, big := range []uint32{0, 1 << 20} {
		for l := uint(1); l <= image.DoubleStride; l++ {
			for e := range uint64(1) << l {
				nh++
				w.insert(Key{Hi: place.Hi | e<<(40-l)}, 24+l, nh%500+1+big)
			}
		}
		for e := range uint64(1 << image.DoubleStride) {
			w.insert(Key{Hi: place.Hi | e<<28 | 1<<20}, 48, nh%500+2)
		}
		w.sound()
		w.check(r, 2000)
	}
	o := outlineOf(w.m, image.At(w.slotOf(place, 24)))
	if o.count != image.DoublePrefixes || o.runs != 1<<image.DoubleStride || !o.wide {
		t.Fatalf("%+v", o)
	}
	for s := range w.slow {
		if s.n > 25 && r.IntN(3) != 0 {
			w.delete(s.k, s.n)
		}
	}
	w.check(r, 2000)
	w.tree.Clear()
	if w.arena.Free() != w.full {
		t.Fatalf("an empty tree holds %d words", w.full-w.arena.Free())
	}
}

// slotOf returns the slot of the block at a depth on the way to a key.
func (w *world) slotOf(k Key, depth uint) uint32 {
	w.t.Helper()
	p := w.tree.start(k, depth+1)
	for p.depth != depth {
		r, ok := w.tree.childAt(image.At(p.r.load(w.m)), p.depth, k)
		if !ok {
			w.t.Fatalf("no block at depth %d", depth)
		}
		p = place{r: r, depth: w.tree.below(p.depth)}
	}
	return p.r.load(w.m)
}

// BenchmarkFullestDoubleBlock changes the largest block that there can be, with next hops of 16 bits and of more; and a
// prefix that half of all children that a block can have get from above.
func BenchmarkFullestDoubleBlock(b *testing.B) {
	place := Key{Hi: 0x20010d << 40}
	change := func(w *world, n uint, big uint32) func(b *testing.B) {
		return func(b *testing.B) {
			for nh := uint32(0); b.Loop(); nh++ {
				if _, err := w.tree.Insert(place, n, big+1+nh%500); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	children := func(w *world) {
		for e := range uint64(1 << image.DoubleStride) {
			w.insert(Key{Hi: place.Hi | e<<28 | 1<<20}, 48, 7)
		}
	}
	for _, big := range []uint32{0, 1 << 20} {
		w := newWorld(b, 1, 1<<20)
		for l := uint(1); l <= image.DoubleStride; l++ {
			for e := range uint64(1) << l {
				w.insert(Key{Hi: place.Hi | e<<(40-l)}, 24+l, uint32(e%500)+1+big)
			}
		}
		children(w)
		b.Run(fmt.Sprintf("hops from %d", big+1), change(w, 36, big))
	}
	w := newWorld(b, 1, 1<<20)
	children(w)
	b.Run("above children", change(w, 25, 0))
}
