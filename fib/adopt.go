package fib

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"midplane/internal/fib/image"
	"midplane/internal/fib/trie"
)

// ErrCorrupt says that an image is not one that a Set wrote.
var ErrCorrupt = errors.New("the image is damaged")

func corrupt(what string, args ...any) error {
	return &OpError{"adopt", "image", fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(what, args...))}
}

// Adopt makes a Set of the image that is in memory already: that of a process that is gone, whose FIBs, routes and next
// hops live on in a file or a BPF map. Readers that go on reading it notice nothing. A change that its writer had not
// finished is complete or undone; a Replace may have been done for one family only. Snapshots are dropped.
//
// Nobody else may write the image. Nothing in it is trusted: one that does not fit together is ErrCorrupt, and must be
// filled anew. It takes about as long as to read it: 0.1 s for a full Internet table.
func Adopt(memory []uint64) (*Set, error) {
	s := &Set{}
	s.once.Do(func() {
		if s.err = s.adopt(memory); s.err == nil {
			s.release = func() {}
		}
	})
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

func (s *Set) adopt(words []uint64) error {
	if len(words)*8 < MinSize {
		return corrupt("%d octets", len(words)*8)
	}
	s.im = image.Make(words)
	m := &s.im
	fibs, nhs := m.Load(image.HeaderFIBs), m.Load(image.HeaderNextHops)
	c := Config{Memory: words, MaxFIBs: int(image.Hi(fibs)) - 1, MaxNextHops: int(image.Hi(nhs)) - 1}
	if m.Load(image.HeaderMagic) != image.Magic || m.Load(image.HeaderVersion) != image.Version || m.Load(image.HeaderSize) != uint64(m.Len()) {
		return corrupt("no image of version %d and %d words", image.Version, m.Len())
	}
	if err := c.validate(); err != nil {
		return corrupt("%v", err)
	}
	dir, heap := uint32(image.HeaderWords), uint32(heapBegin(&c))
	hopDir := dir + uint32(c.MaxFIBs+1)*image.DescWords
	if image.Lo(fibs) != dir || image.Lo(nhs) != hopDir || m.Load(image.HeaderHeap) != image.Pair(heap, m.End()) {
		return corrupt("its parts are not where they should be")
	}
	s.byID, s.byName = map[ID]*Table{}, map[string]*Table{}
	s.space.arena = trie.NewArena(heap, m.End())
	s.hops.init(m, &s.space, hopDir, uint32(c.MaxNextHops)+1)
	for i := uint32(0); i <= uint32(c.MaxFIBs); i++ {
		if err := s.adoptTable(dir + i*image.DescWords); err != nil {
			return err
		}
	}
	if err := s.adoptHops(); err != nil {
		return err
	}
	// What the dead writer had put aside is free from here on.
	m.Bump(image.HeaderEpoch)
	for i := uint32(0); i <= uint32(c.MaxFIBs); i++ {
		m.Bump(dir + i*image.DescWords + image.DescEpoch)
	}
	return nil
}

// adoptTable takes in the FIB of a descriptor, or empties the descriptor.
func (s *Set) adoptTable(d uint32) error {
	m := &s.im
	w := m.Load(d + image.DescID)
	if d == noDesc || image.Hi(w)&image.DescInUse == 0 {
		for f := range uint32(2) {
			m.Store(d+image.DescRoot+f, 0)
		}
		m.Store(d+image.DescID, 0)
		m.Store(d+image.DescCount, 0)
		if d != noDesc {
			s.descs = append(s.descs, d)
		}
		return nil
	}
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], m.Load(d+image.DescName))
	binary.NativeEndian.PutUint64(b[8:], m.Load(d+image.DescName+1))
	name := string(bytes.TrimRight(b[:], "\x00"))
	id := ID(image.Lo(w))
	if id == 0 || checkName(name) != nil || s.byID[id] != nil || (name != "" && s.byName[name] != nil) {
		return corrupt("fib %d with name %q", id, name)
	}
	t := s.tableAt(d, id, name)
	a := trie.NewAdopter(m, &s.space, &t.heap)
	for f := range t.tree {
		uses, err := a.Tree(&t.tree[f], image.Hi(m.Load(image.HeaderNextHops))-1)
		if err != nil {
			return corrupt("fib %d: %v", id, err)
		}
		for nh, n := range uses {
			s.hops.adoptUses(NextHopID(nh), n)
		}
	}
	a.Done()
	s.byID[id] = t
	if name != "" {
		s.byName[name] = t
	}
	s.hops.target[id] = d
	return nil
}

// adoptUses counts routes of a next hop that was not seen yet.
func (h *hops) adoptUses(id NextHopID, n int) {
	for NextHopID(len(h.state)) <= id {
		h.state = append(h.state, hopState{})
	}
	h.state[id].routes += n
}

// adoptHops takes in the directory of next hops.
func (s *Set) adoptHops() error {
	h := &s.hops
	a := trie.NewAdopter(h.m, &s.space, &h.heap)
	last := NextHopID(0)
	for id := NextHopID(1); uint32(id) < h.entries(); id++ {
		w := h.m.Load(h.dir + uint32(id))
		if image.Kind(w) == 0 {
			continue
		}
		h.adoptUses(id, 0)
		st, err := h.adoptHop(a, w)
		if err != nil {
			return corrupt("next hop %d: %v", id, err)
		}
		st.routes = h.state[id].routes
		h.state[id] = st
		last = id
		h.count++
	}
	a.Done()
	h.next = last + 1
	for id := NextHopID(1); int(id) < len(h.state); id++ {
		st := &h.state[id]
		switch {
		case !st.used && st.routes > 0:
			return corrupt("next hop %d is not there and has %d routes", id, st.routes)
		case !st.used:
			if id < h.next {
				h.free = append(h.free, id)
			}
			continue
		case st.auto && st.members != nil:
			h.group[groupKey(st.members)] = id
		case st.auto:
			h.hop[st.hop] = id
		}
		h.lead(id, st.hop, true)
		for _, m := range st.members {
			if member := h.get(m.NextHop); member == nil || member.members != nil {
				return corrupt("group %d has the member %d", id, m.NextHop)
			}
			h.state[m.NextHop].groups++
		}
	}
	h.state = h.state[:max(h.next, 1)]
	for id := range h.state {
		if h.state[id].used {
			h.rest(NextHopID(id))
		}
	}
	for fib := range h.leads { // the writer may have died between the FIB and those who lead to it
		for id := range h.leads[fib] {
			if h.m.Load(h.dir+uint32(id))&^(0xff<<image.HopFlags) != h.lookupWord(fib) {
				h.put(id, h.lookupWord(fib))
			}
		}
	}
	return nil
}

// adoptHop reads one entry of the directory.
func (h *hops) adoptHop(a *trie.Adopter, w uint64) (st hopState, err error) {
	st = hopState{used: true, down: w&image.HopDown != 0, auto: w&image.HopAuto != 0}
	at := image.Lo(w)
	if image.Kind(w) == image.KindGroup {
		buckets, n := image.Buckets(w), int(w>>hopMembers)+1
		if buckets > image.MaxBuckets {
			return st, fmt.Errorf("%d buckets", buckets)
		}
		if err := a.Block(at, groupWords(buckets, n)); err != nil {
			return st, err
		}
		for i := range uint32(n) {
			w := h.m.Load(at + (buckets+1)/2 + i)
			if image.Hi(w) == 0 || image.Hi(w) > MaxWeight {
				return st, fmt.Errorf("weight %d", image.Hi(w))
			}
			st.members = append(st.members, Member{NextHopID(image.Lo(w)), uint16(image.Hi(w))})
		}
		return st, nil
	}
	st.hop = NextHop{Type: Type(image.Kind(w))}
	switch image.Kind(w) {
	case image.KindUnicast, image.KindLocal:
		if err := a.Block(at, record); err != nil {
			return st, err
		}
		st.hop.Device = image.Lo(h.m.Load(at))
		st.hop.Gateway = gatewayOf(image.Key{Hi: h.m.Load(at + 1), Lo: h.m.Load(at + 2)})
	case image.KindAbsent:
		st.hop.Type, st.hop.Table = Lookup, ID(at)
	case image.KindLookup:
		for id, d := range h.target {
			if d == at {
				st.hop.Table = id
			}
		}
	}
	return st, st.hop.Validate()
}
