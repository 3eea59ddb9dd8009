// Package node is the core that joins links into peer nodes: it knows which peers exist, holds up to two links to each
// (one per bearer), decides which of them carries a message, moves the traffic of a lost link to the other one without
// losing or reordering anything (failover), lets a new link in without reordering (synch), and runs the broadcast link
// to all peers together with its alternative, replicast. It follows Linux 6.1 net/tipc/node.c and bcast.c.
//
// # Model
//
// A [Table] is one node's view of its cluster. The driver enables bearers ([Table.BearerEnable]), feeds discovery
// results ([Table.CheckDest]), datagrams ([Table.Receive]) and time ([Table.Tick] when [Table.Deadline] has come), and
// sends with [Table.Xmit], [Table.Multicast] and [Table.Broadcast]. Outgoing datagrams go to Config.Out at once;
// what came in goes to [Upcalls].
//
// # Rules
//
// The core has no goroutine, clock, lock or randomness of its own; nothing in it is safe for concurrent use.
//
// Upcalls are never made in the middle of node processing: they are queued, and run when the outermost call into the
// Table is about to return. An upcall may call any method of the Table; what that causes runs after the current
// upcall has returned. So the call depth is bounded whatever sockets answer to what.
//
// # Differences from the kernel
//
// None is visible to a peer that follows the protocol. A new link delivers nothing before the older one has delivered
// what was sent earlier, also when the SYNCH message is lost once or when a link fails during synchronisation, where the
// kernel lets messages overtake each other. FAILOVER messages that announce an impossible number of packets are dropped.
// A link of priority 0 is used when there is no other. A peer that comes back under another address is taken at once.
// A second node with the identity of a peer, which is not let in, cannot reset the link to the first one either.
// When a peer was restarted, no second link to it comes up before the first one has been heard or lost.
// When contact is lost, links that were about to come up start their handshake again. Marks of multicast senders' changes
// that came alone are recognised.
// When a sender's multicasts change between broadcast and replicast, both marks of the change go to all peers.
// A peer that acknowledges no broadcast for ten tolerances is reset, so that it cannot stop the broadcasts to others.
//
// # Bounds
//
// Config.MaxNodes peers (default 1024), each with at most 2 links; a peer that is not up is forgotten after 300 s, and
// when the table is full the one that has been down longest makes room. Queues are bounded by the links' windows and
// limits (package link); a link that waits for another one holds back at most 4096 packets. A peer in state SELF_DOWN_PEER_LEAVING or SELF_LEAVING_PEER_DOWN can store nothing here.
package node
