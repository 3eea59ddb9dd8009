// Package stack composes the protocol cores into one TIPC node: discovery and peer nodes below, the name table and the
// topology server beside, sockets on top.
//
// A [Stack] is pure: it has no goroutine, clock, lock, randomness or socket of its own. A driver enables bearers,
// hands received datagrams to HandlePacket, calls Tick when Deadline has come, calls the sockets' methods on behalf of
// its users, and after each of these takes the sockets whose readiness changed with PopReady, then the outgoing
// datagrams with TakeOutput. Calls on one Stack must not overlap; the driver holds a lock or is a single goroutine.
//
// The order of calls is all that a Stack depends on: the same calls with the same times and the same Config.Rand give
// the same datagrams, which is what simulation and replay are built on.
package stack
