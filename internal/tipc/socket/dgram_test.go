package socket

import (
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

func TestDatagrams(t *testing.T) {
	for _, typ := range []Type{RDM, Dgram} {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[1], w.nodes[2]
		s, far, near := a.create(typ), b.bound(typ, 500, 2), a.bound(typ, 500, 1)
		s.SetDestDroppable(false)
		w.tracing = true
		w.check = func(from uint32, m wire.Msg) {
			if m.IsDirect() && m.LookupScope() != 0 {
				t.Error("lookup scope", describe(m))
			}
		}
		w.send(s, "named", service(500, 2))
		w.send(s, "direct", to(far.LocalAddr()))
		w.send(s, "near", service(500, 1))
		w.send(s, "near direct", to(wire.SocketAddr{Port: near.Port()}))
		w.send(s, "there", serviceOn(500, 2, 2))
		w.settle()
		w.wantTrace(`
			1>2 LOW type=2 hdr=40 data=5 {500,2} scope=2 reroute=0
			1>2 LOW type=3 hdr=32 data=6
			1>self LOW type=2 hdr=40 data=4 {500,1} scope=2 reroute=0
			1>self LOW type=3 hdr=32 data=11
			1>2 LOW type=2 hdr=40 data=5 {500,2} scope=3 reroute=0
			2>self LOW type=2 hdr=40 data=5 {500,2} scope=3 reroute=1
		`)
		if info := w.expect(far, "named"); info.From != s.LocalAddr() || !info.HasDest || info.Dest != rangeOf(500, 2, 2) {
			t.Errorf("%+v", info)
		}
		if info := w.expect(far, "direct"); info.From != s.LocalAddr() || info.HasDest {
			t.Errorf("%+v", info)
		}
		w.expect(far, "there")
		w.expect(near, "near")
		w.expect(near, "near direct")
		w.expectErr(near, ErrWouldBlock)

		// Both directions, default destination, largest message.
		far.Connect(w.now, to(s.LocalAddr()))
		big := strings.Repeat("b", wire.MaxUserMsgSize)
		w.send(far, big, Dest{})
		w.settle()
		w.expect(s, big)
		if _, err := far.Send(w.now, []byte(big+"!"), Dest{}); err != ErrMsgSize {
			t.Error(err)
		}
		far.Connect(w.now, Dest{})
		if _, err := far.Send(w.now, []byte("x"), Dest{}); err != ErrDestRequired {
			t.Error(err)
		}
		if _, err := far.Send(w.now, []byte("x"), service(501, 1)); err != ErrHostUnreach {
			t.Error(err)
		}
		if _, err := far.Send(w.now, []byte("x"), to(wire.SocketAddr{Port: 1, Node: 9})); err != ErrHostUnreach {
			t.Error(err)
		}
		if _, err := far.Send(w.now, []byte("x"), Dest{Kind: 9}); err != ErrInvalid {
			t.Error(err)
		}
		if err := far.Connect(w.now, Dest{Kind: RangeDest, Range: rangeOf(1, 3, 2)}); err != ErrInvalid {
			t.Error(err)
		}
		// Empty messages are skipped.
		w.send(far, "", to(s.LocalAddr()))
		w.send(far, "y", to(s.LocalAddr()))
		w.settle()
		w.expect(s, "y")
		if n, _, err := s.Recv(w.now, nil, 0); n != 0 || err != ErrInvalid {
			t.Error(n, err)
		}
		if err := s.Shutdown(w.now); err != ErrNotConnected {
			t.Error(err)
		}
		for _, x := range []*Sock{s, far, near} {
			x.Close(w.now)
		}
		w.leakCheck()
	}
}

// Header bits by type and option: dgram may be dropped on the way, both must not be returned unless asked for.
func TestDroppableDefaults(t *testing.T) {
	w := newWorld(t, 1)
	for typ, want := range map[Type][2]bool{Stream: {false, false}, SeqPacket: {false, false}, RDM: {false, true}, Dgram: {true, true}} {
		s := w.nodes[1].create(typ)
		if got := [2]bool{s.SrcDroppable(), s.DestDroppable()}; got != want {
			t.Errorf("%v: %v", typ, got)
		}
		if err := s.SetSrcDroppable(true); (err == ErrNoOption) != (typ == Stream) || s.SrcDroppable() == (typ == Stream) {
			t.Errorf("%v: %v", typ, err)
		}
		s.SetDestDroppable(true)
		if err := s.SetImportance(3); err != nil || s.Importance() != 3 || !s.DestDroppable() {
			t.Error(err, s.Importance())
		}
		if s.SetImportance(4) != ErrInvalid || s.SetImportance(-1) != ErrInvalid {
			t.Error("importance out of range taken")
		}
		if s.ConnTimeout() != 8*time.Second || s.RecvBuf() != 2<<20 || s.NoDelay() {
			t.Error("defaults")
		}
		s.SetConnTimeout(time.Hour)
		s.SetRecvBuf(1 << 30)
		if s.ConnTimeout() != 65535*time.Millisecond || s.RecvBuf() != 16<<20 {
			t.Error("limits", s.ConnTimeout(), s.RecvBuf())
		}
		if s.JoinGroup(1000, 1, wire.ScopeCluster) != ErrNotSupported || s.LeaveGroup() != ErrNotSupported {
			t.Error("groups")
		}
	}
}

// Returned messages: code, data up to 1024 octets, and for which name.
func TestReturned(t *testing.T) {
	w := newWorld(t, 1, 2)
	a, b := w.nodes[1], w.nodes[2]
	s := a.create(RDM)
	s.SetDestDroppable(false)
	long := strings.Repeat("r", 3000)
	for _, k := range []struct {
		name string
		dest func() Dest
		code wire.ErrCode
		from uint32
	}{
		{"no port", func() Dest { return to(wire.SocketAddr{Port: 5, Node: 2}) }, wire.CodeNoPort, 2},
		{"no name", func() Dest { return serviceOn(500, 1, 2) }, wire.CodeNoName, 2},
		{"closed with unread messages", func() Dest {
			x := b.bound(RDM, 500, 7)
			w.at(10*time.Millisecond, event{f: func() { x.Close(w.now) }})
			return service(500, 7)
		}, wire.CodeNoPort, 2},
		{"shut down with unread messages", func() Dest {
			x := b.bound(RDM, 500, 8)
			w.at(10*time.Millisecond, event{f: func() { x.Shutdown(w.now) }})
			return service(500, 8)
		}, wire.CodeConnShutdown, 2},
		{"no such port here", func() Dest { return to(wire.SocketAddr{Port: 5}) }, wire.CodeNoPort, 1},
	} {
		d := k.dest()
		for _, m := range []string{"short", long} {
			w.send(s, m, d)
		}
		w.settle()
		for _, want := range []string{"short", long[:1024]} {
			p := make([]byte, 5000)
			n, info, err := s.Recv(w.now, p, 0)
			if err != nil || string(p[:n]) != want || info.Err != k.code || info.From.Node != k.from || info.HasDest != (d.Kind == ServiceDest) {
				t.Errorf("%s: %d %+v %v", k.name, n, info, err)
			}
			if info.HasDest && info.Dest != d.Range {
				t.Errorf("%s: %+v", k.name, info)
			}
		}
		w.expectErr(s, ErrWouldBlock)
		s.SetDestDroppable(true)
		w.send(s, "gone", k.dest())
		w.settle()
		w.expectErr(s, ErrWouldBlock)
		s.SetDestDroppable(false)
	}
	// A slice that is too short.
	w.send(s, "12345", to(wire.SocketAddr{Port: 5, Node: 2}))
	w.settle()
	n, info, err := s.Recv(w.now, make([]byte, 3), 0)
	if n != 3 || !info.Truncated || info.Err != wire.CodeNoPort || err != nil {
		t.Error(n, info, err)
	}
}

// The receive buffer holds so much of low importance, and twice as much for each level more. Beyond it: overload.
func TestOverload(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[2].bound(RDM, 500, 1)
	r.SetRecvBuf(RcvBufMin)
	s := w.nodes[1].create(RDM)
	s.SetDestDroppable(false)
	for level := range 4 {
		s.SetImportance(level)
		returned := 0
		for returned == 0 {
			w.send(s, strings.Repeat("o", 10000), service(500, 1))
			w.settle()
			p := make([]byte, 2000)
			n, info, err := s.Recv(w.now, p, 0)
			switch {
			case err == nil && info.Err == wire.CodeOverload && n == 1024:
				returned++
			case err != ErrWouldBlock:
				t.Fatal(n, info, err)
			}
		}
		limit := RcvBufMin << level
		if used := r.RecvQueueUsed(); used >= limit || used < limit-20000 {
			t.Errorf("importance %d: %d octets of %d", level, used, limit)
		}
		if r.Info().Drops != uint32(level+1) {
			t.Error("drops", r.Info().Drops)
		}
	}
	depth := r.RecvQueueDepth()
	for range depth {
		w.expect(r, strings.Repeat("o", 10000))
	}
	if r.RecvQueueUsed() != 0 || r.RecvQueueDepth() != 0 {
		t.Error("left", r.RecvQueueUsed())
	}
}

// A name that moved: the node that had it looks again, once.
func TestSecondLookup(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	s := w.nodes[1].create(RDM)
	s.SetDestDroppable(false)
	old := w.nodes[2].bound(RDM, 500, 1)
	w.tracing = true
	w.send(s, "follow me", service(500, 1))
	old.Close(w.now)
	now := w.nodes[3].bound(RDM, 500, 1)
	w.settle()
	w.wantTrace(`
		1>2 LOW type=2 hdr=40 data=9 {500,1} scope=2 reroute=0
		2>3 LOW type=2 hdr=40 data=9 {500,1} scope=2 reroute=1
	`)
	if info := w.expect(now, "follow me"); info.From != s.LocalAddr() {
		t.Errorf("%+v", info)
	}
	// And not twice.
	w.send(s, "lost", service(500, 1))
	now.Close(w.now)
	again := w.nodes[2].bound(RDM, 500, 1)
	w.run(1100 * time.Microsecond)
	again.Close(w.now)
	w.nodes[1].bound(RDM, 500, 1)
	w.settle()
	w.wantTrace(`
		1>3 LOW type=2 hdr=40 data=4 {500,1} scope=2 reroute=0
		3>2 LOW type=2 hdr=40 data=4 {500,1} scope=2 reroute=1
		2>3 LOW type=2 hdr=40 data=4 ERR_NO_NAME {500,1} scope=2 reroute=1
	`)
	w.expectErr(s, ErrWouldBlock) // as in Linux it comes back to the hop before, which drops it
	// A connection follows, too.
	l := w.nodes[2].listener(Stream, 600, 1)
	c := w.nodes[1].create(Stream)
	c.Connect(w.now, service(600, 1))
	l.Close(w.now)
	l = w.nodes[3].listener(Stream, 600, 1)
	w.settle()
	x, err := l.Accept(w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	if peer, err := c.PeerAddr(); c.ConnectResult() != nil || peer != x.LocalAddr() || err != nil {
		t.Error(peer, err)
	}
	w.down(3)
	w.expectErr(c, ErrConnReset)
}

func TestMulticast(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	rcv := map[string]*Sock{}
	for a := uint32(1); a <= 3; a++ {
		rcv[string(rune('0'+a))+"a"] = w.nodes[a].bound(RDM, 500, 10*a)
		rcv[string(rune('0'+a))+"b"] = w.nodes[a].bound(RDM, 500, 10*a)
	}
	only := w.nodes[1].create(RDM)
	only.Bind(w.now, rangeOf(500, 0, 100), wire.ScopeNode)
	s := w.nodes[1].create(RDM)
	s.SetImportance(1)
	w.tracing = true
	w.send(s, "all", Dest{Kind: RangeDest, Range: rangeOf(500, 0, 100)})
	w.send(s, "2 and 3", Dest{Kind: RangeDest, Range: rangeOf(500, 20, 30)})
	w.settle()
	w.wantTrace(`
		1>self* MEDIUM type=1 hdr=44 data=3 {500,0,100} destdrop
		1>2* MEDIUM type=1 hdr=44 data=3 {500,0,100} destdrop
		1>3* MEDIUM type=1 hdr=44 data=3 {500,0,100} destdrop
		1>self* MEDIUM type=1 hdr=44 data=7 {500,20,30} destdrop
		1>2* MEDIUM type=1 hdr=44 data=7 {500,20,30} destdrop
		1>3* MEDIUM type=1 hdr=44 data=7 {500,20,30} destdrop
	`)
	for name, r := range rcv {
		if info := w.expect(r, "all"); info.Dest != rangeOf(500, 0, 100) || info.From != s.LocalAddr() {
			t.Errorf("%s: %+v", name, info)
		}
		if name[0] != '1' {
			w.expect(r, "2 and 3")
		}
		w.expectErr(r, ErrWouldBlock)
	}
	w.expect(only, "all") // node scope: from this node only
	w.expect(only, "2 and 3")
	far := w.nodes[2].create(RDM)
	w.send(far, "from 2", Dest{Kind: RangeDest, Range: rangeOf(500, 10, 10)})
	w.settle()
	w.expectErr(only, ErrWouldBlock)
	w.expect(rcv["1a"], "from 2")
	if _, err := s.Send(w.now, []byte("x"), Dest{Kind: RangeDest, Range: rangeOf(500, 200, 300)}); err != ErrHostUnreach {
		t.Error(err)
	}
	if _, err := s.Send(w.now, []byte("x"), Dest{Kind: RangeDest, Range: rangeOf(500, 3, 2)}); err != ErrInvalid {
		t.Error(err)
	}
	// Sockets for connections do not take part.
	l := w.nodes[2].listener(Stream, 500, 20)
	w.send(s, "x", Dest{Kind: RangeDest, Range: rangeOf(500, 20, 20)})
	w.settle()
	if l.RecvQueueDepth() != 0 {
		t.Error("a listener took a multicast")
	}
	s.SetMcastReplicast()
	if m := s.method; !m.Wish || !m.Mandatory {
		t.Error(m)
	}
	s.SetMcastBroadcast()
	if m := s.method; m.Wish || !m.Mandatory {
		t.Error(m)
	}
}

// Multicast messages that wait for order are bounded.
func TestDeferredMulticastBound(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[2].bound(RDM, 500, 1)
	send := func(n int, syn bool) { w.nodes[2].multicast(1, 0, string(make([]byte, n)), syn, 0) }
	for range 600 {
		send(1, true)
	}
	if r.defq.Len() != maxDeferred || w.nodes[2].Stats().Deferred != 600-maxDeferred {
		t.Error(r.defq.Len(), w.nodes[2].Stats().Deferred)
	}
	for range 600 {
		send(66000, true)
	}
	if r.defq.Len() > maxDeferredBytes/66000 {
		t.Error(r.defq.Len())
	}
	send(1, false)
	if r.RecvQueueUsed() > r.RecvBuf() || r.RecvQueueDepth() < 10 {
		t.Error(r.RecvQueueUsed(), r.RecvQueueDepth())
	}
	r.Close(w.now)
	w.leakCheck()
}

// A multicast that waits for a twin that never comes is delivered in the end, with what waits behind it and in
// order; the empty twin never is. Other senders go on waiting. Returned multicasts do not take part in this.
func TestHeldMulticastIsReleased(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[2].bound(RDM, 500, 1)
	send := func(port uint32, data string, syn bool, code wire.ErrCode) {
		w.nodes[2].multicast(1, port, data, syn, code)
	}
	send(7, "", true, wire.CodeNoPort)
	send(7, "one", true, 0)
	w.run(500 * time.Millisecond)
	send(7, "two", true, 0)
	send(8, "other", true, 0)
	send(9, "", true, wire.CodeNoPort)
	send(9, "came back", true, wire.CodeNoPort)
	w.expect(r, "came back")
	w.run(patience - 501*time.Millisecond)
	w.expectErr(r, ErrWouldBlock)
	w.run(time.Millisecond)
	w.expect(r, "one")
	w.expect(r, "two")
	w.expectErr(r, ErrWouldBlock)
	w.run(499 * time.Millisecond)
	w.expectErr(r, ErrWouldBlock)
	w.run(time.Millisecond)
	w.expect(r, "other")
	w.expectErr(r, ErrWouldBlock)
	if w.nodes[2].Deadline() != mono.Never || !r.defq.Empty() {
		t.Error("something is still held")
	}
}

// Wakeups of a socket with a list of its own, and of those it accepts, go there.
func TestReadyList(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[1]
	var own ReadyList
	l := n.listener(Stream, 1000, 1)
	l.SetReadyList(&own)
	c := n.create(Stream)
	c.Connect(w.now, service(1000, 1))
	if own.Pop() != l || own.Pop() != nil || n.PopReady() != nil {
		t.Error("listener")
	}
	s, err := l.Accept(w.now)
	if err != nil {
		t.Fatal(err)
	}
	if n.PopReady() != c || n.PopReady() != nil || own.Pop() != nil {
		t.Error("client")
	}
	w.send(c, "x", Dest{})
	if own.Pop() != s || own.Pop() != nil || n.PopReady() != nil {
		t.Error("accepted socket")
	}
}

func TestBindings(t *testing.T) {
	w := newWorld(t, 1)
	s := w.nodes[1].create(RDM)
	now := w.now
	if err := s.Bind(now, rangeOf(63, 1, 2), wire.ScopeCluster); err != ErrAccess {
		t.Error(err)
	}
	if err := s.Bind(now, rangeOf(64, 3, 2), wire.ScopeCluster); err != ErrInvalid {
		t.Error(err)
	}
	if err := s.Unbind(now, rangeOf(64, 1, 1), wire.ScopeCluster); err != nil {
		t.Error("Linux is content:", err)
	}
	for i := range uint32(3) {
		if err := s.Bind(now, rangeOf(64, i, i+1), wire.ScopeNode-wire.Scope(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Bind(now, rangeOf(64, 0, 1), wire.ScopeNode) // again
	if err := s.BindReserved(now, rangeOf(1, 1, 1), wire.ScopeNode); err != nil {
		t.Error(err)
	}
	want := []names.Publication{
		{Range: rangeOf(64, 0, 1), Scope: wire.ScopeNode, Key: s.Port() + 1},
		{Range: rangeOf(64, 1, 2), Scope: wire.ScopeCluster, Key: s.Port() + 2},
		{Range: rangeOf(64, 2, 3), Scope: wire.ScopeCluster, Key: s.Port() + 3}, // zone scope
		{Range: rangeOf(64, 0, 1), Scope: wire.ScopeNode, Key: s.Port() + 4},
		{Range: rangeOf(1, 1, 1), Scope: wire.ScopeNode, Key: s.Port() + 5},
	}
	pubs := s.Publications()
	if len(pubs) != len(want) {
		t.Fatal(len(pubs))
	}
	for i, p := range pubs {
		if p.Range != want[i].Range || p.Scope != want[i].Scope || p.Key != want[i].Key || p.Addr != s.LocalAddr() {
			t.Errorf("%d: %+v", i, p)
		}
	}
	for _, bad := range []struct {
		r     wire.ServiceRange
		scope wire.Scope
	}{{rangeOf(64, 0, 1), wire.ScopeCluster}, {rangeOf(64, 0, 2), wire.ScopeNode}, {rangeOf(65, 0, 1), wire.ScopeNode}} {
		if err := s.Unbind(now, bad.r, bad.scope); err != ErrInvalid {
			t.Error(err)
		}
	}
	if err := s.Unbind(now, rangeOf(64, 0, 1), wire.ScopeNode); err != nil || len(s.Publications()) != 4 || s.Publications()[0].Key != s.Port()+1 {
		t.Error(err)
	}
	if !s.Info().HasPubl {
		t.Error("info")
	}
	s.UnbindAll(now)
	if len(w.pubs) != 0 || len(s.Publications()) != 0 || s.Info().HasPubl {
		t.Error("left", w.pubs)
	}
	s.pubCount = ^uint32(0)
	if err := s.Bind(now, rangeOf(64, 1, 1), wire.ScopeNode); err != ErrAddrInUse {
		t.Error(err)
	}
	a, _, _ := w.nodes[1].Pair(now, Stream)
	if err := a.Bind(now, rangeOf(64, 1, 1), wire.ScopeNode); err != ErrInvalid {
		t.Error(err)
	}
}

// Peeking, truncation and partial reads.
func TestRecvFlags(t *testing.T) {
	w := newWorld(t, 1)
	pair := func(typ Type) (*Sock, *Sock) {
		a, b, err := w.nodes[1].Pair(w.now, typ)
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	read := func(s *Sock, n int, flags RecvFlags, want string, info RecvInfo) {
		t.Helper()
		p := make([]byte, n)
		k, got, err := s.Recv(w.now, p, flags)
		if err != nil || string(p[:k]) != want || got.Truncated != info.Truncated || got.EOR != info.EOR {
			t.Errorf("%q %+v %v; want %q %+v", p[:k], got, err, want, info)
		}
	}
	for _, typ := range []Type{SeqPacket, RDM} {
		a, b := pair(typ)
		w.send(a, "0123456789", Dest{})
		w.send(a, "next", Dest{})
		read(b, 4, RecvPeek, "0123", RecvInfo{Truncated: true})
		read(b, 4, RecvEOR, "0123", RecvInfo{})
		read(b, 4, RecvEOR|RecvPeek, "4567", RecvInfo{})
		read(b, 4, RecvEOR, "4567", RecvInfo{})
		read(b, 4, RecvEOR, "89", RecvInfo{EOR: true})
		read(b, 4, RecvPeek, "next", RecvInfo{})
		read(b, 3, 0, "nex", RecvInfo{Truncated: true})
		w.expectErr(b, ErrWouldBlock)
	}
	a, b := pair(Stream)
	a.SetNoDelay(true)
	w.send(a, "01234", Dest{})
	w.send(a, "", Dest{})
	w.send(a, "56789", Dest{})
	read(b, 3, RecvPeek, "012", RecvInfo{})
	read(b, 100, RecvPeek, "01234", RecvInfo{})
	read(b, 3, 0, "012", RecvInfo{})
	read(b, 4, 0, "3456", RecvInfo{})
	read(b, 100, 0, "789", RecvInfo{})
	w.expectErr(b, ErrWouldBlock)
	w.send(a, "z", Dest{})
	a.Shutdown(w.now)
	read(b, 100, 0, "z", RecvInfo{})
	k, info, err := b.Recv(w.now, make([]byte, 10), RecvAncillary|RecvPeek)
	if k != 0 || info.Err != wire.CodeConnShutdown || err != nil {
		t.Error(k, info, err)
	}
	k, info, err = b.Recv(w.now, make([]byte, 10), RecvAncillary)
	if k != 0 || info.Err != wire.CodeConnShutdown || err != nil {
		t.Error(k, info, err)
	}
	if _, info, err = b.Recv(w.now, make([]byte, 10), RecvAncillary); err == nil || info.Err != wire.CodeConnShutdown {
		t.Error(info, err)
	}
}

// Empty messages on a connection count in both directions; they cannot stall it.
func TestEmptyMessagesDoNotStall(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(SeqPacket, w.nodes[1], w.nodes[2])
	for i := range 3000 {
		w.send(c, "", Dest{})
		if i%50 == 0 {
			w.settle()
			w.expectErr(s, ErrWouldBlock)
			w.settle()
		}
	}
	if c.connCongested() {
		t.Error("stalled")
	}
}

func TestReadyAndInfo(t *testing.T) {
	w := newWorld(t, 1, 2)
	a, b := w.nodes[1], w.nodes[2]
	ready := func(s *Sock, want Readiness) {
		t.Helper()
		if got := s.Ready(); got != want {
			t.Errorf("ready %05b, want %05b", got, want)
		}
	}
	r := a.create(RDM)
	ready(r, ReadyOut)
	w.send(r, "x", to(r.LocalAddr()))
	ready(r, ReadyOut|ReadyIn)
	if a.PopReady() != r || a.PopReady() != nil {
		t.Error("wakeup")
	}
	l := b.listener(Stream, 1000, 2)
	ready(l, 0)
	c := a.create(Stream)
	ready(c, ReadyOut)
	c.Connect(w.now, service(1000, 2))
	ready(c, 0)
	w.settle()
	ready(l, ReadyIn)
	if got := b.TakeWakeups(nil); len(got) != 1 || got[0] != l {
		t.Error("wakeups", got)
	}
	s, _ := l.Accept(w.now)
	w.settle()
	ready(c, ReadyOut)
	w.send(c, "x", Dest{})
	w.settle()
	ready(s, ReadyIn|ReadyOut)
	i := s.Info()
	if i.Port != s.Port() || i.Node != 2 || i.Type != Stream || i.State != Established || !i.Connected || i.Peer != c.LocalAddr() ||
		!i.ConnNamed || i.ConnType != 1000 || i.ConnInst != 2 || i.HasPubl || i.RcvQ != 1 || i.RcvWin != 128 || i.RcvBuf != 2<<20 {
		t.Errorf("%+v", i)
	}
	w.expect(s, "x")
	if i := s.Info(); i.RecvdMsgs != 1 || i.RecvdOctets != 1 || i.RcvUnacked != 1 || c.Info().SentMsgs != 1 {
		t.Errorf("%+v", i)
	}
	if i := l.Info(); i.Connected || !i.HasPubl || i.State != Listening || i.State.String() != "LISTEN" {
		t.Errorf("%+v", i)
	}
	c.Shutdown(w.now)
	ready(c, ReadyIn|ReadyHup|ReadyRdHup)
	w.settle()
	ready(s, ReadyIn|ReadyHup)
	d := a.create(SeqPacket)
	d.Connect(w.now, to(wire.SocketAddr{Port: 1, Node: 2}))
	w.settle()
	ready(d, ReadyIn|ReadyHup|ReadyErr)
	// A closed socket never wakes anybody.
	for a.PopReady() != nil {
	}
	w.send(r, "y", to(r.LocalAddr()))
	r.Close(w.now)
	if a.PopReady() != nil {
		t.Error("closed socket is ready")
	}
	st := a.Stats()
	if st.Received == 0 || st.Delivered == 0 || st.Sockets != 2 || b.Stats().Rejected[wire.CodeNoPort] != 1 {
		t.Errorf("%+v %+v", st, b.Stats())
	}
	var ports []uint32
	for s := range a.Sockets() {
		ports = append(ports, s.Port())
		if a.Table.Lookup(s.Port()) != s {
			t.Error("lookup")
		}
	}
	if len(ports) != 2 || ports[0] >= ports[1] {
		t.Error(ports)
	}
}

// Group messages find no group.
func TestGroupMessagesRefused(t *testing.T) {
	w := newWorld(t, 1, 2)
	r := w.nodes[1].bound(RDM, 500, 1)
	w.tracing = true
	for typ := uint8(wire.TypeGroupMemberEvt); typ <= wire.TypeGroupUcast; typ++ {
		w.nodes[1].Receive(w.now, msg.Create(wire.UserLow, typ, wire.GroupHeaderSize, 0, 1, 2, r.Port(), 7, 0))
	}
	if n := strings.Count(w.transcript(), "ERR_NO_PORT"); n != 4 || r.RecvQueueDepth() != 0 {
		t.Error(n)
	}
	for _, u := range []wire.User{wire.UserGroup, wire.UserTopSrv, wire.UserNameDistr, wire.UserLinkProtocol} {
		w.nodes[1].Receive(w.now, msg.Create(u, 1, wire.IntHeaderSize, 0, 1, 2, r.Port(), 7, 0))
	}
	w.wantTrace("")
}
