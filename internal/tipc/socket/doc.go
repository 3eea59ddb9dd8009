// Package socket is the TIPC socket layer: stream, seqpacket, rdm and dgram sockets as Linux has them
// (net/tipc/socket.c), without the system calls.
//
// A [Table] holds the sockets of one node. Messages that arrive for them go into [Table.Receive]; what sockets send goes
// out through a [Net]. Nothing blocks: a call that cannot be done yet returns [ErrWouldBlock], and [Table.PopReady]
// later names the socket as one to try again. Timers (connect timeout and retry, hourly probe, lingering close) are
// served by [Table.Tick] when [Table.Deadline] has come.
//
// A Table and its sockets are one core: calls on any of them must not overlap. The one exception is nesting: a Net that
// delivers to this node may call [Table.Receive] from inside its Xmit; the message is handled when the outermost call
// is about to return, as a kernel socket's backlog is.
//
// Messages are [buf.Buf]s. Receive takes them over, and they go back to the pool when they have been read or refused.
// User data is copied out of the caller's slice by Send and into it by Recv; no call keeps a caller's slice.
//
// # Bounds
//
// What a peer can make a Table hold is bounded: per socket by its receive buffer (see [Sock.SetRecvBuf]), by
// maxDeferred multicast messages that wait for order, and by the own node's traffic for all else. Number of sockets:
// [Config].MaxSockets; only local calls create sockets.
//
// # Differences from Linux
//
// These are on purpose, and none is visible on the wire of a well-behaved connection:
//   - Empty messages on a connection are counted in flow control when they are skipped; in Linux 512 of them stall it.
//   - A close with an unread message that may not be returned sends the FIN all the same; in Linux the peer would not
//     be told.
//   - A connection that ends while a reader waits always gives the reader an end: sticky, and also when the end is a
//     failed probe. In Linux a second read waits for ever.
//   - Losing the peer's node ends a pending connect at once, with [ErrHostUnreach].
//   - A stream follows a change of the link's MTU.
//   - Accepted sockets inherit receive buffer and no-delay from the listener.
//   - Send on a connecting socket is [ErrWouldBlock] rather than ENOTCONN.
//   - Multicast messages do not wait for order when what is missing cannot come any more (see [Net.UnderWay]), and the
//     empty messages that mark a sender's change of method are never delivered.
//   - A multicast method set by SetMcastBroadcast or SetMcastReplicast is changed to in order; in Linux what was sent
//     before and after may overtake each other.
//   - A multicast SYN (send to a range on an unconnected stream) is refused.
package socket
