package stack_test

import (
	"testing"
	"time"

	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// Each case of the hostile inputs that bugs in Linux have taught, against a whole node. There are two good nodes with
// honest traffic between them (innocent), a mad one, which has a link to each, and whoever else can reach the bus. The
// first good node is the one attacked.

// attack is one hostile input from one position.
type attack struct {
	by string // "peer": the mad node, with a live link; "broadcast": its broadcast link; "stranger"; "spoof": in another's name

	do    func(e *env, i int) // the i-th of times
	times int                 // default 20
	every time.Duration       // let pass after each, default 5 ms

	counts  string // counters at the node attacked that must rise each time, see rise; "" for what Linux ignores without a word
	once    bool   // it is enough that they rise once
	fails   bool   // the link to the mad node fails, as in Linux
	answers int    // most datagrams in answer to one, default 20
	grows   int    // publications that are left
	heap    uint64 // most octets of memory that are left, default 8 MiB
	check   func(e *env)
}

type hostile struct {
	name    string
	attacks []attack
}

// env is the scene of an attack.
type env struct {
	t       *testing.T
	w       *world
	a, b, m *host // attacked, innocent, mad
	n       *innocent
	downs   int // of the link from a to m
	notes   map[string]int
	socks   map[string]*socket.Sock
}

func (e *env) fatalf(format string, args ...any) {
	e.t.Helper()
	e.t.Fatalf(format, args...)
}

// mangle changes what the mad node sends to the attacked one: of the packets that match, what f returns arrives.
func (e *env) mangle(match func(m wire.Msg) bool, f func(m wire.Msg) wire.Msg) {
	e.w.mangle = func(from *host, dst wire.MediaAddr, pkt []byte) [][]byte {
		if from != e.m || !(dst.Broadcast || dst == e.a.at) || !match(pkt) {
			return [][]byte{pkt}
		}
		return [][]byte{f(pkt)}
	}
}

func isState(m wire.Msg) bool {
	return m.User() == wire.UserLinkProtocol && m.Type() == wire.TypeState
}

func newEnv(t *testing.T) *env {
	w := newWorld(t, 7)
	e := &env{t: t, w: w, a: w.add(1), b: w.add(2), m: w.add(3), notes: map[string]int{}, socks: map[string]*socket.Sock{}}
	w.meet()
	e.n = newInnocent(e.a, e.b)
	e.n.run(50 * time.Millisecond)
	up := true
	w.each = func() {
		now := e.a.up(e.m)
		if up && !now {
			e.downs++
		}
		up = now
	}
	return e
}

func (at attack) run(t *testing.T) {
	e := newEnv(t)
	at.times = max(at.times, 1)
	if at.every == 0 {
		at.every = 5 * time.Millisecond
	}
	if at.answers == 0 {
		at.answers = 20
	}
	if at.heap == 0 {
		at.heap = 8 << 20
	}
	var memory uint64
	published, sockets := e.a.s.Names().Len(), 0
	for i := range at.times {
		e.w.run(time.Millisecond) // let what was under way arrive
		before, sent, downs := e.a.counters(e.m), e.a.sent, e.downs
		at.do(e, i)
		e.w.run(time.Millisecond)
		after := e.a.counters(e.m)
		if n := e.a.sent - sent; n > at.answers {
			t.Fatalf("attack %d was answered with %d datagrams, more than %d", i, n, at.answers)
		}
		if at.fails && e.downs == downs {
			t.Fatalf("attack %d: the link did not fail", i)
		}
		if at.counts != "" && !(at.once && i > 0) && rise(before, after, at.counts) <= 0 {
			t.Fatalf("attack %d: %s did not rise", i, at.counts)
		}
		e.n.run(at.every)
		if at.fails {
			for k := 0; !e.a.up(e.m) || !e.m.up(e.a); k++ {
				if k == 1000 {
					t.Fatalf("attack %d: no contact any more", i)
				}
				e.n.run(20 * time.Millisecond)
			}
		}
		if i == 0 {
			memory, sockets = heap(), e.a.s.Sockets().Len()
		}
	}
	if !at.fails && e.downs > 0 {
		t.Errorf("the link to the mad node failed %d times", e.downs)
	}
	e.w.mangle = nil
	e.n.run(3 * time.Second)
	if at.check != nil {
		at.check(e)
	}
	e.n.finish()
	if !e.a.up(e.m) {
		t.Error("no contact with the mad node after it has come to its senses")
	}
	if n := e.a.s.Names().Len(); n != published+at.grows {
		t.Errorf("%d publications, were %d", n, published)
	}
	if n := e.a.s.Sockets().Len(); n > sockets {
		t.Errorf("%d sockets, were %d", n, sockets)
	}
	if n := e.a.s.Distributor().Stats().DeferredNow; n != 0 {
		t.Errorf("%d name items are still deferred", n)
	}
	if after := heap(); after > memory+at.heap {
		t.Errorf("memory grew by %d KiB", (after-memory)>>10)
	}
	if at.times == 1 {
		t.Logf("%d steps", e.w.steps)
	}
}

func TestHostile(t *testing.T) {
	seen := map[string]bool{}
	for _, group := range [][]hostile{hostileLink, hostileFragments, hostileNames, hostileDiscovery, hostileSockets, hostileTopology} {
		for _, h := range group {
			if seen[h.name] || len(h.attacks) == 0 {
				t.Fatalf("case %s is there twice, or empty", h.name)
			}
			seen[h.name] = true
			t.Run(h.name, func(t *testing.T) {
				for _, at := range h.attacks {
					if at.times == 0 {
						at.times = 20
					}
					t.Run(at.by, at.run)
				}
			})
		}
	}
}
