package node

import (
	"bytes"
	"encoding/binary"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/tipctest"
	"midplane/internal/tipc/wire"
)

// replay is a node that takes the place of one of the two kernels: it hears what the other one sent, when it was sent.
type replay struct {
	*Table
	t    *testing.T
	now  mono.Time
	sent []wire.Msg
	data []byte // of connection messages
	got  []wire.Msg
	log  []string
}

func (r *replay) Send(bearer int, dst wire.MediaAddr, pkt []byte, _ *buf.Buf) {
	r.sent = append(r.sent, bytes.Clone(pkt))
}

func (r *replay) take(q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		r.got = append(r.got, b.Msg)
		if b.Msg.IsData() && b.Msg.IsConnected() {
			r.data = append(r.data, b.Msg.Data()...)
		}
	}
}

func (r *replay) Deliver(now mono.Time, q *buf.Queue)                { r.take(q) }
func (r *replay) DeliverMulticast(now mono.Time, q *buf.Queue)       { r.take(q) }
func (r *replay) DeliverNames(now mono.Time, q *buf.Queue, f uint32) { r.take(q) }
func (r *replay) NodeUp(now mono.Time, a uint32, c wire.Caps)        { r.log = append(r.log, "node up") }
func (r *replay) NodeDown(now mono.Time, a uint32, c wire.Caps)      { r.log = append(r.log, "node down") }
func (r *replay) LinkUp(now mono.Time, a, id uint32, b int)          { r.log = append(r.log, "link up") }
func (r *replay) LinkDown(now mono.Time, a, id uint32, b int)        { r.log = append(r.log, "link down") }
func (r *replay) Discovery(now mono.Time, b int, s wire.MediaAddr, m wire.Msg) {
	if t := m.Type(); t != wire.TypeDscRequest && t != wire.TypeDscResponse {
		return
	}
	r.CheckDest(now, Dest{
		Addr: m.PrevNode(), ID: wire.NodeID(m[wire.DscHeaderSize:]), Caps: m.NodeCapabilities(), Signature: m.NodeSig(),
		NetHash: m.PeerNetHash(), Media: s,
	})
}

// A Table in the place of either kernel makes contact with the other's recorded half of the conversation, takes all its
// messages in order, and sends the same handshake as the kernel did, octet for octet.
func TestReplayAgainstLinux(t *testing.T) {
	frames := tipctest.Capture(t, tipctest.Ethernet)
	// The kernels' clocks ticked each 10 ms, so their timers ran late. As late as in the capture, node3 is the first to
	// start the handshake, and node2 answers.
	for name, late := range map[string]mono.Time{"node2": 15_100_000, "node3": 14_000_000} {
		t.Run(name, func(t *testing.T) {
			var id wire.NodeID
			copy(id[:], name)
			own := binary.BigEndian.Uint32(id[:]) ^ binary.BigEndian.Uint32(id[4:])
			theirs := map[wire.User]wire.Msg{} // what the kernel in our place sent first, by user; LINK_PROTOCOL by type
			key := func(m wire.Msg) wire.User {
				if m.User() == wire.UserLinkProtocol {
					return 100 + wire.User(m.Type())
				}
				return m.User()
			}
			var trialEnd mono.Time // before it, the kernel had no address and ignored requests
			for _, f := range frames {
				if f.Msg.PrevNode() == own && f.Msg.User() == wire.UserLinkConfig && f.Msg.Type() == wire.TypeDscTrial {
					trialEnd = f.At
				}
				if f.Msg.PrevNode() == own && !f.Msg.NonSeq() && theirs[key(f.Msg)] == nil {
					theirs[key(f.Msg)] = f.Msg
				}
			}
			session := theirs[100+wire.TypeActivate].Session()
			if reset := theirs[100+wire.TypeReset]; reset != nil {
				session = reset.Session()
			}
			r := &replay{t: t, now: frames[0].At}
			var err error
			r.Table, err = New(Config{Own: own, ID: id, Rand: func() uint32 { return uint32(session - 1) }, Out: r, Up: r})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.BearerEnable(r.now, 0, Bearer{Name: "eth:eth0", MTU: 1500, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 8191}); err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				for r.Deadline()+late < f.At {
					r.now = max(r.now, r.Deadline()+late)
					r.Tick(r.now)
				}
				r.now = f.At
				if f.Msg.PrevNode() != own && f.At > trialEnd {
					r.Receive(r.now, 0, f.Src, bytes.Clone(f.Msg))
				}
			}
			if len(r.log) < 2 || r.log[0] != "node up" || r.log[1] != "link up" {
				t.Fatalf("no contact: %q", r.log)
			}
			if want := connData(frames, own); !bytes.Equal(r.data, want) {
				t.Errorf("%d octets of connection data arrived, %d were sent", len(r.data), len(want))
			}
			if len(r.got) == 0 || r.got[0].User() != wire.UserNameDistr {
				t.Error("the name table did not come first")
			}
			ours := map[wire.User]wire.Msg{}
			for _, m := range r.sent {
				if ours[key(m)] == nil {
					ours[key(m)] = m
				}
			}
			for _, k := range []wire.User{100 + wire.TypeReset, 100 + wire.TypeActivate, 100 + wire.TypeState, wire.UserBcastProtocol} {
				o, l := ours[k], theirs[k]
				if l == nil {
					continue // who is the second to start sends no RESET
				}
				if o == nil {
					t.Errorf("message %d was not sent", k)
					continue
				}
				n := wire.IntHeaderSize
				if k == 100+wire.TypeReset || k == 100+wire.TypeActivate {
					n += len("eth0") + 1 // what Linux leaves behind the name is not initialised
				}
				if !bytes.Equal(o[:n], l[:n]) {
					t.Errorf("message %d:\nours  % x\nLinux % x", k, o[:n], l[:n])
				}
			}
		})
	}
}

// connData is what the other node sent on connections, taken from the capture by a plain reassembly in the order of
// sequence numbers.
func connData(frames []tipctest.Frame, own uint32) (data []byte) {
	bySeq := map[uint16]wire.Msg{}
	var last uint16
	for _, f := range frames {
		if m := f.Msg; m.PrevNode() != own && !m.NonSeq() && m.User() != wire.UserLinkProtocol {
			bySeq[m.SeqNo()] = m
			last = max(last, m.SeqNo())
		}
	}
	var whole wire.Msg
	add := func(m wire.Msg) {
		if m.IsData() && m.IsConnected() {
			data = append(data, m.Data()...)
		}
	}
	for n := uint16(1); n <= last; n++ {
		m := bySeq[n]
		switch m.User() {
		case wire.UserFragmenter:
			if m.Type() == wire.TypeFirstFragment {
				whole = nil
			}
			whole = append(whole, m.Data()...)
			if m.Type() == wire.TypeLastFragment {
				add(whole)
			}
		case wire.UserBundler:
			for d := m.Data(); len(d) >= wire.MinHeaderSize; {
				in := wire.Msg(d)
				add(in[:in.Size()])
				d = d[min(len(d), (in.Size()+3)&^3):]
			}
		default:
			add(m)
		}
	}
	return data
}
