//go:build linux

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/tipc"
)

const serviceType = 4711

var connected = []tipc.SocketType{tipc.Stream, tipc.SeqPacket}
var connectionless = []tipc.SocketType{tipc.RDM, tipc.Datagram}

// TestCluster is the main test: one of each kind, then two of each, on each medium.
func TestIntegrationCluster(t *testing.T) {
	for _, m := range media {
		for _, count := range []int{1, 2} {
			if m.name == "udp6" && count > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d+%d", m.name, count, count), func(t *testing.T) {
				c := newCluster(t, m, count, count, 1)
				if took := c.waitUp(); took > 3*time.Second {
					t.Errorf("nodes up both ways after %v, want 3 s", took)
				}
				c.waitNamesEqual()
				inst := uint32(100)
				for _, typ := range connected {
					for _, n := range c.nodes {
						for _, g := range c.guests {
							inst++
							linuxToOurs(t, g, n, typ, inst, 30, 64<<10)
							inst++
							oursToLinux(t, n, g, typ, inst, 30, 64<<10)
						}
					}
				}
				for _, typ := range connectionless {
					for _, size := range []int{1, 1000, 66000} {
						inst++
						messagesToOurs(t, c.guests[0], c.nodes[len(c.nodes)-1], typ, inst, size)
						inst++
						messagesToLinux(t, c.nodes[len(c.nodes)-1], c.guests[0], typ, inst, size)
					}
				}
				inst++
				linuxToOurs(t, c.guests[0], c.nodes[0], tipc.SeqPacket, inst, 50, 66000)
				inst++
				oursToLinux(t, c.nodes[0], c.guests[0], tipc.SeqPacket, inst, 50, 66000)
				c.waitNamesEqual()
				multicast(t, c)
				topologyEvents(t, c)
				returned(t, c)
				c.judgeCapture()
				if count == 1 { // 64 MiB each way
					linuxToOurs(t, c.guests[0], c.nodes[0], tipc.Stream, inst+1, 1024, 64<<10)
					oursToLinux(t, c.nodes[0], c.guests[0], tipc.Stream, inst+2, 1024, 64<<10)
				}
			})
		}
	}
}

func service(inst uint32) tipc.ServiceAddr {
	return tipc.ServiceAddr{Type: serviceType, Instance: inst}
}

func text(inst uint32) string { return fmt.Sprintf("%d:%d", serviceType, inst) }

// linuxToOurs has a Linux program connect to a server of ours and send count messages, which are compared by checksum;
// then ours sends the same back on a second connection that it accepts.
func linuxToOurs(t *testing.T, g *lab.Guest, n *tipc.Node, typ tipc.SocketType, inst uint32, count, size int) {
	t.Helper()
	l, err := n.Listen(service(inst), &tipc.SocketConfig{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	awaitGuest(t, g, service(inst))
	seed := fmt.Sprintf("%s-%d", typ, inst)
	client := g.Program("client.py", "--type", typ.String(), "--to", text(inst),
		"--size", strconv.Itoa(size), "--count", strconv.Itoa(count), "--seed", seed)
	conn := accept(t, l)
	defer conn.Close()
	sum, bytes, messages, err := drain(conn)
	if err != nil {
		t.Errorf("%v from %s: %v after %d octets", typ, g.Name, err, bytes)
	}
	if want := lab.Digest(seed, count, size); sum != want || bytes != count*size {
		t.Errorf("%v from %s: %d octets with checksum %s, want %d with %s", typ, g.Name, bytes, sum, count*size, want)
	}
	if typ == tipc.SeqPacket && messages != count {
		t.Errorf("%v from %s: %d messages, want %d", typ, g.Name, messages, count)
	}
	client.Expect("sent")
	client.Finish()
}

func oursToLinux(t *testing.T, n *tipc.Node, g *lab.Guest, typ tipc.SocketType, inst uint32, count, size int) {
	t.Helper()
	server := g.Program("serve.py", "--type", typ.String(), "--service", text(inst), "--exit-after", "1")
	server.Expect("ready")
	seed := fmt.Sprintf("%s-%d", typ, inst)
	conn := dial(t, n, service(inst), typ)
	for i := range count {
		if _, err := conn.Write(lab.Payload(seed, i, size)); err != nil {
			t.Fatalf("%v to %s, message %d: %v", typ, g.Name, i, err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	got := server.Expect("received")
	if want := lab.Digest(seed, count, size); got.Text("sha256") != want || got.Int("bytes") != count*size || got.Text("end") != "eof" {
		t.Errorf("%v to %s: received %v, want %d octets with checksum %s", typ, g.Name, got, count*size, want)
	}
	server.Finish()
}

func accept(t *testing.T, l *tipc.Listener) *tipc.Conn {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c.(*tipc.Conn)
}

// dial waits until the service is published, and connects.
func dial(t *testing.T, n *tipc.Node, a tipc.ServiceAddr, typ tipc.SocketType) *tipc.Conn {
	t.Helper()
	await(t, n, a.Range(), 1)
	c, err := n.DialContext(within(t, 20*time.Second), a, &tipc.SocketConfig{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

// await waits until count bindings within r are known on n.
func await(t *testing.T, n *tipc.Node, r tipc.ServiceRange, count int) {
	t.Helper()
	s, err := n.Subscribe(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range count {
		if _, err := s.NextContext(within(t, 20*time.Second)); err != nil {
			t.Fatalf("%v is not published: %v", r, err)
		}
	}
}

// awaitGuest waits until the guest knows a binding.
func awaitGuest(t *testing.T, g *lab.Guest, a tipc.ServiceAddr) {
	t.Helper()
	_, ok := lab.Until(10*time.Second, func() bool {
		return slices.ContainsFunc(g.NameTable(), func(p lab.Publication) bool {
			return p.Type == a.Type && p.Lower <= a.Instance && a.Instance <= p.Upper
		})
	})
	if !ok {
		t.Fatalf("%s does not learn of %v", g.Name, a)
	}
}

// drain reads to the end.
func drain(c *tipc.Conn) (sum string, bytes, messages int, err error) {
	h := sha256.New()
	b := make([]byte, tipc.MaxMessage)
	for {
		n, err := c.Read(b)
		h.Write(b[:n])
		bytes += n
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), bytes, messages, nil
		}
		if err != nil {
			return hex.EncodeToString(h.Sum(nil)), bytes, messages, err
		}
		messages++
	}
}

// messagesToOurs has a Linux program send a message, and get it back, without a connection.
func messagesToOurs(t *testing.T, g *lab.Guest, n *tipc.Node, typ tipc.SocketType, inst uint32, size int) {
	t.Helper()
	p, err := n.ListenPacket(service(inst), &tipc.SocketConfig{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.SetDeadline(time.Now().Add(time.Minute))
	const count = 20
	awaitGuest(t, g, service(inst))
	seed := fmt.Sprintf("%s-%d", typ, inst)
	client := g.Program("client.py", "--type", typ.String(), "--to", text(inst), "--size", strconv.Itoa(size),
		"--count", strconv.Itoa(count), "--seed", seed, "--echo")
	h := sha256.New()
	echo(t, p, h, count)
	if got, want := hex.EncodeToString(h.Sum(nil)), lab.Digest(seed, count, size); got != want {
		t.Errorf("%v of %d octets from %s: checksum %s, want %s", typ, size, g.Name, got, want)
	}
	client.Expect("sent")
	client.Finish()
}

func echo(t *testing.T, p *tipc.PacketConn, h hash.Hash, count int) {
	t.Helper()
	b := make([]byte, tipc.MaxMessage)
	for range count {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(b[:n])
		if _, err := p.WriteTo(b[:n], from); err != nil {
			t.Fatal(err)
		}
	}
}

func messagesToLinux(t *testing.T, n *tipc.Node, g *lab.Guest, typ tipc.SocketType, inst uint32, size int) {
	t.Helper()
	const count = 20
	server := g.Program("serve.py", "--type", typ.String(), "--service", text(inst), "--mode", "echo", "--exit-after", strconv.Itoa(count), "--quiet")
	server.Expect("ready")
	await(t, n, service(inst).Range(), 1)
	p, err := n.ListenPacket(nil, &tipc.SocketConfig{Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.SetDeadline(time.Now().Add(time.Minute))
	seed := fmt.Sprintf("%s-%d", typ, inst)
	b := make([]byte, tipc.MaxMessage)
	for i := range count {
		want := lab.Payload(seed, i, size)
		if _, err := p.WriteTo(want, service(inst)); err != nil {
			t.Fatal(err)
		}
		k, _, err := p.ReadFrom(b)
		if err != nil {
			t.Fatalf("%v to %s: echo %d of %d octets: %v", typ, g.Name, i, size, err)
		}
		if string(b[:k]) != string(want) {
			t.Errorf("%v to %s: echo %d has %d octets and differs, want %d", typ, g.Name, i, k, size)
		}
	}
	if got := server.Expect("received"); got.Text("sha256") != lab.Digest(seed, count, size) {
		t.Errorf("%v to %s: received %v", typ, g.Name, got)
	}
	server.Finish()
}

// multicast sends from each side to sockets bound on each node; each gets each message exactly once. Nobody waits for
// the receivers, so these have room for all of it.
func multicast(t *testing.T, c *cluster) {
	t.Helper()
	for round, size := range []int{100, 20000} {
		count := []int{100, 25}[round]
		typ := uint32(5000 + round)
		r := tipc.ServiceRange{Type: typ, Lower: 0, Upper: 99}
		var receivers []*lab.Proc
		for _, g := range c.guests {
			p := g.Program("mcast.py", "receive", "--service", fmt.Sprintf("%d:1", typ), "--service", fmt.Sprintf("%d:0:50", typ))
			p.Expect("ready")
			receivers = append(receivers, p)
		}
		var wg sync.WaitGroup
		total := 2 * count // from one Linux program and one of ours
		for _, n := range c.nodes {
			for i := range 2 {
				p, err := n.ListenPacket(tipc.ServiceRange{Type: typ, Lower: 10, Upper: 20}, &tipc.SocketConfig{ReadBuffer: 16 << 20})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { p.Close() })
				p.SetDeadline(time.Now().Add(time.Minute))
				wg.Go(func() {
					b := make([]byte, tipc.MaxMessage)
					for k := range total {
						if _, _, err := p.ReadFrom(b); err != nil {
							t.Errorf("our multicast socket %d: message %d of %d: %v", i, k, total, err)
							return
						}
					}
					p.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
					if n, _, err := p.ReadFrom(b); err == nil {
						t.Errorf("our multicast socket %d got a message of %d octets too many", i, n)
					}
				})
			}
		}
		bindings := 2 * (len(c.guests) + len(c.nodes))
		for _, n := range c.nodes {
			await(t, n, r, bindings)
		}
		c.waitNamesEqual()
		sender := c.guests[0].Program("mcast.py", "send", "--to", fmt.Sprintf("%d:0:99", typ), "--count", strconv.Itoa(count), "--size", strconv.Itoa(size))
		p, err := c.nodes[0].ListenPacket(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range count {
			m := lab.Payload("mcast", i, size)
			for j := range 8 {
				m[j] = byte(uint64(i) >> (56 - 8*j))
			}
			if _, err := p.WriteTo(m, r); err != nil {
				t.Fatal(err)
			}
		}
		sender.Expect("sent")
		sender.Finish()
		wg.Wait()
		for _, p2 := range receivers {
			for range 2 * total {
				p2.Expect("message")
			}
			p2.Stdin.Close() // what comes now would be too much, and is counted
			for range 2 {
				if got := p2.Expect("total"); got.Int("messages") != total {
					t.Errorf("Linux multicast socket got %v, want %d messages", got, total)
				}
			}
			p2.Finish()
		}
		p.Close()
	}
}

// topologyEvents subscribes on both sides to what the other one binds.
func topologyEvents(t *testing.T, c *cluster) {
	t.Helper()
	g, n := c.guests[0], c.nodes[0]
	for _, order := range []string{"little", "big"} {
		for _, at := range []string{"own", "remote"} {
			args := []string{"--subscribe", "6000", "--order", order}
			if at == "remote" {
				args = append(args, "--node", strconv.Itoa(int(n.Addr())))
			}
			watcher := g.Program("topology.py", args...)
			watcher.Expect("subscribed")
			p, err := n.ListenPacket(tipc.ServiceAddr{Type: 6000, Instance: 7}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if e := watcher.Expect("published"); e.Int("found_lower") != 7 || uint32(e.Int("node")) != uint32(n.Addr()) || uint32(e.Int("port")) != p.SocketAddr().Port {
				t.Errorf("%s topology service of %s: published %v, want instance 7 of %v", order, at, e, p.SocketAddr())
			}
			p.Close()
			if e := watcher.Expect("withdrawn"); e.Int("found_lower") != 7 {
				t.Errorf("withdrawn %v", e)
			}
			watcher.Stdin.Close()
			watcher.Finish()
		}
	}
	s, err := n.Subscribe(tipc.ServiceRange{Type: 6001, Lower: 0, Upper: 100}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := g.Program("hold.py", "--service", "6001:3:5")
	p.Expect("ready")
	e, err := s.NextContext(within(t, 10*time.Second))
	if err != nil || e.Kind != tipc.Published || e.Service.Lower != 3 || e.Service.Upper != 5 || uint32(e.Socket.Node) != g.NodeAddress() {
		t.Errorf("event %v, %v; want {6001,3,5} published on %x", e, err, g.NodeAddress())
	}
	p.Stdin.Write([]byte("close\n"))
	p.Expect("closed")
	if e, err := s.NextContext(within(t, 10*time.Second)); err != nil || e.Kind != tipc.Withdrawn || e.Service.Lower != 3 {
		t.Errorf("event %v, %v; want withdrawal", e, err)
	}
	p.Stdin.Close()
	p.Finish()
}

// returned sends to what is not there, from both sides.
func returned(t *testing.T, c *cluster) {
	t.Helper()
	g, n := c.guests[0], c.nodes[0]
	ourSocket, err := n.ListenPacket(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := ourSocket.SocketAddr()
	ourSocket.Close()
	p := g.Program("returned.py", "--to", fmt.Sprintf("@%d:%d", gone.Node, gone.Port), "--size", "3000")
	sent := p.Expect("sent")
	back := p.Expect("returned")
	if back.Int("error") != int(tipc.CodeNoPort) || back.Int("octets") != 1024 {
		t.Errorf("Linux got %v for %v, want error %d with 1024 octets", back, sent, tipc.CodeNoPort)
	}
	p.Finish()

	holder := g.Program("hold.py")
	var port, node uint32
	ready := holder.Expect("ready")
	if _, err := fmt.Sscanf(ready.Text("socket"), "@%d:%d", &node, &port); err != nil {
		t.Fatalf("%v: %v", ready, err)
	}
	holder.Stdin.Write([]byte("close\n"))
	holder.Expect("closed")
	s, err := n.ListenPacket(nil, &tipc.SocketConfig{ReturnUndelivered: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := lab.Payload("returned", 0, 3000)
	var to net.Addr = tipc.SocketAddr{Port: port, Node: tipc.NodeAddr(node)}
	if _, err := s.WriteTo(m, to); err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, tipc.MaxMessage)
	k, info, err := s.ReadMsg(b)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if info.Returned != tipc.CodeNoPort || string(b[:k]) != string(m[:1024]) {
		t.Errorf("returned %+v with %d octets, want %v with the first 1024", info, k, tipc.CodeNoPort)
	}
	holder.Stdin.Close()
	holder.Finish()
}

// judgeCapture has tshark read all traffic. It does not know address trials, multicast data, bundles' type field and the
// lookup scope of one node, whoever sends them; so what it says about our frames counts if it does not say it about
// Linux's.
func (c *cluster) judgeCapture() {
	c.t.Helper()
	d := lab.Tshark(c.t, c.capture.Stop())
	if d.TIPC < 100 {
		c.t.Errorf("tshark read %d frames as TIPC", d.TIPC)
	}
	linux := map[string]bool{}
	for _, g := range c.guests {
		linux[g.MAC(0)] = true
	}
	for _, x := range d.Foreign(func(sender string) bool { return linux[sender] }) {
		if strings.HasPrefix(x.User, "Message Bundler") && x.Text == "Message type: Unknown (0)" {
			continue // the only type there is, but Linux does not bundle in each run
		}
		c.t.Errorf("tshark about our frames, %d times: %+v", d.Complaints[x], x)
	}
	for x := range d.Complaints {
		if strings.Contains(strings.ToLower(x.Text), "malformed") {
			c.t.Errorf("tshark: %+v", x)
		}
	}
}

func TestIntegrationMulticast(t *testing.T) {
	c := newCluster(t, media[0], 1, 1, 1)
	c.waitUp()
	multicast(t, c)
	topologyEvents(t, c)
	returned(t, c)
	c.judgeCapture()
}
