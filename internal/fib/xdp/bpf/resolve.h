// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
// From an address to where its packets go: walks, next hops, groups, and from FIB to FIB.
#ifndef MIDPLANE_RESOLVE_H
#define MIDPLANE_RESOLVE_H

#include "image.h"

enum kind { // as in internal/fib/image
	KIND_NONE,
	KIND_UNICAST,
	KIND_LOCAL,
	KIND_BLACKHOLE,
	KIND_UNREACHABLE,
	KIND_PROHIBIT,
	KIND_LOOKUP,
	KIND_GROUP,
	KIND_ABSENT, // a lookup in a FIB that does not exist
	// not in the image, where a kind has 8 bits:
	KIND_DOWN = 256, // the next hop, or all of the group, is out of use
	KIND_DEPTH, // too many FIBs after each other
	KIND_BUSY,  // the writer was too quick
};

#define MAX_LOOKUPS 8 // FIBs after each other, the first among them
#define MAX_TRIES 8   // repetitions because the image changed meanwhile
#define MAX_MEMBERS 8 // members of a group that are tried

#define ENTRY_KIND(e) ((e) >> 32 & 255)
#define ENTRY_DOWN (1ULL << 40)

#define H_NEXTHOPS 4
#define H_HOP_EPOCH 16
#define D_ID 5
#define D_IN_USE (1ULL << 32)

const volatile __u64 hash_seed;

// A packet, as far as routing looks at it.
struct flow {
	__u64 src_hi, src_lo; // octets as they are in the packet; IPv4: src_hi has both addresses, the rest is 0
	__u64 dst_hi, dst_lo; // IPv6: likewise
	__u64 tail;           // protocol << 32 | ports as they are in the packet
	__u64 to_hi, to_lo;   // the destination as a number; IPv4: to_lo
	__u32 v6;
	// Where it is looked up, and what was found.
	__u32 desc;         // the descriptor; after KIND_LOOKUP the next one's
	__u32 id;           // of the next hop; after a group the member
	__u64 fib;          // word 5 of the descriptor
	__u64 entry;        // the directory's word for id
	__u64 epoch;        // of next hops, from before the walk
};

static __always_inline __u64 mix(__u64 h, __u64 w)
{
	h = (h ^ w) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 32;
}

// The same as internal/fib/flowhash.
static __always_inline __u32 flow_hash(const struct flow *f)
{
	__u64 h = mix(hash_seed, f->src_hi);

	if (f->v6) {
		h = mix(h, f->src_lo);
		h = mix(h, f->dst_hi);
		h = mix(h, f->dst_lo);
	}
	h = mix(h, f->tail) * 0xd6e8feb86659fd93ULL;
	return h >> 32;
}

// Functions that are not static are verified once by themselves, however often they are called, which keeps the
// verifier's work small. They are not used on the way of most packets: a call costs 10 ns on processors whose returns
// are mitigated.

// member chooses a group's next hop and returns its directory entry.
__noinline __u64 member(struct flow *f, __u64 entry)
{
	const __u8 *base = image_base();
	__u64 mask = image_mask, buckets = entry << 32 >> 29, last = (1ULL << (entry >> 48 & 15)) - 1, b, dir;

	if (!base || !f)
		return ENTRY_DOWN;
	b = flow_hash(f);
	dir = WORD(base, H_NEXTHOPS) & 0xffffffff;
#pragma clang loop unroll(disable)
	for (int m = 0; m < MAX_MEMBERS; m++, b++) {
		__u32 id = *(const volatile __u32 *)(base + (buckets + ((b & last) << 2) & (mask | 4)));

		if (!id)
			continue;
		f->id = id;
		entry = WORD(image_at(base, mask, dir + id), 0);
		if (!(entry & ENTRY_DOWN) && ENTRY_KIND(entry))
			return entry;
	}
	return ENTRY_DOWN;
}

// lookup does one FIB.
static __always_inline int lookup(struct flow *f, int v6)
{
	const __u8 *base = image_base();
	__u64 mask = image_mask, id, entry, epoch, dir;
	int kind;

	if (!base)
		return KIND_BUSY;
	// The epoch is that of before the walk: so an id cannot become another next hop's between walk and directory.
	epoch = WORD(base, H_HOP_EPOCH);
	f->epoch = epoch;
	f->fib = WORD(image_at(base, mask, f->desc), D_ID);
	id = v6 ? walk6(base, f->desc, f->to_hi, f->to_lo) : walk4(base, f->desc, f->to_lo);
	if (id & BUSY)
		return KIND_BUSY;
	if (!id)
		return KIND_NONE;
	f->id = id;
	dir = WORD(base, H_NEXTHOPS) & 0xffffffff;
	entry = WORD(image_at(base, mask, dir + id), 0);
	if (ENTRY_KIND(entry) == KIND_GROUP && !(entry & ENTRY_DOWN))
		entry = member(f, entry);
	f->entry = entry;
	kind = entry & ENTRY_DOWN ? KIND_DOWN : ENTRY_KIND(entry);
	if (kind == KIND_LOOKUP)
		f->desc = entry;
	return WORD(base, H_HOP_EPOCH) == epoch ? kind : KIND_BUSY;
}

__noinline int lookup_again(struct flow *f)
{
	return f ? lookup(f, f->v6) : KIND_BUSY;
}

// follow goes on after a first lookup that found KIND_LOOKUP, or KIND_BUSY in desc.
__noinline int follow(struct flow *f, int kind, __u32 desc, __u32 fib)
{
	__u32 lookups = 0;

	if (!f)
		return KIND_BUSY;
#pragma clang loop unroll(disable)
	for (int i = 1; i < MAX_LOOKUPS + MAX_TRIES; i++) {
		if (kind == KIND_BUSY)
			f->desc = desc;
		else if (++lookups == MAX_LOOKUPS)
			return KIND_DEPTH;
		desc = f->desc;
		kind = lookup_again(f);
		if (!lookups && f->fib != (D_IN_USE | fib))
			return KIND_NONE;
		if (kind != KIND_BUSY && kind != KIND_LOOKUP)
			return kind;
	}
	return KIND_BUSY;
}

// resolve says what is to happen to the packet of a flow that is looked up in the FIB fib, whose descriptor is desc.
static __always_inline int resolve(__u32 desc, __u32 fib, struct flow *f, int v6)
{
	int kind;

	f->desc = desc;
	kind = lookup(f, v6);
	if (f->fib != (D_IN_USE | fib))
		return KIND_NONE; // removed, or used again for another one
	if (kind == KIND_BUSY || kind == KIND_LOOKUP)
		return follow(f, kind, desc, fib);
	return kind;
}

#endif
