package trie

import (
	"math/rand/v2"
	"testing"

	"midplane/internal/fib/image"
)

// FuzzTree makes the changes that the fuzzer writes, three octets each, to a tree and its slow twin, in an image that may
// be too small for them.
func FuzzTree(f *testing.F) {
	f.Add(false, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(true, []byte{0x80, 1, 1, 0x81, 1, 2, 0x12, 0x34, 0x56})
	f.Fuzz(func(t *testing.T, six bool, b []byte) {
		family, width := uint32(0), uint(32)
		if six {
			family, width = 1, 128
		}
		w := newWorld(t, family, 1<<15)
		for ; len(b) >= 3; b = b[3:] {
			n := uint(b[1]) % (width + 1)
			r := rand.New(rand.NewPCG(uint64(b[0]&0x1f), uint64(b[2]&0x0f)))
			k := mask(Key{Hi: r.Uint64(), Lo: r.Uint64()}, n)
			if !six {
				k = Key{Hi: k.Hi &^ 0xffffffff}
			}
			if b[0]&0x80 != 0 {
				w.delete(k, n)
				continue
			}
			nh := 1 + uint32(b[2])<<(b[0]>>5&3*8)&(image.MaxID-1)
			old, err := w.tree.Insert(k, n, nh)
			if err == ErrFull {
				continue
			}
			if err != nil || old != w.slow[slowKey{k, n}] {
				t.Fatalf("insert %x/%d: %d, %v", k, n, old, err)
			}
			w.slow[slowKey{k, n}] = nh
		}
		w.check(rand.New(rand.NewPCG(1, 1)), 50)
	})
}
