package names

import (
	"fmt"
	"runtime"
	"testing"

	"midplane/internal/tipc/wire"
)

const benchSize = 100_000

// bigTable has 100,000 publications of 10 nodes in 50 services: single instances below long overlapping ranges.
func bigTable(tb testing.TB) *Table {
	tab := NewTable(Config{Own: own})
	for i := range uint32(benchSize) {
		mustRemote(tb, tab, benchRange(i), 1+i%10, i, i)
	}
	return tab
}

func benchRange(i uint32) wire.ServiceRange {
	r := sr(1000+i%50, i, i)
	if i%4 == 0 {
		r.Upper += 1000
	}
	return r
}

// TestMemoryBound measures what a publication costs, which the bounds in Config are explained with.
func TestMemoryBound(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab := bigTable(t)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / benchSize
	t.Logf("%.0f octets for a publication with a range of its own", per)
	if per > 450 {
		t.Errorf("a publication takes %.0f octets", per)
	}
	for node := range uint32(10) {
		tab.purge(node + 1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// What is left are the tables of the two maps, which do not shrink.
	if left := float64(after.HeapAlloc-before.HeapAlloc) / benchSize; left > 200 {
		t.Errorf("%.0f octets for each publication remain after the purge", left)
	}
	runtime.KeepAlive(tab)
}

func BenchmarkLookup(b *testing.B) {
	for _, big := range []bool{false, true} {
		tab := NewTable(Config{Own: own})
		n := uint32(10)
		if big {
			tab, n = bigTable(b), benchSize
		} else {
			for i := range n {
				mustRemote(b, tab, benchRange(i), 1, i, i)
			}
		}
		b.Run(fmt.Sprintf("of=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var i uint32
			for b.Loop() {
				i = (i + 7919) % n
				if _, ok := tab.Lookup(1000+i%50, i, 0); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkInsertRemove(b *testing.B) {
	tab := bigTable(b)
	b.ReportAllocs()
	var i uint32
	for b.Loop() {
		i = (i + 7919) % benchSize
		a := wire.SocketAddr{Port: i, Node: 1 + i%10}
		tab.removeRemote(benchRange(i), a, i)
		if err := tab.insertRemote(benchRange(i), a, i); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNotify publishes and withdraws with 10,000 subscriptions to other instances of the service and ten to this.
func BenchmarkNotify(b *testing.B) {
	tab := NewTable(Config{Own: own})
	s := tab.NewSubscriber(nil, 0)
	for i := range uint32(10_000) {
		r := sr(100, i, i)
		if i < 10 {
			r.Upper = 1 << 20
		}
		mustSubscribe(b, s, 0, wire.Subscr{Range: r, Timeout: wire.WaitForever, Filter: wire.SubPorts})
	}
	b.ReportAllocs()
	for b.Loop() {
		p, err := tab.Publish(0, sr(100, 1<<19, 1<<19), wire.ScopeCluster, wire.SocketAddr{Port: 1, Node: own}, 1)
		if err != nil {
			b.Fatal(err)
		}
		tab.Withdraw(0, p)
		for range 20 {
			s.Drop()
		}
		if s.Pending() != 0 {
			b.Fatalf("%d events too many", s.Pending())
		}
	}
}

// BenchmarkFill is a node with the largest table coming up, and going down.
func BenchmarkFill(b *testing.B) {
	tab, d, net := newDist(peerA, DistConfig{})
	for i := range uint32(65534) {
		mustPublish(b, tab, benchRange(i), wire.ScopeCluster, i, i)
	}
	d.NodeUp(0, own, wire.CapsAll)
	bulk := net.unicast[own]
	for b.Loop() {
		tab, d, _ := newDist(own, DistConfig{})
		d.NodeUp(0, peerA, wire.CapsAll)
		deliver(d, peerA, bulk...)
		if tab.Len() != 65534 {
			b.Fatalf("%d publications", tab.Len())
		}
		d.NodeDown(0, peerA)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/65534, "ns/publication")
}
