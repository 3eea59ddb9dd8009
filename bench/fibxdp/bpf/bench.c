// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
// The benchmark's programs. Each takes the next destination from an array, so that every repetition looks up another
// address, makes the packet whole again (TTL, checksum, MAC), and then does its work.
#include "../../../internal/fib/xdp/bpf/forward.h"
#include <linux/bpf.h>

#define DIRECT (1U << 0)
#define SKIP_NEIGH (1U << 2)
#define TBID (1U << 3)

#define KEYS (1 << 20)

struct key4 {
	__be32 addr;
	__u16 check; // of the header with it, TTL 64
	__u16 pad;
};

struct key6 {
	__u64 hi, lo; // octets
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KEYS);
	__type(key, __u32);
	__type(value, struct key4);
} keys4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KEYS);
	__type(key, __u32);
	__type(value, struct key6);
} keys6 SEC(".maps");

struct lpm4 {
	__u32 bits;
	__u8 addr[4];
};

struct lpm6 {
	__u32 bits;
	__u8 addr[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2000000);
	__type(key, struct lpm4);
	__type(value, __u32);
} trie4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2000000);
	__type(key, struct lpm6);
	__type(value, __u32);
} trie6 SEC(".maps");

// What a forwarder by LPM_TRIE keeps of a next hop.
struct via {
	__u8 dmac[6], smac[6];
	__u32 slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct via);
} vias SEC(".maps");

// Links by their index, for the kernel's lookup.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} by_index SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

const volatile __u64 router_mac;
const volatile __u32 in_index;  // of the link that packets come in by
const volatile __u32 out_index; // the generator's link
const volatile __u32 fib_desc;
const volatile __u32 table; // of the kernel

__u32 turn;
__u64 hits; // so that results are used, and checked

static __always_inline int next4(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 i = turn++ & (KEYS - 1);
	struct key4 *k = bpf_map_lookup_elem(&keys4, &i);

	if (!k || (void *)(data + 42) > end)
		return 0;
	*(__u32 *)data = router_mac;
	*(__u16 *)(data + 4) = router_mac >> 32;
	data[22] = 64;
	*(__u16 *)(data + 24) = k->check;
	*(__u32 *)(data + 30) = k->addr;
	return 1;
}

static __always_inline int next6(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 i = turn++ & (KEYS - 1);
	struct key6 *k = bpf_map_lookup_elem(&keys6, &i);

	if (!k || (void *)(data + 62) > end)
		return 0;
	*(__u32 *)data = router_mac;
	*(__u16 *)(data + 4) = router_mac >> 32;
	data[21] = 64;
	*(__u64 *)(data + 38) = k->hi;
	*(__u64 *)(data + 46) = k->lo;
	return 1;
}

#define PACKET(n) \
	__u8 *data = (void *)(long)ctx->data; \
	if ((void *)(data + n) > (void *)(long)ctx->data_end) \
	return XDP_ABORTED

SEC("xdp") int empty(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp") int base4(struct xdp_md *ctx)
{
	return next4(ctx) ? XDP_DROP : XDP_ABORTED;
}

SEC("xdp") int base6(struct xdp_md *ctx)
{
	return next6(ctx) ? XDP_DROP : XDP_ABORTED;
}

// The lookup alone: from the address to the next hop's id.

SEC("xdp") int lookup_ours4(struct xdp_md *ctx)
{
	const __u8 *base = image_base();

	if (!base || !next4(ctx))
		return XDP_ABORTED;
	PACKET(42);
	hits += walk4(base, fib_desc, bpf_ntohl(*(__u32 *)(data + 30))) != 0;
	return XDP_DROP;
}

SEC("xdp") int lookup_ours6(struct xdp_md *ctx)
{
	const __u8 *base = image_base();

	if (!base || !next6(ctx))
		return XDP_ABORTED;
	PACKET(62);
	hits += walk6(base, fib_desc, bpf_be64_to_cpu(*(__u64 *)(data + 38)), bpf_be64_to_cpu(*(__u64 *)(data + 46))) != 0;
	return XDP_DROP;
}

SEC("xdp") int lookup_trie4(struct xdp_md *ctx)
{
	struct lpm4 key = {.bits = 32};

	if (!next4(ctx))
		return XDP_ABORTED;
	PACKET(42);
	__builtin_memcpy(key.addr, data + 30, 4);
	hits += bpf_map_lookup_elem(&trie4, &key) != 0;
	return XDP_DROP;
}

SEC("xdp") int lookup_trie6(struct xdp_md *ctx)
{
	struct lpm6 key = {.bits = 128};

	if (!next6(ctx))
		return XDP_ABORTED;
	PACKET(62);
	__builtin_memcpy(key.addr, data + 38, 16);
	hits += bpf_map_lookup_elem(&trie6, &key) != 0;
	return XDP_DROP;
}

static __always_inline int kernel4(struct xdp_md *ctx, struct bpf_fib_lookup *p, __u32 flags)
{
	struct iphdr *ip;

	PACKET(42);
	ip = (void *)(data + 14);
	p->family = 2;
	p->tos = ip->tos;
	p->l4_protocol = ip->protocol;
	p->tot_len = bpf_ntohs(ip->tot_len);
	p->ipv4_src = ip->saddr;
	p->ipv4_dst = ip->daddr;
	p->ifindex = in_index;
	if (flags & TBID)
		*(__u32 *)&p->h_vlan_proto = table;
	return bpf_fib_lookup(ctx, p, sizeof(*p), flags);
}

static __always_inline int kernel6(struct xdp_md *ctx, struct bpf_fib_lookup *p, __u32 flags)
{
	struct ipv6hdr *ip;

	PACKET(62);
	ip = (void *)(data + 14);
	p->family = 10;
	p->l4_protocol = ip->nexthdr;
	p->tot_len = bpf_ntohs(ip->payload_len);
	__builtin_memcpy(p->ipv6_src, &ip->saddr, 16);
	__builtin_memcpy(p->ipv6_dst, &ip->daddr, 16);
	p->ifindex = in_index;
	if (flags & TBID)
		*(__u32 *)&p->h_vlan_proto = table;
	return bpf_fib_lookup(ctx, p, sizeof(*p), flags);
}

#define KERNEL(name, family, flags) \
	SEC("xdp") int name(struct xdp_md *ctx) \
	{ \
		struct bpf_fib_lookup p = {}; \
		if (!next##family(ctx)) \
			return XDP_ABORTED; \
		hits += kernel##family(ctx, &p, flags) == BPF_FIB_LKUP_RET_SUCCESS; \
		return XDP_DROP; \
	}

KERNEL(lookup_kernel4, 4, SKIP_NEIGH)
KERNEL(lookup_kernel6, 6, SKIP_NEIGH)
KERNEL(lookup_kernel_direct4, 4, SKIP_NEIGH | DIRECT | TBID)
KERNEL(lookup_kernel_direct6, 6, SKIP_NEIGH | DIRECT | TBID)
KERNEL(lookup_kernel_neighbour4, 4, 0)
KERNEL(lookup_kernel_neighbour6, 6, 0)

// Forwarding: the frame is ready for the next link.

SEC("xdp") int forward_ours4(struct xdp_md *ctx)
{
	if (!next4(ctx))
		return XDP_ABORTED;
	return forward(ctx, in_index);
}

SEC("xdp") int forward_ours6(struct xdp_md *ctx)
{
	if (!next6(ctx))
		return XDP_ABORTED;
	return forward(ctx, in_index);
}

static __always_inline void ttl4(__u8 *data)
{
	__u32 sum = (__u16)~*(__u16 *)(data + 24) + 0xfffe;

	*(__u16 *)(data + 24) = ~((sum & 0xffff) + (sum >> 16));
	data[22]--;
}

// As the kernel's samples/bpf/xdp_fwd_kern.c does it: no counters, no check of the packet, one FIB.
SEC("xdp") int forward_kernel4(struct xdp_md *ctx)
{
	struct bpf_fib_lookup p = {};

	if (!next4(ctx) || kernel4(ctx, &p, 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_ABORTED;
	PACKET(42);
	ttl4(data);
	__builtin_memcpy(data, p.dmac, 6);
	__builtin_memcpy(data + 6, p.smac, 6);
	return bpf_redirect_map(&by_index, p.ifindex, 0);
}

SEC("xdp") int forward_kernel6(struct xdp_md *ctx)
{
	struct bpf_fib_lookup p = {};

	if (!next6(ctx) || kernel6(ctx, &p, 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_ABORTED;
	PACKET(62);
	data[21]--;
	__builtin_memcpy(data, p.dmac, 6);
	__builtin_memcpy(data + 6, p.smac, 6);
	return bpf_redirect_map(&by_index, p.ifindex, 0);
}

static __always_inline int via(__u8 *data, __u32 *id)
{
	struct via *v;

	if (!id)
		return XDP_ABORTED;
	v = bpf_map_lookup_elem(&vias, id);
	if (!v)
		return XDP_ABORTED;
	__builtin_memcpy(data, v->dmac, 6);
	__builtin_memcpy(data + 6, v->smac, 6);
	return bpf_redirect_map(&by_index, v->slot, 0);
}

SEC("xdp") int forward_trie4(struct xdp_md *ctx)
{
	struct lpm4 key = {.bits = 32};

	if (!next4(ctx))
		return XDP_ABORTED;
	PACKET(42);
	__builtin_memcpy(key.addr, data + 30, 4);
	ttl4(data);
	return via(data, bpf_map_lookup_elem(&trie4, &key));
}

SEC("xdp") int forward_trie6(struct xdp_md *ctx)
{
	struct lpm6 key = {.bits = 128};

	if (!next6(ctx))
		return XDP_ABORTED;
	PACKET(62);
	__builtin_memcpy(key.addr, data + 38, 16);
	data[21]--;
	return via(data, bpf_map_lookup_elem(&trie6, &key));
}

// End to end.

SEC("xdp") int generate4(struct xdp_md *ctx)
{
	if (!next4(ctx))
		return XDP_ABORTED;
	return bpf_redirect(out_index, 0);
}

SEC("xdp") int sink(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&seen, &zero);

	if (n)
		++*n;
	return XDP_DROP;
}

SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
