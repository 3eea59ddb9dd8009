package msg

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Align rounds a size up to the four octets at which messages in a bundle start.
func Align(n int) int { return (n + 3) &^ 3 }

// Bundled is the outcome of [TryBundle].
type Bundled uint8

// Outcomes.
const (
	NotBundled Bundled = iota // the message is of a kind or size that is never bundled
	NewTarget                 // it stays by itself, and the next one may be added to it
	Joined                    // its octets are in the bundle that target was before
	NewBundle                 // its octets and target's are in a new bundle
)

// Bundlable reports whether m may go into a bundle of at most mss octets.
func Bundlable(m wire.Msg, mss int) bool {
	switch m.User() {
	case wire.UserFragmenter, wire.UserTunnel, wire.UserBcastProtocol, wire.UserBundler:
		return false
	}
	return mss > wire.IntHeaderSize+m.Size()
}

// TryBundle adds the message m to target, the last packet on q that may be added to, or nil (net/tipc/msg.c
// tipc_msg_try_bundle). A target that is no bundle becomes one: a new Buf takes its place on q, with the same sequence
// number, and target is released. The returned Buf is then the one to try with the next time. m is copied; mss limits
// the bundle.
func TryBundle(q *buf.Queue, target *buf.Buf, m wire.Msg, mss int, dnode uint32) (*buf.Buf, Bundled) {
	if !Bundlable(m, mss) {
		return nil, NotBundled
	}
	if target == nil {
		return nil, NewTarget
	}
	out, how := target, Joined
	t := target.Msg
	size := t.Size()
	if t.User() != wire.UserBundler {
		if mss < Align(wire.IntHeaderSize+size)+m.Size() {
			return nil, NewTarget
		}
		out, how = buf.Get(mss), NewBundle
		o := out.Msg
		wire.Init(o, t.PrevNode(), wire.UserBundler, wire.TypeBundleOpen, wire.IntHeaderSize, dnode)
		o.SetImportance(t.Importance())
		o.SetMsgCnt(1)
		o.SetAck(t.Ack())
		o.SetBcastAck(t.BcastAck())
		o.SetSeqNo(t.SeqNo())
		copy(o[wire.IntHeaderSize:], t[:size])
		size += wire.IntHeaderSize
		o.SetSize(size)
		out.NextRetr, out.Ackers = target.NextRetr, target.Ackers
		q.InsertBefore(out, target)
		q.Remove(target)
		target.Release()
	}
	at := Align(size)
	n := at + m.Size()
	if n > mss || n > out.Cap() || out.Msg.MsgCnt() == 1<<16-1 {
		return nil, NewTarget
	}
	out.Resize(n)
	o := out.Msg
	clear(o[size:at])
	copy(o[at:], m[:m.Size()])
	o.SetSize(n)
	o.SetMsgCnt(o.MsgCnt() + 1)
	return out, how
}

// Extract returns the message at pos in the data of a bundle or tunnel packet, and the position of the one behind it
// (net/tipc/msg.c tipc_msg_extract). ok is false at the end, and when there is no valid message. The result aliases m.
func Extract(m wire.Msg, pos int) (inner wire.Msg, next int, ok bool) {
	d := m.Data()
	if pos < 0 || pos > len(d)-wire.MinHeaderSize {
		return nil, pos, false
	}
	inner, err := wire.Validate(d[pos:])
	if err != nil {
		return nil, pos, false
	}
	return inner, pos + Align(len(inner)), true
}
