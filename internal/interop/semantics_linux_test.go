//go:build linux

package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
	"midplane/tipc"
)

// pair is one node of each kind, and the puppet on Linux's.
type pair struct {
	*testing.T
	m medium
	c *cluster
	g *lab.Guest
	n *tipc.Node
	p *puppet
}

// sub runs check as a subtest of the pair's cluster.
func (w pair) sub(name string, check func(w pair)) {
	w.Run(name, func(t *testing.T) {
		defer func(outer *testing.T) { w.p.t, w.c.t = outer, outer }(w.c.t)
		w.T, w.p.t, w.c.t = t, t, t
		defer w.p.proc.Stdin.Write([]byte(`{"n":0,"code":"forget()"}` + "\n")) // what a failed check left behind
		check(w)
	})
}

func newPair(t *testing.T, m medium, nics int) pair {
	t.Helper()
	c := newCluster(t, m, 1, 1, nics)
	c.waitUp()
	c.guests[0].WaitLinks(nics)
	return pair{t, m, c, c.guests[0], c.nodes[0], newPuppet(t, c.guests[0])}
}

// TestIntegrationSemantics compares what sockets of both kinds see of each other, case by case and in both directions,
// with what Linux's sockets see of each other.
func TestIntegrationSemantics(t *testing.T) {
	for _, m := range media[:2] {
		t.Run(m.name, func(t *testing.T) {
			w := newPair(t, m, 1)
			w.sub("connect", connectErrors)
			w.sub("implied", impliedConnect)
			w.sub("ends", connectionEnds)
			w.sub("addressing", addressing)
			w.sub("anycast", anycast)
			w.sub("overload", overload)
			w.sub("sizes", sizes)
			w.sub("tiny", tinyWrites)
			w.sub("slow", slowReaders)
			w.sub("many", manyConnections)
			w.sub("backlog", backlog)
			w.sub("vanish", vanishingBinding)
			w.sub("storm", bindStorm)
			w.sub("methods", multicastMethods)
			w.c.waitNamesEqual()
			noSocketsLeft(w)
			w.c.judgeCapture()
		})
	}
}

// noSocketsLeft checks that no test left a socket behind on our node: closes are complete on both sides.
func noSocketsLeft(w pair) {
	var left []socket.Info
	lab.Until(10*time.Second, func() bool {
		left = left[:0]
		w.n.Internals().Do(func(_ mono.Time, s *stack.Stack) {
			for k := range s.Sockets().Sockets() {
				if i := k.Info(); i.Type != socket.SeqPacket || i.State != socket.Listening { // the topology server
					left = append(left, i)
				}
			}
		})
		return len(left) == 0
	})
	if len(left) != 0 {
		w.Errorf("%d sockets left on our node: %+v", len(left), left)
	}
}

func connectErrors(w pair) {
	bound, err := w.n.ListenPacket(service(10), nil)
	if err != nil {
		w.Fatal(err)
	}
	defer bound.Close()
	closed, err := w.n.ListenPacket(nil, nil)
	if err != nil {
		w.Fatal(err)
	}
	closed.Close()
	idle, err := w.n.Listen(service(11), nil) // never accepts
	if err != nil {
		w.Fatal(err)
	}
	defer idle.Close()
	w.p.must(`v.stream = new("stream", "4711:20"); v.rdm = new("rdm", "4711:21"); v.idle = new("stream", "4711:22", listen=5)
gone = new("rdm"); v.gone = gone.getsockname(); gone.close()`)
	deaf, err := w.n.Internals().Socket(sockif.Stream, sockif.Options{})
	if err == nil {
		err = deaf.Bind(wire.ServiceRange(service(12).Range()), wire.ScopeCluster)
	}
	if err != nil {
		w.Fatal(err)
	}
	defer deaf.Close()
	for _, i := range []uint32{10, 11, 12} {
		awaitGuest(w.T, w.g, service(i))
	}
	for _, i := range []uint32{20, 21, 22} {
		await(w.T, w.n, service(i).Range(), 1)
	}
	gone := w.p.must(`return [v.gone[1], v.gone[2]]`).list()
	guest := uint32(gone[0])
	own := uint32(w.n.Addr())

	cases := []struct {
		name, linux string
		ours        net.Addr
		want        string
		atLeast     time.Duration
		atMost      time.Duration
	}{
		{"nobody bound", "4711:99", service(99), "EHOSTUNREACH", 0, 300 * time.Millisecond},
		{"unknown node", "@12345:1", tipc.SocketAddr{Port: 1, Node: 12345}, "EHOSTUNREACH", 0, 300 * time.Millisecond},
		{"rdm socket", "4711:10", service(21), "ETIMEDOUT", 600 * time.Millisecond, 1200 * time.Millisecond}, // it takes the SYN as a message
		{"not listening", "4711:12", service(20), "ECONNREFUSED", 0, 300 * time.Millisecond},
		{"closed port", fmt.Sprintf("@%d:%d", own, closed.SocketAddr().Port), tipc.SocketAddr{Port: uint32(gone[1]), Node: tipc.NodeAddr(guest)}, "ECONNREFUSED", 0, 300 * time.Millisecond},
		{"never accepted", "4711:11", service(22), "ETIMEDOUT", 600 * time.Millisecond, 1200 * time.Millisecond},
		{"listening socket", fmt.Sprintf("@%d:%d", own, idle.SocketAddr().Port), service(22), "ETIMEDOUT", 600 * time.Millisecond, 1200 * time.Millisecond},
	}
	for _, typ := range connected {
		for _, c := range cases {
			a := w.p.must(`
s = new("%v", timeout=None); s.setsockopt(socket.SOL_TIPC, TIPC_CONN_TIMEOUT, 700)
start = time.monotonic(); e = end_of(lambda: s.connect(address("%s")))
ms = int((time.monotonic() - start) * 1000); s.close(); return {"errno": e, "ms": ms}`, typ, c.linux).field()
			want := c.want
			if typ == tipc.SeqPacket && c.want == "ETIMEDOUT" {
				want = "ETIMEDOUT"
			}
			took := time.Duration(a.Int("ms")) * time.Millisecond
			if a.Text("errno") != want || took < c.atLeast || took > c.atMost+slack {
				w.Errorf("Linux's %v connecting to %s: %v, want %s in %v to %v", typ, c.name, a, want, c.atLeast, c.atMost)
			}
			start := time.Now()
			conn, err := w.n.Dial(c.ours, &tipc.SocketConfig{Type: typ, DialTimeout: 700 * time.Millisecond})
			took = time.Since(start)
			if err == nil {
				conn.Close()
			}
			if errnoName(err) != want || took < c.atLeast || took > c.atMost+slack {
				w.Errorf("our %v connecting to %s: %v after %v, want %s in %v to %v", typ, c.name, err, took, want, c.atLeast, c.atMost)
			}
		}
	}
	w.p.must(`v.stream.close(); v.rdm.close(); v.idle.close()`)
}

// impliedConnect sets up connections with the first message.
func impliedConnect(w pair) {
	for i, typ := range connected {
		inst := uint32(30 + i)
		l, err := w.n.Listen(service(inst), &tipc.SocketConfig{Type: typ})
		if err != nil {
			w.Fatal(err)
		}
		awaitGuest(w.T, w.g, service(inst))
		for _, size := range []int{1, 1000, 60000} {
			reply := w.p.start(`
s = new("%v"); m = payload("implied", %d, %d); s.sendto(m, address("%s")); b = s.recv(MAX_MESSAGE)
s.send(b + b"!"); end = s.recv(10); s.close(); return b.decode() + "/" + str(len(end))`, typ, size, size, text(inst))
			conn := accept(w.T, l)
			b := make([]byte, size)
			if _, err := io.ReadFull(conn, b); err != nil || !bytes.Equal(b, lab.Payload("implied", size, size)) {
				w.Errorf("%v SYN with %d octets: read %v", typ, size, err)
			}
			conn.Write([]byte("hello"))
			b = make([]byte, 10)
			if k, err := conn.Read(b); err != nil || string(b[:k]) != "hello!" {
				w.Errorf("%v: second message %q, %v", typ, b[:k], err)
			}
			conn.Close()
			if a := reply().good(); a.text() != "hello/0" {
				w.Errorf("Linux read %q", a.text())
			}
		}
		l.Close()

		w.p.must(`v.l = new("%v", "4711:%d", listen=5)`, typ, inst+2)
		await(w.T, w.n, service(inst+2).Range(), 1)
		for _, size := range []int{1, 1000, 60000} {
			server := w.p.start(`
c, _ = v.l.accept(); c.settimeout(20); b = receive_exactly(c, %d) if "%v" == "stream" else c.recv(MAX_MESSAGE)
c.send(b"hello"); e = c.recv(10); c.close(); return hashlib.sha256(b).hexdigest() + "/" + e.decode()`, size, typ)
			s, err := w.n.Internals().Socket(sockif.Type(typ), sockif.Options{})
			if err != nil {
				w.Fatal(err)
			}
			m := lab.Payload("implied", size, size)
			if k, err := s.Send(m, sockif.Dest{Kind: sockif.ServiceDest, Range: wire.ServiceRange(service(inst + 2).Range())}); err != nil || k != size {
				w.Fatalf("implied connect: %d, %v", k, err)
			}
			b := make([]byte, 100)
			s.SetReadDeadline(time.Now().Add(10 * time.Second))
			if k, _, err := s.Recv(b); err != nil || string(b[:k]) != "hello" {
				w.Errorf("%v: reply %q, %v", typ, b[:k], err)
			}
			s.Send([]byte("second"), sockif.Dest{})
			sum := sha256.Sum256(m)
			if a := server().good(); a.text() != hex.EncodeToString(sum[:])+"/second" {
				w.Errorf("Linux received %v", a)
			}
			s.Close()
		}
		w.p.must(`v.l.close()`)
	}
}

// connectionEnds ends connections in all ways and compares what the other end sees.
func connectionEnds(w pair) {
	for i, typ := range connected {
		inst := uint32(40 + i)
		l, err := w.n.Listen(service(inst), &tipc.SocketConfig{Type: typ})
		if err != nil {
			w.Fatal(err)
		}
		w.p.must(`v.l = new("%v", "4711:%d", listen=5)`, typ, inst+2)
		awaitGuest(w.T, w.g, service(inst))
		await(w.T, w.n, service(inst+2).Range(), 1)

		// What our end reads when Linux's ends in this way; want[0] is what is read first, "" for the end at once.
		for _, x := range []struct{ name, python, first, want string }{
			{"shutdown", `c.shutdown(socket.SHUT_RDWR)`, "", "EOF"},
			{"data and shutdown", `c.send(b"last"); c.shutdown(socket.SHUT_RDWR)`, "last", "EOF"},
			{"close", `c.close()`, "", "ECONNRESET"},
			{"data and close", `c.send(b"last"); c.close()`, "last", "ECONNRESET"},
		} {
			for _, dialed := range []bool{true, false} {
				var conn *tipc.Conn
				var done func() answer
				if dialed {
					done = w.p.start("c, _ = v.l.accept(); c.settimeout(20)\n%s\ntime.sleep(0.2)\nc.close()", x.python)
					conn = dial(w.T, w.n, service(inst+2), typ)
				} else {
					done = w.p.start("c = connect(\"%v\", \"%s\")\n%s\ntime.sleep(0.2)\nc.close()", typ, text(inst), x.python)
					conn = accept(w.T, l)
				}
				b, err := io.ReadAll(conn)
				end := errnoName(err)
				if err == nil {
					end = "EOF"
				}
				if string(b) != x.first || end != x.want {
					w.Errorf("%v, Linux's end with %s (dialed by us: %v): read %q and %s, want %q and %s", typ, x.name, dialed, b, end, x.first, x.want)
				}
				if _, err := conn.Write([]byte("x")); errnoName(err) != "EPIPE" {
					w.Errorf("%v after Linux's %s: write gives %v, want EPIPE", typ, x.name, err)
				}
				conn.Close()
				done().good()
			}
		}
		// The other way round.
		for _, x := range []struct {
			name  string
			ours  func(c *tipc.Conn)
			first string
			want  string
		}{
			{"close", func(c *tipc.Conn) { c.Close() }, "", "eof"},
			{"data and close", func(c *tipc.Conn) { c.Write([]byte("last")); c.Close() }, "last", "eof"},
			{"close with unread data", func(c *tipc.Conn) { c.Write([]byte("last")); w.p.must(`v.c.send(b"unread")`); w.queued(c); c.Close() }, "last", "eof"},
		} {
			for _, dialed := range []bool{true, false} {
				var conn *tipc.Conn
				if dialed {
					accepted := w.p.start(`v.c, _ = v.l.accept(); v.c.settimeout(20)`)
					conn = dial(w.T, w.n, service(inst+2), typ)
					accepted().good()
				} else {
					connecting := w.p.start(`v.c = connect("%v", "%s")`, typ, text(inst))
					conn = accept(w.T, l)
					connecting().good()
				}
				x.ours(conn)
				a := w.p.must(`
r = read_all(v.c); r["write"] = end_of(lambda: v.c.send(b"x")); v.c.close(); return r`).field()
				if a.Int("bytes") != len(x.first) || a.Text("end") != x.want || a.Text("write") != "EPIPE" {
					w.Errorf("%v, our end with %s (dialed by us: %v): Linux read %v, want %q and %s", typ, x.name, dialed, a, x.first, x.want)
				}
			}
		}
		// A killed process, with the connection idle and with data in flight.
		for _, unread := range []bool{false, true} {
			victim := newPuppet(w.T, w.g)
			connecting := victim.start(`v.c = connect("%v", "%s")`, typ, text(inst))
			conn := accept(w.T, l)
			connecting().good()
			if unread {
				conn.Write([]byte("never read"))
			}
			victim.proc.Kill()
			start := time.Now()
			b, err := io.ReadAll(conn)
			if errnoName(err) != "ECONNRESET" || len(b) != 0 || time.Since(start) > slack {
				w.Errorf("%v, killed Linux process (unread data: %v): read %q, %v after %v, want ECONNRESET", typ, unread, b, err, time.Since(start))
			}
			conn.Close()
		}
		// A listener that is closed with connections waiting.
		w.p.must(`v.w = new("%v"); v.w.settimeout(10)`, typ)
		waiting := w.p.start(`return end_of(lambda: v.w.connect(address("%s")))`, text(inst))
		w.pendingOn(l.SocketAddr())
		l.Close()
		if a := waiting().good(); a.text() != "ECONNREFUSED" {
			w.Errorf("%v: our listener closed with a connection waiting: Linux got %q, want ECONNREFUSED", typ, a.text())
		}
		w.p.must(`v.w.close()`)
		dialed := make(chan error, 1)
		go func() {
			c, err := w.n.Dial(service(inst+2), &tipc.SocketConfig{Type: typ, DialTimeout: 10 * time.Second})
			if err == nil {
				c.Close()
			}
			dialed <- err
		}()
		w.p.must(`
while not select.select([v.l], [], [], 5)[0]: pass
v.l.close()`)
		if err := <-dialed; errnoName(err) != "ECONNREFUSED" {
			w.Errorf("%v: Linux's listener closed with a connection waiting: %v, want ECONNREFUSED", typ, err)
		}
	}
}

// queued waits until something waits to be read on c.
func (w pair) queued(c *tipc.Conn) { w.pendingOn(c.LocalAddr().(tipc.SocketAddr)) }

func (w pair) pendingOn(a tipc.SocketAddr) {
	w.Helper()
	depth := 0
	_, ok := lab.Until(10*time.Second, func() bool {
		core(w.n, a, func(_ mono.Time, s *socket.Sock) { depth = s.RecvQueueDepth() })
		return depth > 0
	})
	if !ok {
		w.Fatalf("nothing arrives at %v", a)
	}
}

// addressing reaches sockets by each kind of address, and must not reach what is not visible.
func addressing(w pair) {
	own := uint32(w.n.Addr())
	guest := w.g.NodeAddress()
	// Bindings visible on their own node only.
	hidden, err := w.n.ListenPacket(service(50), &tipc.SocketConfig{Scope: tipc.NodeScope})
	if err != nil {
		w.Fatal(err)
	}
	defer hidden.Close()
	both, err := w.n.ListenPacket(service(52), nil)
	if err != nil {
		w.Fatal(err)
	}
	defer both.Close()
	w.p.must(`v.hidden = new("rdm", "4711:51", scope="node"); v.both = new("rdm", "4711:52"); v.s = new("rdm", droppable=0)`)
	await(w.T, w.n, service(52).Range(), 2)
	awaitGuest(w.T, w.g, service(52))
	for _, p := range theirs(w.g) {
		if p.typ == serviceType && p.lower == 50 {
			w.Errorf("Linux knows %v, which has node scope", p)
		}
	}
	for _, p := range ours(w.n) {
		if p.typ == serviceType && p.lower == 51 {
			w.Errorf("we know %v, which has node scope", p)
		}
	}
	s, err := w.n.ListenPacket(nil, &tipc.SocketConfig{ReturnUndelivered: true})
	if err != nil {
		w.Fatal(err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.WriteTo([]byte("x"), service(51)); errnoName(err) != "EHOSTUNREACH" {
		w.Errorf("sending to a hidden service of Linux: %v, want EHOSTUNREACH", err)
	}
	if a := w.p.do(`v.s.sendto(b"x", address("4711:50"))`); a.err() != "EHOSTUNREACH" {
		w.Errorf("Linux sending to a hidden service of ours: %v, want EHOSTUNREACH", a)
	}
	// Lookup on one node only.
	b := make([]byte, 100)
	for range 3 {
		if _, err := s.WriteTo([]byte("to linux"), tipc.ServiceAddr{Type: serviceType, Instance: 52, Node: tipc.NodeAddr(guest)}); err != nil {
			w.Fatal(err)
		}
		w.p.must(`b, v.peer = v.both.recvfrom(100); v.both.sendto(b"linux", v.peer)`)
		if k, from, err := s.ReadFrom(b); err != nil || string(b[:k]) != "linux" || uint32(from.(tipc.SocketAddr).Node) != guest {
			w.Errorf("reply %q from %v, %v", b[:k], from, err)
		}
		w.p.must(`
raw = struct.pack("=HBbIII", socket.AF_TIPC, socket.TIPC_ADDR_NAME, 2, 4711, 52, %d)
libc = ctypes.CDLL(None, use_errno=True)
if libc.sendto(v.s.fileno(), b"to ours", 7, 0, raw, len(raw)) != 7: raise OSError(ctypes.get_errno(), "")`, own)
		both.SetDeadline(time.Now().Add(10 * time.Second))
		k, from, err := both.ReadFrom(b)
		if err != nil || string(b[:k]) != "to ours" {
			w.Errorf("%q from %v, %v", b[:k], from, err)
		}
		both.WriteTo([]byte("ours"), from)
		if a := w.p.must(`return v.s.recv(100).decode()`); a.text() != "ours" {
			w.Errorf("Linux read %v", a)
		}
	}
	// On a node that has no such binding, and on one that does not exist.
	for _, node := range []uint32{own, 12345} {
		inst := uint32(51)
		if _, err := s.WriteTo([]byte("x"), tipc.ServiceAddr{Type: serviceType, Instance: inst, Node: tipc.NodeAddr(node)}); errnoName(err) != "EHOSTUNREACH" {
			w.Errorf("service on node %x: %v, want EHOSTUNREACH", node, err)
		}
	}
	// Lookup on the peer finds what is hidden from here.
	if _, err := s.WriteTo([]byte("x"), tipc.ServiceAddr{Type: serviceType, Instance: 51, Node: tipc.NodeAddr(guest)}); err != nil {
		w.Errorf("lookup of Linux's hidden service on its node: %v", err)
	}
	if a := w.p.do(`return receive(v.hidden)`); a.field().Int("bytes") != 1 {
		w.Errorf("Linux's hidden service received %v", a)
	}
	hidden.SetDeadline(time.Now().Add(10 * time.Second))
	a := w.p.do(`
raw = struct.pack("=HBbIII", socket.AF_TIPC, socket.TIPC_ADDR_NAME, 2, 4711, 50, %d)
libc = ctypes.CDLL(None, use_errno=True)
if libc.sendto(v.s.fileno(), b"to ours", 7, 0, raw, len(raw)) != 7: raise OSError(ctypes.get_errno(), "")`, own)
	if k, _, err := hidden.ReadFrom(b); a.err() != "" || err != nil || k != 7 {
		w.Errorf("Linux's lookup of our hidden service on our node: %v; received %d octets, %v", a, k, err)
	}
	// What is not bound there comes back.
	if _, err := s.WriteTo([]byte("x"), tipc.ServiceAddr{Type: serviceType, Instance: 99, Node: tipc.NodeAddr(guest)}); err != nil {
		w.Errorf("lookup of nothing on Linux's node: %v", err)
	}
	if k, info, err := s.ReadMsg(b); err != nil || k != 1 || info.Returned != tipc.CodeNoName {
		w.Errorf("lookup of nothing on Linux's node: back %d octets, %+v, %v", k, info, err)
	}
	w.p.must(`
raw = struct.pack("=HBbIII", socket.AF_TIPC, socket.TIPC_ADDR_NAME, 2, 4711, 99, %d)
libc = ctypes.CDLL(None, use_errno=True)
if libc.sendto(v.s.fileno(), b"to ours", 7, 0, raw, len(raw)) != 7: raise OSError(ctypes.get_errno(), "")`, own)
	if a := w.p.do(`return receive(v.s)`).field(); a.Int("error") != int(tipc.CodeNoName) || a.Int("octets") != 7 {
		w.Errorf("Linux's lookup of nothing on our node: back %v", a)
	}

	// Socket addresses.
	linux := w.p.must(`return list(v.both.getsockname()[1:3])`).list()
	if _, err := s.WriteTo([]byte("direct"), tipc.SocketAddr{Node: tipc.NodeAddr(linux[0]), Port: uint32(linux[1])}); err != nil {
		w.Fatal(err)
	}
	if a := w.p.must(`return receive(v.both)`).field(); a.Int("bytes") != 6 || a.Text("name") != "" {
		w.Errorf("Linux received %v, want 6 octets and no name", a)
	}
	w.p.must(`v.s.sendto(b"direct", address("@%d:%d"))`, own, both.SocketAddr().Port)
	if k, info, err := both.ReadMsg(b); err != nil || string(b[:k]) != "direct" || info.Dest != (tipc.ServiceRange{}) {
		w.Errorf("%q %+v, %v", b[:k], info, err)
	}
	// The name a message was sent to.
	s.WriteTo([]byte("n"), tipc.ServiceAddr{Type: serviceType, Instance: 52, Node: tipc.NodeAddr(guest)})
	if a := w.p.must(`return receive(v.both)`).field(); a.Text("name") != "4711:52:52" {
		w.Errorf("Linux received %v, want the name 4711:52:52", a)
	}
	w.p.must(`v.hidden.close(); v.both.close(); v.s.close()`)
}

// anycast spreads messages over sockets on both nodes as Linux does: in a cluster with legacy addresses over those on the
// own node only, if there are any.
func anycast(w pair)        { anycastTo(w, false) }
func anycastClosest(w pair) { anycastTo(w, true) }

func anycastTo(w pair, closest bool) {
	const rounds = 24
	w.p.must(`v.r = [new("rdm", "4711:60", timeout=0.3) for i in range(3)]; v.s = new("rdm", droppable=0)`)
	var sockets []*tipc.PacketConn
	for range 3 {
		s, err := w.n.ListenPacket(service(60), nil)
		if err != nil {
			w.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	w.c.waitNamesEqual()
	for _, sender := range []string{"ours", "linux"} {
		if sender == "ours" {
			for range rounds {
				if _, err := sockets[0].WriteTo([]byte("x"), service(60)); err != nil {
					w.Fatal(err)
				}
			}
		} else {
			w.p.must(`for i in range(%d): v.s.sendto(b"x", address("4711:60"))`, rounds)
		}
		linux := w.p.must(`
out = []
for s in v.r:
  n = 0
  while not end_of(lambda: s.recv(10)): n += 1
  out.append(n)
return out`).list()
		var us []int
		b := make([]byte, 10)
		for _, s := range sockets {
			n := 0
			s.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			for {
				if _, _, err := s.ReadFrom(b); err != nil {
					break
				}
				n++
			}
			us = append(us, n)
		}
		want := [2]int{rounds / 6, rounds / 6}
		if closest {
			want = map[string][2]int{"ours": {0, rounds / 3}, "linux": {rounds / 3, 0}}[sender]
		}
		for i := range 3 {
			if linux[i] != want[0] || us[i] != want[1] {
				w.Errorf("%d messages from %s reached %v on Linux and %v on ours, want %d and %d each", rounds, sender, linux, us, want[0], want[1])
				break
			}
		}
	}
	w.p.must(`for s in v.r: s.close()
v.s.close()`)
	for _, s := range sockets {
		s.Close()
	}
}
