package socket

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

var connTypes = []Type{Stream, SeqPacket}

func TestConnectSendCloseTranscript(t *testing.T) {
	w := newWorld(t, 1, 2)
	a, b := w.nodes[1], w.nodes[2]
	w.tracing = true
	c, s, l := w.connect(Stream, a, b)
	w.wantTrace(`
		1>2 LOW type=2 hdr=40 data=0 syn {1000,2} scope=2 reroute=0
		2>1 LOW type=0 hdr=24 data=0
	`)
	w.send(c, "ping", Dest{})
	w.settle()
	w.expect(s, "ping")
	w.send(s, "pong", Dest{})
	w.settle()
	if info := w.expect(c, "pong"); info.From != s.LocalAddr() || !info.HasDest || info.Dest != rangeOf(1000, 2, 2) {
		t.Errorf("info %+v", info)
	}
	if err := c.Shutdown(w.now); err != nil {
		t.Fatal(err)
	}
	w.settle()
	for range 2 {
		if info := w.expectErr(s, io.EOF); info.Err != wire.CodeConnShutdown {
			t.Errorf("info %+v", info)
		}
	}
	w.expectErr(c, ErrNotConnected)
	if _, err := c.Send(w.now, []byte("x"), Dest{}); err != ErrPipe {
		t.Errorf("send after shutdown: %v", err)
	}
	if _, err := s.Send(w.now, []byte("x"), Dest{}); err != ErrPipe {
		t.Errorf("send after the peer's shutdown: %v", err)
	}
	for _, x := range []*Sock{c, s, l} {
		x.Close(w.now)
	}
	w.settle()
	w.wantTrace(`
		1>2 LOW type=0 hdr=24 data=4
		2>1 LOW type=0 hdr=24 data=4
		1>2 CRITICAL type=0 hdr=24 data=0 CONN_SHUTDOWN
	`)
	if len(w.pubs) != 0 {
		t.Error("binding left")
	}
	w.leakCheck()
}

// Close without shutdown: FIN with ERR_NO_PORT, or the first unread message comes back with it.
func TestCloseTranscript(t *testing.T) {
	for _, typ := range connTypes {
		w := newWorld(t, 1, 2)
		c, s, l := w.connect(typ, w.nodes[1], w.nodes[2])
		w.tracing = true
		s.Close(w.now)
		w.settle()
		w.wantTrace(`2>1 CRITICAL type=0 hdr=24 data=0 ERR_NO_PORT`)
		if info := w.expectErr(c, ErrConnReset); info.Err != wire.CodeNoPort {
			t.Errorf("info %+v", info)
		}
		c.Close(w.now)
		l.Close(w.now)

		c, s, l = w.connect(typ, w.nodes[1], w.nodes[2])
		w.send(c, strings.Repeat("u", 1300), Dest{})
		w.send(c, "second", Dest{})
		w.settle()
		w.transcript()
		s.Close(w.now)
		w.settle()
		w.wantTrace(`2>1 LOW type=0 hdr=32 data=1024 ERR_NO_PORT`)
		if info := w.expectErr(c, ErrConnReset); info.Err != wire.CodeNoPort {
			t.Errorf("info %+v", info)
		}
		p := make([]byte, 2000)
		n, info, err := c.Recv(w.now, p, RecvAncillary)
		if n != 1024 || info.Err != wire.CodeNoPort || err != nil {
			t.Errorf("ancillary: %d %+v %v", n, info, err)
		}
		w.expectErr(c, ErrConnReset)
		c.Close(w.now)
		l.Close(w.now)
		w.leakCheck()
	}
}

// A message that was read in part is not returned; the one behind it is.
func TestCloseAfterPartialRead(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.send(c, "first", Dest{})
	w.send(c, "second", Dest{})
	w.settle()
	p := make([]byte, 2)
	if n, _, err := s.Recv(w.now, p, 0); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	s.Close(w.now)
	w.settle()
	q := make([]byte, 100)
	n, info, err := c.Recv(w.now, q, RecvAncillary)
	if string(q[:n]) != "second" || info.Err != wire.CodeNoPort || err != nil {
		t.Errorf("%q %+v %v", q[:n], info, err)
	}
}

// The unread message must not come back, so there is a FIN (Linux sends nothing).
func TestCloseWithDroppableUnread(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	c.SetDestDroppable(true)
	w.send(c, "x", Dest{})
	w.settle()
	s.Close(w.now)
	w.settle()
	w.expectErr(c, ErrConnReset)
}

func TestRefused(t *testing.T) {
	w := newWorld(t, 1, 2)
	a, b := w.nodes[1], w.nodes[2]
	w.tracing = true

	c := a.create(Stream)
	if err := c.Connect(w.now, service(1000, 1)); err != ErrHostUnreach {
		t.Fatalf("unknown name: %v", err)
	}
	// Not bound any more where it is looked up: ERR_NO_NAME.
	if err := c.Connect(w.now, serviceOn(1000, 1, 2)); err != ErrInProgress {
		t.Fatal(err)
	}
	if err := c.Connect(w.now, serviceOn(1000, 1, 2)); err != ErrAlready {
		t.Fatal(err)
	}
	if err := c.ConnectResult(); err != ErrInProgress {
		t.Fatal(err)
	}
	w.settle()
	w.wantTrace(`
		1>2 LOW type=2 hdr=40 data=0 syn {1000,1} scope=3 reroute=0
		2>1 LOW type=2 hdr=40 data=0 syn ERR_NO_NAME {1000,1} scope=3 reroute=0
	`)
	err := c.ConnectResult()
	if err != ErrConnRefused || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	if err := c.ConnectResult(); err != ErrNotConnected {
		t.Fatal(err)
	}
	if err := c.Connect(w.now, service(1000, 1)); err != ErrInvalid {
		t.Fatal("a socket connects once:", err)
	}
	if info := w.expectErr(c, ErrConnReset); info.Err != wire.CodeNoName {
		t.Errorf("%+v", info)
	}
	c.Close(w.now)

	// No such port.
	c = a.create(SeqPacket)
	if err := c.Connect(w.now, to(wire.SocketAddr{Port: 77, Node: 2})); err != ErrInProgress {
		t.Fatal(err)
	}
	w.settle()
	w.wantTrace(`
		1>2 LOW type=3 hdr=32 data=0 syn
		2>1 LOW type=3 hdr=32 data=0 syn ERR_NO_PORT
	`)
	if err := c.ConnectResult(); err != ErrConnRefused {
		t.Fatal(err)
	}
	c.Close(w.now)

	// Sockets that do not listen.
	for _, typ := range []Type{Stream, RDM} {
		s := b.bound(typ, 1000, 5)
		c = a.create(Stream)
		c.Connect(w.now, service(1000, 5))
		w.settle()
		if typ == Stream {
			if err := c.ConnectResult(); err != ErrConnRefused {
				t.Fatal(err)
			}
		} else {
			// A connectionless socket cannot tell a SYN from a message.
			if err := c.ConnectResult(); err != ErrInProgress {
				t.Fatal(err)
			}
			if s.RecvQueueDepth() != 1 {
				t.Fatal("not queued")
			}
		}
		s.Close(w.now)
		c.Close(w.now)
	}

	// The listener closes before it accepts: its requests go back.
	l := b.listener(Stream, 1000, 9)
	c = a.create(Stream)
	c.Connect(w.now, service(1000, 9))
	w.settle()
	w.transcript()
	l.Close(w.now)
	w.settle()
	w.wantTrace(`2>1 LOW type=2 hdr=40 data=0 syn ERR_NO_PORT {1000,9} scope=2 reroute=0`)
	if err := c.ConnectResult(); err != ErrConnRefused {
		t.Fatal(err)
	}
	c.Close(w.now)
	w.settle()
	w.leakCheck()
}

func TestConnectTimeout(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.lose = func(from, to uint32, m wire.Msg) bool { return true }
	l := w.nodes[2].listener(Stream, 1000, 1)
	c := w.nodes[1].create(Stream)
	if err := c.Connect(w.now, service(1000, 1)); err != ErrInProgress {
		t.Fatal(err)
	}
	for w.nodes[1].PopReady() != nil {
	}
	w.run(7999 * time.Millisecond)
	if err := c.ConnectResult(); err != ErrInProgress || w.nodes[1].PopReady() != nil {
		t.Fatal(err)
	}
	w.run(time.Millisecond)
	if w.nodes[1].PopReady() != c {
		t.Fatal("no wakeup")
	}
	if err := c.ConnectResult(); err != ErrTimedOut {
		t.Fatal(err)
	}
	if err := c.ConnectResult(); err != ErrInProgress {
		t.Fatal(err) // an answer may yet come
	}
	// Connecting again waits as long again; doing so meanwhile does not make it longer.
	for range 2 {
		if err := c.Connect(w.now, service(1000, 1)); err != ErrAlready {
			t.Fatal(err)
		}
		w.run(4 * time.Second)
	}
	if err := c.ConnectResult(); err != ErrTimedOut {
		t.Fatal(err)
	}
	c.Close(w.now)
	l.Close(w.now)
	w.leakCheck()
}

// Backlog overflow: OVERLOAD, retry after a while, success once there is room; or timeout.
func TestBacklogOverloadAndRetry(t *testing.T) {
	w := newWorld(t, 1, 2)
	a, b := w.nodes[1], w.nodes[2]
	l := b.bound(Stream, 1000, 2)
	if err := l.Listen(2); err != nil {
		t.Fatal(err)
	}
	var cs []*Sock
	for range 3 {
		c := a.create(Stream)
		c.Connect(w.now, service(1000, 2))
		cs = append(cs, c)
	}
	w.tracing = true
	w.settle()
	w.wantTrace(`2>1 LOW type=2 hdr=40 data=0 syn ERR_OVERLOAD {1000,2} scope=2 reroute=0`)
	if err := cs[2].ConnectResult(); err != ErrInProgress {
		t.Fatal(err)
	}
	if l.Info().Drops != 1 {
		t.Error("drops", l.Info().Drops)
	}
	w.run(50 * time.Millisecond)
	w.wantTrace("") // not before 100 ms
	w.run(2200 * time.Millisecond)
	if n := strings.Count(w.transcript(), "1>2"); n < 1 {
		t.Error("no retry")
	}
	for range 2 {
		if _, err := l.Accept(w.now); err != nil {
			t.Fatal(err)
		}
	}
	w.run(2200 * time.Millisecond)
	if _, err := l.Accept(w.now); err != nil {
		t.Fatal(err)
	}
	w.settle()
	for i, c := range cs {
		if err := c.ConnectResult(); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A listener's bytes are bounded too: requests with data.
func TestBacklogBytes(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[1]
	l := n.listener(SeqPacket, 1000, 1)
	l.SetRecvBuf(0) // the minimum, 512 KiB
	ok := 0
	for range 20 {
		c := n.create(SeqPacket)
		if k, err := c.Send(w.now, make([]byte, wire.MaxUserMsgSize), service(1000, 1)); err != nil || k != wire.MaxUserMsgSize {
			t.Fatal(k, err)
		}
	}
	ok = l.RecvQueueDepth()
	if ok < 5 || ok > 8 || l.RecvQueueUsed() > RcvBufMin {
		t.Errorf("%d requests, %d octets", ok, l.RecvQueueUsed())
	}
}

// Connect timeouts of 0 to 3 ms once divided by zero when the SYN was refused for overload (CVE-2026-43411).
func TestTinyConnectTimeout(t *testing.T) {
	for d := range 5 {
		w := newWorld(t, 1, 2)
		c := w.nodes[1].create(Stream)
		c.SetConnTimeout(time.Duration(d) * time.Millisecond)
		l := w.nodes[2].bound(Stream, 1000, 2)
		l.Listen(1)
		other := w.nodes[1].create(Stream)
		other.Connect(w.now, service(1000, 2))
		w.settle()
		c.Connect(w.now, service(1000, 2))
		w.run(time.Second)
		if l.Info().Drops < 3 {
			t.Errorf("%d ms: %d tries", d, l.Info().Drops)
		}
		err := c.ConnectResult()
		if want := map[bool]error{true: ErrInProgress, false: ErrTimedOut}[d == 0]; err != want {
			t.Errorf("%d ms: %v", d, err)
		}
	}
}

// The retry waits until a congested link has room.
func TestRetryWhileCongested(t *testing.T) {
	w := newWorld(t, 1, 2)
	a := w.nodes[1]
	l := w.nodes[2].bound(Stream, 1000, 2)
	l.Listen(1)
	a.create(Stream).Connect(w.now, service(1000, 2))
	c := a.create(Stream)
	c.SetConnTimeout(time.Minute)
	a.congested[2] = true
	c.Connect(w.now, service(1000, 2))
	w.settle()
	l.Accept(w.now)
	w.tracing = true
	w.run(20 * time.Second)
	if got := w.transcript(); strings.Contains(got, "syn") {
		t.Error(got)
	}
	a.uncongest()
	w.run(time.Second)
	if _, err := l.Accept(w.now); err != nil {
		t.Error(err)
	}
}

// What may and may not change a connecting socket.
func TestConnectingTakesOnlyTheListener(t *testing.T) {
	w := newWorld(t, 1, 2)
	c := w.nodes[1].create(Stream)
	w.nodes[2].up = true
	l := w.nodes[2].listener(Stream, 1000, 2)
	c.Connect(w.now, service(1000, 2))
	w.settle()
	for _, from := range []wire.SocketAddr{{Port: l.Port() + 1, Node: 2}, {Port: l.Port(), Node: 3}} {
		for _, code := range []wire.ErrCode{wire.CodeOK, wire.CodeNoPort, wire.CodeOverload} {
			w.nodes[1].Receive(w.now, msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 1, from.Node, c.Port(), from.Port, code))
		}
	}
	if c.State() != Connecting || c.timer != mono.Never {
		t.Fatal(c.State())
	}
	// The importance of the connection is that of the ACK.
	w.nodes[1].Receive(w.now, msg.Create(wire.UserHigh, wire.TypeConn, wire.ShortHeaderSize, 0, 1, 2, c.Port(), 4242, 0))
	if c.State() != Established || c.Importance() != 2 {
		t.Error(c.State(), c.Importance())
	}
	if c.peerPort() != 4242 {
		t.Error(c.PeerAddr())
	}
}

func TestAcceptInherits(t *testing.T) {
	w := newWorld(t, 1, 2)
	l := w.nodes[2].listener(Stream, 1000, 2)
	l.SetRecvBuf(RcvBufMax)
	l.SetNoDelay(true)
	l.SetConnTimeout(time.Second)
	c := w.nodes[1].create(Stream)
	c.Connect(w.now, service(1000, 2))
	w.settle()
	s, err := l.Accept(w.now)
	if err != nil || s.RecvBuf() != RcvBufMax || !s.NoDelay() || s.maxNagle != 0 || s.ConnTimeout() != time.Second || s.Type() != Stream {
		t.Errorf("%v %+v", err, s.Info())
	}
}

func TestImpliedConnect(t *testing.T) {
	for _, typ := range connTypes {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[1], w.nodes[2]
		w.tracing = true
		l := b.listener(typ, 1000, 2)
		c := a.create(typ)
		c.SetImportance(2)
		w.send(c, "request", service(1000, 2))
		if c.State() != Connecting {
			t.Fatal(c.State())
		}
		if _, err := c.Send(w.now, []byte("x"), Dest{}); err != ErrWouldBlock {
			t.Error(err)
		}
		w.settle()
		s, err := l.Accept(w.now)
		if err != nil {
			t.Fatal(err)
		}
		if s.Importance() != 2 {
			t.Error("importance", s.Importance())
		}
		if info := w.expect(s, "request"); info.Dest != rangeOf(1000, 2, 2) {
			t.Errorf("%+v", info)
		}
		w.send(s, "reply", Dest{})
		w.settle()
		w.expect(c, "reply")
		w.wantTrace(`
			1>2 HIGH type=2 hdr=40 data=7 syn {1000,2} scope=2 reroute=0
			2>1 HIGH type=0 hdr=24 data=0
			2>1 HIGH type=0 hdr=24 data=5
		`)
		if c.sndUnacked != 1 {
			t.Errorf("the request counts as %d", c.sndUnacked)
		}
	}
}

// A refused request with data does not bring the data back, since its sender has kept them: the retry has them.
func TestImpliedConnectOverload(t *testing.T) {
	w := newWorld(t, 1, 2)
	l := w.nodes[2].bound(SeqPacket, 1000, 2)
	l.Listen(1)
	first, second := w.nodes[1].create(SeqPacket), w.nodes[1].create(SeqPacket)
	w.send(first, strings.Repeat("1", 3000), service(1000, 2))
	w.send(second, strings.Repeat("2", 3000), service(1000, 2))
	w.tracing = true
	w.settle()
	w.wantTrace(`2>1 LOW type=2 hdr=40 data=0 syn ERR_OVERLOAD {1000,2} scope=2 reroute=0`)
	s, _ := l.Accept(w.now)
	w.expect(s, strings.Repeat("1", 3000))
	w.run(3 * time.Second)
	s, err := l.Accept(w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.expect(s, strings.Repeat("2", 3000))
}

func TestConnectErrors(t *testing.T) {
	w := newWorld(t, 1, 2)
	a := w.nodes[1]
	c, _, l := w.connect(Stream, a, w.nodes[2])
	if err := c.Connect(w.now, service(1000, 2)); err != ErrIsConnected {
		t.Error(err)
	}
	if err := c.Listen(0); err != ErrInvalid {
		t.Error(err)
	}
	if err := l.Connect(w.now, service(1000, 2)); err != ErrInvalid {
		t.Error(err)
	}
	if _, err := c.Accept(w.now); err != ErrInvalid {
		t.Error(err)
	}
	if _, err := l.Accept(w.now); err != ErrWouldBlock {
		t.Error(err)
	}
	if _, err := l.Send(w.now, []byte("x"), service(1000, 2)); err != ErrNotConnected {
		t.Error(err)
	}
	x := a.create(Stream)
	if err := x.Connect(w.now, Dest{Kind: RangeDest, Range: rangeOf(1000, 1, 2)}); err != ErrInvalid {
		t.Error(err)
	}
	if _, err := x.Send(w.now, []byte("x"), Dest{Kind: RangeDest, Range: rangeOf(1000, 1, 2)}); err != ErrInvalid {
		t.Error(err)
	}
	if err := x.Connect(w.now, Dest{}); err != ErrInvalid {
		t.Error(err)
	}
	if _, err := x.Send(w.now, []byte("x"), Dest{}); err != ErrNotConnected {
		t.Error(err)
	}
	w.expectErr(x, ErrNotConnected)
	if err := x.Connect(w.now, to(wire.SocketAddr{Port: 1, Node: 99})); err != ErrHostUnreach || x.State() != Open {
		t.Error(err, x.State())
	}
	if err := x.Shutdown(w.now); err != ErrNotConnected {
		t.Error(err)
	}
	y := a.bound(Stream, 1000, 77)
	if err := y.Connect(w.now, service(1000, 2)); err != ErrOpNotSupp {
		t.Error(err)
	}
	if err := a.create(RDM).Listen(0); err != ErrOpNotSupp {
		t.Error(err)
	}
	if _, err := y.PeerAddr(); err != ErrNotConnected {
		t.Error(err)
	}
	y.Close(w.now)
	y.Close(w.now)
	_, err := y.Send(w.now, nil, Dest{})
	_, _, err2 := y.Recv(w.now, make([]byte, 1), 0)
	_, err3 := y.Accept(w.now)
	for i, err := range []error{err, err2, err3, y.Connect(w.now, Dest{}), y.Listen(0), y.Shutdown(w.now), y.Bind(w.now, rangeOf(99, 1, 1), 2), y.Unbind(w.now, rangeOf(99, 1, 1), 2)} {
		if err != ErrClosed {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := a.Create(w.now, 3); err != ErrInvalid {
		t.Error(err)
	}
}

func TestNodeLoss(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	a, b := w.nodes[1], w.nodes[2]
	c1, s1, l := w.connect(Stream, a, b)
	w.connect(SeqPacket, a, w.nodes[3])
	c3, _, _ := w.connect(SeqPacket, b, a)
	pending := a.create(Stream)
	pending.Connect(w.now, service(1000, 2))
	w.settle()
	w.send(s1, "last words", Dest{})
	w.settle()
	for _, n := range w.nodes {
		n.TakeWakeups(nil)
	}
	w.down(2)
	ready := a.TakeWakeups(nil)
	if len(ready) != 3 {
		t.Errorf("%d woken", len(ready))
	}
	w.expect(c1, "last words")
	for range 2 {
		if info := w.expectErr(c1, ErrConnReset); info.Err != wire.CodeNoNode {
			t.Errorf("%+v", info)
		}
	}
	if err := pending.ConnectResult(); err != ErrHostUnreach {
		t.Error(err)
	}
	// Also on the other side.
	b.up = false
	b.NodeDown(w.now, 1)
	if c3.State() != Disconnecting || s1.State() != Disconnecting {
		t.Error(c3.State(), s1.State())
	}
	// A request of a lost client can still be accepted, and is broken.
	s, err := l.Accept(w.now)
	if err != nil {
		t.Fatal(err)
	}
	if info := w.expectErr(s, ErrConnReset); info.Err != wire.CodeNoNode {
		t.Errorf("%+v", info)
	}
	if len(a.peers) != 1 || len(b.peers) != 0 {
		t.Error("peers", len(a.peers), len(b.peers))
	}
}

func TestProbe(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.tracing = true
	w.run(time.Hour)
	w.wantTrace(`
		2>1 CONN_MANAGER type=0 hdr=40 data=0
		1>2 CONN_MANAGER type=1 hdr=40 data=0
		1>2 CONN_MANAGER type=0 hdr=40 data=0
		2>1 CONN_MANAGER type=1 hdr=40 data=0
	`)
	w.run(time.Hour)
	if c.State() != Established || c.probeUnacked || s.probeUnacked {
		t.Fatal("alive, but", c.State())
	}
	// The peer's socket is gone and nobody has told us.
	w.lose = func(from, to uint32, m wire.Msg) bool {
		return m.ErrCode() == wire.CodeNoPort && m.User() != wire.UserConnManager
	}
	s.Close(w.now)
	w.run(time.Hour)
	if c.State() != Disconnecting {
		t.Fatal(c.State())
	}
	if info := w.expectErr(c, ErrConnReset); info.Err != wire.CodeNoPort {
		t.Errorf("%+v", info)
	}
	if w.nodes[1].Deadline() != 1<<63-1 {
		t.Error("timer left")
	}

	// Nothing comes back at all.
	c, _, _ = w.connect(Stream, w.nodes[1], w.nodes[2])
	w.lose = func(from, to uint32, m wire.Msg) bool { return true }
	w.run(2 * time.Hour)
	w.expectErr(c, ErrConnAborted)
	w.expectErr(c, ErrConnReset)
}

// Messages on a connection that are not the peer's are refused.
func TestWrongPeer(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.tracing = true
	for _, k := range []struct{ port, node uint32 }{{s.Port() + 1, 2}, {s.Port(), 3}} {
		b := msg.Create(wire.UserLow, wire.TypeConn, wire.ShortHeaderSize, 3, 1, k.node, c.Port(), k.port, 0)
		w.nodes[1].Receive(w.now, b)
		w.wantTrace("1>" + string(rune('0'+k.node)) + " LOW type=0 hdr=32 data=3 ERR_NO_PORT")
		for _, code := range []wire.ErrCode{wire.CodeConnShutdown, wire.CodeNoNode} {
			w.nodes[1].Receive(w.now, msg.Create(wire.UserCritical, wire.TypeConn, wire.ShortHeaderSize, 0, 1, k.node, c.Port(), k.port, code))
		}
		for _, typ := range []uint8{wire.TypeConnProbe, wire.TypeConnProbeReply, wire.TypeConnAck, 7} {
			w.nodes[1].Receive(w.now, msg.Create(wire.UserConnManager, typ, wire.IntHeaderSize, 0, 1, k.node, c.Port(), k.port, 0))
			w.nodes[1].Receive(w.now, msg.Create(wire.UserConnManager, typ, wire.IntHeaderSize, 0, 1, k.node, c.Port(), k.port, wire.CodeNoPort))
		}
		w.wantTrace("")
	}
	w.settle()
	if c.State() != Established || c.RecvQueueDepth() != 0 {
		t.Error(c.State(), c.RecvQueueDepth())
	}
	w.send(c, "still alive", Dest{})
	w.settle()
	w.expect(s, "still alive")
}

// A SYN to a connected, connecting or closed socket; data to unknown ports.
func TestStrays(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, _, l := w.connect(Stream, w.nodes[1], w.nodes[2])
	open := w.nodes[1].create(Stream)
	w.tracing = true
	for _, port := range []uint32{c.Port(), open.Port(), 99999} {
		b := msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 1, 2, port, 4242, 0)
		b.Msg.SetSyn(true)
		w.nodes[1].Receive(w.now, b)
		w.wantTrace(`1>2 LOW type=3 hdr=32 data=0 syn ERR_NO_PORT`)
	}
	for _, m := range []struct {
		user wire.User
		typ  uint8
		want string
	}{
		{wire.UserLow, wire.TypeConn, "1>2 LOW type=0 hdr=40 data=0 ERR_NO_PORT"},
		{wire.UserCritical, wire.TypeDirect, "1>2 CRITICAL type=3 hdr=40 data=0 ERR_NO_PORT"},
		{wire.UserLow, wire.TypeNamed, "1>2 LOW type=2 hdr=40 data=0 ERR_NO_NAME {0,0} scope=0 reroute=0"},
		{wire.UserConnManager, wire.TypeConnProbe, "1>2 CONN_MANAGER type=0 hdr=40 data=0 ERR_NO_PORT"},
	} {
		w.nodes[1].Receive(w.now, msg.Create(m.user, m.typ, wire.IntHeaderSize, 0, 1, 2, 88888, 4242, 0))
		w.wantTrace(m.want)
	}
	// Never in reply to a returned or droppable message.
	b := msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 1, 2, 88888, 4242, wire.CodeNoPort)
	w.nodes[1].Receive(w.now, b)
	b = msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 1, 2, 88888, 4242, 0)
	b.Msg.SetDestDroppable(true)
	w.nodes[1].Receive(w.now, b)
	w.wantTrace("")
	// A listener takes nothing but a SYN from a node that has the bit.
	w.nodes[2].Receive(w.now, msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 2, 1, l.Port(), 4242, 0))
	w.wantTrace(`2>1 LOW type=3 hdr=32 data=0 ERR_NO_PORT`)
	w.nodes[1].caps &^= wire.CapSynBit
	w.nodes[2].Receive(w.now, msg.Create(wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 0, 2, 1, l.Port(), 4242, 0))
	w.wantTrace(``)
	if l.RecvQueueDepth() != 1 {
		t.Error("SYN of an old node not taken")
	}
}

func TestPair(t *testing.T) {
	for _, typ := range []Type{Stream, SeqPacket, RDM, Dgram} {
		w := newWorld(t, 1)
		a, b, err := w.nodes[1].Pair(w.now, typ)
		if err != nil {
			t.Fatal(err)
		}
		w.send(a, "there", Dest{})
		w.expect(b, "there")
		w.send(b, "and back", Dest{})
		w.expect(a, "and back")
		w.run(3 * time.Hour) // probes
		if a.State() != Established {
			t.Error(typ, a.State())
		}
		a.Close(w.now)
		if typ.Connected() {
			w.expectErr(b, ErrConnReset)
		}
		b.Close(w.now)
		w.leakCheck()
	}
}

// Sockets made before the node has an address go on working, inside the node and to others.
func TestSetOwn(t *testing.T) {
	w := newWorld(t, 1, 2)
	n := w.nodes[1]
	n.SetOwn(0)
	a, b, _ := n.Pair(w.now, Stream)
	r := n.create(RDM)
	n.SetOwn(1)
	w.check = func(from uint32, m wire.Msg) {
		if m.PrevNode() != from {
			t.Error("previous node", describe(m))
		}
	}
	for i := range 20 {
		w.send(a, "x", Dest{})
		w.expect(b, "x")
		if i == 5 {
			w.send(b, "y", Dest{})
			w.expect(a, "y")
		}
	}
	far := w.nodes[2].create(RDM)
	w.send(r, "hello", to(far.LocalAddr()))
	w.settle()
	if info := w.expect(far, "hello"); info.From != (wire.SocketAddr{Port: r.Port(), Node: 1}) {
		t.Errorf("%+v", info)
	}
}

func TestMaxSocketsAndPorts(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[1]
	seq := []uint32{0, 1, ^uint32(0), ^uint32(0), 1}
	i := 0
	tab := NewTable(n, Config{Own: 1, MaxSockets: 5, Rand: func() uint32 { i++; return seq[i-1] }})
	var got []uint32
	for range seq {
		s, err := tab.Create(w.now, RDM)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.Port())
	}
	for i, want := range []uint32{1, 2, ^uint32(0), 3, 4} {
		if got[i] != want {
			t.Fatalf("ports %v", got)
		}
	}
	if _, err := tab.Create(w.now, RDM); err != ErrTooMany {
		t.Error(err)
	}
	n2 := 0
	for s := range tab.Sockets() {
		s.Close(w.now)
		n2++
	}
	if n2 != 5 || tab.Len() != 0 || tab.Stats().Sockets != 0 {
		t.Error(n2, tab.Len())
	}
}
