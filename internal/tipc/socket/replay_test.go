package socket

import (
	"bytes"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// The two kernels of the captures.
const (
	node2 = 0x5c6f6465
	node3 = 0x5d6f6465
)

// captured returns the messages for and from sockets in the capture of two kernels on Ethernet, in order.
func captured(t testing.TB) (out []wire.Msg) {
	t.Helper()
	for _, f := range tipctest.Capture(t, tipctest.Ethernet) {
		if m := f.Msg; m.IsData() || m.User() == wire.UserConnManager || m.User() == wire.UserFragmenter {
			out = append(out, m)
		}
	}
	return out
}

// replayNet is one node whose packets are collected.
type replayNet struct {
	node
	sent []wire.Msg
}

func (n *replayNet) Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		n.sent = append(n.sent, bytes.Clone(b.Msg))
		b.Release()
	}
	return nil
}

func (n *replayNet) MTU(dnode, selector uint32) int { return 1428 }

func newReplay(t *testing.T, own uint32, ports ...uint32) *replayNet {
	w := newWorld(t, own)
	n := &replayNet{node: *w.nodes[own]}
	n.Table = NewTable(n, Config{Own: own, Rand: func() uint32 { p := ports[0]; ports = ports[1:]; return p }})
	return n
}

// compare checks messages octet by octet, except what links fill in: sequence number and acknowledgements.
func compare(t *testing.T, got, want []wire.Msg) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("message %d is missing: %s", i, describe(want[i]))
		case i >= len(want):
			t.Fatalf("message %d is too many: %s", i, describe(got[i]))
		}
		g, w := got[i], want[i]
		for _, m := range []wire.Msg{g, w} {
			m.SetBcastAck(0)
			m.SetWord(2, 0)
		}
		if !bytes.Equal(g, w) {
			t.Fatalf("message %d:\n%s %x\nwant\n%s %x", i, describe(g), g[:min(len(g), 70)], describe(w), w[:min(len(w), 70)])
		}
	}
}

// A server here answers the captured client as the captured server did.
func TestReplayServer(t *testing.T) {
	all := captured(t)
	syn, ack := all[0], all[1]
	n := newReplay(t, node2, syn.DestPort(), ack.OrigPort())
	l := n.listener(Stream, 4711, 1)
	var s *Sock
	var want []wire.Msg
	var r msg.Reassembler
	total, ended := 0, false
	for _, m := range all {
		if m.PrevNode() == node2 {
			want = append(want, m)
			continue
		}
		b := buf.Copy(m)
		if m.User() == wire.UserFragmenter {
			b.Release()
			var err error
			if b, err = r.Append(m); err != nil {
				t.Fatal(err)
			}
			if b == nil {
				continue
			}
		}
		n.Receive(n.w.now, b)
		if s == nil {
			var err error
			if s, err = l.Accept(n.w.now); err != nil {
				t.Fatal(err)
			}
		}
		p := make([]byte, 1000)
		for {
			k, info, err := s.Recv(n.w.now, p, 0)
			total += k
			if string(p[:k]) == "ping" {
				if _, err := s.Send(n.w.now, []byte("pong"), Dest{}); err != nil {
					t.Fatal(err)
				}
			}
			if err == ErrConnReset && info.Err == wire.CodeNoPort {
				ended = true
			}
			if err != nil {
				break
			}
		}
	}
	if total != 4+200000 || !ended {
		t.Errorf("%d octets, end %v", total, ended)
	}
	if len(want) != 4 {
		t.Errorf("capture has %d messages of the server", len(want))
	}
	compare(t, n.sent, want)
}

// A client here sends what the captured client did, packet by packet.
func TestReplayClient(t *testing.T) {
	all := captured(t)
	syn := all[0]
	n := newReplay(t, node3, syn.OrigPort())
	n.w.pubs = append(n.w.pubs, pubAt(4711, 1, wire.SocketAddr{Port: syn.DestPort(), Node: node2}))
	var fromServer, want []wire.Msg
	for _, m := range all {
		if m.PrevNode() == node2 {
			fromServer = append(fromServer, m)
		} else {
			want = append(want, m)
		}
	}
	next := func() {
		n.Receive(n.w.now, buf.Copy(fromServer[0]))
		fromServer = fromServer[1:]
	}
	data := capturedData(t, want)

	now := n.w.now
	c := n.create(Stream)
	if err := c.Connect(now, service(4711, 1)); err != ErrInProgress {
		t.Fatal(err)
	}
	next()
	n.w.send(c, "ping", Dest{})
	next()
	n.w.expect(c, "pong")
	for i := range 5 {
		part := data[i*40000 : (i+1)*40000]
		k, err := c.Send(now, part, Dest{})
		if i == 4 {
			if err != ErrWouldBlock {
				t.Errorf("window of 128 blocks took five times 40: %v", err)
			}
			next()
			k, err = c.Send(now, part, Dest{})
		}
		if k != len(part) || err != nil {
			t.Fatal(k, err)
		}
	}
	next()
	if c.sndUnacked != 0 || c.sndWin != 512 {
		t.Errorf("%d unacked, window %d", c.sndUnacked, c.sndWin)
	}
	c.Close(now)
	compare(t, n.sent, want)
	if len(fromServer) != 0 {
		t.Error("server said more")
	}
}

// capturedData is the payload of the captured large sends.
func capturedData(t *testing.T, client []wire.Msg) (data []byte) {
	t.Helper()
	var r msg.Reassembler
	for _, m := range client {
		if m.User() != wire.UserFragmenter {
			continue
		}
		b, err := r.Append(m)
		if err != nil {
			t.Fatal(err)
		}
		if b != nil {
			data = append(data, b.Msg.Data()...)
		}
	}
	if len(data) != 200000 {
		t.Fatalf("%d octets in the capture", len(data))
	}
	return data
}

// The golden frame of a client that closes.
func TestGoldenFin(t *testing.T) {
	w := newWorld(t, 1, 2)
	var fin wire.Msg
	c, _, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.check = func(from uint32, m wire.Msg) { fin = bytes.Clone(m) }
	c.Close(w.now)
	if fin.Word(0) != 0x46c00018 || fin.Word(1) != 0x04000000 {
		t.Errorf("%08x %08x", fin.Word(0), fin.Word(1))
	}
}

func pubAt(typ, inst uint32, addr wire.SocketAddr) *names.Publication {
	return &names.Publication{Range: rangeOf(typ, inst, inst), Scope: wire.ScopeCluster, Addr: addr}
}
