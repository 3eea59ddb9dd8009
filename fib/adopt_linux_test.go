package fib

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

const (
	crashFile = "MIDPLANE_TEST_CRASH_IMAGE"
	crashSize = 4 << 20
)

// mapImage maps a file as an image is shared.
func mapImage(t testing.TB, path string) []uint64 {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(crashSize); err != nil {
		t.Fatal(err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, crashSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), crashSize/8)
}

// worldModel is what a Set should have: routes by FIB and prefix, and the device that each leads to.
type worldModel map[ID]map[netip.Prefix]uint32

// change makes change number i of a seed to the Set (if it is not nil), and to the model.
func (w worldModel) change(s *Set, seed, i uint64) {
	r := rand.New(rand.NewPCG(seed, i))
	id := ID(1 + r.IntN(4))
	dev := 1 + r.Uint32N(6)
	hop := func() NextHopID { return must(s.Intern(via("192.0.2.1", dev))) }
	draw := func() netip.Prefix {
		if r.IntN(3) == 0 {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(r.IntN(3)), byte(r.Uint32()), byte(r.Uint32())}), r.IntN(49)).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(3)), byte(r.Uint32()), byte(r.Uint32())}), r.IntN(33)).Masked()
	}
	switch n := r.IntN(400); {
	case w[id] == nil:
		if w[id] = map[netip.Prefix]uint32{}; s != nil {
			must(s.Create(id, fmt.Sprint("vpn", id)))
		}
	case n == 0:
		if delete(w, id); s != nil {
			if err := s.Remove(id); err != nil {
				panic(err)
			}
		}
	case n == 1:
		if clear(w[id]); s != nil {
			f, _ := s.Table(id)
			f.Clear()
		}
	case n == 2: // one family, as a Replace of both is not one step in a crash
		clear(w[id])
		for range 300 {
			w[id][draw()] = dev
		}
		for p := range w[id] {
			if p.Addr().Is6() {
				delete(w[id], p)
			}
		}
		if s != nil {
			f, _ := s.Table(id)
			for r := range f.All() {
				if r.Prefix.Addr().Is6() {
					f.Delete(r.Prefix)
				}
			}
			nh := hop()
			if err := f.Replace(func(yield func(Route) bool) {
				for p := range w[id] {
					if !yield(Route{p, nh}) {
						return
					}
				}
			}); err != nil {
				panic(err)
			}
		}
	default:
		p := draw()
		if w[id][p] = dev; s != nil {
			f, _ := s.Table(id)
			if _, _, err := f.Insert(p, hop()); err != nil {
				panic(err)
			}
		}
	}
	if n := r.IntN(3); n == 0 && w[id] != nil {
		p := draw()
		if delete(w[id], p); s != nil {
			f, _ := s.Table(id)
			f.Delete(p)
		}
	}
}

// TestCrashChild is the process that TestAdoptAfterCrash kills.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(crashFile)
	if path == "" {
		t.Skip("it is a part of TestAdoptAfterCrash")
	}
	s := must(New(&Config{Memory: mapImage(t, path), MaxFIBs: 8, MaxNextHops: 100}))
	seed, _ := strconv.ParseUint(os.Getenv("MIDPLANE_TEST_SEED"), 10, 64)
	w := worldModel{}
	for i := uint64(0); ; i++ {
		w.change(s, seed, i)
		fmt.Fprintln(os.Stderr, i) // one write system call: what arrived was done
	}
}

// The image of a process that was killed in the middle of whatever it did is taken over: all changes that were done are
// there, the one under way is or is not, memory is counted right, and it goes on.
func TestAdoptAfterCrash(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for seed := range uint64(rounds) {
		path := filepath.Join(t.TempDir(), fmt.Sprint("image", seed))
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), crashFile+"="+path, "MIDPLANE_TEST_SEED="+strconv.FormatUint(seed, 10))
		out, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 77))
		limit, done := 1+r.Uint64N(6000), uint64(0)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if n, err := strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatalf("child: %s", lines.Text())
			} else if done = n + 1; done == limit {
				_ = cmd.Process.Kill()
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()

		s, err := Adopt(mapImage(t, path))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		before := worldModel{}
		for i := range done {
			before.change(nil, seed, i)
		}
		after := maps.Clone(before)
		for id := range after {
			after[id] = maps.Clone(before[id])
		}
		after.change(nil, seed, done)
		compare(t, s, seed, before, after)

		// It goes on, and is taken over once more, this time from one that lives.
		w := read(s)
		for i := range uint64(2000) {
			w.change(s, seed+1000, i)
		}
		compare(t, s, seed, w, w)
		again := must(Adopt(s.words()))
		compare(t, again, seed, w, w)
		for _, f := range again.Tables() {
			if err := again.Remove(f.ID()); err != nil {
				t.Fatal(err)
			}
		}
		for id := range again.NextHops() {
			if err := again.RemoveNextHop(id); err != nil {
				t.Fatal(err)
			}
		}
		again.hops.heap.Release()
		empty := must(New(&Config{Size: crashSize, MaxFIBs: 8, MaxNextHops: 100}))
		if got, want := again.Stats().Free, empty.Stats().Free; got != want {
			t.Fatalf("seed %d: %d octets are lost", seed, int64(want)-int64(got))
		}
		empty.Close()
	}
}

func read(s *Set) worldModel {
	w := worldModel{}
	for _, f := range s.Tables() {
		w[f.ID()] = map[netip.Prefix]uint32{}
		for r := range f.All() {
			i, _ := s.NextHop(r.NextHop)
			w[f.ID()][r.Prefix] = i.NextHop.Device
		}
	}
	return w
}

// compare wants a Set to be as before or after a change, prefix by prefix, and lookups to fit.
func compare(t *testing.T, s *Set, seed uint64, before, after worldModel) {
	t.Helper()
	got := read(s)
	for id := range got {
		if before[id] == nil && after[id] == nil {
			t.Fatalf("seed %d: fib %d is too many", seed, id)
		}
		for p, dev := range got[id] {
			if before[id][p] != dev && after[id][p] != dev {
				t.Fatalf("seed %d: fib %d: %v leads to %d, want %d or %d", seed, id, p, dev, before[id][p], after[id][p])
			}
			f, _ := s.Table(id)
			if h := s.Resolve(f, p.Addr(), 0); h.Device == 0 {
				t.Fatalf("seed %d: fib %d: %v leads nowhere", seed, id, p)
			}
		}
	}
	for id := range before {
		if got[id] == nil && after[id] != nil {
			t.Fatalf("seed %d: fib %d is missing", seed, id)
		}
		for p := range before[id] {
			if got[id][p] == 0 && after[id][p] != 0 {
				t.Fatalf("seed %d: fib %d: %v is missing", seed, id, p)
			}
		}
	}
	for _, f := range s.Tables() {
		n4, n6 := f.Len()
		if n4+n6 != len(got[f.ID()]) {
			t.Fatalf("seed %d: fib %d counts %d routes, has %d", seed, f.ID(), n4+n6, len(got[f.ID()]))
		}
		for r := range f.All() {
			if nh, ok := f.Lookup(r.Prefix.Addr()); !ok {
				t.Fatalf("seed %d: %v is not found", seed, r.Prefix)
			} else if lr, _ := f.LookupRoute(r.Prefix.Addr()); lr.NextHop != nh {
				t.Fatalf("seed %d: %v: lookup says %d, route %v", seed, r.Prefix, nh, lr)
			}
		}
	}
}

func (s *Set) words() []uint64 { return s.im.All() }

// A damaged image is refused, or adopted with whatever it says, but never crashes who adopts it.
func FuzzAdopt(f *testing.F) {
	s := must(New(&Config{Memory: make([]uint64, MinSize/8), MaxFIBs: 8, MaxNextHops: 100}))
	w := worldModel{}
	for i := range uint64(600) {
		w.change(s, 1, i)
	}
	a := must(s.AddNextHop(via("", 1)))
	must(s.AddGroup([]Member{{a, 3}, {must(s.AddNextHop(NextHop{Type: Lookup, Table: 99})), 1}}))
	good := s.words()
	f.Add(uint64(1), uint16(1))
	f.Add(uint64(2), uint16(100))
	f.Fuzz(func(t *testing.T, seed uint64, flips uint16) {
		words := append([]uint64(nil), good...)
		r := rand.New(rand.NewPCG(seed, 3))
		for range flips % 200 {
			i := r.IntN(len(words))
			if r.IntN(2) == 0 {
				i = r.IntN(4096)
			}
			if r.IntN(8) == 0 {
				words[i] = r.Uint64()
			} else {
				words[i] ^= 1 << r.IntN(64)
			}
		}
		s, err := Adopt(words)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		read(s)
		for i := range uint64(100) {
			w := read(s)
			for id := range w {
				if id > 4 {
					return
				}
			}
			w.change(s, seed, i)
		}
	})
}
