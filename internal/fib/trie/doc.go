// Package trie writes the FIBs of an image (see package image for the layout and the protocol with readers): memory,
// insert, delete, exact lookups, walks, and changes of the root. It has no lock: each FIB has one writer at a time.
//
// A [Tree] is one family of one FIB. The image is the only copy of its routes: blocks hold the exact prefixes beside the
// leaves that readers see, and the writer decodes a block, changes it, and encodes it anew.
//
// Double blocks (those of IPv6 from the 24th bit on) have the list of their prefixes, and of the rest only what readers
// need. A change makes the runs anew that the prefix or child covers and copies what is around them, so that it costs the
// copying of one block, however large: 4,096 runs and 8,190 prefixes at most, 42 KiB, or 74 with next hops above 65,535.
//
// A tree with a direct table of 2^D slots keeps the prefixes of D bits and less in a small tree of their own, the top,
// of blocks that no reader visits; what they say is pushed into the slots of the table, and into the defs of the blocks
// that slots refer to. All longer prefixes are in blocks below the slots. An insert or a delete of a longer prefix
// changes one block, or makes or drops a chain of blocks without branches; that of a prefix of n <= D bits visits the
// 2^(D-n) slots it covers. The default route is a word of the descriptor.
//
// Memory is taken from a [Space] in units of 1 KiB, and each unit belongs to one FIB alone: what is given back by one
// FIB can come to another only after the epoch of the first was changed.
package trie
