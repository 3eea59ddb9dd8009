package msg

import (
	"errors"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Errors.
var (
	// ErrTooLarge: more than 66000 octets of payload.
	ErrTooLarge = errors.New("tipc/msg: message too large")
	// ErrPacketSize: the packet size leaves no room for data behind the headers.
	ErrPacketSize = errors.New("tipc/msg: packet size too small")
)

// Create returns a new message with an empty body of dataSize octets, which are undefined beyond the first few
// (net/tipc/msg.c tipc_msg_create).
func Create(user wire.User, typ uint8, hdrsz, dataSize int, dnode, onode, dport, oport uint32, code wire.ErrCode) *buf.Buf {
	b := buf.Get(hdrsz + dataSize)
	m := b.Msg
	wire.Init(m, onode, user, typ, hdrsz, dnode)
	m.SetSize(hdrsz + dataSize)
	m.SetOrigPort(oport)
	m.SetDestPort(dport)
	m.SetErrCode(code)
	return b
}

// Build appends a message to q: header and payload as one packet if that is no longer than pktmax octets, otherwise as
// a chain of MSG_FRAGMENTER packets of pktmax octets each but the last (net/tipc/msg.c tipc_msg_build). hdr is the
// message's header, as long as it says; its size field is set. Payload is copied. On error q is unchanged.
//
// Fragments are addressed with the destination node in word 7 of hdr, which must therefore be there even when the header
// itself is a short one of 24 octets.
//
// Fragments carry the previous and destination node and the importance of the message, a number counted from 1, and
// their place in the chain as type; behind the 40-octet header of the first one comes the whole message header.
func Build(hdr wire.Msg, payload []byte, pktmax int, q *buf.Queue) error {
	if len(payload) > wire.MaxUserMsgSize {
		return ErrTooLarge
	}
	h := hdr.Hdrsz()
	size := h + len(payload)
	if size > pktmax && pktmax <= wire.IntHeaderSize+h {
		return ErrPacketSize
	}
	hdr.SetSize(size)
	if size <= pktmax {
		b := buf.Get(size)
		copy(b.Msg, hdr[:h])
		copy(b.Msg[h:], payload)
		q.PushBack(b)
		return nil
	}
	var last *buf.Buf
	inner := hdr[:h]
	for no := uint16(1); len(payload) > 0; no++ {
		room := pktmax - wire.IntHeaderSize - len(inner)
		n := min(room, len(payload))
		b := buf.Get(wire.IntHeaderSize + len(inner) + n)
		f := b.Msg
		wire.Init(f, hdr.PrevNode(), wire.UserFragmenter, wire.TypeFragment, wire.IntHeaderSize, hdr.DestNode())
		f.SetSize(len(f))
		f.SetFragmNo(no)
		f.SetImportance(hdr.Importance())
		at := wire.IntHeaderSize + copy(f[wire.IntHeaderSize:], inner)
		copy(f[at:], payload[:n])
		if no == 1 {
			f.SetType(wire.TypeFirstFragment)
		}
		payload, inner, last = payload[n:], nil, b
		q.PushBack(b)
	}
	last.Msg.SetType(wire.TypeLastFragment)
	return nil
}

// Append adds payload to the messages of a byte stream that wait on q: it fills the last one up to mss octets and makes
// new ones with hdr, a 24-octet header, as needed (net/tipc/msg.c tipc_msg_append). It returns by how many flow control
// blocks the messages on q grew. The last message must come from an earlier call with the same mss.
func Append(hdr wire.Msg, payload []byte, mss int, q *buf.Queue) (blocks int) {
	if mss <= wire.MinHeaderSize {
		return 0
	}
	b := q.Back()
	for first := true; first || len(payload) > 0; first = false {
		if b == nil || len(b.Msg) >= mss {
			b = buf.Get(mss)
			b.Resize(wire.MinHeaderSize)
			copy(b.Msg, hdr[:wire.MinHeaderSize])
			b.Msg.SetHdrsz(wire.MinHeaderSize)
			b.Msg.SetSize(wire.MinHeaderSize)
			q.PushBack(b)
			blocks++
		}
		size := len(b.Msg)
		was := int(b.Msg.Blocks())
		n := min(len(payload), mss-size)
		if b.Cap() < size+n { // not from an earlier call
			c := buf.Get(mss)
			c.Resize(size)
			copy(c.Msg, b.Msg)
			q.InsertBefore(c, b)
			q.Remove(b)
			b = c
		}
		b.Resize(size + n)
		copy(b.Msg[size:], payload[:n])
		b.Msg.SetSize(size + n)
		payload = payload[n:]
		blocks += int(b.Msg.Blocks()) - was
	}
	return blocks
}

// Fragment appends to q copies of the octets of m in packets of pktmax octets, each behind hdr, a 40-octet header
// (net/tipc/msg.c tipc_msg_fragment). It is for tunnelling packets over a link with a smaller MTU: fragment number and
// count are set, and the last fragment is empty when the sizes divide. It fails when m needs no fragments.
func Fragment(m, hdr wire.Msg, pktmax int, q *buf.Queue) error {
	room, size := pktmax-wire.IntHeaderSize, m.Size()
	if room <= 0 || size <= room || size > len(m) {
		return ErrPacketSize
	}
	n := size/room + 1
	if n > 1<<16-1 {
		return ErrPacketSize
	}
	rest := m[:size]
	for no := 1; no <= n; no++ {
		part := rest[:min(room, len(rest))]
		b := buf.Get(wire.IntHeaderSize + len(part))
		copy(b.Msg, hdr[:wire.IntHeaderSize])
		copy(b.Msg[wire.IntHeaderSize:], part)
		b.Msg.SetFragmNo(uint16(no))
		b.Msg.SetNofFragms(uint16(n))
		b.Msg.SetSize(len(b.Msg))
		rest = rest[len(part):]
		q.PushBack(b)
	}
	return nil
}
