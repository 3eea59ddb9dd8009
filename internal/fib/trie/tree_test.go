package trie

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"midplane/internal/fib/image"
)

// world is a tree and its slow twin.
type world struct {
	t     testing.TB
	m     *image.Words
	arena *Arena
	h     *Heap
	tree  *Tree
	slow  map[slowKey]uint32
	full  uint64
}

type slowKey struct {
	k Key
	n uint
}

const testDesc = 64

func newWorld(t testing.TB, family uint32, words int) *world {
	m := image.Make(make([]uint64, words))
	w := &world{t: t, m: &m, slow: map[slowKey]uint32{}}
	w.arena = NewArena(512, uint32(words)-8500)
	w.full = w.arena.Free()
	w.h = NewHeap(w.m, w.arena, testDesc+image.DescEpoch)
	tree := NewTree(w.m, w.h, testDesc, family)
	w.tree = &tree
	return w
}

func mask(k Key, n uint) Key {
	l := last(Key{}, n)
	return Key{Hi: k.Hi &^ l.Hi, Lo: k.Lo &^ l.Lo}
}

func (w *world) insert(k Key, n uint, nh uint32) {
	w.t.Helper()
	k = mask(k, n)
	old, err := w.tree.Insert(k, n, nh)
	if err != nil {
		w.t.Fatal(err)
	}
	if want := w.slow[slowKey{k, n}]; old != want {
		w.t.Fatalf("insert %x/%d: it had %d, want %d", k, n, old, want)
	}
	w.slow[slowKey{k, n}] = nh
}

func (w *world) delete(k Key, n uint) {
	w.t.Helper()
	k = mask(k, n)
	old, err := w.tree.Delete(k, n)
	if err != nil {
		w.t.Fatal(err)
	}
	if want := w.slow[slowKey{k, n}]; old != want {
		w.t.Fatalf("delete %x/%d: it had %d, want %d", k, n, old, want)
	}
	delete(w.slow, slowKey{k, n})
}

func (w *world) lookup(k Key) uint32 {
	nh, ok := w.m.Lookup(testDesc, w.tree.family, k)
	if !ok {
		w.t.Fatal("a lookup without a writer gives up")
	}
	return nh
}

func (w *world) slowLookup(k Key) uint32 {
	for n := int(w.tree.width); n >= 0; n-- {
		if nh := w.slow[slowKey{mask(k, uint(n)), uint(n)}]; nh != 0 {
			return nh
		}
	}
	return 0
}

// check compares everything that can be asked.
func (w *world) check(r *rand.Rand, probes int) {
	w.t.Helper()
	if w.tree.Len() != len(w.slow) {
		w.t.Fatalf("%d routes, want %d", w.tree.Len(), len(w.slow))
	}
	var keys []slowKey
	for s := range w.slow {
		keys = append(keys, s)
	}
	slices.SortFunc(keys, func(a, b slowKey) int {
		switch {
		case a == b:
			return 0
		case less(a.k, b.k) || (a.k == b.k && a.n < b.n):
			return -1
		}
		return 1
	})
	i := 0
	w.tree.Ascend(Key{}, 0, func(k Key, n uint, nh uint32) bool {
		if i >= len(keys) || keys[i] != (slowKey{k, n}) || w.slow[keys[i]] != nh {
			w.t.Fatalf("walk: route %d is %x/%d %d, want %x", i, k, n, nh, keys[min(i, len(keys)-1)])
		}
		i++
		return true
	})
	if i != len(keys) {
		w.t.Fatalf("walk: %d routes, want %d", i, len(keys))
	}
	for range probes {
		k := w.probe(r, keys)
		if got, want := w.lookup(k), w.slowLookup(k); got != want {
			w.t.Fatalf("lookup %x: %d, want %d", k, got, want)
		}
		n := uint(r.IntN(int(w.tree.width) + 1))
		p := slowKey{mask(k, n), n}
		if got := w.tree.Get(p.k, p.n); got != w.slow[p] {
			w.t.Fatalf("get %x/%d: %d, want %d", p.k, n, got, w.slow[p])
		}
		w.tree.Path(p.k, p.n, func(n uint, nh uint32) bool {
			if want := w.slow[slowKey{mask(k, n), n}]; want != nh {
				w.t.Fatalf("path of %x: /%d has %d, want %d", k, n, nh, want)
			}
			return true
		})
		at, _ := slices.BinarySearchFunc(keys, p, func(a, b slowKey) int {
			if less(a.k, b.k) || (a.k == b.k && a.n < b.n) {
				return -1
			}
			return 1
		})
		w.tree.Ascend(p.k, p.n, func(k Key, n uint, _ uint32) bool {
			if at >= len(keys) || keys[at] != (slowKey{k, n}) {
				w.t.Fatalf("walk from %x/%d: begins with %x/%d", p.k, p.n, k, n)
			}
			at = -1
			return false
		})
		if at >= 0 && at < len(keys) {
			w.t.Fatalf("walk from %x/%d: finds nothing, want %x", p.k, p.n, keys[at])
		}
	}
	w.checkMemory()
}

func (w *world) probe(r *rand.Rand, keys []slowKey) Key {
	k := Key{Hi: r.Uint64(), Lo: r.Uint64()}
	if len(keys) > 0 && r.IntN(4) != 0 { // inside a route
		s := keys[r.IntN(len(keys))]
		l := last(Key{}, s.n)
		k = Key{Hi: s.k.Hi | k.Hi&l.Hi, Lo: s.k.Lo | k.Lo&l.Lo}
	}
	if w.tree.family == 0 {
		k = Key{Hi: k.Hi &^ 0xffffffff}
	}
	return k
}

// checkMemory counts what the tree refers to: each block once, nothing else in use.
func (w *world) checkMemory() {
	w.t.Helper()
	w.h.Release()
	seen := map[uint32]bool{}
	used := uint64(0)
	visit := func(at, words uint32) {
		if seen[at] {
			w.t.Fatalf("block %d is in use twice", at)
		}
		seen[at] = true
		if words > maxAlloc {
			used += uint64((words + at%Unit + Unit - 1) / Unit * Unit)
		} else {
			used += uint64(sizes[sizeClass[words]])
		}
	}
	if d := w.tree.rootTable(); d.bits != 0 {
		w.tree.freeAll(d, visit)
	} else {
		w.tree.freeBlocks(w.tree.rootRef().load(w.m), 0, visit)
	}
	if used != w.h.Used() {
		w.t.Fatalf("%d words are in use, the tree has %d", w.h.Used(), used)
	}
	if w.arena.Free()+w.h.Taken() != w.full {
		w.t.Fatalf("%d words free and %d taken, want %d in all", w.arena.Free(), w.h.Taken(), w.full)
	}
}

// prefix draws a prefix of a universe that is dense enough for collisions.
func drawPrefix(r *rand.Rand, family uint32, dense int) (Key, uint) {
	width := 32
	if family == 1 {
		width = 128
	}
	n := uint(r.IntN(width + 1))
	var k Key
	if r.IntN(dense) != 0 { // few different bits, at places that matter
		for range 1 + r.IntN(3) {
			bit := r.IntN(width)
			if bit < 64 {
				k.Hi |= 1 << (63 - bit)
			} else {
				k.Lo |= 1 << (127 - bit)
			}
		}
	} else {
		k = Key{Hi: r.Uint64(), Lo: r.Uint64()}
		if family == 0 {
			k = Key{Hi: k.Hi &^ 0xffffffff}
		}
	}
	return mask(k, n), n
}

func TestAgainstSlow(t *testing.T) {
	for family := range uint32(2) {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint(family, "/", seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				w := newWorld(t, family, 1<<18)
				nexthops := []int{2, 10, 100, 100000}[seed%4]
				for step := range 3000 {
					k, n := drawPrefix(r, family, int(seed%3)*10+2)
					if r.IntN(10) < 6 {
						w.insert(k, n, uint32(1+r.IntN(nexthops)))
					} else {
						w.delete(k, n)
					}
					if step%500 == 7 {
						w.check(r, 300)
					}
				}
				w.check(r, 1000)
				w.tree.Clear()
				clear(w.slow)
				w.check(r, 10)
				if w.arena.Free() != w.full {
					t.Fatalf("an empty tree holds %d words", w.full-w.arena.Free())
				}
			})
		}
	}
}

// The root goes through all its forms and back.
func TestRoots(t *testing.T) {
	for family := range uint32(2) {
		t.Run(fmt.Sprint(family), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, uint64(family)))
			w := newWorld(t, family, 1<<22)
			seen := map[uint]bool{}
			subs := func() (n int) {
				d := w.tree.rootTable()
				for i := uint32(0); d.bits != 0 && i < d.size(); i++ {
					if image.IsTable(refOf(d.at, i).load(w.m)) {
						n++
					}
				}
				return n
			}
			grow := func(to int) {
				for len(w.slow) < to {
					k := Key{Hi: r.Uint64() &^ 0xffffffff}
					if family == 1 { // as in the real table: few places, crowded
						k.Hi = k.Hi>>8 | r.Uint64N(3)<<60 | 0x2a<<56
					}
					n := uint(1 + r.IntN(32))
					if r.IntN(3) != 0 {
						n = 24
					}
					w.insert(k, n, uint32(1+r.IntN(300)))
					if family == 1 && r.IntN(10) == 0 {
						w.insert(Key{Hi: r.Uint64(), Lo: r.Uint64()}, 128, 7)
					}
				}
				d := w.tree.rootTable().bits
				seen[d] = true
				w.check(r, 2000)
			}
			shrink := func(to int) {
				for s := range w.slow {
					if len(w.slow) == to {
						break
					}
					w.delete(s.k, s.n)
				}
				d := w.tree.rootTable().bits
				seen[d] = true
				w.check(r, 2000)
			}
			grow(900)
			grow(5000)
			grow(wide18 + 3000)
			if n := subs(); (family == 1) != (n > 2) {
				t.Errorf("%d slots have tables", n)
			}
			shrink(narrow12 - 1)
			if d := w.tree.rootTable().bits; d != bits12 {
				t.Errorf("a table of %d routes has a direct table of 2^%d", w.tree.Len(), d)
			}
			grow(20000)
			shrink(narrow0 - 1)
			if d := w.tree.rootTable().bits; d != 0 {
				t.Errorf("a table of %d routes has a direct table of 2^%d", w.tree.Len(), d)
			}
			shrink(0)
			if len(seen) != 3-int(family) {
				t.Errorf("roots seen: %v", seen)
			}
			if w.arena.Free() != w.full {
				t.Errorf("an empty tree holds %d words", w.full-w.arena.Free())
			}
		})
	}
}

// A full image refuses, and nothing has changed; deletes work in it.
func TestFull(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	w := newWorld(t, 0, 1<<15)
	refused := 0
	for range 40000 {
		k, n := Key{Hi: r.Uint64() &^ 0xffffffff}, uint(1+r.IntN(32))
		k = mask(k, n)
		old, err := w.tree.Insert(k, n, 5)
		switch {
		case err == ErrFull:
			refused++
		case err != nil:
			t.Fatal(err)
		default:
			if old != w.slow[slowKey{k, n}] {
				t.Fatal("wrong old value")
			}
			w.slow[slowKey{k, n}] = 5
		}
		if refused%1000 == 1 {
			w.check(r, 100)
		}
	}
	if refused < 100 {
		t.Fatalf("refused only %d times", refused)
	}
	w.check(r, 1000)
	for s := range w.slow {
		w.delete(s.k, s.n)
	}
	w.check(r, 10)
	if w.arena.Free() != w.full {
		t.Errorf("an empty tree holds %d words", w.full-w.arena.Free())
	}
}

func TestSwapAndCopy(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for family := range uint32(2) {
		for _, size := range []int{0, 1, 700, 6000, wide18 + 1000} {
			w := newWorld(t, family, 1<<25)
			for range 500 {
				k, n := drawPrefix(r, family, 3)
				w.insert(k, n, 3)
			}
			b, err := w.tree.Build()
			if err != nil {
				t.Fatal(err)
			}
			clear(w.slow)
			for len(w.slow) < size {
				k, n := drawPrefix(r, family, 1)
				if _, err := b.Insert(k, n, 9); err != nil {
					t.Fatal(err)
				}
				w.slow[slowKey{k, n}] = 9
			}
			w.tree.Swap(b)
			w.check(r, 500)

			const desc = testDesc + 16
			c := &world{t: t, m: w.m, arena: w.arena, slow: w.slow, full: w.arena.Free()}
			c.h = NewHeap(w.m, w.arena, desc)
			tree := NewTree(w.m, c.h, desc, family)
			c.tree = &tree
			if err := w.tree.Copy(c.tree); err != nil {
				t.Fatal(err)
			}
			c.checkMemory()
			got := map[slowKey]uint32{}
			c.tree.Ascend(Key{}, 0, func(k Key, n uint, nh uint32) bool { got[slowKey{k, n}] = nh; return true })
			if len(got) != size || c.tree.Len() != size {
				t.Fatalf("the copy has %d routes, want %d", len(got), size)
			}
			c.tree.Clear()
			if c.h.Taken() != 0 {
				t.Errorf("a cleared copy holds %d words", c.h.Taken())
			}
			b, _ = w.tree.Build()
			for range 100 {
				k, n := drawPrefix(r, family, 3)
				b.Insert(k, n, 3)
			}
			b.Discard()
			w.check(r, 100)
		}
	}
}
