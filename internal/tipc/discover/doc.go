// Package discover finds the peers of a node and gives the node its address.
//
// On each bearer a node broadcasts requests and answers those of others. What it hears is checked here and handed to
// the peer table, which decides whether it is a new peer, a restarted one or an impostor. A node without a fixed
// address first puts the one that follows from its identity on trial for a second; a neighbour that knows of another
// owner suggests a different one, and the trial starts again.
//
// The rules are those of the Linux kernel's net/tipc/discover.c, addr.c and net.c. Four bounds are added, because
// nothing on the wire is authenticated: answers are limited in rate, alerts too, a trial is restarted a limited number
// of times, and frames that the kernel would read beyond their end are refused.
//
// A [Discovery] is pure: time is passed in, datagrams go to a buf.Output, the rest to [Upcalls]. It is not safe for
// concurrent use.
package discover
