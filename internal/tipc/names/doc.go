// Package names is the name table of a node: which service addresses are bound, to which sockets, on which nodes; who
// wants to know about changes; and how nodes tell each other about their bindings.
//
//   - [Table] holds publications and answers lookups (Linux net/tipc/name_table.c).
//   - [Subscriber] receives events about ranges of service addresses (net/tipc/subscr.c). Links and nodes are ordinary
//     names here: {0, node, node} is published while a node takes part in the cluster, {2, peer, peer} while there is a
//     link to that peer, so following them is an ordinary subscription too.
//   - [Distributor] carries publications between nodes (net/tipc/name_distr.c).
//
// Everything here is a pure core: it has no goroutine, clock or socket, and whoever uses it serialises the calls. Time
// comes in as an argument; events and messages go out as data.
//
// # Order
//
// Where the kernel's answer depends on an order, this package has the same order. Ranges of a service are sorted by
// their lower bound; of ranges with equal lower bounds the one created last comes first. A lookup takes the first range
// that contains the instance, in this order, and no other: a shorter range behind it is never looked at. Inside a range
// publications are listed newest first, and each lookup moves the one it took to the end.
//
// Linux 6.1 can create a second range object for the same bounds when ranges have equal lower bounds
// (tipc_service_create_range searches a balanced tree by lower bound only). It then does not find some publications any
// more, and keeps one for ever when its socket is closed. Here bounds are unique.
//
// # Bounds
//
// Everything that a peer or a subscriber can fill is bounded by [Config] and [DistConfig]. Each limit is checked when
// something is added, and refusals are counted.
package names
