// Package monitor is overlapping ring monitoring: in a large cluster a node supervises only the links to its own
// domain, the next √n nodes in the ring of addresses, and to the heads of the domains behind; what it hears from those
// about their domains tells it when another link must be probed, and after four reports of loss reset
// (net/tipc/monitor.c). It makes the number of probes grow with n·√n instead of n².
//
// A [Monitor] belongs to one bearer. It is active only above a threshold of nodes (32 by default); below it every link
// is supervised by itself and nothing is sent. It has no goroutine, clock or lock, and is not safe for concurrent use.
package monitor
