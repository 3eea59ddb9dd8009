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

	// Both SYN messages are here: the one with data takes the place of both.
	if dummy(b) {
		inputq.PopFront().Release()
		resolve(defq, inputq, twin, same)
		return
	}
	defq.Remove(twin)
	twin.Release()
	followers(defq, inputq, same)
}

// dummy reports whether a SYN message is only the mark of a change (net/tipc/bcast.c tipc_mcast_send_sync).
func dummy(b *buf.Buf) bool { return b.Msg.DataSize() == 0 && b.Msg.ErrCode() != wire.CodeOK }

// resolve ends the wait of a SYN message: it is delivered unless it is a dummy, and what waited behind it follows.
func resolve(defq, inputq *buf.Queue, twin *buf.Buf, same func(*buf.Buf) bool) {
	defq.Remove(twin)
	if dummy(twin) {
		twin.Release()
	} else {
		inputq.PushBack(twin)
	}
	followers(defq, inputq, same)
}

// followers delivers what waits of the same sender, up to its next change.
func followers(defq, inputq *buf.Queue, same func(*buf.Buf) bool) {
	for d := defq.Front(); d != nil; {
		next := d.Next()
		if same(d) {
			if d.Msg.IsSyn() {
				break // the sender has switched again already
			}
			defq.Remove(d)
			inputq.PushBack(d)
		}
		d = next
	}
}
