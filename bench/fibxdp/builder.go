package main

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// builder writes images in the simplest way: it never changes one.
type builder struct {
	mem  []uint64
	heap uint32
	hops uint32
}

const (
	buildFIBs = 64   // descriptors, from word 64
	buildHops = 2048 // ids
)

func newBuilder(mem []uint64) *builder {
	b := &builder{mem: mem, hops: 1}
	mem[0] = 0x00003142_4946504d
	mem[1] = 1
	mem[2] = uint64(len(mem))
	mem[3] = 64 | buildFIBs<<32
	dir := uint32(64 + buildFIBs*16)
	mem[4] = uint64(dir) | buildHops<<32
	b.heap = dir + buildHops
	mem[5] = uint64(b.heap)
	return b
}

func (b *builder) alloc(words int) uint32 {
	at := b.heap
	b.heap += uint32(words)
	return at
}

func (b *builder) hop(kind, flags uint64, ptr uint32, logBuckets uint64) uint32 {
	id := b.hops
	b.hops++
	b.mem[uint32(b.mem[4])+id] = uint64(ptr) | kind<<32 | flags<<40 | logBuckets<<48
	return id
}

func (b *builder) unicast(dev uint32, gw string) uint32 {
	at := b.alloc(3)
	b.mem[at] = uint64(dev)
	if gw != "" {
		a := netip.MustParseAddr(gw).As16()
		b.mem[at+1], b.mem[at+2] = binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	}
	return b.hop(1, 0, at, 0)
}

func (b *builder) group(ids ...uint32) uint32 {
	n := bits.Len(uint(len(ids) - 1))
	at := b.alloc(max(1, 1<<n/2))
	for i := range 1 << n {
		b.mem[at+uint32(i/2)] |= uint64(ids[i%len(ids)]) << (32 * (i & 1))
	}
	return b.hop(7, 0, at, uint64(n))
}

func (b *builder) desc(i int) uint32 { return 64 + uint32(i)*16 }

func (b *builder) down(id uint32) { b.mem[uint32(b.mem[4])+id] |= 1 << 40 }

type bitNode struct {
	child [2]*bitNode
	nh    uint32
}

// fib writes descriptor number i.
func (b *builder) fib(i int, id uint32, routes map[string]uint32, direct int) {
	m := map[netip.Prefix]uint32{}
	for p, nh := range routes {
		m[netip.MustParsePrefix(p)] = nh
	}
	b.fibOf(i, id, m, direct)
}

func (b *builder) fibOf(i int, id uint32, routes map[netip.Prefix]uint32, direct int) {
	var roots [2]bitNode
	for p, nh := range routes {
		f, a := 1, p.Addr().AsSlice()
		if p.Addr().Is4() {
			f = 0
		}
		n := &roots[f]
		for d := range p.Bits() {
			c := &n.child[a[d/8]>>(7-d%8)&1]
			if *c == nil {
				*c = &bitNode{}
			}
			n = *c
		}
		n.nh = nh
	}
	d := b.mem[b.desc(i):]
	for f := range roots {
		d[3] |= uint64(roots[f].nh) << (32 * f)
		roots[f].nh = 0
		d[1+f] = b.root(&roots[f], direct)
	}
	d[5] = uint64(id) | 1<<32
}

func (b *builder) root(n *bitNode, direct int) uint64 {
	if direct == 0 {
		if n.child[0] == nil && n.child[1] == nil {
			return 0
		}
		return uint64(b.block(n, 0))
	}
	at := b.alloc(1 << direct / 2)
	for i := range uint32(1 << direct) {
		c, best := descend(n, i, direct)
		s := best
		if c != nil && (c.child[0] != nil || c.child[1] != nil) {
			s = b.block(c, best)
		}
		b.mem[at+i/2] |= uint64(s) << (32 * (i & 1))
	}
	return uint64(at) | uint64(direct)<<32
}

func descend(n *bitNode, e uint32, width int) (*bitNode, uint32) {
	best := uint32(0)
	for d := width - 1; d >= 0 && n != nil; d-- {
		if n = n.child[e>>d&1]; n != nil && n.nh != 0 {
			best = n.nh
		}
	}
	return n, best
}

func (b *builder) block(n *bitNode, def uint32) uint32 {
	var vec, leafvec uint64
	var leaves, children []uint32
	for e := range uint32(64) {
		c, best := descend(n, e, 6)
		if c != nil && (c.child[0] != nil || c.child[1] != nil) {
			vec |= 1 << e
			children = append(children, b.block(c, best))
		} else if len(leaves) == 0 || leaves[len(leaves)-1] != best {
			leafvec |= 1 << e
			leaves = append(leaves, best)
		}
	}
	per, wide := 4, uint64(0)
	if len(leaves) > 0 && slices.Max(leaves) > 0xffff {
		per, wide = 2, 1<<40
	}
	off := 3 + (len(leaves)+per-1)/per
	at := b.alloc(off + (len(children)+1)/2)
	b.mem[at], b.mem[at+1], b.mem[at+2] = vec, leafvec, uint64(def)|uint64(off)<<32|wide
	for i, l := range leaves {
		b.mem[int(at)+3+i/per] |= uint64(l) << (64 / per * (i % per))
	}
	for i, c := range children {
		b.mem[int(at)+off+i/2] |= uint64(c) << (32 * (i & 1))
	}
	return at | 1<<31
}
