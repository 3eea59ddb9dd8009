// Package sim runs a whole cluster on one thread, in virtual time and over a network that loses, repeats, delays and
// reorders datagrams, and whose nodes crash, stall and have clocks of different speed. While it runs, it checks what
// TIPC promises.
//
// Everything follows from one seed, so a failure replays exactly:
//
//	go test ./internal/sim -run TestSeeds -seed=N -v
//
// prints the trace of seed N. The layers are:
//
//   - [World]: virtual time, the network, and hosts that run any [Node]. It knows nothing of TIPC but message names.
//   - the cluster: hosts that run a stack.Stack, with applications on top that send numbered messages.
//   - the oracle: what the applications received is compared with what they sent, and what the nodes think of each
//     other with what the network did.
//
// What is checked, at each step:
//
//   - messages from socket to socket arrive once and in order; a gap needs a loss of contact between the two nodes;
//   - multicasts reach every receiver that the sender's table had, once and in order, under the same condition;
//   - connections deliver the octets that were written, and break only when contact is lost;
//   - a link goes down only if the network was silent on it for about the tolerance, or its other end went down;
//   - a silent peer is lost within the tolerance and two timer intervals;
//   - no datagram is larger than the bearer's MTU, no timer loops, queues stay within their bounds;
//
// and after the network has healed:
//
//   - all nodes that run have contact with each other on every bearer, and equal name tables that hold what is bound;
//   - everything sent since contact was made has arrived, a last message between each two nodes included;
//   - nothing is left in queues, no sender still waits for a link, no socket or peer remains that nobody uses.
//
// TIPC promises nothing across a loss of contact, so the oracle excuses what was under way then; it does not excuse
// repetition or wrong order, nor loss of contact that the faults do not explain.
package sim
