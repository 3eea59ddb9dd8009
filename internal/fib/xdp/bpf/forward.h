// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
// Forwarding of one frame. What cannot be done here goes to the kernel unchanged, and a counter says why.
#ifndef MIDPLANE_FORWARD_H
#define MIDPLANE_FORWARD_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include "resolve.h"

enum reason { // internal/fib/xdp/reason.go has the same in the same order
	FORWARDED,
	NO_PORT,
	ETHERTYPE,
	OTHER_HOST,
	MALFORMED,
	OPTIONS,
	ADDRESS,
	TTL,
	LOCAL,
	NO_ROUTE,
	BLACKHOLE,
	UNREACHABLE,
	PROHIBIT,
	DOWN,
	TOO_BIG,
	NO_NEIGHBOUR,
	NO_DEVICE,
	DEPTH,
	CHANGING,
	FAULT,
	MISS_LOST,
	REASONS = 32, // a power of two
};

#define TAG_AD 0x8000 // of 802.1ad; else 802.1Q

struct port_key {
	__u32 ifindex;
	__u16 outer, inner; // VLAN id, with TAG_AD; 0: no tag
};

struct port {
	__u32 desc;
	__u32 fib;
	__u32 stat; // index of its counters
	__u8 mac[6];
	__u16 slot; // in devices
};

struct device {
	__u32 ifindex; // as next hops name it; 0: none
	__u32 mtu;
	__u8 mac[6];
	__u16 up;
	__u16 outer, inner;
	__u32 pad;
};

struct neighbour_key {
	__u64 hi, lo; // address as a number, IPv4 as ::ffff:a.b.c.d
	__u32 fib;
	__u32 ifindex;
};

struct neighbour {
	__u64 mac_slot; // octets 0 to 5: MAC, 6 and 7: index in devices; one word, so that the two always go together
	__u32 used;
	__u32 pad;
};

// What was found out about a next hop, kept until anything changes: entry and epoch stand for the next hop itself,
// generation for ports, devices and neighbours.
struct adjacency {
	__u64 entry, epoch, generation;
	__u32 id, fib;
	__u64 mac_slot; // as in struct neighbour
	__u32 mtu;
	__u16 outer, inner;
	__u8 mac[6];
	__u16 pad;
	__u64 pad2;
};

struct port_memo {
	struct port_key key;
	__u64 generation;
	struct port port;
	__u32 pad;
};

struct stat {
	__u64 fib; // whose counters they are; an index may be used again
	__u64 octets;
	__u64 n[REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct port_key);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

// The link that a device's frames leave by, under the device's index.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} links SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct neighbour_key);
	__type(value, struct neighbour);
} neighbours SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct stat);
} stats SEC(".maps");

// It grows with each change of ports, devices and neighbours, after the change: what a packet finds remembered under
// the number that it read is as true as if it had looked itself.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} generation SEC(".maps");

#define ADJACENCIES 4096
#define PORT_MEMOS 256

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ADJACENCIES);
	__type(key, __u32);
	__type(value, struct adjacency);
} adjacencies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORT_MEMOS);
	__type(key, __u32);
	__type(value, struct port_memo);
} port_memos SEC(".maps");

// When user space was last told that a neighbour is missing.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct neighbour_key);
	__type(value, __u64);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} misses SEC(".maps");

const volatile __u64 ask_again;  // ns between two events of one neighbour
const volatile __u32 miss_drops; // a packet without a neighbour is dropped, not given to the kernel

static __always_inline void count(__u32 stat, __u32 fib, __u32 why, __u64 octets)
{
	struct stat *s = bpf_map_lookup_elem(&stats, &stat);

	if (!s)
		return;
	if (s->fib != fib) {
		__builtin_memset(s, 0, sizeof(*s));
		s->fib = fib;
	}
	s->octets += octets;
	s->n[why % REASONS]++;
}

static __always_inline int miss(struct neighbour_key *key)
{
	__u64 now = bpf_ktime_get_ns(), *last = bpf_map_lookup_elem(&asked, key);

	if (last && now - *last < ask_again)
		return 0;
	if (bpf_ringbuf_output(&misses, key, sizeof(*key), 0)) {
		count(0, 0, MISS_LOST, 0);
		return 0;
	}
	bpf_map_update_elem(&asked, key, &now, BPF_ANY);
	return 0;
}

// What ip_rcv_core and ip_route_input_slow (net/ipv4) refuse or treat specially.
static __always_inline int special4(__u32 src, __u32 dst)
{
	__u32 s = src >> 24, d = dst >> 24;

	return s == 0 || s == 127 || s >> 4 == 14 || src == 0xffffffff || d == 0 || d == 127 || d >> 4 == 14 || dst == 0xffffffff;
}

// What ip6_rcv_core and ip6_forward (net/ipv6) do: link-local (fe80::/10), multicast, ::, ::1, ::ffff:0:0/96.
static __always_inline int special6(__u64 hi, __u64 lo)
{
	return hi >> 54 == 0xfe80 >> 6 || hi >> 56 == 0xff || (hi == 0 && (lo <= 1 || lo >> 32 == 0xffff));
}

// The octets of the ports, 0 when the protocol has none or the packet is a fragment.
static __always_inline __u64 tail(__u8 proto, const __u8 *l4, const void *end)
{
	if ((proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP || proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE) &&
	    (const void *)(l4 + 4) <= end)
		return (__u64)proto << 32 | *(const __u32 *)l4;
	return (__u64)proto << 32;
}

static __always_inline enum reason parse4(const __u8 *l3, const void *end, struct flow *f, __u32 *length, __u32 *ttl)
{
	const struct iphdr *ip = (const void *)l3;
	const __u32 *w = (const void *)l3;
	__u64 sum;

	if ((const void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return MALFORMED;
	*length = bpf_ntohs(ip->tot_len);
	if (*length < ip->ihl * 4 || *length > (__u64)end - (__u64)l3)
		return MALFORMED;
	if (ip->ihl > 5)
		return OPTIONS;
	sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4]; // RFC 1812, 5.2.2
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if (sum != 0xffff)
		return MALFORMED;
	f->v6 = 0;
	f->to_hi = 0;
	f->to_lo = bpf_ntohl(ip->daddr);
	if (special4(bpf_ntohl(ip->saddr), f->to_lo))
		return ADDRESS;
	f->src_hi = (__u64)w[4] << 32 | w[3];
	f->src_lo = f->dst_hi = f->dst_lo = 0;
	f->tail = ip->frag_off & bpf_htons(0x3fff) ? (__u64)ip->protocol << 32 : tail(ip->protocol, l3 + 20, end);
	*ttl = ip->ttl;
	return FORWARDED;
}

static __always_inline enum reason parse6(const __u8 *l3, const void *end, struct flow *f, __u32 *length, __u32 *ttl)
{
	const struct ipv6hdr *ip = (const void *)l3;
	const __u64 *w = (const void *)l3; // the addresses begin with word 1
	__u64 hi, lo;

	if ((const void *)(ip + 1) > end || ip->version != 6)
		return MALFORMED;
	*length = bpf_ntohs(ip->payload_len) + 40;
	if (*length > (__u64)end - (__u64)l3)
		return MALFORMED;
	if (ip->nexthdr == 0) // hop-by-hop options
		return OPTIONS;
	f->src_hi = w[1];
	f->src_lo = w[2];
	f->dst_hi = w[3];
	f->dst_lo = w[4];
	hi = bpf_be64_to_cpu(f->src_hi);
	lo = bpf_be64_to_cpu(f->src_lo);
	f->to_hi = bpf_be64_to_cpu(f->dst_hi);
	f->to_lo = bpf_be64_to_cpu(f->dst_lo);
	if (special6(hi, lo) || special6(f->to_hi, f->to_lo))
		return ADDRESS;
	f->v6 = 1;
	f->tail = tail(ip->nexthdr, l3 + 40, end);
	*ttl = ip->hop_limit;
	return FORWARDED;
}

// find_port returns the port of a link and VLAN, or a null pointer.
static __always_inline const struct port *find_port(const struct port_key *key, __u64 now)
{
	__u32 i = (key->ifindex ^ key->outer ^ key->inner << 4) % PORT_MEMOS;
	struct port_memo *memo = bpf_map_lookup_elem(&port_memos, &i);
	struct port *p;

	if (!memo)
		return 0;
	if (memo->generation == now && memo->key.ifindex == key->ifindex && memo->key.outer == key->outer && memo->key.inner == key->inner)
		return &memo->port;
	p = bpf_map_lookup_elem(&ports, key);
	if (!p)
		return 0;
	memo->key = *key;
	memo->port = *p;
	memo->generation = now;
	return &memo->port;
}

// ask finds the neighbour of a next hop, and the device.
__noinline int ask(const struct flow *f, __u64 now, struct adjacency *a)
{
	const __u8 *base = image_base(), *r;
	struct neighbour_key key = {};
	struct neighbour *n;
	struct device *dev;
	__u32 slot, up;
	int on_link;

	if (!base || !f || !a)
		return CHANGING;
	a->generation = 0; // not valid until it is whole
	r = image_at(base, image_mask, f->entry & 0xffffffff);
	key.ifindex = WORD(r, 0);
	key.hi = WORD(r, 1);
	key.lo = WORD(r, 2);
	if (WORD(base, H_HOP_EPOCH) != f->epoch)
		return CHANGING;
	key.fib = f->fib;
	on_link = !(key.hi | key.lo);
	if (on_link) {
		key.hi = f->to_hi;
		key.lo = f->v6 ? f->to_lo : f->to_lo | 0xffff00000000ULL;
	}
	n = bpf_map_lookup_elem(&neighbours, &key);
	if (!n) {
		miss(&key);
		return NO_NEIGHBOUR;
	}
	if (!n->used) // so that user space knows whom to keep alive
		n->used = 1;
	a->mac_slot = n->mac_slot;
	slot = a->mac_slot >> 48;
	dev = bpf_map_lookup_elem(&devices, &slot);
	if (!dev || *(volatile __u32 *)&dev->ifindex != key.ifindex)
		return NO_DEVICE;
	up = dev->up;
	a->mtu = dev->mtu;
	__builtin_memcpy(a->mac, dev->mac, 6);
	a->outer = dev->outer;
	a->inner = dev->inner;
	if (!up || *(volatile __u32 *)&dev->ifindex != key.ifindex) // a slot that is used again was 0 in between
		return NO_DEVICE;
	a->entry = f->entry;
	a->epoch = f->epoch;
	a->id = f->id;
	a->fib = f->fib;
	if (!on_link)
		a->generation = now;
	return FORWARDED;
}

// find_adjacency says where the packets of a next hop go, in *out.
static __always_inline enum reason find_adjacency(const struct flow *f, __u64 now, __u32 length, struct adjacency **out)
{
	__u32 i = f->id % ADJACENCIES;
	struct adjacency *a = bpf_map_lookup_elem(&adjacencies, &i);
	enum reason why;

	if (!a)
		return FAULT;
	if (a->generation != now || a->entry != f->entry || a->epoch != f->epoch || a->id != f->id || a->fib != (__u32)f->fib) {
		why = ask(f, now, a);
		if (why != FORWARDED)
			return why;
	}
	*out = a;
	return length > a->mtu ? TOO_BIG : FORWARDED;
}

static __always_inline void put_tag(__u8 *at, __u16 tag, __be16 type)
{
	*(__be16 *)at = bpf_htons(tag & 0xfff);
	*(__be16 *)(at + 2) = type;
}

static __always_inline __be16 tpid(__u16 tag)
{
	return tag & TAG_AD ? bpf_htons(ETH_P_8021AD) : bpf_htons(ETH_P_8021Q);
}

// rewrite makes the frame that of the next link. A failure leaves it as it was.
static __always_inline enum reason rewrite(struct xdp_md *ctx, __u32 in, const struct adjacency *e, __u32 v6)
{
	__u32 out = (e->outer ? 4 : 0) + (e->inner ? 4 : 0);
	__be16 type = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__u8 *data, *end, *l3;

	if (in != out && bpf_xdp_adjust_head(ctx, (int)in - (int)out))
		return FAULT;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	l3 = data + 14 + (out & 15);
	if (l3 + 20 > end)
		return FAULT;
	if (v6) {
		l3[7]--;
	} else {
		// RFC 1624, equation 3, for the 16 bits of which TTL is the low octet here
		__u32 sum = (__u16)~*(__u16 *)(l3 + 10) + 0xfffe;

		*(__u16 *)(l3 + 10) = ~((sum & 0xffff) + (sum >> 16));
		l3[8]--;
	}
	*(__u32 *)data = e->mac_slot;
	*(__u16 *)(data + 4) = e->mac_slot >> 32;
	__builtin_memcpy(data + 6, e->mac, 6);
	if (!out) {
		*(__be16 *)(data + 12) = type;
	} else if (out == 4) {
		if (data + 18 > end)
			return FAULT;
		*(__be16 *)(data + 12) = tpid(e->outer | e->inner);
		put_tag(data + 14, e->outer | e->inner, type);
	} else {
		if (data + 22 > end)
			return FAULT;
		*(__be16 *)(data + 12) = tpid(e->outer);
		put_tag(data + 14, e->outer, tpid(e->inner));
		put_tag(data + 18, e->inner, type);
	}
	return FORWARDED;
}

static __always_inline int is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline __u16 tag_of(__be16 type, const __u8 *at)
{
	__u16 vid = bpf_ntohs(*(const __be16 *)at) & 0xfff;

	return type == bpf_htons(ETH_P_8021AD) ? vid | TAG_AD : vid;
}

static __always_inline int forward(struct xdp_md *ctx, __u32 ifindex)
{
	const __u8 *data = (void *)(long)ctx->data;
	const void *end = (void *)(long)ctx->data_end;
	struct port_key key = {.ifindex = ifindex};
	__u32 tags = 0, length = 0, ttl = 0, slot = 0, octets = (__u64)end - (__u64)data;
	struct adjacency *e = 0;
	struct flow f = {};
	enum reason why;
	const struct port *p;
	__u64 now, *g;
	__u32 zero = 0;
	__be16 type;

	if ((const void *)(data + 14) > end)
		return XDP_PASS;
	type = *(const __be16 *)(data + 12);
	if (is_vlan(type)) {
		if ((const void *)(data + 18) > end)
			goto truncated;
		key.outer = tag_of(type, data + 14);
		type = *(const __be16 *)(data + 16);
		tags = 4;
		if (is_vlan(type)) {
			if ((const void *)(data + 22) > end)
				goto truncated;
			key.inner = tag_of(type, data + 18);
			type = *(const __be16 *)(data + 20);
			tags = 8;
		}
	}
	g = bpf_map_lookup_elem(&generation, &zero);
	now = g ? *(volatile __u64 *)g : 0;
	p = find_port(&key, now);
	if (!p) {
		count(0, 0, NO_PORT, 0);
		return XDP_PASS;
	}
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6)) {
		why = ETHERTYPE;
	} else if (*(const __u32 *)data != *(const __u32 *)p->mac || *(const __u16 *)(data + 4) != *(const __u16 *)(p->mac + 4)) {
		why = OTHER_HOST; // also broadcast and multicast
	} else {
		const __u8 *l3 = data + 14 + tags;

		int kind = KIND_NONE;

		if (type == bpf_htons(ETH_P_IP)) {
			why = parse4(l3, end, &f, &length, &ttl);
			if (why == FORWARDED)
				kind = resolve(p->desc, p->fib, &f, 0);
		} else {
			why = parse6(l3, end, &f, &length, &ttl);
			if (why == FORWARDED)
				kind = resolve(p->desc, p->fib, &f, 1);
		}
		if (why == FORWARDED) {
			switch (kind) {
			case KIND_UNICAST:
				why = ttl <= 1 ? TTL : find_adjacency(&f, now, length, &e);
				break;
			case KIND_LOCAL:
				why = LOCAL;
				break;
			case KIND_BLACKHOLE:
				why = BLACKHOLE;
				break;
			case KIND_UNREACHABLE:
				why = UNREACHABLE;
				break;
			case KIND_PROHIBIT:
				why = PROHIBIT;
				break;
			case KIND_DOWN:
				why = DOWN;
				break;
			case KIND_DEPTH:
				why = DEPTH;
				break;
			case KIND_BUSY:
				why = CHANGING;
				break;
			default:
				why = NO_ROUTE;
			}
		}
	}
	if (why == FORWARDED) {
		if (!e) // the verifier does not see that it is set
			return XDP_ABORTED;
		slot = e->mac_slot >> 48;
		why = rewrite(ctx, tags, e, f.v6);
	}
	count(p->stat, p->fib, why, why == FORWARDED ? octets : 0);
	if (why == FORWARDED)
		return bpf_redirect_map(&links, slot, XDP_DROP);
	if (why == BLACKHOLE || (why == NO_NEIGHBOUR && miss_drops))
		return XDP_DROP;
	return XDP_PASS;

truncated:
	count(0, 0, MALFORMED, 0);
	return XDP_PASS;
}

#endif
