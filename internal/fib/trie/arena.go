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
	hint    uint32 // no free unit is below this word of free
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

func (a *Arena) find(units uint32) (uint32, bool) {
	for int(a.hint) < len(a.free)-1 && a.free[a.hint] == 0 {
		a.hint++
	}
	switch {
	case units == 1:
		for w := a.hint; int(w) < len(a.free); w++ {
			if a.free[w] != 0 {
				return w*64 + uint32(bits.TrailingZeros64(a.free[w])), true
			}
		}
	case units == 4:
		for w := a.hint; int(w) < len(a.free); w++ {
			f := a.free[w]
			f &= f >> 1
			f &= f >> 2 & 0x1111111111111111
			if f != 0 {
				return w*64 + uint32(bits.TrailingZeros64(f)), true
			}
		}
	default:
		total := uint32(len(a.free)) * 64
		for i := a.hint * 64; i+units <= total; {
			n := a.run(i, units)
			if n >= units {
				return i, true
			}
			i = (i + n + 4) &^ 3 // behind the unit that is not free
		}
	}
	return 0, false
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
	a.hint = min(a.hint, i/64)
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
