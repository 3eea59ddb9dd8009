package socket

import (
	"encoding/binary"
	"testing"
	"time"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// FuzzReceive gives arbitrary valid messages to sockets of all types and states, with calls in between. Each record of
// the input is: what to do, to whom, from whom, how long; then the message.
func FuzzReceive(f *testing.F) {
	rec := func(op, to, from byte, m wire.Msg) []byte {
		b := []byte{op, to, from, 0, 0}
		binary.BigEndian.PutUint16(b[3:], uint16(len(m)))
		return append(b, m...)
	}
	var seed []byte
	for i, m := range captured(f) {
		if m.User() != wire.UserFragmenter {
			seed = append(seed, rec(0, byte(i), byte(i+1), m[:min(len(m), 200)])...)
		}
	}
	f.Add(seed)
	// Small seeds: large ones keep the fuzzer busy with making them small.
	for _, user := range []wire.User{wire.UserLow, wire.UserCritical, wire.UserConnManager, wire.UserGroup, wire.UserSockWakeup, wire.UserFragmenter} {
		for typ := range uint8(8) {
			var all []byte
			for to := range byte(9) {
				m := make(wire.Msg, 60)
				wire.Init(m, 2, user, typ, 44, 1)
				m.SetSize(60)
				m.SetErrCode(wire.ErrCode(to % 6))
				m.SetNameType(1000)
				m.SetNameInst(1)
				m.SetSyn(to%6 == 0)
				all = append(all, rec(to%8, to, typ, m)...)
			}
			f.Add(all)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[1], w.nodes[2]
		c, s, l := w.connect(Stream, a, b)
		c2, s2, l2 := w.connect(SeqPacket, b, a)
		pending := a.create(Stream)
		pending.Connect(w.now, service(1000, 2))
		refused := a.create(SeqPacket)
		refused.Connect(w.now, to(wire.SocketAddr{Port: 1, Node: 2}))
		w.settle()
		socks := []*Sock{c, s2, l2, pending, refused, a.create(Stream), a.bound(RDM, 1000, 1), a.bound(Dgram, 1001, 1)}
		froms := []wire.SocketAddr{s.LocalAddr(), c2.LocalAddr(), l.LocalAddr(), {Port: 9, Node: 2}, {Port: 1, Node: 1}, {}, {Port: 7, Node: 77}}
		p := make([]byte, 3000)
		for n := 0; len(in) >= 5 && n < 400; n++ {
			op, dst, src, size := in[0], in[1], in[2], int(binary.BigEndian.Uint16(in[3:]))
			in = in[5:]
			raw := in[:min(size, len(in))]
			in = in[len(raw):]
			x := socks[int(dst)%len(socks)]
			switch op % 16 {
			case 8:
				x.Recv(w.now, p, RecvFlags(src)&7)
			case 9:
				x.Send(w.now, p[:int(src)*10], Dest{})
			case 10:
				if y, err := x.Accept(w.now); err == nil {
					socks = append(socks, y)
				}
			case 11:
				w.run(time.Duration(size) * time.Millisecond)
			case 12:
				x.Shutdown(w.now)
			case 13:
				x.Close(w.now)
			case 14:
				x.Ready()
				x.Info()
				a.PopReady()
			case 15:
				x.Send(w.now, p[:int(src)*10], service(1000, 1))
			default:
				if len(raw) < wire.MinHeaderSize {
					continue
				}
				// What every received message has been checked for is made so.
				k := buf.Copy(raw)
				k.Msg.SetVersion()
				k.Msg.SetHdrsz(min(max(k.Msg.Hdrsz(), wire.MinHeaderSize), wire.MaxHeaderSize, len(raw)&^3))
				k.Msg.SetSize(len(raw))
				m, err := wire.Validate(k.Msg)
				if err != nil {
					t.Fatal(err)
				}
				if int(dst) <= len(socks) { // otherwise as it is
					k.Msg.SetDestPort(x.Port())
				}
				if int(src) < len(froms) {
					from := froms[src]
					k.Msg.SetOrigPort(from.Port)
					k.Msg.SetPrevNode(from.Node)
					if k.Msg.Hdrsz() >= wire.BasicHeaderSize {
						k.Msg.SetOrigNode(from.Node)
					}
				}
				if op%16 == 7 && m.Hdrsz() >= wire.McastHeaderSize {
					var q buf.Queue
					q.PushBack(k)
					a.ReceiveMulticast(w.now, &q)
				} else {
					a.Receive(w.now, k)
				}
			}
			for _, x := range socks {
				used := 0
				for b := x.rxq.Front(); b != nil; b = b.Next() {
					used += truesize(b)
				}
				if used != x.rxUsed || used > max(x.rcvBuf<<4, flowMsgLimit) {
					t.Fatalf("receive queue counts %d, holds %d", x.rxUsed, used)
				}
				if x.dead && (x.first.Running() || x.onPeerList || !x.rxq.Empty()) {
					t.Fatal("dead socket is in use")
				}
			}
		}
		w.down(2)
		for _, x := range socks {
			x.Close(w.now)
		}
		w.run(10 * time.Second)
		if len(a.socks) != 0 || a.timers.Len() != 0 || len(a.peers) != 0 || a.busy {
			t.Fatalf("%d sockets, %d timers, %d peers left", len(a.socks), a.timers.Len(), len(a.peers))
		}
	})
}
