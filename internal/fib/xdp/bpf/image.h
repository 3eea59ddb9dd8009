// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
// Reading the FIB image. Its format is in internal/fib/image; all references are word indexes, and all are masked, so
// that a walk through memory that the writer uses again meanwhile stays inside the map.
#ifndef MIDPLANE_IMAGE_H
#define MIDPLANE_IMAGE_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

// The value is the image, a power of two, and a page of slack behind it: what is read at a bounded distance from a
// masked index needs no mask of its own. The loader sets the size.
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
	if (v >> 63) {
		k = popcount(v) - 1;
		return *(const volatile __u32 *)(b + (info >> 32 & 255) * 8 + (k & 63) * 4);
	}
	// Entry 0, when it has no child, always begins a run of leaves, so k is never below zero in a sound image; in a
	// torn one the mask keeps it bounded.
	k = (popcount(WORD(b, 1) << behind) - 1) & 63;
	if (info >> 40 & 1)
		leaf = *(const volatile __u32 *)(b + 24 + k * 4);
	else
		leaf = *(const volatile __u16 *)(b + 24 + k * 2);
	if (leaf)
		*best = leaf;
	return 0;
}

// walk4 looks an IPv4 address (host order) up in a FIB: the next hop's id, 0 for none, or BUSY.
static __always_inline __u64 walk4(__u32 desc, __u32 dst)
{
	const __u8 *base = image_base(), *d;
	__u64 mask = image_mask, a = (__u64)dst << 32, epoch, root, bits;
	__u32 s, best;

	if (!base)
		return BUSY;
	d = image_at(base, mask, desc);
	epoch = WORD(d, 0);
	root = WORD(d, 1);
	best = WORD(d, 3);
	s = root;
	bits = root >> 32 & 31;
	if (bits) {
		__u64 i = a >> (64 - bits);

		s = *(const volatile __u32 *)(base + (((__u64)s << 3) + (i << 2) & (mask | 4)));
		a <<= bits;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < 6 && s >> 31; i++) {
		s = step(image_at(base, mask, s & 0x7fffffff), a, &best);
		a <<= 6;
	}
	if (s && !(s >> 31))
		best = s;
	return WORD(d, 0) == epoch ? best : BUSY;
}

// walk6 is walk4 for an IPv6 address in two halves (host order).
static __always_inline __u64 walk6(__u32 desc, __u64 hi, __u64 lo)
{
	const __u8 *base = image_base(), *d;
	__u64 mask = image_mask, epoch, root, bits;
	__u32 s, best;

	if (!base)
		return BUSY;
	d = image_at(base, mask, desc);
	epoch = WORD(d, 0);
	root = WORD(d, 2);
	best = WORD(d, 3) >> 32;
	s = root;
	bits = root >> 32 & 31;
	if (bits) {
		__u64 i = hi >> (64 - bits);

		s = *(const volatile __u32 *)(base + (((__u64)s << 3) + (i << 2) & (mask | 4)));
		hi = hi << bits | lo >> (64 - bits);
		lo <<= bits;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < 22 && s >> 31; i++) {
		s = step(image_at(base, mask, s & 0x7fffffff), hi, &best);
		hi = hi << 6 | lo >> 58;
		lo <<= 6;
	}
	if (s && !(s >> 31))
		best = s;
	return WORD(d, 0) == epoch ? best : BUSY;
}

#endif
