package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"midplane/fib"
	"midplane/internal/lab"
)

// benchSite is a namespace without ports.
func benchSite(b *testing.B) *Kernel {
	b.Helper()
	lab.RequireNamespaces(b)
	ns := lab.NewNamespace(b)
	k, err := Open(Config{Dir: b.TempDir(), NetnsDir: b.TempDir(), Netns: "/run/netns/" + ns.Name()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = k.Close() })
	return k
}

// BenchmarkApply sets FIBs up, finds nothing to do, and removes them.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := benchSite(b)
			var fibs []FIB
			for i := range n {
				fibs = append(fibs, FIB{ID: uint32(1000 + i), Backend: Rules})
			}
			took := [3]time.Duration{}
			rounds := 0
			for b.Loop() {
				rounds++
				for i, l := range [][]FIB{fibs, fibs, nil} {
					began := time.Now()
					if _, err := k.Apply(b.Context(), l); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(began)
				}
			}
			for i, name := range []string{"add", "keep", "remove"} {
				b.ReportMetric(took[i].Seconds()*1000/float64(rounds), name+"-ms")
			}
		})
	}
}

// BenchmarkSyncRoutes mirrors 100,000 routes: into an empty table, again, and out.
func BenchmarkSyncRoutes(b *testing.B) {
	const n = 100_000
	k := benchSite(b)
	if _, err := k.Apply(b.Context(), []FIB{{ID: 10, Backend: Rules}}); err != nil {
		b.Fatal(err)
	}
	var l []Route
	for i := range n {
		l = append(l, Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), Type: fib.Blackhole})
	}
	phases := []struct {
		name string
		l    []Route
		want SyncReport
		took time.Duration
	}{{"add/s", l, SyncReport{Added: n}, 0}, {"keep/s", l, SyncReport{Kept: n}, 0}, {"delete/s", nil, SyncReport{Deleted: n}, 0}}
	rounds := 0
	for b.Loop() {
		rounds++
		for i := range phases {
			p := &phases[i]
			began := time.Now()
			r, err := k.SyncRoutes(b.Context(), 10, slices.Values(p.l))
			p.took += time.Since(began)
			if err != nil || r != p.want {
				b.Fatalf("%+v, %v", r, err)
			}
		}
	}
	for _, p := range phases {
		b.ReportMetric(float64(n*rounds)/p.took.Seconds(), p.name)
	}
	if _, err := k.Remove(b.Context()); err != nil {
		b.Fatal(err)
	}
}
