package sim

import (
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// calm is a small cluster without faults or traffic.
func calm(nodes int) Scenario {
	sc := restScenario(nodes)
	sc.MaxSteps = 1_000_000
	return sc
}

// whole returns a cluster that has come together.
func whole(t *testing.T, nodes int) *Cluster {
	t.Helper()
	c := newCluster(calm(nodes))
	for _, s := range c.sites {
		s.start()
	}
	if err := c.Run(mono.Time(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if why := c.converged(); why != "" {
		t.Fatal(why)
	}
	return c
}

func wantErr(t *testing.T, c *Cluster, want string) {
	t.Helper()
	switch err := c.Err(); {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v; want %q", err, want)
	}
}

// TestOracleMessages checks that the oracle sees what must not happen to numbered messages.
func TestOracleMessages(t *testing.T) {
	k := flowKey{0, 1, 1}
	for _, c := range []struct {
		name, want string
		f          func(c *Cluster, f *flow)
	}{
		{"in order", "", func(c *Cluster, f *flow) { c.took(k, 1); c.took(k, 2); c.took(k, 3); c.complete() }},
		{"twice", "repeated", func(c *Cluster, f *flow) { c.took(k, 1); c.took(k, 1) }},
		{"out of order", "lost", func(c *Cluster, f *flow) { c.took(k, 1); c.took(k, 3) }},
		{"out of order after loss of contact", "repeated", func(c *Cluster, f *flow) {
			f.excused = 3
			c.took(k, 1)
			c.took(k, 3)
			c.took(k, 2)
		}},
		{"never sent", "not sent", func(c *Cluster, f *flow) { c.took(k, 4) }},
		{"unknown life", "not sent", func(c *Cluster, f *flow) { c.took(flowKey{0, 1, 7}, 1) }},
		{"lost at the end", "message 3 of site 0", func(c *Cluster, f *flow) { c.took(k, 1); c.took(k, 2); c.complete() }},
		{"lost with contact", "", func(c *Cluster, f *flow) { c.took(k, 1); f.excused = 3; c.took(k, 3); c.complete() }},
		{"came back", "", func(c *Cluster, f *flow) {
			f.returned = map[uint32]bool{2: true}
			c.took(k, 1)
			c.took(k, 3)
			c.complete()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newCluster(calm(2))
			cl.sites[0].life = 1
			f := cl.flow(k)
			f.next = 4
			c.f(cl, f)
			wantErr(t, cl, c.want)
		})
	}
}

func TestOracleMulticasts(t *testing.T) {
	k := flowKey{0, 1, 1}
	for _, c := range []struct {
		name, want string
		got        []uint32
		excused    uint32
	}{
		{"all that were due", "", []uint32{1, 3, 4}, 0},
		{"more than was due", "", []uint32{1, 2, 3, 4}, 0},
		{"one missing", "multicast 3 of site 0", []uint32{1, 4}, 0},
		{"last missing", "multicast 4 of site 0", []uint32{1, 3}, 0},
		{"twice", "after 3", []uint32{1, 3, 3}, 0},
		{"out of order", "multicast 1 of site 0", []uint32{3, 1}, 0},
		{"contact lost", "", []uint32{4}, 4},
		{"never sent", "after 4", []uint32{1, 3, 4, 5}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newCluster(calm(2))
			cl.sites[0].life = 1
			cl.mflow(flowKey{0, 0, 1}).next = 5
			f := cl.mflow(k)
			f.due, f.excused = []uint32{1, 3, 4}, c.excused
			for _, n := range c.got {
				cl.tookMcast(k, n)
			}
			cl.complete()
			wantErr(t, cl, c.want)
		})
	}
}

// TestOracleDowns takes links down at a cluster at rest, with and without a reason.
func TestOracleDowns(t *testing.T) {
	for _, c := range []struct {
		name, want string
		f          func(c *Cluster)
	}{
		{"nothing happens", "", func(c *Cluster) {}},
		{"reset by hand", "for no reason", func(c *Cluster) {
			s := c.sites[0]
			s.h.Do(func(now mono.Time) {
				if err := s.st.BearerReset(now, 0); err != nil {
					t.Fatal(err)
				}
			})
		}},
		{"no carrier", "", func(c *Cluster) { c.sites[0].carry(0, false) }},
		{"peer crashes", "", func(c *Cluster) { c.sites[1].stop(false) }},
		{"peer leaves", "", func(c *Cluster) { c.sites[1].stop(true) }},
		{"path cut", "", func(c *Cluster) { c.Cut(0, 0, 1, true) }},
		{"path cut for a moment", "", func(c *Cluster) {
			c.Cut(0, 0, 1, true)
			c.After(time.Second, func() { c.Cut(0, 0, 1, false) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := whole(t, 3)
			cl.Run(cl.now.Add(10 * time.Second)) // starting is no excuse any more
			cl.every(auditEvery, cl.audit)
			c.f(cl)
			cl.Run(cl.now.Add(5 * time.Second))
			wantErr(t, cl, c.want)
		})
	}
}

// deaf is a node that does not hear link protocol of one peer for a while, although the network delivers it.
type deaf struct {
	Node
	peer        wire.MediaAddr
	from, until mono.Time
}

func (d *deaf) HandlePacket(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte) {
	if src == d.peer && now >= d.from && now < d.until {
		return
	}
	d.Node.HandlePacket(now, bearer, src, pkt)
}

// changer is a node that changes an octet of each long message that it receives.
type changer struct{ Node }

func (d *changer) HandlePacket(now mono.Time, bearer int, src wire.MediaAddr, pkt []byte) {
	if m := wire.Msg(pkt); m.IsData() && len(m) > 100 {
		m[90] ^= 1
	}
	d.Node.HandlePacket(now, bearer, src, pkt)
}

// blind is a node that never learns that time passes, so that it misses no peer.
type blind struct {
	Node
	after mono.Time
}

func (b *blind) Deadline() mono.Time {
	if d := b.Node.Deadline(); d < b.after {
		return d
	}
	return mono.Never
}

// TestOracleSeesWrongNodes runs whole scenarios in which one node misbehaves.
func TestOracleSeesWrongNodes(t *testing.T) {
	for _, c := range []struct {
		name, want string
		wrap       func(s *site, n Node) Node
		prepare    func(c *Cluster)
	}{
		{name: "deaf", want: "for no reason", wrap: func(s *site, n Node) Node {
			return &deaf{n, s.c.segs[0].addr(1), mono.Time(20 * time.Second), mono.Time(25 * time.Second)}
		}},
		{name: "changes octets", want: "nobody sent", wrap: func(s *site, n Node) Node { return &changer{n} },
			prepare: func(c *Cluster) { c.sc.Pause = 50 * time.Millisecond }},
		{name: "no timers", want: "keeps the link", wrap: func(s *site, n Node) Node { return &blind{n, mono.Time(10 * time.Second)} },
			prepare: func(c *Cluster) { c.At(mono.Time(15*time.Second), func() { c.Cut(0, 1, 0, true) }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := calm(2)
			sc.Chaos = 30 * time.Second
			cl := newCluster(sc)
			cl.wrap = func(s *site, n Node) Node {
				if s.h.Index == 0 {
					return c.wrap(s, n)
				}
				return n
			}
			if c.prepare != nil {
				c.prepare(cl)
			}
			cl.play()
			wantErr(t, cl, c.want)
		})
	}
}

// TestOracleTables changes what is bound behind the distribution's back.
func TestOracleTables(t *testing.T) {
	c := whole(t, 3)
	s := c.sites[1]
	var sk *socket.Sock
	s.h.Do(func(now mono.Time) {
		var err error
		if sk, err = s.st.Sockets().Create(now, socket.RDM); err != nil {
			t.Fatal(err)
		}
		if err := sk.Bind(now, wire.ServiceRange{Type: 5000, Lower: 1, Upper: 2}, wire.ScopeCluster); err != nil {
			t.Fatal(err)
		}
	})
	if why := c.converged(); !strings.Contains(why, "name table") {
		t.Errorf("a binding that is under way is seen as %q", why)
	}
	c.Run(c.now.Add(time.Second))
	if why := c.converged(); why != "" {
		t.Error(why)
	}
	c.Cut(0, 1, 0, true)
	s.h.Do(func(now mono.Time) { sk.Close(now) })
	c.Run(c.now.Add(100 * time.Millisecond))
	if why := c.converged(); !strings.Contains(why, "site 0: name table") {
		t.Errorf("a stale binding is seen as %q", why)
	}
	c.Run(c.now.Add(3 * time.Second))
	if why := c.converged(); !strings.Contains(why, "link") {
		t.Errorf("a lost link is seen as %q", why)
	}
}
