package image

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

const testWords = 1 << 18

// guarded returns memory for an image, with pages around it that cannot be read: who leaves the image dies.
func guarded(t testing.TB) []uint64 {
	t.Helper()
	const page = 4096
	b, err := syscall.Mmap(-1, 0, testWords*8+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	for _, p := range [][]byte{b[:page], b[len(b)-page:]} {
		if err := syscall.Mprotect(p, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(&b[page])), testWords)
}

// drive asks everything that can be asked of memory.
func drive(m *Words, r *rand.Rand, probes int) {
	desc := uint32(HeaderWords)
	for range probes {
		k := Key{Hi: r.Uint64(), Lo: r.Uint64()}
		family := r.Uint32N(2)
		m.Lookup(desc, family, k)
		m.Target(r.Uint32(), r.Uint32())
		var b Batch
		b.N = 1 + r.IntN(Lanes)
		for i := range b.N {
			b.Hi[i] = r.Uint64()
		}
		b.Family = family
		m.LookupBatch(desc, &b)
	}
}

// roots writes the words that are never used for anything else, and so are always right: roots, and where the directory
// of next hops is.
func roots(m *Words, r *rand.Rand) {
	for f := range uint32(2) {
		low := [...]uint32{0, Ref(r.Uint32N(m.Len())), Root(12, TableAlign*(1+r.Uint32N(100))), Root(18, TableAlign)}[r.IntN(4)]
		m.Fill(HeaderWords+DescRoot+f, Pair(low, r.Uint32()))
	}
	m.Fill(HeaderNextHops, Pair(HeaderWords+32, 1000))
}

// TestWalksStayInside walks through memory that is not an image at all, or has references to anywhere, as a reader meets
// it that is overtaken by a writer: walks end, and stay inside.
func TestWalksStayInside(t *testing.T) {
	m := Make(guarded(t))
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		for i := range m.Len() {
			w := r.Uint64()
			switch seed % 4 {
			case 1: // references to valid places, wide and narrow blocks, children everywhere
				w = Pair(Ref(r.Uint32N(m.Len())), Ref(r.Uint32N(m.Len())))
			case 2:
				w = ^uint64(0)
			case 3:
				w |= r.Uint64() | r.Uint64()
			}
			m.Fill(i, w)
		}
		roots(&m, r)
		drive(&m, r, 2000)
	}
}

// FuzzWalk is TestWalksStayInside with memory from the fuzzer.
func FuzzWalk(f *testing.F) {
	f.Add([]byte("some memory"), uint64(1))
	f.Add(make([]byte, 400), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		m := Make(guarded(t))
		r := rand.New(rand.NewPCG(seed, 2))
		for i := range m.Len() {
			if len(b) >= 8 {
				m.Fill(i, binary.LittleEndian.Uint64(b[int(i)*8%(len(b)-7):]))
			}
		}
		roots(&m, r)
		drive(&m, r, 50)
	})
}
