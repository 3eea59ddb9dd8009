// Package tipc is TIPC, the Transparent Inter-Process Communication protocol, in user space: cluster communication
// without a kernel module, on the wire the same as Linux's, so that nodes of both kinds form one cluster.
//
// # The model
//
// A [Node] is one member of a cluster. It finds the other nodes by itself over its bearers (UDP, Ethernet), keeps
// links to them, and knows within a second or two, the link tolerance, when one is lost. Nodes of one cluster share a
// network id.
//
// Programs do not address hosts. A server binds a socket to a service, a type and an instance, both numbers of its own
// choice: [Node.Listen] with ServiceAddr{Type: 4711, Instance: 7}, or a [ServiceRange] of instances. A client dials the
// service wherever it is: [Node.Dial] with the same address. If several sockets are bound to it, each connection goes
// to the next of them; if the server moves to another node, the client dials the same address again. Who is bound
// where is known on every node at once, and [Node.Subscribe] reports each change as it happens, which makes service
// discovery, node supervision and leader election a few lines of code.
//
// # Sockets
//
//	Stream     connection, octet stream                                [Node.Dial], [Node.Listen]
//	SeqPacket  connection, messages up to 66,000 octets                the same, with Config.Type
//	RDM        messages without a connection, reliable links           [Node.ListenPacket]
//	Datagram   messages without a connection, dropped when congested   the same, with Config.Type
//
// A connection breaks at once when its peer's process or node is lost; there is no keep-alive to wait for. A message
// to a [ServiceAddr] reaches one socket, a message to a [ServiceRange] every socket bound in it, and a message to a
// [SocketAddr] that very socket. A message that cannot be delivered comes back with the reason, if asked for:
// [SocketConfig] and [PacketConn.ReadMsg].
//
// [Conn], [Listener] and [PacketConn] are a net.Conn, a net.Listener and a net.PacketConn, with their deadlines, and
// may be used from several goroutines at once. Errors are [*OpError]; see there for what to compare them with.
//
// # Where the node runs
//
// [NewNode] makes a node inside the program, which needs no other process and no privileges for UDP. [Open] uses the
// node of a daemon, `midplane node`, on the same host if there is one: programs then share one cluster member and its
// links. The rest of the API is the same for both. A node inside the program is the faster one.
//
// A program of one process can be tested with a [Network] in memory in place of real bearers.
package tipc
