// Package link is one endpoint of a TIPC link: sequence numbers, acknowledgement, retransmission, congestion control,
// supervision and the handshake that opens and closes it (Linux 6.1 net/tipc/link.c). It is pure: no goroutine, clock,
// lock or randomness; time is passed in. Nothing is safe for concurrent use.
//
// # Kinds
//
// A [Link] made by [New] is the endpoint of a unicast link to one peer over one bearer. [NewBcastSender] makes the one
// broadcast link of a node, whose packets several peers have to acknowledge; [NewBcastReceiver] makes, for each peer,
// the other end of the peer's broadcast link together with the memory of what that peer has acknowledged of ours.
//
// # Buffers
//
// Xmit takes over the Bufs it is given and releases them when the peer has acknowledged them. What goes out is handed to
// an [Output], which copies it at once or references what is behind its header. A received packet belongs to the link
// during the call only; what is to be kept is copied once: in-order messages into a Buf on the input queue, fragments
// straight into the message that they belong to. Packets that are received in a Buf of their own become the message, or
// its beginning, without a copy. In steady state neither way allocates.
//
// # Bounds
//
// Sent and not acknowledged: the window, at most 8191 packets. Waiting to be sent: the limits of each importance plus
// one message per sender. Out of order: within 8191 packets of the next expected and [maxDeferred] octets; for a
// failover the same again. Held back: what the node allows. Reassembly: three messages of at most 66060 octets. Wakeups:
// one per local sender.
package link
