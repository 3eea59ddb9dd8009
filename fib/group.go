package fib

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"

	"midplane/internal/fib/image"
)

// hopMembers is where a group's word has the number of members, less one.
const hopMembers = 56

// groupWords is how many words a group has: its buckets, two a word, and its members.
func groupWords(buckets uint32, members int) uint32 { return (buckets+1)/2 + uint32(members) }

// bucketsFor is how many buckets a group gets: as many as the weights add up to if that is a power of two, else so many
// that each member's share is right to a sixteenth of the least, up to MaxBuckets.
func bucketsFor(members []Member) uint32 {
	sum := uint32(0)
	for _, m := range members {
		sum += weight(m)
	}
	if sum <= image.MaxBuckets && sum&(sum-1) == 0 {
		return sum
	}
	return min(image.MaxBuckets, uint32(1)<<bits.Len32(sum*16-1))
}

func weight(m Member) uint32 { return uint32(max(m.Weight, 1)) }

// quotas is how many buckets each member gets: its share by weight of those that are not out, the remainders going to
// the largest fractions (Hamilton's method), at least one each while there are enough.
func quotas(members []Member, out []bool, buckets uint32) []uint32 {
	q := make([]uint32, len(members))
	total, given := uint64(0), uint32(0)
	for i, m := range members {
		if !out[i] {
			total += uint64(weight(m))
		}
	}
	if total == 0 {
		return q
	}
	type fraction struct {
		rest uint64
		i    int
	}
	var f []fraction
	for i, m := range members {
		if out[i] {
			continue
		}
		share := uint64(weight(m)) * uint64(buckets)
		q[i] = uint32(share / total)
		given += q[i]
		f = append(f, fraction{share % total, i})
	}
	slices.SortStableFunc(f, func(a, b fraction) int {
		if a := q[a.i] == 0; a != (q[b.i] == 0) { // who has nothing comes first
			if a {
				return -1
			}
			return 1
		}
		switch {
		case a.rest > b.rest:
			return -1
		case a.rest < b.rest:
			return 1
		}
		return 0
	})
	for k := 0; given < buckets; k = (k + 1) % len(f) {
		q[f[k].i]++
		given++
	}
	return q
}

// assign fills the buckets. Those that had a member that may keep them stay with it; the others go round.
func assign(members []Member, out []bool, old []NextHopID, buckets uint32) []NextHopID {
	q := quotas(members, out, buckets)
	index := map[NextHopID]int{}
	for i, m := range members {
		if _, ok := index[m.NextHop]; ok { // twice in the group: one share
			q[index[m.NextHop]] += q[i]
			q[i] = 0
			continue
		}
		index[m.NextHop] = i
	}
	n := make([]NextHopID, buckets)
	if len(old) == int(buckets) {
		for b, id := range old {
			if i, ok := index[id]; ok && q[i] > 0 {
				n[b] = id
				q[i]--
			}
		}
	}
	i := 0
	for b := range n {
		if n[b] != 0 {
			continue
		}
		for tries := 0; q[i] == 0 && tries < len(q); tries++ {
			i = (i + 1) % len(q)
		}
		if q[i] == 0 { // all are out: keep what there was, so that they find their flows again
			n[b] = members[b%len(members)].NextHop
			continue
		}
		n[b] = members[i].NextHop
		q[i]--
		i = (i + 1) % len(q)
	}
	return n
}

// groupWord writes a group, and makes its word. old are the buckets that it had, nil if it is new.
func (h *hops) groupWord(members []Member, old []NextHopID) (uint64, error) {
	buckets := bucketsFor(members)
	at, ok := h.heap.Alloc(groupWords(buckets, len(members)))
	if !ok {
		return 0, ErrFull
	}
	out := make([]bool, len(members))
	for i, m := range members {
		out[i] = h.state[m.NextHop].down
	}
	if old == nil { // as if all were up, so that what is down now finds its flows when it comes back
		old = assign(members, make([]bool, len(members)), nil, buckets)
	}
	n := assign(members, out, old, buckets)
	for b := uint32(0); b < buckets; b += 2 {
		hi := uint32(0)
		if b+1 < buckets {
			hi = uint32(n[b+1])
		}
		h.m.Fill(at+b/2, image.Pair(uint32(n[b]), hi))
	}
	for i, m := range members {
		h.m.Fill(at+(buckets+1)/2+uint32(i), image.Pair(uint32(m.NextHop), weight(m)))
	}
	return uint64(at) | image.KindGroup<<image.HopKind | uint64(bits.Len32(buckets)-1)<<image.HopBuckets |
		uint64(len(members)-1)<<hopMembers, nil
}

func (h *hops) buckets(id NextHopID) []NextHopID {
	w := h.m.Load(h.dir + uint32(id))
	l := make([]NextHopID, image.Buckets(w))
	for i := range l {
		l[i] = NextHopID(h.m.Half(image.Lo(w), uint32(i)))
	}
	return l
}

// evenOut assigns the buckets of the groups that a next hop is in, after it went down or came up. A group for which there
// is no memory stays as it is: whoever meets a bucket of a member that is down takes the next one.
func (h *hops) evenOut(id NextHopID) {
	for g := range h.state {
		s := &h.state[g]
		if !slices.ContainsFunc(s.members, func(m Member) bool { return m.NextHop == id }) {
			continue
		}
		if w, err := h.groupWord(s.members, h.buckets(NextHopID(g))); err == nil {
			h.put(NextHopID(g), w)
		}
	}
}

// checkMembers refuses what is not a group.
func (h *hops) checkMembers(members []Member) error {
	if len(members) == 0 || len(members) > MaxMembers {
		return &FieldError{"members", strconv.Itoa(len(members)), "1 to 256"}
	}
	for _, m := range members {
		if m.Weight > MaxWeight {
			return &FieldError{"weight", strconv.Itoa(int(m.Weight)), "1 to 256"}
		}
		s := h.get(m.NextHop)
		if s == nil {
			return &OpError{"group", "member " + m.NextHop.String(), ErrNotFound}
		}
		if s.members != nil {
			return &FieldError{"member", m.NextHop.String(), "a next hop, not a group"}
		}
	}
	return nil
}

// groupKey is equal for equal members, in any order.
func groupKey(members []Member) string {
	l := slices.Clone(members)
	slices.SortFunc(l, func(a, b Member) int {
		if a.NextHop != b.NextHop {
			return int(int64(a.NextHop) - int64(b.NextHop))
		}
		return int(weight(a)) - int(weight(b))
	})
	var b []byte
	for _, m := range l {
		b = binary.NativeEndian.AppendUint32(b, uint32(m.NextHop))
		b = binary.NativeEndian.AppendUint16(b, uint16(weight(m)))
	}
	return string(b)
}

// AddGroup makes a group: its members share the flows by weight. Errors: *FieldError, ErrNotFound, ErrTooMany, ErrFull.
func (s *Set) AddGroup(members []Member) (NextHopID, error) { return s.addGroup(members, false) }

// InternGroup is to AddGroup what Intern is to AddNextHop: groups with the same members and weights are one.
func (s *Set) InternGroup(members []Member) (NextHopID, error) { return s.addGroup(members, true) }

func (s *Set) addGroup(members []Member, auto bool) (NextHopID, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.checkMembers(members); err != nil {
		return 0, err
	}
	k := ""
	if auto {
		k = groupKey(members)
		if id := h.group[k]; id != 0 {
			return id, nil
		}
	}
	id, err := h.add(hopState{members: slices.Clone(members), auto: auto})
	if err == nil && auto {
		h.group[k] = id
		h.rest(id)
	}
	return id, err
}

// ReplaceGroup changes the members of a group, for all routes that hold it, at once. Flows of members that stay are
// moved only as far as the weights ask for it. Errors: *FieldError, ErrNotFound, ErrFull.
func (s *Set) ReplaceGroup(id NextHopID, members []Member) error {
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.get(id)
	if st == nil || st.members == nil {
		return &OpError{"replace", "group " + id.String(), ErrNotFound}
	}
	if err := h.checkMembers(members); err != nil {
		return err
	}
	w, err := h.groupWord(members, h.buckets(id))
	if err != nil {
		return &OpError{"replace", "group " + id.String(), err}
	}
	if st.auto {
		delete(h.group, groupKey(st.members))
		st.auto = false
	}
	old := st.members
	st.members = slices.Clone(members)
	h.put(id, w)
	for _, m := range members {
		h.state[m.NextHop].groups++
	}
	for _, m := range old {
		h.state[m.NextHop].groups--
		h.rest(m.NextHop)
	}
	h.settle()
	return nil
}
