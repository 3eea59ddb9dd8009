package trie

import "math/bits"

// Unit is how many words Space deals in.
const Unit = 128

// Space is where a Heap gets memory from. Starts are word indexes; runs of four units and more begin at a multiple of
// four units. Urgent requests may use a reserve, so that routes can be deleted when all else is used up.
type Space interface {
	Take(units uint32, urgent bool) (start uint32, ok bool)
	Give(start, units uint32)
}

// Arena is the heap of an image: a bitmap of its units. The first fit is taken, so that the image stays dense.
type Arena struct {
	first   uint32   // word index of unit 0, a multiple of four units
	free    []uint64 // bit i of the whole: unit i is free
	count   uint32   // of free units
	reserve uint32
	hint    [maxHint + 1]uint32 // by number of units: so many side by side are free in no word of free below this one
}

// NewArena makes an arena of the words from begin to end. All of it is free.
func NewArena(begin, end uint32) *Arena {
	begin = (begin + 4*Unit - 1) &^ (4*Unit - 1)
	units := (end - begin) / Unit
	a := &Arena{first: begin, free: make([]uint64, (units+63)/64), count: units}
	for i := range a.free {
		a.free[i] = ^uint64(0)
	}
	if units%64 != 0 {
		a.free[len(a.free)-1] = 1<<(units%64) - 1
	}
	a.reserve = min(max(units/64, 32), units/4, 1024)
	return a
}

// Free returns how many words are free.
func (a *Arena) Free() uint64 { return uint64(a.count) * Unit }

// Take implements Space.
func (a *Arena) Take(units uint32, urgent bool) (start uint32, ok bool) {
	if a.count < units || (!urgent && a.count-units < a.reserve) {
		return 0, false
	}
	i, ok := a.find(units)
	if !ok {
		return 0, false
	}
	for u := i; u < i+units; u++ {
		a.free[u/64] &^= 1 << (u % 64)
	}
	a.count -= units
	return a.first + i*Unit, true
}

// maxHint is how many units are looked for within one word of free.
const maxHint = 32

func (a *Arena) find(units uint32) (uint32, bool) {
	if units <= maxHint {
		for w := a.hint[units]; int(w) < len(a.free); w++ {
			if f := runs(a.free[w], units); f != 0 {
				a.hint[units] = w
				return w*64 + uint32(bits.TrailingZeros64(f)), true
			}
		}
		a.hint[units] = uint32(len(a.free))
	}
	total := uint32(len(a.free)) * 64
	for i := a.hint[1] * 64; i+units <= total; {
		n := a.run(i, units)
		if n >= units {
			return i, true
		}
		i = (i + n + 4) &^ 3 // behind the unit that is not free
	}
	return 0, false
}

// runs returns where runs of ones begin, which for four and more are looked for at each fourth bit only.
func runs(f uint64, units uint32) uint64 {
	for n := uint32(1); n < units && f != 0; {
		step := min(n, units-n)
		f &= f >> step
		n += step
	}
	if units >= 4 {
		f &= 0x1111111111111111
	}
	return f
}

// run returns how many units from i on are free, at most n.
func (a *Arena) run(i, n uint32) (k uint32) {
	for k < n {
		f := ^a.free[(i+k)/64] >> ((i + k) % 64)
		step := 64 - (i+k)%64
		if f != 0 {
			return min(n, k+min(step, uint32(bits.TrailingZeros64(f))))
		}
		k += step
	}
	return n
}

// Give implements Space.
func (a *Arena) Give(start, units uint32) {
	i := (start - a.first) / Unit
	for u := i; u < i+units; u++ {
		if a.free[u/64]>>(u%64)&1 != 0 {
			panic("trie: a unit is given back twice")
		}
		a.free[u/64] |= 1 << (u % 64)
	}
	a.count += units
	for k := range a.hint {
		a.hint[k] = min(a.hint[k], i/64)
	}
}

// Claim marks the units from start on as used, when an image is opened that has content. It is not ok if they are not
// in the arena, or are used already.
func (a *Arena) Claim(start, units uint32) bool {
	if start < a.first || start%Unit != 0 {
		return false
	}
	i := (start - a.first) / Unit
	if uint64(i)+uint64(units) > uint64(len(a.free))*64 || a.run(i, units) < units {
		return false
	}
	for u := i; u < i+units; u++ {
		a.free[u/64] &^= 1 << (u % 64)
	}
	a.count -= units
	return true
}
