package digsig

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"midplane/internal/digsig/elfsig/elftest"
)

var mutations = flag.Int("mutations", 0, "random mutations of signed files; 0: 100,000, 5,000 with -short, 1,000 with -race")

// parallel calls f with every number below n, by as many goroutines as there are processors.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	group.Wait()
}

// Not one bit of a signed file may be another: of a small file all are tried; and some in other classes and byte orders, by
// the other algorithm, and with two signatures of which one would suffice.
func TestEveryBit(t *testing.T) {
	key, hardware := testKey(t, 1), p256Key(t)
	v := verifier(t, Config{Trust: trusting(t, key, hardware)})
	every := elftest.Every(program)
	for name, b := range map[string][]byte{
		"ed25519": embed(t, every["64le"].Bytes, Template{Name: "small"}, key),
		"p256":    embed(t, every["32be"].Bytes, Template{}, hardware),
		"both":    embed(t, every["32le"].Bytes, Template{}, hardware, key),
	} {
		t.Run(name, func(t *testing.T) {
			want(t, v.bytes(t, b, UseExec), Signed, "")
			step := 1
			if name != "ed25519" {
				step = 5 // of the others every fifth
			}
			if raced {
				step *= 21
			}
			parallel(8*len(b)/step, func(i int) {
				i *= step
				x := slices.Clone(b)
				x[i/8] ^= 1 << (i % 8)
				if got := v.bytes(t, x, UseAny); got.Allow || got.Reason == Unsigned {
					t.Errorf("bit %d of octet %d of %d: %s", i%8, i/8, len(b), got)
				}
			})
			t.Logf("%d bits of %d octets", 8*len(b)/step, len(b))
		})
	}
}

// mutate changes a file in a random way, often where the structure is.
func mutate(r *rand.Rand, b []byte) []byte {
	x := slices.Clone(b)
	at := r.IntN(len(x))
	switch r.IntN(4) { // where it matters more: ELF header, and the note, names and section table at the end
	case 0:
		at = r.IntN(min(len(x), 256))
	case 1:
		at = len(x) - 1 - r.IntN(min(len(x), 4096))
	}
	n := 1 + r.IntN(64)
	end := min(len(x), at+n)
	switch r.IntN(9) {
	case 0:
		x[at] ^= 1 << r.IntN(8)
	case 1:
		x[at] = byte(r.Uint32())
	case 2:
		for i := range x[at:end] {
			x[at+i] = []byte{0, 0xff, 0x7f, 0x80}[r.IntN(4)]
		}
	case 3:
		x = slices.Delete(x, at, end)
	case 4:
		x = slices.Insert(x, at, bytes.Repeat([]byte{byte(r.Uint32())}, n)...)
	case 5:
		x = x[:at]
	case 6:
		from := r.IntN(len(x))
		copy(x[at:], b[from:min(len(b), from+n)])
	case 7:
		x = append(x, b[at:end]...)
	case 8:
		for range 1 + r.IntN(8) {
			x[r.IntN(len(x))] ^= 1 << r.IntN(8)
		}
	}
	return x
}

// Random mutations of bigger files: none verifies, none panics.
func TestMutations(t *testing.T) {
	n := *mutations
	if n == 0 {
		switch {
		case raced:
			n = 1_000
		case testing.Short():
			n = 5_000
		default:
			n = 100_000
		}
	}
	key, hardware := testKey(t, 1), p256Key(t)
	v := verifier(t, Config{Trust: trusting(t, key, hardware)})
	var files [][]byte
	for _, name := range []string{"/bin/true", "/bin/echo"} {
		if b, err := os.ReadFile(name); err == nil && len(b) < 1<<17 {
			files = append(files, embed(t, b, Template{Name: name, Version: 1}, key))
		}
	}
	big := program
	big.Sections = append(slices.Clone(big.Sections), elftest.Section{Name: ".rodata", Type: 1, Data: bytes.Repeat([]byte("constant "), 3000)})
	for _, m := range elftest.Every(big) {
		files = append(files, embed(t, m.Bytes, Template{Version: 1}, key, hardware))
	}
	seed := rand.Uint64()
	t.Logf("%d mutations of %d files, seed %d", n, len(files), seed)
	parallel(n, func(i int) {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		b := files[i%len(files)]
		x := mutate(r, b)
		if r.IntN(4) == 0 && len(x) > 0 {
			x = mutate(r, x)
		}
		if got := v.bytes(t, x, UseAny); got.Allow != bytes.Equal(x, b) {
			t.Errorf("mutation %d: %s", i, got)
		}
	})
}
