package fib

import (
	"encoding/binary"
	"iter"
	"slices"
	"sync"

	"midplane/internal/fib/image"
	"midplane/internal/fib/trie"
)

// hops is the next-hop directory of an image, and what its writer knows of each id. All methods are safe for concurrent
// use, and may be called while a Table's lock is held.
type hops struct {
	m   *image.Words
	dir uint32

	mu     sync.Mutex
	heap   trie.Heap
	state  []hopState // by id
	next   NextHopID  // ids from here on were never used
	free   []NextHopID
	limbo  []NextHopID // free from the next epoch on: a reader may still know them
	hop    map[NextHop]NextHopID
	group  map[string]NextHopID
	idle   []idleHop // made by Intern and held by nobody, oldest first
	count  int
	leads  map[ID]map[NextHopID]struct{} // next hops of type Lookup by where they lead
	target map[ID]uint32                 // descriptors of FIBs that exist
}

type hopState struct {
	hop     NextHop
	members []Member // not nil: a group
	used    bool
	auto    bool
	down    bool
	turn    uint32 // changes when the id goes to another next hop
	routes  int
	groups  int
}

type idleHop struct {
	id   NextHopID
	turn uint32
}

// keepIdle is how many interned next hops that nobody holds are kept, so that one that Intern returned does not go before
// its first route comes, and one that flaps is not made anew each time.
const keepIdle = 1024

func (h *hops) init(m *image.Words, s trie.Space, dir, entries uint32) {
	h.m, h.dir = m, dir
	h.heap = *trie.NewHeap(m, s, image.HeaderEpoch)
	h.state = make([]hopState, 1, min(entries, 64))
	h.next = 1
	h.hop, h.group = map[NextHop]NextHopID{}, map[string]NextHopID{}
	h.leads, h.target = map[ID]map[NextHopID]struct{}{}, map[ID]uint32{}
}

func (h *hops) entries() uint32 { return image.Hi(h.m.Load(image.HeaderNextHops)) }

func (h *hops) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// get returns the state of an id that is in use, else nil. h.mu is held, as for all that follow in lower case.
func (h *hops) get(id NextHopID) *hopState {
	if id == 0 || int64(id) >= int64(len(h.state)) || !h.state[id].used {
		return nil
	}
	return &h.state[id]
}

// take returns a free id, the lowest ones first, so that leaves stay narrow.
func (h *hops) take() (NextHopID, error) {
	if len(h.free) == 0 && len(h.limbo) > 0 && (len(h.limbo) >= 1024 || uint32(h.next) >= h.entries()) {
		h.heap.Changed()
		h.settle()
	}
	if n := len(h.free); n > 0 {
		id := h.free[n-1]
		h.free = h.free[:n-1]
		return id, nil
	}
	if uint32(h.next) >= h.entries() {
		return 0, ErrTooMany
	}
	id := h.next
	h.next++
	h.state = append(h.state, hopState{})
	return id, nil
}

// settle ends a change. If it changes the epoch, ids that were free before are of use again.
func (h *hops) settle() {
	before := h.m.Load(image.HeaderEpoch)
	h.heap.Settle()
	if h.m.Load(image.HeaderEpoch) != before {
		h.free = append(h.free, h.limbo...)
		h.limbo = h.limbo[:0]
	}
}

// record is how many words a next hop's record has.
const record = 3

// word makes the directory's word of a next hop, with its record.
func (h *hops) word(n NextHop) (uint64, error) {
	w := uint64(n.Type) << image.HopKind
	switch n.Type {
	case Unicast, Local:
		at, ok := h.heap.Alloc(record)
		if !ok {
			return 0, ErrFull
		}
		var g image.Key
		if n.Gateway.IsValid() {
			b := n.Gateway.As16()
			g = image.Key{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
		}
		h.m.Fill(at, uint64(n.Device))
		h.m.Fill(at+1, g.Hi)
		h.m.Fill(at+2, g.Lo)
		w |= uint64(at)
	case Lookup:
		w = h.lookupWord(n.Table)
	}
	return w, nil
}

// lookupWord makes the word of a next hop of type Lookup.
func (h *hops) lookupWord(fib ID) uint64 {
	if d := h.target[fib]; d != 0 {
		return image.KindLookup<<image.HopKind | uint64(d)
	}
	return image.KindAbsent<<image.HopKind | uint64(fib)
}

// put stores an id's word, and puts what the old one referred to aside.
func (h *hops) put(id NextHopID, w uint64) {
	s := &h.state[id]
	if s.down {
		w |= image.HopDown
	}
	if s.auto {
		w |= image.HopAuto
	}
	old := h.m.Load(h.dir + uint32(id))
	h.m.Store(h.dir+uint32(id), w)
	switch image.Kind(old) {
	case image.KindUnicast, image.KindLocal:
		h.heap.Free(image.Lo(old), record)
	case image.KindGroup:
		h.heap.Free(image.Lo(old), groupWords(image.Buckets(old), int(old>>hopMembers&0xff)+1))
	}
	h.heap.Changed() // a walk that began before must not meet the id in its next life
}

// lead notes or forgets that a next hop leads to a FIB.
func (h *hops) lead(id NextHopID, n NextHop, on bool) {
	if n.Type != Lookup {
		return
	}
	if !on {
		delete(h.leads[n.Table], id)
		if len(h.leads[n.Table]) == 0 {
			delete(h.leads, n.Table)
		}
		return
	}
	if h.leads[n.Table] == nil {
		h.leads[n.Table] = map[NextHopID]struct{}{}
	}
	h.leads[n.Table][id] = struct{}{}
}

// retarget says where the descriptor of a FIB is from now on, 0 when it is gone.
func (h *hops) retarget(fib ID, desc uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if desc == 0 {
		delete(h.target, fib)
	} else {
		h.target[fib] = desc
	}
	for id := range h.leads[fib] {
		h.put(id, h.lookupWord(fib))
	}
	h.settle()
}

func (h *hops) add(s hopState) (NextHopID, error) {
	id, err := h.take()
	if err != nil {
		return 0, &OpError{"add", "next hop", err}
	}
	var w uint64
	if s.members != nil {
		w, err = h.groupWord(s.members, nil)
	} else {
		w, err = h.word(s.hop)
	}
	if err != nil {
		h.free = append(h.free, id)
		return 0, &OpError{"add", "next hop", err}
	}
	s.used, s.turn = true, h.state[id].turn
	h.state[id] = s
	h.put(id, w)
	h.lead(id, s.hop, true)
	for _, m := range s.members {
		h.state[m.NextHop].groups++
	}
	h.count++
	h.settle()
	return id, nil
}

// remove frees an id that nobody holds.
func (h *hops) remove(id NextHopID) {
	s := &h.state[id]
	if s.auto {
		if s.members != nil {
			delete(h.group, groupKey(s.members))
		} else {
			delete(h.hop, s.hop)
		}
	}
	h.lead(id, s.hop, false)
	members := s.members
	*s = hopState{turn: s.turn + 1}
	h.put(id, 0)
	h.limbo = append(h.limbo, id)
	h.count--
	for _, m := range members {
		h.state[m.NextHop].groups--
		h.rest(m.NextHop)
	}
}

// rest sees to an interned next hop that may have lost its last use.
func (h *hops) rest(id NextHopID) {
	s := &h.state[id]
	if !s.auto || s.routes > 0 || s.groups > 0 {
		return
	}
	h.idle = append(h.idle, idleHop{id, s.turn})
	for len(h.idle) > keepIdle {
		old := h.idle[0]
		h.idle = h.idle[1:]
		if s := h.get(old.id); s != nil && s.turn == old.turn && s.routes == 0 && s.groups == 0 {
			h.remove(old.id)
		}
	}
}

// hold counts uses by routes, if the next hop exists.
func (h *hops) hold(id NextHopID, n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.get(id)
	if s == nil {
		return false
	}
	s.routes += n
	return true
}

// holdAll is hold for next hops that are held already.
func (h *hops) holdAll(uses map[NextHopID]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range uses {
		h.state[id].routes += n
	}
}

// drop is the reverse of hold.
func (h *hops) drop(id NextHopID, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropHeld(id, n)
	h.settle()
}

func (h *hops) dropHeld(id NextHopID, n int) {
	if n == 0 {
		return
	}
	h.state[id].routes -= n
	h.rest(id)
}

func (h *hops) dropAll(uses map[NextHopID]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range uses {
		h.dropHeld(id, n)
	}
	h.settle()
}

// AddNextHop makes a next hop, also when there is an equal one. It stays until RemoveNextHop. Errors: *FieldError,
// ErrTooMany, ErrFull.
func (s *Set) AddNextHop(n NextHop) (NextHopID, error) { return s.addHop(n, false) }

// Intern returns the next hop that is equal to n and was made by Intern, or makes it. It goes by itself when no route or
// group holds it any more, but not at once: the last 1024 of those are kept, so there is time to give it to a route.
func (s *Set) Intern(n NextHop) (NextHopID, error) { return s.addHop(n, true) }

func (s *Set) addHop(n NextHop, auto bool) (NextHopID, error) {
	if err := n.Validate(); err != nil {
		return 0, err
	}
	if err := s.ready(); err != nil {
		return 0, err
	}
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	if id := h.hop[n]; auto && id != 0 {
		return id, nil
	}
	id, err := h.add(hopState{hop: n, auto: auto})
	if err == nil && auto {
		h.hop[n] = id
		h.rest(id)
	}
	return id, err
}

// ReplaceNextHop changes what a next hop is, for all routes and groups that hold it, at once. One that Intern made is
// not its equal's any more, and is nobody's to share from then on. Errors: *FieldError, ErrNotFound, ErrFull.
func (s *Set) ReplaceNextHop(id NextHopID, n NextHop) error {
	if err := n.Validate(); err != nil {
		return err
	}
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.get(id)
	if st == nil || st.members != nil {
		return &OpError{"replace", "next hop " + id.String(), ErrNotFound}
	}
	w, err := h.word(n)
	if err != nil {
		return &OpError{"replace", "next hop " + id.String(), err}
	}
	if st.auto {
		delete(h.hop, st.hop)
		st.auto = false
	}
	h.lead(id, st.hop, false)
	st.hop = n
	h.lead(id, n, true)
	h.put(id, w)
	h.settle()
	return nil
}

// RemoveNextHop removes a next hop or group. Errors: ErrNotFound; ErrInUse while a route or group holds it.
func (s *Set) RemoveNextHop(id NextHopID) error {
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.get(id)
	if st == nil {
		return &OpError{"remove", "next hop " + id.String(), ErrNotFound}
	}
	if st.routes > 0 || st.groups > 0 {
		return &OpError{"remove", "next hop " + id.String(), ErrInUse}
	}
	h.remove(id)
	h.settle()
	return nil
}

// SetDown takes a next hop out of use, or back into it, for all routes and groups, with one write, however many they
// are: groups send its flows to the members that are left; a route that has no other leads nowhere (Resolve says
// Unreachable). The buckets of its groups are evened out after that.
func (s *Set) SetDown(id NextHopID, down bool) error {
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.get(id)
	if st == nil {
		return &OpError{"set", "next hop " + id.String(), ErrNotFound}
	}
	if st.down == down {
		return nil
	}
	st.down = down
	h.m.Store(h.dir+uint32(id), h.m.Load(h.dir+uint32(id))^image.HopDown)
	if st.groups > 0 {
		h.evenOut(id)
	}
	h.settle()
	return nil
}

// NextHop returns the state of a next hop or group.
func (s *Set) NextHop(id NextHopID) (NextHopInfo, bool) {
	h := &s.hops
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.get(id)
	if st == nil {
		return NextHopInfo{}, false
	}
	return NextHopInfo{st.hop, slices.Clone(st.members), st.down, st.routes, st.groups, st.auto}, true
}

// NextHops iterates over all next hops and groups, in the order of their ids. It shows what is there when it comes to
// it; the loop may change the Set.
func (s *Set) NextHops() iter.Seq2[NextHopID, NextHopInfo] {
	return func(yield func(NextHopID, NextHopInfo) bool) {
		s.hops.mu.Lock()
		end := s.hops.next
		s.hops.mu.Unlock()
		for id := NextHopID(1); id < end; id++ {
			if i, ok := s.NextHop(id); ok && !yield(id, i) {
				return
			}
		}
	}
}
