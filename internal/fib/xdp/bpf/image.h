// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
// Reading the FIB image. Its format is in internal/fib/image; all references are word indexes, and all are masked, so
// that a walk through memory that the writer uses again meanwhile stays inside the map.
#ifndef MIDPLANE_IMAGE_H
#define MIDPLANE_IMAGE_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

// The value is the image, a power of two, and some slack behind it: what is read at a bounded distance (of 16 bits) from
// a masked index needs no mask of its own. The loader sets the size.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(value_size, 8192);
} image SEC(".maps");

const volatile __u64 image_mask; // octets of the image - 8

#define BUSY (1ULL << 32) // the writer used memory again while it was read

#define WORD(p, n) (((const volatile __u64 *)(p))[n])

static __always_inline const __u8 *image_base(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&image, &zero);
}

static __always_inline const __u8 *image_at(const __u8 *base, __u64 mask, __u64 word)
{
	return base + ((word << 3) & mask);
}

// BPF has no instruction for it.
static __always_inline __u64 popcount(__u64 x)
{
	x -= (x >> 1) & 0x5555555555555555ULL;
	x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (x * 0x0101010101010101ULL) >> 56;
}

// step decides one block: the slot of the child, or 0 when the walk is over; best is what is known so far.
static __always_inline __u32 step(const __u8 *b, __u64 a, __u32 *best)
{
	__u64 info = WORD(b, 2), behind = ~(a >> 58) & 63, v = WORD(b, 0) << behind, k;
	__u32 leaf;

	if ((__u32)info)
		*best = info;
	if (v >> 63)
		return *(const volatile __u32 *)(b + (info >> 32 & 0xffff) + popcount(v) * 4);
	// Entry 0, when it has no child, always begins a run of leaves, so k is never below zero in a sound image; in a
	// torn one the mask keeps it bounded.
	k = (popcount(WORD(b, 1) << behind) - 1) & 63;
	if (info >> 48 & 1)
		leaf = *(const volatile __u32 *)(b + 24 + k * 4);
	else
		leaf = *(const volatile __u16 *)(b + 24 + k * 2);
	if (leaf)
		*best = leaf;
	return 0;
}

// step12 decides one double block, those of IPv6 from the 24th bit on: the slot of the address.
static __always_inline __u32 step12(const __u8 *base, __u64 mask, __u64 word, __u64 a)
{
	const __u8 *b = image_at(base, mask, word), *pair;
	__u64 v = WORD(b, 0) << (~(a >> 58) & 63), k;

	pair = b + popcount(v) * 16;
	k = popcount(WORD(pair, 0) << (~(a >> 52) & 63 & (__u64)((__s64)v >> 63)));
	return *(const volatile __u32 *)(b + (WORD(pair, 1) & 0xffff) + k * 4);
}

// A slot of a direct table.
static __always_inline __u32 slot_at(const __u8 *base, __u64 mask, __u64 table, __u64 i)
{
	return *(const volatile __u32 *)(base + ((table << 3) + (i << 2) & (mask | 4)));
}

// top finds where a walk begins: the slot, and how many bits are used up.
static __always_inline __u32 top(const __u8 *base, __u64 mask, __u32 root, __u64 a, __u32 *depth)
{
	__u32 s = root;

	*depth = 0;
	if (s && !(s & 1)) {
		*depth = s >> 1 & 31; // 12 or 18
		s = slot_at(base, mask, s >> 1 & ~127U, a >> (64 - *depth & 63));
		if (*depth == 12 && s & 1 && !(s & 1022)) {
			s = slot_at(base, mask, s >> 1, a >> 40 & 0xfff);
			*depth = 24;
		}
	}
	return s;
}

// walk4 looks an IPv4 address (host order) up in a FIB: the next hop's id, 0 for none, or BUSY.
static __always_inline __u64 walk4(const __u8 *base, __u32 desc, __u32 dst)
{
	const __u8 *d;
	__u64 mask = image_mask, a = (__u64)dst << 32, epoch, root;
	__u32 s, best, depth;

	d = image_at(base, mask, desc);
	epoch = WORD(d, 0);
	root = WORD(d, 1);
	best = root >> 32;
	s = top(base, mask, root, a, &depth);
	a <<= depth;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 6 && s & 1; i++) {
		s = step(image_at(base, mask, s >> 1), a, &best);
		a <<= 6;
	}
	if (s && !(s & 1))
		best = s >> 1;
	return WORD(d, 0) == epoch ? best : BUSY;
}

// walk6 is walk4 for an IPv6 address in two halves (host order).
static __always_inline __u64 walk6(const __u8 *base, __u32 desc, __u64 hi, __u64 lo)
{
	const __u8 *d;
	__u64 mask = image_mask, epoch, root;
	__u32 s, best, depth;

	d = image_at(base, mask, desc);
	epoch = WORD(d, 0);
	root = WORD(d, 2);
	best = root >> 32;
	s = top(base, mask, root, hi, &depth);
	if (depth) {
		hi = hi << depth | lo >> (64 - depth);
		lo <<= depth;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < 4 && depth < 24 && s & 1; i++) {
		s = step(image_at(base, mask, s >> 1), hi, &best);
		hi = hi << 6 | lo >> 58;
		lo <<= 6;
		depth += 6;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < 9 && s & 1; i++) {
		__u32 def = WORD(image_at(base, mask, s >> 1), 1);

		if (def)
			best = def;
		s = step12(base, mask, s >> 1, hi);
		hi = hi << 12 | lo >> 52;
		lo <<= 12;
	}
	if (s && !(s & 1))
		best = s >> 1;
	return WORD(d, 0) == epoch ? best : BUSY;
}

#endif
