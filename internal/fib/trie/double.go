package trie

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

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

// keepSpare is from how many words in use on a heap keeps what its last change was made in for the next one.
const keepSpare = 1 << 15

func (h *Heap) double() *double {
	b := h.spare
	if b == nil {
		return new(double)
	}
	h.spare = nil
	return b
}

func (h *Heap) release(b *double) {
	if h.used > keepSpare {
		h.spare = b
	}
}

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

// painter makes runs from prefixes and children, in order.
type painter struct {
	runs   []uint32
	vec    [64]uint64 // where runs begin
	to     uint32     // entries before it are done
	last   uint32     // slot of the entry before it
	base   uint32     // next hop of entries that no open prefix covers
	open   [image.DoubleStride + 1]struct{ end, nh uint32 }
	opened int // prefixes that cover entry to
}

func (p *painter) run(slot uint32) {
	if p.to == 0 || p.last != slot {
		p.vec[p.to>>6] |= 1 << (p.to & 63)
		p.runs = append(p.runs, slot)
		p.last = slot
	}
}

func (p *painter) push(end, nh uint32) {
	p.open[p.opened].end, p.open[p.opened].nh = end, nh
	p.opened++
}

// paint goes up to an entry through the prefixes and children before it, and tells the children their next hops.
func (p *painter) paint(l []exact, children []child, end uint32) {
	for len(l) > 0 || len(children) > 0 {
		if len(l) > 0 && (len(children) == 0 || l[0].h>>4 <= children[0].e) {
			p.until(l[0].h >> 4)
			p.push(last12(l[0].h), l[0].nh)
			l = l[1:]
			continue
		}
		c := &children[0]
		p.until(c.e)
		if c.nh = p.base; p.opened > 0 {
			c.nh = p.open[p.opened-1].nh
		}
		p.run(c.slot)
		p.to++
		children = children[1:]
	}
	p.until(end)
}

// until paints what is open up to an entry.
func (p *painter) until(e uint32) {
	for p.to < e {
		end, nh := uint32(1<<image.DoubleStride), p.base
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
	p := painter{runs: b.runs[:0]}
	p.paint(b.exact, b.child, 1<<image.DoubleStride)
	b.runs = p.runs
	wide := false
	for _, x := range b.exact {
		wide = wide || x.nh > 0xffff
	}
	runs, exact := b.frame(&p.vec, uint32(len(b.runs)), uint32(len(b.exact)), wide)
	for k, v := range b.runs {
		putHalf(runs, uint32(k), v)
	}
	for k, x := range b.exact {
		if wide {
			exact[k] = image.Pair(x.nh, x.h)
		} else {
			putHalf(exact, uint32(k), x.h<<16|x.nh)
		}
	}
	return b.words
}

// frame makes the words of a block but for its runs and prefixes, and returns where those go.
func (b *double) frame(vec *[64]uint64, runs, count uint32, wide bool) (forRuns, forExact []uint64) {
	w := append(b.words[:0], 0, uint64(b.def)|uint64(count)<<image.DoubleCount)
	groups, before := 0, 0
	for _, v := range vec {
		if v != 0 {
			groups++
		}
	}
	for g, v := range vec {
		if v != 0 {
			w[0] |= 1 << g
			w = append(w, v, uint64(8*(image.DoubleHead+2*groups)+4*before-4))
			before += bits.OnesCount64(v)
		}
	}
	first := len(w)
	last := first + int(runs+1)/2
	size := last + int(count+1)/2
	if wide {
		w[1] |= image.DoubleWide
		size = last + int(count)
	}
	b.words = slices.Grow(w, size-first)[:size]
	return b.words[first:last], b.words[last:]
}

func putHalf(w []uint64, k, v uint32) {
	if k&1 == 0 {
		w[k/2] = uint64(v)
	} else {
		w[k/2] |= uint64(v) << 32
	}
}

// copyHalves copies n halves, from the s-th from word at on, behind the d that w has.
func copyHalves(w []uint64, d uint32, m *image.Words, at, s, n uint32) {
	if d&1 != 0 && n > 0 {
		putHalf(w, d, m.Half(at, s))
		d, s, n = d+1, s+1, n-1
	}
	to, from := w[d/2:d/2+n/2], at+s/2
	if s&1 == 0 {
		for i := range to {
			to[i] = m.Load(from + uint32(i))
		}
	} else if len(to) > 0 {
		x := m.Load(from)
		for i := range to {
			next := m.Load(from + uint32(i) + 1)
			to[i] = x>>32 | next<<32
			x = next
		}
	}
	if n&1 != 0 {
		putHalf(w, d+n-1, m.Half(at, s+n-1))
	}
}

// edit is a change of a double block: of a prefix, or of a child if h is 0. 0 as next hop or slot drops it.
type edit struct{ h, nh, e, slot uint32 }

// edit makes the words of the encoded block at at with a change made to it. Only what the change concerns is decoded: the
// rest is copied. After it child has the children that the prefix covers, and what they have from above now.
func (b *double) edit(m *image.Words, at uint32, o *outline, c edit) []uint64 {
	if o.wide || c.nh > 0xffff {
		return b.editWhole(m, at, c)
	}
	b.clear()
	b.def = image.Lo(m.Load(at + 1))
	p := painter{runs: b.runs[:0]}
	pair := at + image.DoubleHead
	for rest := m.Load(at); rest != 0; rest &= rest - 1 {
		p.vec[bits.TrailingZeros64(rest)] = m.Load(pair)
		pair += 2
	}
	begin, end, i, there := c.e, c.e+1, uint32(0), false
	if c.h != 0 {
		begin, end = c.h>>4, last12(c.h)
		i, there = o.find(m, at, c.h)
	}

	// The runs that begin from begin on, but not those behind end, are made anew.
	k0, k1 := before(&p.vec, begin), before(&p.vec, end+1)
	p.to, p.base = begin, o.above(m, at, c.h, begin)
	if begin > 0 {
		p.last = m.Half(at+o.first, k0-1)
	}
	behind := m.Half(at+o.first, k1-1)
	switch {
	case c.h != 0:
		b.children(m, at, o, &p.vec, begin, end)
	case c.slot != 0:
		b.child = append(b.child, child{e: c.e, slot: c.slot})
	}
	clearBits(&p.vec, begin, end+1)
	j := i
	if c.h != 0 {
		if there {
			j++
		}
		for k := j; k < o.count; k++ {
			x := o.prefix(m, at, k)
			if x.h>>4 >= end {
				break
			}
			b.exact = append(b.exact, x)
		}
		if c.nh != 0 {
			p.push(end, c.nh)
		}
	}
	p.paint(b.exact, b.child, end)
	if end < 1<<image.DoubleStride {
		p.run(behind)
	}
	b.runs = p.runs

	n, count := uint32(len(b.runs)), o.count-(j-i)
	if c.nh != 0 {
		count++
	}
	runs, exact := b.frame(&p.vec, k0+n+o.runs-k1, count, false)
	copyHalves(runs, 0, m, at+o.first, 0, k0)
	for k, v := range b.runs {
		putHalf(runs, k0+uint32(k), v)
	}
	copyHalves(runs, k0+n, m, at+o.first, k1, o.runs-k1)
	copyHalves(exact, 0, m, at+o.exact, 0, i)
	to := i
	if c.nh != 0 {
		putHalf(exact, i, c.h<<16|c.nh)
		to++
	}
	if c.h == 0 {
		j = 0
	}
	copyHalves(exact, to, m, at+o.exact, j, o.count-j)
	return b.words
}

// editWhole is edit for a block with large next hops.
func (b *double) editWhole(m *image.Words, at uint32, c edit) []uint64 {
	b.decode(m, at)
	begin, end := c.h>>4, last12(c.h)
	switch {
	case c.h == 0:
		begin, end = c.e, c.e
		if b.unsetChild(c.e); c.slot != 0 {
			b.setChild(c.e, c.slot)
		}
	case c.nh == 0:
		b.unset(c.h)
	default:
		b.set(c.h, c.nh)
	}
	w := b.encode()
	b.child = slices.DeleteFunc(b.child, func(c child) bool { return c.e < begin || c.e >= end })
	return w
}

// children appends those of some entries of an encoded block to child.
func (b *double) children(m *image.Words, at uint32, o *outline, vec *[64]uint64, begin, end uint32) {
	k := before(vec, begin)
	for g := begin >> 6; g <= (end-1)>>6; g++ {
		for v := vec[g] & within(g, begin, end); v != 0; v &= v - 1 {
			if s := m.Half(at+o.first, k); image.IsRef(s) {
				b.child = append(b.child, child{e: g<<6 + uint32(bits.TrailingZeros64(v)), slot: s})
			}
			k++
		}
	}
}

// within returns which bits of part g are of the entries from begin to before end.
func within(g, begin, end uint32) uint64 {
	v := ^uint64(0)
	if begin > g<<6 {
		v <<= begin - g<<6
	}
	if end < (g+1)<<6 {
		v &= 1<<(end-g<<6) - 1
	}
	return v
}

func clearBits(vec *[64]uint64, begin, end uint32) {
	for g := begin >> 6; g <= min((end-1)>>6, 63); g++ {
		vec[g] &^= within(g, begin, end)
	}
}

// before returns how many runs begin before an entry.
func before(vec *[64]uint64, e uint32) (n uint32) {
	for g := range min(e>>6, 64) {
		n += uint32(bits.OnesCount64(vec[g]))
	}
	if e>>6 < 64 {
		n += uint32(bits.OnesCount64(vec[e>>6] & (1<<(e&63) - 1)))
	}
	return n
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

// find returns where a prefix is in an encoded block, or would be.
func (o *outline) find(m *image.Words, at, h uint32) (i uint32, there bool) {
	low, high := uint32(0), o.count
	for low < high {
		mid := (low + high) / 2
		switch x := o.prefix(m, at, mid).h; {
		case x == h:
			return mid, true
		case x < h:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}

// get returns the next hop of a prefix of an encoded block, 0 if it is not there.
func (o *outline) get(m *image.Words, at, h uint32) uint32 {
	if i, ok := o.find(m, at, h); ok {
		return o.prefix(m, at, i).nh
	}
	return 0
}

// above returns the next hop of the longest prefix that covers prefix h or, if h is 0, entry e; 0 if there is none.
func (o *outline) above(m *image.Words, at, h, e uint32) uint32 {
	l := uint32(image.DoubleStride)
	if h != 0 {
		l = h&15 - 1
	}
	for ; l > 0 && o.count > 0; l-- {
		up := image.DoubleStride - l
		if nh := o.get(m, at, e>>up<<up<<4|l); nh != 0 {
			return nh
		}
	}
	return 0
}

// children counts those of an encoded block.
func (o *outline) children(m *image.Words, at uint32) (n int) {
	for k := range o.runs {
		if image.IsRef(m.Half(at+o.first, k)) {
			n++
		}
	}
	return n
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
