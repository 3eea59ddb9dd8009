//go:build !race && !midplane_safe

package fib

import (
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"unsafe"

	"midplane/internal/fib/image"
)

// TestLookupStaysInside looks up in an image whose heap has become anything, as a reader meets it that is overtaken by a
// writer: Lookup, LookupBatch and Resolve end, and stay inside. Around the memory are pages that cannot be read: who
// leaves it dies.
func TestLookupStaysInside(t *testing.T) {
	const page, size = 4096, 16 << 20
	b, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	for _, p := range [][]byte{b[:page], b[len(b)-page:]} {
		if err := syscall.Mprotect(p, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&b[page])), size/8)
	set := must(New(&Config{Memory: words}))
	table := must(set.Create(1, ""))
	nh := must(set.AddNextHop(NextHop{Type: Unicast, Device: 1}))
	r := rand.New(rand.NewPCG(1, 1))
	for range 100_000 { // so many that IPv4's root has its largest table
		table.Insert(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32())}), 24), nh)
		table.Insert(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 24), nh)
	}
	for range 3000 {
		a := [16]byte{0x20, 1, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
		table.Insert(netip.PrefixFrom(netip.AddrFrom16(a), 32+r.IntN(17)).Masked(), nh)
	}
	im := set.im
	d := table.desc.Load()
	if !image.IsRoot(im.Load(d+image.DescRoot), 18) || !image.IsRoot(im.Load(d+image.DescRoot+1), 12) {
		t.Fatal("roots are smaller than they should be")
	}
	heap := image.Lo(im.Load(image.HeaderHeap))
	for round := range 12 {
		for i := heap; i < im.Len(); i++ {
			w := r.Uint64()
			switch round % 4 {
			case 1: // references everywhere, to anywhere
				w = image.Pair(image.Ref(r.Uint32N(im.Len())), image.Ref(r.Uint32N(im.Len())))
			case 2:
				w = ^uint64(0)
			case 3: // direct tables below direct tables
				w = image.Pair(image.Ref(r.Uint32N(im.Len())&^(image.TableAlign-1)), r.Uint32())
			}
			im.Fill(i, w)
		}
		addrs, nhs := make([]netip.Addr, 64), make([]NextHopID, 64)
		for range 2000 {
			for i := range addrs {
				if r.IntN(2) == 0 {
					addrs[i] = netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
					continue
				}
				a := [16]byte{0x20, 1}
				for j := 2; j < 16; j++ {
					a[j] = byte(r.Uint32())
				}
				addrs[i] = netip.AddrFrom16(a)
			}
			for _, a := range addrs {
				table.Lookup(a)
				set.Resolve(table, a, r.Uint32())
			}
			table.LookupBatch(addrs, nhs)
		}
	}
}
