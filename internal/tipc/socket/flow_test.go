package socket

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// fill sends until the connection is congested and returns how many octets it took.
func (w *world) fill(s *Sock, chunk int) int {
	s.SetNoDelay(true)
	total := 0
	for {
		n, err := s.Send(w.now, make([]byte, chunk), Dest{})
		total += n
		if err == ErrWouldBlock {
			return total
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// The sender stops behind the window, which one message may exceed, and goes on when CONN_ACK opens it.
func TestFlowControlWindow(t *testing.T) {
	for _, typ := range connTypes {
		w := newWorld(t, 1, 2)
		c, s, _ := w.connect(typ, w.nodes[1], w.nodes[2])
		w.tracing = true
		if n := w.fill(c, 999); n != 129*999 {
			t.Errorf("%v: first window took %d messages of a block", typ, n/999)
		}
		if c.Ready()&ReadyOut != 0 || !c.Info().ConnCong {
			t.Error("ready while congested")
		}
		w.settle()
		w.transcript()
		for w.nodes[1].PopReady() != nil {
		}
		p := make([]byte, 999)
		for i := range 32 {
			if acks := w.transcript(); acks != "" {
				t.Fatalf("%d: %s", i, acks)
			}
			if _, _, err := s.Recv(w.now, p, 0); err != nil {
				t.Fatal(err)
			}
		}
		w.wantTrace(`2>1 CONN_MANAGER type=2 hdr=40 data=0 ack=32 win=512`)
		w.settle()
		if w.nodes[1].PopReady() != c || c.Ready()&ReadyOut == 0 {
			t.Error("no wakeup")
		}
		// 129 - 32 in flight, and now the window is that of the receive buffer.
		if n := w.fill(c, 999); n != (513-97)*999 {
			t.Errorf("%v: second window took %d", typ, n/999)
		}
		w.settle()
		if s.RecvQueueDepth() != 513 || s.Info().Drops != 0 {
			t.Error(s.Info())
		}
	}
}

// A single Send of a stream takes as much as the window allows.
func TestPartialSend(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	data := make([]byte, 300000)
	rand.NewChaCha8([32]byte{}).Read(data)
	n, err := c.Send(w.now, data, Dest{})
	if n != 2*wire.MaxUserMsgSize || err != nil { // 65 blocks each; the window is 128
		t.Fatal(n, err)
	}
	if _, err := c.Send(w.now, data, Dest{}); err != ErrWouldBlock {
		t.Fatal(err)
	}
	w.settle()
	var got []byte
	p := make([]byte, 50000)
	for n < len(data) || len(got) < len(data) {
		k, _, err := s.Recv(w.now, p, 0)
		if err != nil && err != ErrWouldBlock {
			t.Fatal(err)
		}
		got = append(got, p[:k]...)
		w.settle()
		if n < len(data) {
			k, err := c.Send(w.now, data[n:], Dest{})
			if err != nil && err != ErrWouldBlock {
				t.Fatal(err)
			}
			n += k
		}
		w.settle()
	}
	if !bytes.Equal(got, data) {
		t.Error("data differ")
	}
}

// Peers without block flow control: the window counts 512 messages, and the ACK has no window.
func TestMessageFlowControl(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.nodes[2].caps &^= wire.CapBlockFlowctl
	w.nodes[1].caps &^= wire.CapBlockFlowctl
	c, s, _ := w.connect(SeqPacket, w.nodes[1], w.nodes[2])
	if n := w.fill(c, 5000); n != 513*5000 {
		t.Errorf("window took %d messages", n/5000)
	}
	w.settle()
	if d := s.Info().Drops; d != 0 || s.RecvQueueDepth() != 513 {
		t.Error(d, s.RecvQueueDepth())
	}
	w.tracing = true
	for range 128 {
		w.recv(s)
	}
	w.wantTrace(`2>1 CONN_MANAGER type=2 hdr=40 data=0 ack=128 win=0`)
	w.settle()
	if c.sndWin != flowMsgs || c.sndUnacked != 513-128 {
		t.Error(c.sndWin, c.sndUnacked)
	}
}

// CONN_ACK for more than was sent is ignored as a whole.
func TestConnAckBeyondUnacked(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.send(c, "x", Dest{})
	ack := func(n uint32, win uint16) {
		b := msg.Create(wire.UserConnManager, wire.TypeConnAck, wire.IntHeaderSize, 0, 1, 2, c.Port(), s.Port(), 0)
		b.Msg.SetConnAck(n)
		b.Msg.SetAdvWin(win)
		w.nodes[1].Receive(w.now, b)
	}
	ack(2, 7)
	if c.sndUnacked != 1 || c.sndWin != 128 {
		t.Error(c.sndUnacked, c.sndWin)
	}
	ack(0xffff, 7)
	ack(1, 9)
	if c.sndUnacked != 0 || c.sndWin != 9 {
		t.Error(c.sndUnacked, c.sndWin)
	}
	// A window of 0 still lets one message through at a time, as in Linux.
	ack(0, 0)
	w.send(c, "x", Dest{})
	if _, err := c.Send(w.now, []byte("x"), Dest{}); err != ErrWouldBlock {
		t.Error(err)
	}
}

// Nagle: after four messages in one direction small ones are gathered until the peer acknowledges one that asks for it.
func TestNagleTranscript(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.tracing = true
	for i := range 12 {
		w.send(c, fmt.Sprint(i%10), Dest{})
	}
	w.wantTrace(`
		1>2 LOW type=0 hdr=24 data=1
		1>2 LOW type=0 hdr=24 data=1
		1>2 LOW type=0 hdr=24 data=1
		1>2 LOW type=0 hdr=24 data=1
		1>2 LOW type=0 hdr=24 data=1 ackreq
	`)
	if c.Info().SendQ != 1 {
		t.Error("send queue", c.Info().SendQ)
	}
	w.settle()
	w.wantTrace(`
		2>1 CONN_MANAGER type=2 hdr=40 data=0 ack=0 win=512 nagle
		1>2 LOW type=0 hdr=24 data=7 ackreq
		2>1 CONN_MANAGER type=2 hdr=40 data=0 ack=0 win=512 nagle
	`)
	w.expect(s, "012345678901")

	// Gathering more than 64 blocks sends all of it.
	for range 5 {
		w.send(c, "m", Dest{})
	}
	w.settle()
	w.transcript()

	// No delay.
	c.SetNoDelay(true)
	for range 10 {
		w.send(c, "n", Dest{})
	}
	if got := strings.Count(w.transcript(), "data=1"); got != 10 {
		t.Errorf("%d messages", got)
	}
	w.settle()

	// Peers without the capability.
	w = newWorld(t, 1, 2)
	w.nodes[2].caps &^= wire.CapNagle
	c, _, _ = w.connect(Stream, w.nodes[1], w.nodes[2])
	if c.maxNagle != 0 {
		t.Error("Nagle with an old peer")
	}
}

// More than 64 blocks are not gathered, acknowledged or not.
func TestNagleBacklogLimit(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.check = func(from uint32, m wire.Msg) {
		if from == 1 && c.Info().SendQ > 64 {
			t.Error("queue", c.Info().SendQ)
		}
	}
	chunk := strings.Repeat("n", 400)
	total := 0
	for range 150 {
		w.send(c, chunk, Dest{})
		total += len(chunk)
	}
	if c.sndBacklog > nagleMaxBacklog {
		t.Error(c.sndBacklog)
	}
	c.Shutdown(w.now)
	w.settle()
	p := make([]byte, total+1)
	n, _, err := s.Recv(w.now, p, 0)
	if n != total || err != nil {
		t.Errorf("%d of %d, %v", n, total, err)
	}
	w.expectErr(s, io.EOF)
}

// What Nagle holds back goes out before the FIN.
func TestNagleShutdown(t *testing.T) {
	for _, end := range []func(*Sock, mono.Time){func(s *Sock, now mono.Time) { s.Shutdown(now) }, (*Sock).Close} {
		w := newWorld(t, 1, 2)
		c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
		for range 9 {
			w.send(c, "a", Dest{})
		}
		end(c, w.now)
		w.settle()
		w.expect(s, strings.Repeat("a", 9))
	}
}

// Link congestion: the message is taken, the next one has to wait for the wakeup.
func TestLinkCongestion(t *testing.T) {
	w := newWorld(t, 1, 2, 3)
	a := w.nodes[1]
	c, s, _ := w.connect(Stream, a, w.nodes[2])
	a.congested[2] = true
	w.send(c, "one", Dest{})
	if _, err := c.Send(w.now, []byte("two"), Dest{}); err != ErrWouldBlock || c.Ready()&ReadyOut != 0 || !c.Info().LinkCong {
		t.Error(err, c.Ready())
	}
	for a.PopReady() != nil {
	}
	a.uncongest()
	if a.PopReady() != c || c.Ready()&ReadyOut == 0 {
		t.Error("no wakeup")
	}
	w.send(c, "two", Dest{})
	w.settle()
	w.expect(s, "onetwo")

	// Connectionless: only the congested node, but all of them for multicast.
	r := a.create(RDM)
	r2, r3 := w.nodes[2].bound(RDM, 500, 2), w.nodes[3].bound(RDM, 500, 3)
	a.congested[2] = true
	w.send(r, "a", service(500, 2))
	if _, err := r.Send(w.now, []byte("b"), service(500, 2)); err != ErrWouldBlock {
		t.Error(err)
	}
	w.send(r, "c", service(500, 3))
	if _, err := r.Send(w.now, []byte("d"), Dest{Kind: RangeDest, Range: rangeOf(500, 0, 9)}); err != ErrWouldBlock {
		t.Error(err)
	}
	a.uncongest()
	a.congested[3] = true
	w.send(r, "e", Dest{Kind: RangeDest, Range: rangeOf(500, 0, 9)})
	if _, err := r.Send(w.now, []byte("f"), Dest{Kind: RangeDest, Range: rangeOf(500, 0, 9)}); err != ErrWouldBlock {
		t.Error(err)
	}
	w.send(r, "g", service(500, 2)) // a multicast that waits does not stop others
	a.uncongest()
	w.send(r, "h", Dest{Kind: RangeDest, Range: rangeOf(500, 0, 9)})
	w.settle()
	for _, k := range []struct {
		s    *Sock
		want string
	}{{r2, "aegh"}, {r3, "ceh"}} {
		for _, x := range k.want {
			w.expect(k.s, string(x))
		}
	}
	// A wakeup that nobody waits for does no harm.
	a.Receive(w.now, msg.Create(wire.UserSockWakeup, 0, wire.IntHeaderSize, 0, 1, 2, r.Port(), 0, 0))
	if r.congLinks != 0 || len(r.congNodes) != 0 {
		t.Error(r.congLinks, r.congNodes)
	}
}

// The end of a congested connection waits for the congestion to end, but not for ever.
func TestLingeringClose(t *testing.T) {
	for _, shutdownFirst := range []bool{false, true} {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[1], w.nodes[2]
		c, s, l := w.connect(Stream, a, b)
		w.fill(c, 999)
		w.settle()
		w.tracing = true
		if shutdownFirst {
			if err := c.Shutdown(w.now); err != nil {
				t.Fatal(err)
			}
			w.expectErr(c, ErrNotConnected)
			if _, err := c.Send(w.now, []byte("x"), Dest{}); err != ErrPipe {
				t.Error(err)
			}
		}
		c.Close(w.now)
		w.settle()
		w.wantTrace("")
		if a.Len() != 1 {
			t.Error("gone")
		}
		for range 40 {
			s.Recv(w.now, make([]byte, 999), 0)
		}
		w.transcript()
		w.settle()
		code := map[bool]string{false: "ERR_NO_PORT", true: "CONN_SHUTDOWN"}[shutdownFirst]
		w.wantTrace("1>2 CRITICAL type=0 hdr=24 data=0 " + code)
		if a.Len() != 0 {
			t.Error("still there")
		}
		s.Close(w.now)

		// Nobody reads: 8 s.
		cl, sv, l2 := w.connect(Stream, a, b)
		w.fill(cl, 999)
		w.settle()
		cl.Close(w.now)
		w.run(7 * time.Second)
		if a.Len() != 1 {
			t.Error("gone")
		}
		w.run(2 * time.Second)
		if a.Len() != 0 || sv.State() != Disconnecting {
			t.Error("still there", sv.State())
		}
		// The peer's node is lost meanwhile.
		cl, _, l3 := w.connect(Stream, a, b)
		w.fill(cl, 999)
		w.settle()
		cl.Close(w.now)
		w.down(2)
		if a.Len() != 0 {
			t.Error("still there")
		}
		for _, x := range []*Sock{l, l2, l3} {
			x.pubs = nil // withdrawn with the node
		}
		for x := range b.Sockets() {
			b.up = true
			x.Close(w.now)
		}
		w.settle()
		w.leakCheck()
	}
}

// A stream follows the MTU, also with what it has gathered.
func TestMTUChange(t *testing.T) {
	for _, from := range []int{1428, 13928} {
		w := newWorld(t, 1, 2)
		w.mtu = from
		c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
		var want []byte
		put := func(n int) {
			p := bytes.Repeat([]byte{byte('a' + len(want)%26)}, n)
			want = append(want, p...)
			w.send(c, string(p), Dest{})
		}
		for range 8 {
			put(300)
		}
		w.mtu = 700
		put(300)
		w.settle()
		put(5000)
		w.mtu = 9000
		put(5000)
		w.settle()
		put(10)
		c.Shutdown(w.now)
		w.settle()
		got, _, err := w.recv(s)
		if err != nil || got != string(want) {
			t.Errorf("%d octets, %v", len(got), err)
		}
	}
	for _, typ := range connTypes {
		w := newWorld(t, 1, 2)
		w.mtu = 9000
		c, s, _ := w.connect(typ, w.nodes[1], w.nodes[2])
		c.SetNoDelay(true)
		for _, w.mtu = range []int{1428, 700, 9000} {
			w.send(c, strings.Repeat("m", 5000), Dest{})
			w.settle()
			w.expect(s, strings.Repeat("m", 5000))
			if c.maxPkt != w.mtu {
				t.Error(c.maxPkt)
			}
		}
	}
	// Also when the gathered data are pushed out by an ACK.
	w := newWorld(t, 1, 2)
	w.mtu = 13928
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	for range 5 {
		w.send(c, "12", Dest{})
	}
	w.send(c, strings.Repeat("x", 9000), Dest{})
	if c.Info().SendQ != 1 {
		t.Fatal("not gathered")
	}
	w.mtu = 1428
	w.settle()
	if got, _, err := w.recv(s); len(got) != 9010 || err != nil {
		t.Error(len(got), err)
	}
	if c.sndUnacked == 0 || c.sndBacklog != 0 {
		t.Error(c.sndUnacked, c.sndBacklog)
	}
}

// Whatever the sizes, order and time of operations: what was sent arrives in order and unchanged, the window holds,
// the receiver never refuses, and the end arrives last.
func TestStreamProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 1, 2)
		w.mtu = rapid.SampledFrom([]int{700, 1428, 13928}).Draw(rt, "mtu")
		a, b := w.nodes[1], w.nodes[2]
		if rapid.Bool().Draw(rt, "local") {
			b = a
		}
		if rapid.Bool().Draw(rt, "old peer") {
			a.caps &^= wire.CapBlockFlowctl | wire.CapNagle
			b.caps = a.caps
		}
		typ := rapid.SampledFrom(connTypes).Draw(rt, "type")
		c, s, l := w.connect(typ, a, b)
		ends := [2]*Sock{c, s}
		unacked := map[uint32]int{c.port: int(c.sndUnacked), s.port: int(s.sndUnacked)} // what the messages seen so far add up to
		w.check = func(from uint32, m wire.Msg) {
			switch {
			case m.ErrCode() != 0:
			case m.IsData():
				unacked[m.OrigPort()] += int(c.blocks(m.Size()))
			case m.Type() == wire.TypeConnAck:
				unacked[m.DestPort()] -= int(m.ConnAck())
			}
		}
		var sent, got [2][]byte // by receiving end
		var parts [2][]int      // message sizes, for seqpacket
		next := byte(0)
		done := [2]bool{}
		recv := func(rt *rapid.T, i, size int) {
			p := make([]byte, size)
			flags := RecvFlags(0)
			if typ == SeqPacket {
				flags = RecvEOR
			}
			n, info, err := ends[i].Recv(w.now, p, flags)
			got[i] = append(got[i], p[:n]...)
			switch {
			case err == nil:
				if info.Err != 0 || info.From != ends[1-i].LocalAddr() {
					rt.Fatalf("info %+v", info)
				}
				if typ == SeqPacket {
					if parts[i][0] -= n; info.EOR != (parts[i][0] == 0) {
						rt.Fatalf("end of record at %d", parts[i][0])
					}
					if info.EOR {
						parts[i] = parts[i][1:]
					}
				}
			case err == io.EOF:
				done[i] = true
			case err != ErrWouldBlock:
				rt.Fatal(err)
			}
		}
		check := func(rt *rapid.T) {
			for i := range ends {
				if len(got[i]) > len(sent[i]) || !bytes.Equal(got[i], sent[i][:len(got[i])]) {
					rt.Fatal("data differ")
				}
				e := ends[i]
				if e.drops > 0 {
					rt.Fatal("receiver refused")
				}
				limit := e.sndWin + 66
				if e.sndUnacked > max(limit, 128+66) {
					rt.Fatalf("%d unacked, window %d", e.sndUnacked, e.sndWin)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"send": func(rt *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(rt, "end")
				n := rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 3000), rapid.IntRange(1, wire.MaxUserMsgSize)).Draw(rt, "size")
				if typ == Stream && rapid.IntRange(0, 9).Draw(rt, "huge") == 0 {
					n *= 4
				}
				p := make([]byte, n)
				for j := range p {
					p[j] = next
					next = next*31 + 7
				}
				k, err := ends[i].Send(w.now, p, Dest{})
				if err != nil && err != ErrWouldBlock || typ == SeqPacket && err == nil && k != n {
					rt.Fatal(k, err)
				}
				sent[1-i] = append(sent[1-i], p[:k]...)
				if k > 0 {
					parts[1-i] = append(parts[1-i], k)
				}
			},
			"many small": func(rt *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(rt, "end")
				for range rapid.IntRange(1, 60).Draw(rt, "n") {
					p := []byte{next, next + 1, next + 2}
					next++
					if k, err := ends[i].Send(w.now, p, Dest{}); err == nil {
						sent[1-i] = append(sent[1-i], p[:k]...)
						parts[1-i] = append(parts[1-i], k)
					}
				}
			},
			"recv": func(rt *rapid.T) {
				recv(rt, rapid.IntRange(0, 1).Draw(rt, "end"), rapid.IntRange(1, 100000).Draw(rt, "size"))
			},
			"time": func(rt *rapid.T) { w.run(time.Duration(rapid.IntRange(1, 5000).Draw(rt, "µs")) * time.Microsecond) },
			"congest": func(rt *rapid.T) {
				a.congested[2], b.congested[1] = true, true
			},
			"uncongest": func(rt *rapid.T) {
				a.uncongest()
				b.uncongest()
			},
			"": check,
		})
		a.uncongest()
		b.uncongest()
		w.settle()
		for _, e := range ends {
			if int(e.sndUnacked) != unacked[e.port] {
				rt.Fatalf("counts %d blocks unacknowledged, the messages say %d", e.sndUnacked, unacked[e.port])
			}
		}
		// One end shuts down while the other only reads.
		i := rapid.IntRange(0, 1).Draw(rt, "first")
		ends[i].Shutdown(w.now)
		for range 1000 {
			a.uncongest()
			b.uncongest()
			w.settle()
			if recv(rt, 1-i, 70000); done[1-i] {
				break
			}
		}
		if !done[1-i] || len(got[1-i]) != len(sent[1-i]) {
			rt.Fatalf("end %v, %d of %d octets", done[1-i], len(got[1-i]), len(sent[1-i]))
		}
		check(rt)
		for _, x := range []*Sock{c, s, l} {
			x.Close(w.now)
		}
		w.settle()
		w.leakCheck()
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

// A sender that keeps to the window never overruns the receiver, whatever the size of its messages.
func TestWindowFitsReceiveBuffer(t *testing.T) {
	for _, size := range []int{1, 40, 231, 232, 233, 1000, 1024, 1800, 1856, 1857, 2024, 2025, 3047, 3048, 5000, 14312, 14313, 15000, 30000, 66000} {
		w := newWorld(t, 1, 2)
		w.mtu = 13928
		c, s, _ := w.connect(SeqPacket, w.nodes[1], w.nodes[2])
		for range 3 {
			w.fill(c, size)
			w.settle()
			for range s.RecvQueueDepth() / 2 {
				w.recv(s)
			}
			w.settle()
		}
		w.fill(c, size)
		w.settle()
		if i := s.Info(); i.Drops != 0 || c.State() != Established || c.sndWin != 512 {
			t.Errorf("%d octets: %d drops at %d messages, %d of %d used", size, i.Drops, i.RcvQ, i.RcvUsed, i.RcvBuf)
		}
	}
}

// The largest message, and one octet more.
func TestMessageSizeLimit(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(SeqPacket, w.nodes[1], w.nodes[2])
	big := strings.Repeat("b", wire.MaxUserMsgSize)
	w.send(c, big, Dest{})
	w.settle()
	w.expect(s, big)
	if n, err := c.Send(w.now, []byte(big+"!"), Dest{}); n != 0 || err != ErrMsgSize {
		t.Error(n, err)
	}
	for _, typ := range connTypes {
		x := w.nodes[1].create(typ)
		if n, err := x.Send(w.now, []byte(big+"!"), service(1000, 2)); n != 0 || err != ErrMsgSize || x.State() != Open {
			t.Error(n, err)
		}
	}
}

// Connections that end at any time, in any way, by either or both: what was received is a prefix of what was sent, all
// of it if the sender shut down and the receiver read on; both ends see an end, and nothing stays behind.
func TestRandomClose(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[1], w.nodes[2]
		typ := rapid.SampledFrom(connTypes).Draw(rt, "type")
		c, s, l := w.connect(typ, a, b)
		ends := [2]*Sock{c, s}
		var sent, got [2]int // by receiving end: octet i of a direction is byte(i)
		var over [2]bool
		recv := func(i int) bool {
			p := make([]byte, 20000)
			n, info, err := ends[i].Recv(w.now, p, RecvEOR)
			for j, x := range p[:n] {
				if x != byte(got[i]+j) {
					rt.Fatal("data differ")
				}
			}
			if got[i] += n; got[i] > sent[i] {
				rt.Fatal("more than was sent")
			}
			if err != nil && err != ErrWouldBlock {
				if (err == io.EOF) != (info.Err == wire.CodeConnShutdown) && !ends[i].shut {
					rt.Fatalf("%v with %+v", err, info)
				}
				over[i] = true
			}
			return err == nil
		}
		for range rapid.IntRange(0, 20).Draw(rt, "operations") {
			i := rapid.IntRange(0, 1).Draw(rt, "end")
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0, 1:
				p := make([]byte, rapid.IntRange(1, 66000).Draw(rt, "size"))
				for j := range p {
					p[j] = byte(sent[1-i] + j)
				}
				n, _ := ends[i].Send(w.now, p, Dest{})
				sent[1-i] += n
			case 2:
				recv(i)
			case 3:
				w.run(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "µs")) * time.Microsecond)
			}
		}
		how := [2]int{rapid.IntRange(0, 2).Draw(rt, "first"), rapid.IntRange(0, 2).Draw(rt, "second")}
		if how[0] == 0 && how[1] == 0 {
			how[0] = 1
		}
		orderly := how[0]+how[1] == 1 // one end shuts down, the other only reads
		for i, h := range how {
			switch h {
			case 1:
				ends[i].Shutdown(w.now)
			case 2:
				ends[i].Close(w.now)
			}
			w.run(time.Duration(rapid.IntRange(0, 2000).Draw(rt, "gap")) * time.Microsecond)
		}
		for range 40 {
			w.settle()
			for i := range ends {
				for how[i] == 0 && recv(i) {
				}
			}
		}
		w.run(10 * time.Second)
		for i, h := range how {
			if h != 0 {
				continue
			}
			for recv(i) {
			}
			if !over[i] {
				rt.Fatal("no end")
			}
			// Unless the other end's unread data came back as the end, all that it sent is here.
			if orderly && got[i] != sent[i] {
				rt.Fatalf("%d of %d octets", got[i], sent[i])
			}
		}
		for _, x := range []*Sock{c, s, l} {
			x.Close(w.now)
		}
		w.run(20 * time.Second)
		w.leakCheck()
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}
