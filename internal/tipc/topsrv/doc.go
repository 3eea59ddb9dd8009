// Package topsrv is the topology server of a node: users connect to the service address {1, 1}, send subscriptions and
// receive events about services, nodes and links (Linux net/tipc/topsrv.c).
//
// [Session] is one user's side of it for any transport that keeps records apart. [Server] serves sessions over TIPC
// sockets. Both are pure cores: they do not block, and have no goroutine and no clock.
//
// # Records
//
// A subscription has 28 octets, an event 48 (package wire). Which byte order the user has is seen from the filter, and
// events go back in that order, the bounds in a timeout event too; there Linux on a little-endian machine answers a
// big-endian user in the wrong order.
//
// One message carries one subscription. As in Linux, octets behind the first 28 are ignored, and a shorter message ends
// the connection. So do a subscription with both filters or with swapped bounds, and one too many.
//
// # Bounds
//
// A node serves at most 65,535 subscriptions in all sessions together (names.MaxSubscriptions). Events that a user does
// not read wait on its session, up to [Config].MaxEvents, and up to names.Config.MaxQueuedEvents for all sessions; a
// user who is slower than that loses the connection. Linux queues without bound.
package topsrv
