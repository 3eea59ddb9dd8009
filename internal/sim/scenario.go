package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"midplane/internal/tipc/node"
	"midplane/internal/tipc/wire"
)

// Scenario is one run. All of it follows from the seed (see [NewScenario]) unless a test says otherwise.
type Scenario struct {
	Seed      uint64
	Nodes     int
	Segments  []Profile     // one bearer of each node on each
	Priority  []int         // of the links on each
	Tolerance int           // of links, ms
	Window    int           // of links, packets
	SkewPPM   int64         // clocks run up to this much too fast or slow, millionths
	FixedAddr bool          // addresses are configured, not tried
	Chaos     time.Duration // how long faults are injected
	Faults    int           // how many
	Pause     time.Duration // mean time between two actions of a node's applications; 0: none act
	MaxSize   int           // of messages, octets
	MaxStream int           // octets of a connection, each direction
	MaxStall  time.Duration // of a host
	BootOver  time.Duration // nodes start within this time
	MaxSteps  uint64        // of all nodes together; 0: no limit
	Unjudged  bool          // links may go down for any reason
}

// NewScenario draws a scenario of mixed faults with 2 to 16 nodes.
func NewScenario(seed uint64) Scenario {
	r := newRand(seed, 'S')
	pick := func(ds ...int) int { return ds[r.IntN(len(ds))] }
	sc := Scenario{
		Seed:      seed,
		Nodes:     2 + r.IntN(3),
		Tolerance: pick(400, 500, 800, 1000, node1500),
		Window:    pick(node.DefWindow, node.DefWindow, 100, 500),
		FixedAddr: r.IntN(2) == 0,
		Chaos:     time.Duration(3+r.IntN(8)) * time.Second,
		Faults:    pick(0, 1, 2, 4, 8, 16),
		Pause:     time.Duration(pick(20, 50, 100, 200)) * time.Millisecond,
		MaxSize:   pick(2000, 20000, wire.MaxUserMsgSize),
		MaxStream: pick(1000, 30000, 300000),
		MaxSteps:  1_500_000,
		BootOver:  time.Duration(pick(0, 0, 10, 500)) * time.Millisecond,
	}
	switch x := r.IntN(100); { // large clusters cost the square
	case x < 10:
		sc.Nodes = 9 + r.IntN(8)
	case x < 40:
		sc.Nodes = 5 + r.IntN(4)
	}
	if r.IntN(2) == 0 {
		sc.SkewPPM = int64(pick(100, 1000, 10000))
	}
	sc.MaxStall = time.Duration(sc.Tolerance) * time.Millisecond / 2
	for range 1 + r.IntN(2) {
		sc.Segments = append(sc.Segments, newProfile(r))
		sc.Priority = append(sc.Priority, pick(10, 10, 10, 9, 11))
	}
	if sc.Nodes > 8 {
		sc.Chaos = min(sc.Chaos, 5*time.Second)
		sc.Pause *= 2
		sc.MaxStream = min(sc.MaxStream, 30000)
	}
	return sc
}

const node1500 = 1500 // default tolerance, ms

// newProfile draws a segment: from perfect to bad, but good enough for links to live.
func newProfile(r *rand.Rand) Profile {
	p := Profile{Media: wire.MediaUDP}
	if r.IntN(3) == 0 {
		p.Media = wire.MediaEth
	}
	p.Delay = time.Duration(20+r.IntN(2000)) * time.Microsecond
	if r.IntN(4) == 0 {
		p.Delay = time.Duration(1+r.IntN(20)) * time.Millisecond
	}
	if r.IntN(2) == 0 {
		p.Jitter = time.Duration(1 + r.Int64N(int64(2*p.Delay)+1))
	}
	switch r.IntN(5) {
	case 0: // perfect
	case 1:
		p.Loss = 0.001
	case 2:
		p.Loss = 0.01 * r.Float64()
	case 3:
		p.Loss = 0.05 * r.Float64()
	case 4:
		p.Loss = 0.15 * r.Float64()
	}
	if r.IntN(3) == 0 {
		p.Dup = 0.05 * r.Float64()
	}
	if r.IntN(3) == 0 {
		p.Reorder = 0.1 * r.Float64()
		p.ReorderBy = time.Duration(1+r.IntN(30)) * time.Millisecond
	}
	if r.IntN(5) == 0 {
		p.Bandwidth = int64(1+r.IntN(20)) << 20
		p.Queue = time.Duration(20+r.IntN(80)) * time.Millisecond
	}
	return p
}

// String describes the scenario in a few lines.
func (sc Scenario) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes, tolerance %d ms, window %d, %d faults in %v, clocks ±%d ppm, fixed addresses %v, an action each %v, messages to %d, streams to %d octets\n",
		sc.Seed, sc.Nodes, sc.Tolerance, sc.Window, sc.Faults, sc.Chaos, sc.SkewPPM, sc.FixedAddr, sc.Pause, sc.MaxSize, sc.MaxStream)
	for i, p := range sc.Segments {
		fmt.Fprintf(&b, "  segment %c: %v priority %d loss %.2f%% dup %.2f%% reorder %.2f%% by %v delay %v jitter %v bandwidth %d queue %v\n",
			'A'+i, p.Media, sc.Priority[i], p.Loss*100, p.Dup*100, p.Reorder*100, p.ReorderBy, p.Delay, p.Jitter, p.Bandwidth, p.Queue)
	}
	return b.String()
}
