package msg

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Reverse returns the message that tells m's sender that m was not delivered: its header with source and destination
// exchanged and the error code, and up to 1024 octets of its data (net/tipc/msg.c tipc_msg_reverse). ok is false when m
// must not be returned, because it is droppable or itself returned. m is not changed and not kept.
//
// A 24-octet header becomes one of 32 octets, since a returned message needs its nodes. A connection request refused
// for overload comes back without data, its sender has kept them.
func Reverse(own uint32, m wire.Msg, code wire.ErrCode) (b *buf.Buf, ok bool) {
	h := m.Hdrsz()
	if h < wire.MinHeaderSize || h > len(m) || m.DestDroppable() || m.ErrCode() != wire.CodeOK {
		return nil, false
	}
	data := m.Data()
	data = data[:min(len(data), wire.MaxReturnData)]
	if m.IsSyn() && code == wire.CodeOverload {
		data = nil
	}
	hlen := h
	if hlen == wire.ShortHeaderSize {
		hlen = wire.BasicHeaderSize
	}
	b = buf.Get(hlen + len(data))
	r := b.Msg
	copy(r, m[:h])
	copy(r[hlen:], data)
	r.SetHdrsz(hlen)
	r.SetErrCode(code)
	r.SetNonSeq(false)
	r.SetOrigPort(m.DestPort())
	r.SetDestPort(m.OrigPort())
	r.SetDestNode(m.PrevNode())
	r.SetPrevNode(own)
	r.SetOrigNode(own)
	r.SetSize(len(r))
	return b, true
}

// Reject puts the return of b, if it is to be returned, at the end of q, and releases b (net/tipc/msg.c
// tipc_skb_reject).
func Reject(own uint32, b *buf.Buf, code wire.ErrCode, q *buf.Queue) {
	if r, ok := Reverse(own, b.Msg, code); ok {
		q.PushBack(r)
	}
	b.Release()
}
