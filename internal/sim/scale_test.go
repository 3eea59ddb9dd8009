package sim

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

var scaleFlag = flag.Duration("scale", 0, "run the growth table over this much virtual time; docs/performance.md has 10m")

// Growth is what a cluster of n nodes at rest costs.
type growth struct {
	n         int
	whole     time.Duration // virtual time until all links are up and all tables equal
	startMsgs uint64        // datagrams sent until then
	msgs      float64       // datagrams sent in a second after that, all nodes
	octets    float64       // and their octets
	cpu       time.Duration // for a second of virtual time, all nodes
	heap      uint64        // octets a node
	names     int           // entries of each name table
}

// restScenario is n nodes on one perfect network, without faults; each node has three services.
func restScenario(n int) Scenario {
	return Scenario{
		Seed: 1, Nodes: n, Segments: []Profile{{Media: wire.MediaUDP, Delay: 100 * time.Microsecond}},
		Priority: []int{10}, Tolerance: 1500, Window: 50, MaxSize: 1000, MaxStream: 1000,
	}
}

func grow(n int, rest time.Duration) (g growth, err error) {
	g.n = n
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCluster(restScenario(n))
	for _, s := range c.sites {
		c.At(0, s.start)
	}
	c.every(time.Second, c.audit)
	for {
		if err := c.Run(c.now.Add(50 * time.Millisecond)); err != nil {
			return g, err
		}
		why := c.converged()
		if why == "" {
			break
		}
		if c.now > mono.Time(70*time.Second) {
			return g, fmt.Errorf("%d nodes: %s", n, why)
		}
	}
	g.whole, g.startMsgs = time.Duration(c.now), c.stats.Sent
	if err := c.Run(c.now.Add(5 * time.Second)); err != nil {
		return g, err
	}
	const slices = 10 // the fastest is measured, since other programs may disturb
	stats, fastest := c.stats, time.Duration(1<<62)
	for range slices {
		start := time.Now()
		if err := c.Run(c.now.Add(rest / slices)); err != nil {
			return g, err
		}
		fastest = min(fastest, time.Since(start))
	}
	if c.cs.LinksDown != 0 {
		return g, fmt.Errorf("%d nodes at rest: %d links went down", n, c.cs.LinksDown)
	}
	if why := c.converged(); why != "" {
		return g, fmt.Errorf("%d nodes at rest: %s", n, why)
	}
	sec := rest.Seconds()
	g.msgs = float64(c.stats.Sent-stats.Sent) / sec
	g.octets = float64(c.stats.SentOctets-stats.SentOctets) / sec
	g.cpu = time.Duration(float64(fastest) * slices / sec)
	g.names = c.sites[0].st.Names().Len()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc {
		g.heap = (after.HeapAlloc - before.HeapAlloc) / uint64(n)
	}
	runtime.KeepAlive(c)
	return g, nil
}

// TestScale shows how the cost of a cluster at rest grows with its size, and that no link goes down in it. By itself it
// runs for seconds of virtual time; -scale 10m makes the table of docs/performance.md.
func TestScale(t *testing.T) {
	rest, sizes := *scaleFlag, []int{2, 4, 8, 16, 32, 33, 50, 75, 100}
	if rest == 0 {
		rest, sizes = 10*time.Second, []int{2, 16, 40}
	}
	var gs []growth
	for _, n := range sizes {
		g, err := grow(n, rest)
		if err != nil {
			t.Fatal(err)
		}
		gs = append(gs, g)
	}
	t.Logf("at rest for %v of virtual time:\n%s", rest, table(gs))
	// Each end of each link sends a probe and an answer in each interval of 375 ms, and hardly anything else.
	for _, g := range gs {
		if most := 1.1 * 2 / 0.375 * float64(g.n*(g.n-1)); g.msgs > most {
			t.Errorf("%.0f messages a second among %d nodes; want at most %.0f", g.msgs, g.n, most)
		}
	}
}

func table(gs []growth) string {
	s := "| nodes | whole after | datagrams until then | datagrams/s | per node | kbit/s per node | CPU per second | per node | heap per node | names |\n"
	s += "|-|-|-|-|-|-|-|-|-|-|\n"
	for _, g := range gs {
		n := float64(g.n)
		s += fmt.Sprintf("| %d | %.2f s | %d | %.0f | %.1f | %.1f | %.2f ms | %.0f µs | %d kB | %d |\n", g.n, g.whole.Seconds(), g.startMsgs, g.msgs, g.msgs/n,
			g.octets*8/1000/n, float64(g.cpu.Microseconds())/1000, float64(g.cpu.Nanoseconds())/1000/n, g.heap/1024, g.names)
	}
	return s
}
