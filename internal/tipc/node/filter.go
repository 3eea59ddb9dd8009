package node

import (
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// FilterMcast keeps one sender's multicast messages in order while it switches between broadcast and replicast
// (net/tipc/bcast.c tipc_mcast_filter_msg). The receiving socket calls it for each multicast message: inputq holds that
// message at its front, defq is the socket's store of messages that came too early. On return, what inputq holds may
// be delivered: nothing, the message, or the message and those that waited for it.
//
// The sender marks the first message of the new way SYN and sends an empty twin of it the old way. Until both have
// come, messages of the new way wait. own is this node's address: its own messages never wait.
//
// A broadcast twin comes alone when this node was not among the sender's destinations at the time of the change. The
// kernel then takes the next SYN message that comes as replicast for its twin, and may lose one of them. But a message
// with data and an empty one make a pair, nothing else does.
//
// The caller bounds defq.
func FilterMcast(own uint32, defq, inputq *buf.Queue) {
	b := inputq.Front()
	if b == nil || (!b.Msg.IsSyn() && defq.Empty()) {
		return
	}
	node, port := b.Msg.OrigNode(), b.Msg.OrigPort()
	if node == own {
		return
	}
	same := func(d *buf.Buf) bool { return d.Msg.OrigNode() == node && d.Msg.OrigPort() == port }
	hold := func() { defq.PushBack(inputq.PopFront()) }

	twin := defq.Front()
	for twin != nil && !same(twin) {
		twin = twin.Next()
	}
	syn := b.Msg.IsSyn()
	switch {
	case twin == nil && !syn:
		return
	case twin == nil:
		hold()
		return
	case b.Msg.IsRcast() == twin.Msg.IsRcast():
		hold() // same way as what waits: behind it
		return
	case !syn:
		return // still the old way
	}

	inputq.PopFront()
	if !b.Msg.IsRcast() && twin.Msg.IsSyn() && dummy(twin) == dummy(b) { // b comes alone
		if dummy(b) {
			b.Release()
		} else {
			inputq.PushBack(b)
		}
		return
	}
	for twin != nil { // until one fits; those before it came alone
		pair := twin.Msg.IsSyn() && dummy(twin) != dummy(b)
		defq.Remove(twin)
		if dummy(twin) {
			twin.Release()
		} else {
			inputq.PushBack(twin)
		}
		if pair {
			if dummy(b) {
				b.Release()
			} else {
				inputq.PushBack(b)
			}
		}
		twin = followers(defq, inputq, same)
		if pair {
			return
		}
	}
	defq.PushBack(b)
}

// dummy reports whether a SYN message is only the mark of a change (net/tipc/bcast.c tipc_mcast_send_sync).
func dummy(b *buf.Buf) bool { return b.Msg.DataSize() == 0 && b.Msg.ErrCode() != wire.CodeOK }

// followers delivers what waits of the same sender, up to its next change, which it returns.
func followers(defq, inputq *buf.Queue, same func(*buf.Buf) bool) *buf.Buf {
	for d := defq.Front(); d != nil; {
		next := d.Next()
		if same(d) {
			if d.Msg.IsSyn() {
				return d
			}
			defq.Remove(d)
			inputq.PushBack(d)
		}
		d = next
	}
	return nil
}
