// Package image is the byte image of a set of FIBs as its readers see it: the layout, and lookups that neither lock nor
// allocate. Go programs, other processes that map the image, and the XDP forwarder (internal/fib/xdp) read the same
// bytes. Package trie is the only writer.
//
// # Layout
//
// An image is an array of 64-bit words in host byte order. References are word indexes of 32 bits, so an image may lie
// at any address, in the memory of a process, in a file, or in a BPF map.
//
//	header                words 0 to 63: magic, size, where the parts are, the epoch of next hops
//	FIB directory         descriptors of 16 words: epoch, a root for each family, generation, id, name
//	next-hop directory    one word an id: kind, flags, and a reference to the record or the buckets of a group
//	heap                  direct tables, blocks, records
//
// A root has the default route, and refers to a block or tells of a direct table: 2^12 or 2^18 slots, indexed by the first
// bits of the address. A slot (32 bits) is empty, or a next-hop id, or refers to a block; in a direct table of 12 bits it
// may refer to another such table, for the 12 bits after (of IPv6, where many routes are). A block decides on the next six
// bits of the address:
//
//	word 0        vec: bit e is set if entry e has a child
//	word 1        leafvec: bit e is set if entry e has no child, and another leaf than the entry without child before it
//	word 2        def: the next hop for what finds nothing below; where the child slots begin; flags
//	then          leaves, 16 bits each (32 if the block is wide): next-hop ids, 0 for nothing
//	then          child slots, 32 bits each
//	then          what only the writer reads: which prefixes end in this block, and the values of those that no leaf shows
//
// Of IPv6, whose prefixes have long stretches without branches between /24 and /48, blocks from the 24th bit on are double
// ones, which decide on twelve bits. Their 4,096 entries are in runs with the same slot; a part is 64 entries:
//
//	word 0        vec: bit p is set if some run begins in part p
//	word 1        def; how many prefixes end in the block; a flag
//	then          a pair of words for each part with a bit in vec: bit e is set if a run begins at entry e; and where the
//	              slots of these runs begin: octets from the block on, less four, 16 bits
//	then          slots, 32 bits each, of all runs: next-hop ids, or of blocks
//	then          what only the writer reads: the prefixes that end in the block, in order, with their next hops
//
// A part in which no run begins has the last one of the part before it that has a pair; so there is nothing to decide but
// where a run ends, which is counting, and a double block takes as many memory accesses as a block, for twice the bits.
//
// Leaves and children are found by counting the bits before the entry, as in Poptrie (Asai and Ohara, SIGCOMM 2015). Two
// things differ from it. A next hop that is inherited from above is not pushed into the leaves below: a walk remembers
// the last def that it passed. So a change of one route changes one block (and the defs of its children), whatever is
// below it. And a block holds its exact prefixes too, in the shape of a tree bitmap (Eatherton, Varghese and Dittia,
// 2004), so that no second copy of the table is needed.
//
// # Reading while it is written
//
// A writer builds a new block in free memory, stores the one slot that refers to it, and puts the old block aside.
// Before memory that was put aside is used again, the writer changes the epoch in the descriptor. A reader loads the
// epoch, walks, and loads the epoch again; if it changed, the walk may have gone through memory that was used again,
// and is repeated. A walk through such memory cannot leave the image, as references are bounded, and ends, as its steps
// are. Descriptors and roots are never anything else, and so are always right. A default route and a def are changed
// where they are; the epoch changes after that too, before the next change, as a reader may have remembered the old one
// and find out below it that a longer prefix is gone. For the same reason a reader loads the def of a block before the slot
// in it that it follows. The protocol is modelled in internal/fib/model. Memory order: a reader's loads must not be reordered
// where this says so, nor a writer's stores; View, Block and Words see to it.
package image
