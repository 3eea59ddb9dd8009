package trie

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"midplane/internal/fib/image"
)

// A prefix of l bits (1 to 12) within a double block has the number first<<4 | l, where first is the first entry that it
// covers: numbers are in the order of walks.

// last12 returns the entry behind the last one that prefix h covers.
func last12(h uint32) uint32 { return h>>4 + 1<<(image.DoubleStride-h&15) }

// exact is a prefix of a double block, child one of its children, with what the block has for its entry, which encode
// finds out.
type exact struct{ h, nh uint32 }

type child struct{ e, slot, nh uint32 }

// double is a double block in the form in which it is changed. Both lists are in order.
type double struct {
	def   uint32
	exact []exact
	child []child
	runs  []uint32 // of encode
	words []uint64
}

// doubles has some for whoever needs one: they are large, and a writer needs few at a time.
var doubles = sync.Pool{New: func() any { return new(double) }}

func newDouble() *double { return doubles.Get().(*double) }

func (b *double) release() { doubles.Put(b) }

func (b *double) clear() { b.def, b.exact, b.child = 0, b.exact[:0], b.child[:0] }

func (b *double) empty() bool { return len(b.exact)+len(b.child) == 0 }

func (b *double) find(h uint32) (int, bool) {
	return slices.BinarySearchFunc(b.exact, h, func(x exact, h uint32) int { return cmp.Compare(x.h, h) })
}

func (b *double) findChild(e uint32) (int, bool) {
	return slices.BinarySearchFunc(b.child, e, func(c child, e uint32) int { return cmp.Compare(c.e, e) })
}

// set adds a prefix or changes its next hop, and returns the one that it had.
func (b *double) set(h, nh uint32) (old uint32) {
	i, ok := b.find(h)
	if ok {
		old, b.exact[i].nh = b.exact[i].nh, nh
	} else {
		b.exact = slices.Insert(b.exact, i, exact{h, nh})
	}
	return old
}

// unset drops a prefix, and returns the next hop that it had, 0 if it was not there.
func (b *double) unset(h uint32) (old uint32) {
	i, ok := b.find(h)
	if ok {
		old = b.exact[i].nh
		b.exact = slices.Delete(b.exact, i, i+1)
	}
	return old
}

func (b *double) setChild(e, slot uint32) {
	i, _ := b.findChild(e)
	b.child = slices.Insert(b.child, i, child{e: e, slot: slot})
}

func (b *double) unsetChild(e uint32) {
	if i, ok := b.findChild(e); ok {
		b.child = slices.Delete(b.child, i, i+1)
	}
}

// at returns the next hop that the block has for an entry, 0 if none.
func (b *double) at(e uint32) uint32 {
	for l := uint32(image.DoubleStride); l > 0; l-- {
		if i, ok := b.find(e>>(image.DoubleStride-l)<<(image.DoubleStride-l)<<4 | l); ok {
			return b.exact[i].nh
		}
	}
	return 0
}

// painter makes the runs of a block from its prefixes and children, in order.
type painter struct {
	b      *double
	vec    [64]uint64 // where runs begin
	to     uint32     // entries before it are done
	open   [image.DoubleStride + 1]struct{ end, nh uint32 }
	opened int // prefixes that cover entry to
}

func (p *painter) run(slot uint32) {
	if n := len(p.b.runs); n == 0 || p.b.runs[n-1] != slot {
		p.vec[p.to>>6] |= 1 << (p.to & 63)
		p.b.runs = append(p.b.runs, slot)
	}
}

// until paints what is open up to an entry.
func (p *painter) until(e uint32) {
	for p.to < e {
		end, nh := uint32(1<<image.DoubleStride), uint32(0)
		if p.opened > 0 {
			end, nh = p.open[p.opened-1].end, p.open[p.opened-1].nh
		}
		if end > p.to {
			p.run(nh << 1)
			p.to = min(end, e)
		}
		if p.to == end && p.opened > 0 {
			p.opened--
		}
	}
	for p.opened > 0 && p.open[p.opened-1].end == p.to {
		p.opened--
	}
}

// encode returns the block's words, which are good until its next use.
func (b *double) encode() []uint64 {
	p := painter{b: b}
	b.runs = b.runs[:0]
	i, j, wide := 0, 0, uint32(0)
	for i < len(b.exact) || j < len(b.child) {
		if i < len(b.exact) && (j == len(b.child) || b.exact[i].h>>4 <= b.child[j].e) {
			x := b.exact[i]
			p.until(x.h >> 4)
			p.open[p.opened].end, p.open[p.opened].nh = last12(x.h), x.nh
			p.opened++
			wide |= x.nh
			i++
			continue
		}
		c := &b.child[j]
		p.until(c.e)
		if c.nh = 0; p.opened > 0 {
			c.nh = p.open[p.opened-1].nh
		}
		p.run(c.slot)
		p.to++
		j++
	}
	p.until(1 << image.DoubleStride)

	w := append(b.words[:0], 0, uint64(b.def)|uint64(len(b.exact))<<image.DoubleCount)
	groups, runs := 0, 0
	for _, v := range p.vec {
		if v != 0 {
			groups++
		}
	}
	for g, v := range p.vec {
		if v != 0 {
			w[0] |= 1 << g
			w = append(w, v, uint64(8*(image.DoubleHead+2*groups)+4*runs-4))
			runs += bits.OnesCount64(v)
		}
	}
	for k := 0; k < len(b.runs); k += 2 {
		x := uint64(b.runs[k])
		if k+1 < len(b.runs) {
			x |= uint64(b.runs[k+1]) << 32
		}
		w = append(w, x)
	}
	if wide > 0xffff {
		w[1] |= image.DoubleWide
		for _, x := range b.exact {
			w = append(w, image.Pair(x.nh, x.h))
		}
	} else {
		for k := 0; k < len(b.exact); k += 2 {
			x := uint64(b.exact[k].nh | b.exact[k].h<<16)
			if k+1 < len(b.exact) {
				x |= uint64(b.exact[k+1].nh|b.exact[k+1].h<<16) << 32
			}
			w = append(w, x)
		}
	}
	b.words = w
	return w
}

// outline is where the parts of an encoded double block are.
type outline struct {
	groups, runs uint32
	first, exact uint32 // words at which the runs and the prefixes begin
	count        uint32 // of prefixes
	wide         bool
	size         uint32
}

func outlineOf(m *image.Words, at uint32) (o outline) {
	vec, w1 := m.Load(at), m.Load(at+1)
	o.groups = uint32(bits.OnesCount64(vec))
	o.first = image.DoubleHead + 2*o.groups
	o.count = uint32(uint16(w1 >> image.DoubleCount))
	o.wide = w1&image.DoubleWide != 0
	if o.groups > 0 {
		o.runs = (uint32(uint16(m.Load(at+2*o.groups+1)))+4-8*o.first)/4 + uint32(bits.OnesCount64(m.Load(at+2*o.groups)))
	}
	o.exact = o.first + (o.runs+1)/2
	if o.size = o.exact + (o.count+1)/2; o.wide {
		o.size = o.exact + o.count
	}
	return o
}

// prefix returns prefix i of an encoded block.
func (o *outline) prefix(m *image.Words, at, i uint32) exact {
	if o.wide {
		w := m.Load(at + o.exact + i)
		return exact{image.Hi(w), image.Lo(w)}
	}
	v := m.Half(at+o.exact, i)
	return exact{v >> 16, v & 0xffff}
}

// get returns the next hop of a prefix of an encoded block, 0 if it is not there.
func (o *outline) get(m *image.Words, at, h uint32) uint32 {
	low, high := uint32(0), o.count
	for low < high {
		mid := (low + high) / 2
		switch x := o.prefix(m, at, mid); {
		case x.h == h:
			return x.nh
		case x.h < h:
			low = mid + 1
		default:
			high = mid
		}
	}
	return 0
}

// decode reads a block, and returns the number of its words.
func (b *double) decode(m *image.Words, at uint32) uint32 {
	o := outlineOf(m, at)
	b.clear()
	b.def = image.Lo(m.Load(at + 1))
	k, pair := uint32(0), at+image.DoubleHead
	for rest := m.Load(at); rest != 0; rest &= rest - 1 {
		g := uint32(bits.TrailingZeros64(rest)) << 6
		for v := m.Load(pair); v != 0; v &= v - 1 {
			if s := m.Half(at+o.first, k); image.IsRef(s) {
				b.child = append(b.child, child{e: g + uint32(bits.TrailingZeros64(v)), slot: s})
			}
			k++
		}
		pair += 2
	}
	for i := range o.count {
		b.exact = append(b.exact, o.prefix(m, at, i))
	}
	return o.size
}

// run returns where the slot is that an encoded block has for an entry.
func run(m *image.Words, at, e uint32) ref {
	x := m.Load(at) << (63 - e>>6)
	pair := at + 2*uint32(bits.OnesCount64(x))
	v := m.Load(pair)
	if int64(x) < 0 {
		v <<= 63 - e&63
	}
	return refOf(at, (uint32(uint16(m.Load(pair+1)))+4)/4+uint32(bits.OnesCount64(v))-1)
}

// check says whether the parts of an encoded block fit together, so far that it can be decoded.
func (o *outline) check(m *image.Words, at uint32) error {
	if m.Load(at)&1 == 0 {
		return fmt.Errorf("nothing is said of the first entries")
	}
	runs := uint32(0)
	for g := range o.groups {
		v, off := m.Load(at+2*g+image.DoubleHead), m.Load(at+2*g+image.DoubleHead+1)
		if v == 0 || (g == 0 && v&1 == 0) || off != uint64(8*o.first+4*runs-4) {
			return fmt.Errorf("part %d begins at octet %d", g, off)
		}
		runs += uint32(bits.OnesCount64(v))
	}
	if o.count > image.DoublePrefixes || uint64(at)+uint64(o.size) > uint64(m.Len()) {
		return fmt.Errorf("%d prefixes, %d words", o.count, o.size)
	}
	last := uint32(0)
	for i := range o.count {
		x := o.prefix(m, at, i)
		if l := x.h & 15; x.h <= last || x.h >= 1<<(image.DoubleStride+4) || l == 0 || l > image.DoubleStride || x.h>>4&(1<<(image.DoubleStride-l)-1) != 0 {
			return fmt.Errorf("a prefix has the number %x", x.h)
		}
		last = x.h
	}
	return nil
}

// same says whether a block that was decoded is encoded as it stands there.
func (b *double) same(m *image.Words, at, size uint32) bool {
	w := b.encode()
	if uint32(len(w)) != size {
		return false
	}
	for i, x := range w {
		if m.Load(at+uint32(i)) != x {
			return false
		}
	}
	return true
}
