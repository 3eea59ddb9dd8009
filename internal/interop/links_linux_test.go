//go:build linux

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/internal/mono"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/stack"
	"midplane/tipc"
)

// links returns our links to peers.
func links(n *tipc.Node) (all []node.LinkInfo) {
	n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
		for l := range s.Nodes().Links(false) {
			if !l.Broadcast {
				all = append(all, l)
			}
		}
	})
	return all
}

// linuxName is what Linux calls the other end of our link l: peer and own half exchanged.
func linuxName(l node.LinkInfo) string {
	own, peer, _ := strings.Cut(l.Name, "-")
	return peer + "-" + own
}

// property asks Linux for a property of its end of l.
func (w pair) property(what string, l node.LinkInfo) int {
	w.Helper()
	v, err := strconv.Atoi(strings.TrimSpace(w.g.TIPC("link get %s link %s", what, linuxName(l))))
	if err != nil {
		w.Fatal(err)
	}
	return v
}

var packetCounters = regexp.MustCompile(`(RX|TX) packets:(\d+)`)

// linuxPackets returns how many packets Linux received and sent on its end of l.
func (w pair) linuxPackets(l node.LinkInfo) (rx, tx int) {
	w.Helper()
	for _, m := range packetCounters.FindAllStringSubmatch(w.g.TIPC("link statistics show link %s", linuxName(l)), -1) {
		n, _ := strconv.Atoi(m[2])
		if m[1] == "RX" {
			rx = n
		} else {
			tx = n
		}
	}
	return rx, tx
}

// both transfers data both ways by checksum.
func (w pair) both(inst uint32) {
	w.Helper()
	linuxToOurs(w.T, w.g, w.n, tipc.Stream, inst, 5, 65536)
	oursToLinux(w.T, w.n, w.g, tipc.SeqPacket, inst+1, 10, 66000)
}

// becomes waits for a condition.
func (w pair) becomes(what string, limit time.Duration, holds func() bool) {
	w.Helper()
	if _, ok := lab.Until(limit, holds); !ok {
		w.Errorf("%s: not within %v: %+v", what, limit, links(w.n))
	}
}

// TestIntegrationLinkProperties changes properties of one link at both ends, and takes bearers away and puts them back.
func TestIntegrationLinkProperties(t *testing.T) {
	w := newPair(t, media[0], 1)
	w.sub("tolerance", func(w pair) {
		l := links(w.n)[0]
		for i, ms := range []int{700, 3000} {
			w.g.TIPC("link set tolerance %d link %s", ms, linuxName(l))
			w.becomes("tolerance set on Linux", 3*time.Second, func() bool { return links(w.n)[0].Tolerance == ms })
			w.n.Internals().Do(func(now mono.Time, s *stack.Stack) {
				if err := s.Nodes().SetLinkTolerance(now, l.Name, ms+100+i); err != nil {
					w.Error(err)
				}
			})
			w.becomes("tolerance set on ours", 3*time.Second, func() bool { return w.property("tolerance", l) == ms+100+i })
		}
		w.g.TIPC("link set tolerance 1500 link %s", linuxName(l))
		w.becomes("tolerance set back", 3*time.Second, func() bool { return links(w.n)[0].Tolerance == 1500 })
		w.both(200)
	})
	w.sub("priority", func(w pair) {
		l := links(w.n)[0]
		w.g.TIPC("link set priority 15 link %s", linuxName(l))
		w.becomes("priority set on Linux", 5*time.Second, func() bool {
			l := links(w.n)
			return len(l) == 1 && l[0].Up && l[0].Priority == 15
		})
		w.c.waitUp()
		w.n.Internals().Do(func(now mono.Time, s *stack.Stack) {
			if err := s.Nodes().SetLinkPriority(now, l.Name, 21); err != nil {
				w.Error(err)
			}
		})
		w.becomes("priority set on ours", 5*time.Second, func() bool { return w.property("priority", l) == 21 })
		w.c.waitUp()
		w.c.waitNamesEqual()
		w.both(202)
	})
	w.sub("window", func(w pair) {
		l := links(w.n)[0]
		w.g.TIPC("link set window 100 link %s", linuxName(l))
		w.n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
			if err := s.Nodes().SetLinkWindow(l.Name, 60); err != nil {
				w.Error(err)
			}
		})
		w.both(204)
		if got := links(w.n)[0].MaxWindow; got != 60 {
			w.Errorf("our window is at most %d, want our own 60", got)
		}
		w.n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
			if err := s.Nodes().SetLinkWindow(l.Name, 49); err != node.ErrRange {
				w.Errorf("window of 49: %v", err)
			}
		})
	})
	w.sub("mtu", func(w pair) {
		w.n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
			if err := s.Nodes().BearerSetMTU(0, 1600); err != nil {
				w.Error(err)
			}
		})
		w.both(206)
		multicastMethods(w)
		// Linux's own multicasts do not follow (net/tipc/bcast.c tipc_bcast_get_mtu), the rest does.
		w.g.TIPC("bearer set mtu 2000 media udp name u0")
		w.both(208)
	})
	w.sub("Linux's bearer", func(w pair) {
		for i := range 2 {
			l, err := w.n.Listen(service(210), nil)
			if err != nil {
				w.Fatal(err)
			}
			awaitGuest(w.T, w.g, service(210))
			connecting := w.p.start(`v.c = connect("stream", "4711:210")`)
			conn := accept(w.T, l)
			connecting().good()
			start := time.Now()
			w.g.TIPC("bearer disable media udp name u0")
			if _, err := conn.Read(make([]byte, 1)); errnoName(err) != "ECONNRESET" {
				w.Errorf("connection ended with %v", err)
			}
			waitPeers(w.T, w.n, 0)
			if took := time.Since(start); took > time.Second {
				w.Errorf("Linux said good-bye, and we noticed after %v", took)
			}
			if a := w.p.must(`return read_all(v.c)`).field(); a.Text("end") == "eof" {
				w.Errorf("Linux's end: %v", a)
			}
			conn.Close()
			l.Close()
			w.m.guest(w.g, 0)
			w.c.waitUp()
			w.c.waitNamesEqual()
			w.both(uint32(212 + 2*i))
		}
	})
	w.sub("our bearer", func(w pair) {
		for i, mtu := range []int{0, 2000, 60000} {
			b := w.m.ours(w.c.hosts[0], 0).(tipc.UDP)
			start := time.Now()
			if err := w.n.DisableBearer(b.BearerName()); err != nil {
				w.Fatal(err)
			}
			w.g.WaitPeers(0)
			if took := time.Since(start); took > time.Second {
				w.Errorf("we said good-bye, and Linux noticed after %v", took)
			}
			b.MTU, b.Tolerance, b.Priority = mtu, 2*time.Second, 12
			if err := w.c.hosts[0].Do(func() error { return w.n.EnableBearer(b) }); err != nil {
				w.Fatal(err)
			}
			w.c.waitUp()
			w.c.waitNamesEqual()
			l := links(w.n)[0]
			// A bearer's settings are those of its own end: RESET and ACTIVATE carry neither (net/tipc/link.c
			// tipc_link_build_reset_msg).
			if tol, prio := w.property("tolerance", l), w.property("priority", l); l.Tolerance != 2000 || tol != 1500 || l.Priority != 12 || prio == 12 {
				w.Errorf("tolerance is %d and %d, priority %d and %d; want each end's own", l.Tolerance, tol, l.Priority, prio)
			}
			want := 14000
			if mtu != 0 {
				want = min(mtu, want)
			}
			if l.MTU > want || l.MTU < want-100 {
				w.Errorf("MTU of the link is %d with bearers of 14000 and %d", l.MTU, mtu)
			}
			w.both(uint32(220 + 2*i))
			if mtu != 2000 { // Linux's own multicasts do not fit a link of less than its bearer's MTU
				multicastMethods(w)
			}
		}
	})
	w.sub("link reset", func(w pair) {
		// What Linux does when a number of its own disagrees: a burst of resets must end in a link that works.
		l := links(w.n)[0]
		for i := range 4 {
			w.g.TIPC("link set priority %d link %s", 5+i, linuxName(l))
		}
		w.c.waitUp()
		w.c.waitNamesEqual()
		w.both(230)
	})
}

// TestIntegrationTwoLinks has two links between two nodes: of equal priority they share the traffic, otherwise one waits
// for the other to fail.
func TestIntegrationTwoLinks(t *testing.T) {
	w := newPair(t, media[0], 2) // of one kind: Linux's connections do not survive a change to a smaller MTU (EMSGSIZE)
	packets := func() (rx, tx [2]int, us [2]node.LinkInfo) {
		for _, l := range links(w.n) {
			rx[l.Bearer], tx[l.Bearer] = w.linuxPackets(l)
			us[l.Bearer] = l
		}
		return rx, tx, us
	}
	// Many connections each way: the port of the sender decides which link carries it.
	traffic := func(w pair, inst uint32) {
		const connections, size = 16, 60000
		l, err := w.n.Listen(service(inst), nil)
		if err != nil {
			w.Fatal(err)
		}
		defer l.Close()
		w.p.must(`v.l = new("seqpacket", "4711:%d", listen=5)`, inst+1)
		awaitGuest(w.T, w.g, service(inst))
		client := w.p.start(`
for i in range(%d):
  s = connect("stream", "4711:%d"); s.sendall(payload("links", i, %d)); s.shutdown(socket.SHUT_RDWR); s.close()`, connections, inst, size)
		server := w.p.start(`
sums = ""
for i in range(%d):
  c, _ = v.l.accept(); c.settimeout(20); sums += read_all(c)["sha256"] + "\n"; c.close()
v.l.close(); return sums`, connections)
		want := ""
		for i := range connections {
			in := accept(w.T, l)
			h := sha256.Sum256(lab.Payload("links", i, size))
			if sum, octets, _, err := drain(in); err != nil || sum != hex.EncodeToString(h[:]) {
				w.Errorf("connection %d from Linux: %d octets, %v", i, octets, err)
			}
			in.Close()
			out := dial(w.T, w.n, service(inst+1), tipc.SeqPacket)
			if _, err := out.Write(lab.Payload("links", i, size)); err != nil {
				w.Error(err)
			}
			out.Close()
			want += hex.EncodeToString(h[:]) + "\n"
		}
		client().good()
		if got := server().good().text(); got != want {
			w.Errorf("Linux read %s, want %s", got, want)
		}
	}
	w.sub("sharing", func(w pair) {
		rx0, tx0, us0 := packets()
		traffic(w, 300)
		rx, tx, us := packets()
		for i := range 2 {
			if rx[i]-rx0[i] < 20 || tx[i]-tx0[i] < 20 || us[i].Stats.SentPkts-us0[i].Stats.SentPkts < 20 || us[i].Stats.RecvPkts-us0[i].Stats.RecvPkts < 20 {
				w.Errorf("link %s carried %d and %d packets, we say %d and %d", us[i].Name, rx[i]-rx0[i], tx[i]-tx0[i],
					us[i].Stats.SentPkts-us0[i].Stats.SentPkts, us[i].Stats.RecvPkts-us0[i].Stats.RecvPkts)
			}
			if !us[i].Active || !us[i].Up {
				w.Errorf("link %s is not active", us[i].Name)
			}
		}
	})
	setPriority := func(w pair, name string, v int) {
		w.n.Internals().Do(func(now mono.Time, s *stack.Stack) {
			if err := s.Nodes().SetLinkPriority(now, name, v); err != nil {
				w.Error(err)
			}
		})
		w.g.WaitLinks(2)
		w.becomes("two links", 5*time.Second, func() bool {
			l := links(w.n)
			return len(l) == 2 && l[0].Up && l[1].Up && slices.ContainsFunc(l, func(l node.LinkInfo) bool { return l.Name == name && l.Priority == v })
		})
	}
	for _, busy := range []int{0, 1} {
		w.sub(fmt.Sprintf("standby/%d", busy), func(w pair) {
			_, _, us := packets()
			if busy == 0 {
				setPriority(w, us[0].Name, 20)
			} else {
				w.g.TIPC("link set priority 25 link %s", linuxName(us[1]))
				w.becomes("priority", 5*time.Second, func() bool { _, _, us := packets(); return us[1].Priority == 25 && us[1].Up && us[0].Up })
				w.g.WaitLinks(2)
			}
			rx0, tx0, us0 := packets()
			traffic(w, 320)
			rx, tx, us := packets()
			other := 1 - busy
			if us[busy].Stats.SentPkts-us0[busy].Stats.SentPkts < 40 || rx[busy]-rx0[busy] < 40 || tx[busy]-tx0[busy] < 40 {
				w.Errorf("active link %s carried %d and %d packets", us[busy].Name, rx[busy]-rx0[busy], tx[busy]-tx0[busy])
			}
			// Statistics count data packets: nothing may go over the link that waits.
			if us[other].Stats.SentPkts != us0[other].Stats.SentPkts || rx[other]-rx0[other] > 3 || tx[other]-tx0[other] > 3 {
				w.Errorf("standby link %s carried %d and %d packets, we sent %d", us[other].Name, rx[other]-rx0[other], tx[other]-tx0[other],
					us[other].Stats.SentPkts-us0[other].Stats.SentPkts)
			}
			if us[other].Active || !us[busy].Active {
				w.Errorf("%s is active: %v, %s: %v", us[other].Name, us[other].Active, us[busy].Name, us[busy].Active)
			}
			// The active one goes: connections stay, the other takes over, and back.
			l, err := w.n.Listen(service(340), &tipc.SocketConfig{Type: tipc.SeqPacket})
			if err != nil {
				w.Fatal(err)
			}
			defer l.Close()
			awaitGuest(w.T, w.g, service(340))
			client := w.g.Program("client.py", "--type", "seqpacket", "--to", text(340), "--endless", "--echo", "--numbered", "--size", "3000")
			conn := accept(w.T, l)
			count := make(chan error, 1)
			go func() {
				b := make([]byte, tipc.MaxMessage)
				for i := 0; ; i++ {
					k, err := conn.Read(b)
					if err == nil && numberOf(b) != i {
						err = fmt.Errorf("message %d is number %d", i, numberOf(b))
					}
					if err == nil {
						_, err = conn.Write(b[:k])
					}
					if err != nil {
						count <- err
						return
					}
				}
			}()
			w.c.hosts[0].Ports[busy].Down()
			w.g.WaitLinks(1)
			traffic(w, 342)
			w.c.hosts[0].Ports[busy].Up()
			w.g.WaitLinks(2)
			w.becomes("standby again", 5*time.Second, func() bool { _, _, us := packets(); return us[busy].Active && !us[other].Active })
			traffic(w, 344)
			client.Stdin.Close()
			client.Expect("sent")
			if err := <-count; err != io.EOF {
				w.Error(err)
			}
			client.Finish()
		})
	}
	// Bearers come and go at runtime on either side under load.
	w.sub("bearers", func(w pair) {
		l, err := w.n.Listen(service(350), nil)
		if err != nil {
			w.Fatal(err)
		}
		defer l.Close()
		awaitGuest(w.T, w.g, service(350))
		client := w.g.Program("client.py", "--to", text(350), "--endless", "--numbered", "--size", "3000")
		conn := accept(w.T, l)
		done := make(chan error, 1)
		go func() {
			b := make([]byte, 3000)
			for i := 0; ; i++ {
				_, err := io.ReadFull(conn, b)
				if err == nil && numberOf(b) != i {
					err = fmt.Errorf("message %d is number %d", i, numberOf(b))
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
		w.g.TIPC("bearer disable media udp name u1")
		w.g.WaitLinks(1)
		w.m.guest(w.g, 1)
		w.g.WaitLinks(2)
		w.g.TIPC("bearer disable media udp name u0")
		w.g.WaitLinks(1)
		w.m.guest(w.g, 0)
		w.g.WaitLinks(2)
		for nic := range 2 {
			b := w.m.ours(w.c.hosts[0], nic)
			if err := w.n.DisableBearer(b.BearerName()); err != nil {
				w.Fatal(err)
			}
			w.g.WaitLinks(1)
			if err := w.c.hosts[0].Do(func() error { return w.n.EnableBearer(b) }); err != nil {
				w.Fatal(err)
			}
			w.g.WaitLinks(2)
		}
		client.Stdin.Close()
		client.Expect("sent")
		if err := <-done; err != io.EOF {
			w.Error(err)
		}
		w.c.waitNamesEqual()
	})
}

// TestIntegrationBadNetwork sends everything through networks that lose, delay and reorder both ways, or whose MTUs differ.
func TestIntegrationBadNetwork(t *testing.T) {
	for _, m := range media[:2] {
		t.Run(m.name, func(t *testing.T) {
			w := newPair(t, m, 1)
			if m.name == "eth" {
				w.sub("mtu", func(w pair) {
					w.g.Sh("ip link set eth0 mtu 1400")
					w.c.waitUp()
					w.becomes("MTU", 10*time.Second, func() bool { l := links(w.n); return len(l) == 1 && l[0].Up && l[0].MTU <= 1400 })
					w.c.waitUp()
					w.c.waitNamesEqual()
					w.both(400)
					multicastMethods(w)
					w.g.Sh("ip link set eth0 mtu 1500")
					w.becomes("MTU", 10*time.Second, func() bool { l := links(w.n); return len(l) == 1 && l[0].Up && l[0].MTU > 1400 })
					w.c.waitUp()
					w.c.waitNamesEqual()
					w.both(402)
				})
			}
			w.sub("lossy", func(w pair) {
				// A datagram of 14,000 octets travels in ten pieces, each of which may be lost.
				loss := map[string]int{"udp": 1, "eth": 5}[m.name]
				lossy(w, 0.05)
				w.g.TIPC("link set tolerance 5000 link %s", linuxName(links(w.n)[0])) // the test is about loss, not about a busy machine
				w.g.Sh("tc qdisc add dev eth0 root netem loss %d%% reorder 10%% delay 2ms", loss)
				w.both(404)
				linuxToOurs(w.T, w.g, w.n, tipc.Stream, 406, 40, 65536)
				oursToLinux(w.T, w.n, w.g, tipc.Stream, 407, 40, 65536)
				linuxToOurs(w.T, w.g, w.n, tipc.SeqPacket, 408, 300, 3000)
				oursToLinux(w.T, w.n, w.g, tipc.SeqPacket, 409, 300, 3000)
				messagesToOurs(w.T, w.g, w.n, tipc.RDM, 410, 20000)
				messagesToLinux(w.T, w.n, w.g, tipc.RDM, 411, 20000)
				multicastMethods(w)
				w.c.waitNamesEqual()
				bindStorm(w)
				if got := peersUp(w.n); got != 1 {
					w.Errorf("%d peers up", got)
				}
				l := links(w.n)[0]
				if l.Stats.Retransmitted == 0 || l.Stats.RecvNacks+l.Stats.SentNacks == 0 {
					w.Errorf("nothing was lost: %+v", l.Stats)
				}
				w.g.Sh("tc qdisc del dev eth0 root")
			})
		})
	}
}

// TestIntegrationStrangers has nodes of other clusters, and nodes that claim an address or an identity that is taken.
func TestIntegrationStrangers(t *testing.T) {
	lab.Require(t)
	net := lab.NewNetwork(t)
	g := net.Guest(lab.GuestConfig{})
	collide := func(word int) (id tipc.NodeID) {
		copy(id[4*word:], g.Name)
		return id
	}
	start := func(cfg tipc.Config) (*tipc.Node, *lab.Host) {
		t.Helper()
		h := net.Host(1)
		cfg.Bearers = []tipc.Bearer{tipc.UDP{Name: "u0", LocalIP: h.Addr(0)}}
		var n *tipc.Node
		if err := h.Do(func() (err error) { n, err = tipc.NewNode(cfg); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n, h
	}
	ready := func(n *tipc.Node) {
		t.Helper()
		if err := n.Ready(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	// Ours has the address first, and Linux is told to take another.
	first, _ := start(tipc.Config{Identity: collide(1)})
	ready(first)
	want := first.Addr()
	if want != collide(0).Addr() {
		t.Fatalf("addresses do not collide: %v and %v", want, collide(0).Addr())
	}
	g.EnableUDP(0)
	waitPeers(t, first, 1)
	g.WaitPeers(1)
	if a := g.NodeAddress(); a == uint32(want) || a == 0 {
		t.Errorf("Linux has address %x, which is ours", a)
	}
	// Another of ours is told so by both.
	second, _ := start(tipc.Config{Identity: collide(2)})
	ready(second)
	waitPeers(t, second, 2)
	g.WaitPeers(2)
	if a := second.Addr(); a == want || uint32(a) == g.NodeAddress() {
		t.Errorf("third node has address %v; others have %v and %x", a, want, g.NodeAddress())
	}
	oursToLinux(t, second, g, tipc.Stream, 1, 3, 65536)
	linuxToOurs(t, g, second, tipc.Stream, 2, 3, 65536)

	// Another cluster on the same wire: same group or not, they never see each other.
	foreign, fh := start(tipc.Config{NetID: 4712, Identity: tipc.MustParseNodeID("foreign")})
	ready(foreign)
	b := tipc.UDP{Name: "u1", LocalIP: fh.Addr(0), LocalPort: tipc.DefaultUDPPort, RemotePort: tipc.DefaultUDPPort, Group: groupOf(4711)}
	if err := foreign.DisableBearer("udp:u0"); err != nil {
		t.Fatal(err)
	}
	if err := fh.Do(func() error { return foreign.EnableBearer(b) }); err != nil {
		t.Fatal(err)
	}
	// The same identity a second time: it is not let in, and disturbs nobody. Twice: ours, and Linux's.
	for _, id := range []tipc.NodeID{collide(1), tipc.MustParseNodeID(g.Name)} {
		dup, _ := start(tipc.Config{Identity: id})
		down := g.Program("topology.py", "--subscribe", "0")
		for range 3 { // itself and the two of ours
			down.Expect("published")
		}
		var watches []*tipc.Subscription
		for _, n := range []*tipc.Node{first, second} {
			s, err := n.Subscribe(tipc.ServiceRange{Type: tipc.NodeStateType, Upper: 1<<32 - 1}, nil)
			if err != nil {
				t.Fatal(err)
			}
			watches = append(watches, s)
		}
		ready(dup)
		linux := false
		ctx := within(t, 2500*time.Millisecond)
		for {
			e, err := down.NextEvent(ctx)
			if err != nil {
				break
			}
			if e.Text("event") == "withdrawn" {
				// The kernel lets the other node reset the link if its session number is the larger one.
				t.Logf("a second node with identity %v disturbs Linux: %v", id, e)
				linux = true
			}
		}
		t.Logf("the second %v has address %v and peers %v", id, dup.Addr(), dup.Peers())
		if err := dup.Close(); err != nil {
			t.Error(err)
		}
		for _, s := range watches {
			s.SetDeadline(time.Now().Add(100 * time.Millisecond))
			for e, err := s.Next(); err == nil; e, err = s.Next() {
				if e.Kind == tipc.Withdrawn && !linux {
					t.Errorf("a second node with identity %v disturbs ours: %v", id, e)
				}
			}
			s.Close()
		}
		down.Kill()
	}
	if len(foreign.Peers()) != 0 {
		t.Errorf("a node of another cluster sees %v", foreign.Peers())
	}
	for a := range g.Nodes() {
		if a == uint32(foreign.Addr()) {
			t.Error("Linux sees a node of another cluster")
		}
	}
	oursToLinux(t, second, g, tipc.Stream, 3, 3, 65536)
	linuxToOurs(t, g, first, tipc.Stream, 4, 3, 65536)
	g.WaitPeers(2)
}

func groupOf(netid uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{228, 0, byte(netid >> 8), byte(netid)})
}

// TestIntegrationLegacy has nodes with fixed <Z.C.N> addresses, and UDP bearers with lists of peers.
func TestIntegrationLegacy(t *testing.T) {
	lab.Require(t)
	net := lab.NewNetwork(t)
	g := net.Guest(lab.GuestConfig{Address: 1<<24 | 1<<12 | 1})
	h := net.Host(1)
	g.EnableUDP(0, "remoteip", h.Addr(0).String())
	addr := tipc.MustParseNodeAddr("1.1.2")
	var n *tipc.Node
	err := h.Do(func() (err error) {
		n, err = tipc.NewNode(tipc.Config{Address: addr, Bearers: []tipc.Bearer{tipc.UDP{Name: "u0", LocalIP: h.Addr(0),
			Remotes: []netip.AddrPort{netip.AddrPortFrom(g.Addr(0), tipc.DefaultUDPPort)}}}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	capture := net.Capture(0)
	c := &cluster{t: t, net: net, guests: []*lab.Guest{g}, hosts: []*lab.Host{h}, nodes: []*tipc.Node{n}, capture: capture}
	w := pair{T: t, c: c, g: g, n: n, p: newPuppet(t, g)}
	c.waitUp()
	if got := n.Addr(); got != addr {
		t.Errorf("our address is %v, want %v", got, addr)
	}
	if p := n.Peers(); len(p) != 1 || p[0].Addr != tipc.MustParseNodeAddr("1.1.1") {
		t.Errorf("peers %v, want 1.1.1", p)
	}
	if up := g.Nodes(); !up[uint32(addr)] {
		t.Errorf("Linux's peers: %v", up)
	}
	w.both(1)
	multicast(t, c)
	topologyEvents(t, c)
	returned(t, c)
	w.sub("addressing", addressing)
	w.sub("anycast", anycastClosest)
	w.sub("methods", multicastMethods)
	// The guest goes and comes back: with lists each end has to find the other.
	g.Kill()
	waitPeers(t, n, 0)
	g.Boot()
	g.EnableUDP(0, "remoteip", h.Addr(0).String())
	c.waitUp()
	w.both(3)
}
