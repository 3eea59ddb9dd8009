// Package fib is multiple forwarding information bases: many fully separate routing tables in one program or one box, with
// overlapping addresses, at full-Internet size, and sockets that are in one of them.
//
// # The model
//
// A [Set] holds FIBs and next hops. Each FIB, a [Table], has a number, perhaps a name, and routes of IPv4 and IPv6: a
// prefix and the id of a next hop. [Table.Insert], [Table.Delete] and [Table.Replace] change it, [Table.Lookup] finds the
// longest prefix that contains an address. Nothing of one FIB can be seen in another, unless a route says so: one whose
// next hop is of type [Lookup].
//
// A [NextHop] is a gateway and a device, or blackhole, unreachable, prohibit, local, or another FIB. Routes share next
// hops by their ids, and a group divides the flows among its members by their weights. So the loss of a gateway is one
// change, [Set.SetDown], however many routes lead to it. [Set.Resolve] follows a route to where a packet goes;
// [FlowHash] chooses the member of a group, as the XDP forwarder of `midplane node` does.
//
// Programs that have next hops of their own number make them with [Set.AddNextHop] and [Set.AddGroup]; [Set.Intern] and
// [Set.InternGroup] are for those that just want "via A dev D", shared and counted.
//
// # Concurrency
//
// Everything is safe for concurrent use. Lookups never block, never allocate, and never wait for writers, and each sees a
// value that the table had while the lookup was under way. Writers of one FIB take turns, and so do those who ask it for
// more than a lookup (Get, LookupRoute, Covering, iteration, Snapshot); different FIBs do not wait for each other.
// [Table.Replace] changes a whole family at once. [Table.Watch] tells of each change, and writers never wait for who is told.
//
// # The image
//
// All of a Set is in one image: an array of words that has no pointers, and is the only copy of the routes. It takes 7 to 8
// octets a route of a full IPv4 table, and about 22 of an IPv6 table. It may be memory of the Set's own, or memory that
// others read too ([Config.Memory]): a mapped file, or a BPF map from which an XDP program forwards. It outlives the
// process that wrote it, and [Adopt] goes on with it. The layout and the protocol with readers are in
// midplane/internal/fib/image.
//
// Bounds: 16 GiB an image, 1,048,576 FIBs, 16,777,216 next hops, 256 members a group, eight FIBs one packet is looked up
// in. Within them a change costs what one block costs (about a microsecond) for prefixes longer than 18 bits (IPv4), and for
// shorter ones as many slots as they cover. Where an image is full, a change is refused with ErrFull and undone.
//
// # Sockets
//
// On Linux, [Dialer], [ListenConfig], [Dial], [Listen] and [ListenPacket] are those of package net, in a FIB that
// `midplane node` has set up in the kernel, with any of its back ends.
//
// The build tag midplane_safe leaves package unsafe out of lookups, as the race detector's build does.
package fib
