package msg

import (
	"errors"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Reasons for which a [Reassembler] refuses a fragment. What it held is dropped with it.
var (
	ErrNoFirst     = errors.New("tipc/msg: fragment without a first one")
	ErrSecondFirst = errors.New("tipc/msg: first fragment inside a message")
	ErrInner       = errors.New("tipc/msg: fragmented message is invalid")
	ErrIncomplete  = errors.New("tipc/msg: fragments end before the message")
	ErrFragType    = errors.New("tipc/msg: unknown fragment type")
)

// Reassembler joins the fragments of one message at a time. The zero value is ready. It holds at most one buffer of the
// size that the first fragment announces, never more than [wire.MaxMsgSize] octets, whatever arrives.
type Reassembler struct {
	head *buf.Buf // its Msg has the announced size
	have int      // octets of it that are there
}

// Empty reports whether no message has begun.
func (r *Reassembler) Empty() bool { return r.head == nil }

// Reset forgets a message that has begun.
func (r *Reassembler) Reset() {
	if r.head != nil {
		r.head.Release()
	}
	*r = Reassembler{}
}

// Take moves the state of from to r, and leaves from empty.
func (r *Reassembler) Take(from *Reassembler) {
	r.Reset()
	*r, *from = *from, Reassembler{}
}

// Append adds one fragment, whose octets are copied (net/tipc/msg.c tipc_buf_append). It returns the message when frag
// completes it, and nil when more is to come. After an error the Reassembler is empty.
//
// In the kernel the joined message is validated at its end; here its header, which must be whole in the first fragment,
// is validated at once, so that memory is taken for what it announces. Octets past the announced size are ignored, as
// they are in the kernel.
func (r *Reassembler) Append(frag wire.Msg) (*buf.Buf, error) {
	return r.AppendTyped(frag, frag.Type())
}

// AppendBuf is Append with a Buf that owns the fragment, or nil. It is consumed: of the first fragment it becomes the
// message, if there is room.
func (r *Reassembler) AppendBuf(frag wire.Msg, own *buf.Buf) (*buf.Buf, error) {
	if own == nil {
		return r.Append(frag)
	}
	if frag.Type() != wire.TypeFirstFragment || r.head != nil {
		b, err := r.Append(frag)
		own.Release()
		return b, err
	}
	in := wire.Msg(frag.Data())
	if !validHeader(in) {
		own.Release()
		return nil, ErrInner
	}
	own.TrimFront(frag.Hdrsz())
	if own.Cap() < in.Size() {
		b, err := r.Append(frag)
		own.Release()
		return b, err
	}
	r.head, r.have = own, min(len(in), in.Size())
	own.Resize(in.Size())
	return nil, nil
}

// AppendTyped is Append with the place in the chain given apart from the fragment, for fragments inside a tunnel.
func (r *Reassembler) AppendTyped(frag wire.Msg, typ uint8) (*buf.Buf, error) {
	data := frag.Data()
	switch typ {
	case wire.TypeFirstFragment:
		if r.head != nil {
			r.Reset()
			return nil, ErrSecondFirst
		}
		in := wire.Msg(data)
		size := in.Size()
		if !validHeader(in) {
			return nil, ErrInner
		}
		r.head = buf.Get(size)
		r.have = copy(r.head.Msg, data)
		return nil, nil
	case wire.TypeFragment, wire.TypeLastFragment:
		if r.head == nil {
			return nil, ErrNoFirst
		}
		r.have += copy(r.head.Msg[r.have:], data)
		if typ == wire.TypeFragment {
			return nil, nil
		}
		if r.have < len(r.head.Msg) {
			r.Reset()
			return nil, ErrIncomplete
		}
		b := r.head
		*r = Reassembler{}
		return b, nil
	}
	r.Reset()
	return nil, ErrFragType
}

// validHeader checks of a message whose end may still be missing what [wire.Validate] checks of a whole one.
func validHeader(m wire.Msg) bool {
	if len(m) < wire.MinHeaderSize {
		return false
	}
	h, n := m.Hdrsz(), m.Size()
	return h >= wire.MinHeaderSize && h <= wire.MaxHeaderSize && h <= len(m) && m.Version() == wire.Version &&
		n >= h && n-h <= wire.MaxUserMsgSize
}

// Assemble joins the packets of q, one whole message or a chain of fragments, to one message, and empties q
// (net/tipc/msg.c tipc_msg_assemble). It returns nil when they are no message.
func Assemble(q *buf.Queue) *buf.Buf {
	if q.Len() == 1 {
		return q.PopFront()
	}
	b := Reassemble(q)
	q.Purge()
	return b
}

// Reassemble is [Assemble] with a copy; q keeps its packets (net/tipc/msg.c tipc_msg_reassemble).
func Reassemble(q *buf.Queue) *buf.Buf {
	if q.Len() == 1 {
		return q.Front().Clone()
	}
	var r Reassembler
	for f := q.Front(); f != nil; f = f.Next() {
		b, err := r.Append(f.Msg)
		if b != nil || err != nil {
			return b
		}
	}
	r.Reset()
	return nil
}
