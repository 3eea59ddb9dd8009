package fib

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"midplane/internal/fib/image"
	"midplane/internal/fib/trie"
)

// Config says where a Set keeps its image, and how much fits. The zero value is right for a program that keeps its
// FIBs to itself.
type Config struct {
	// Memory is where the image is: words that are all zero, MinSize to MaxSize octets, at an address that does not
	// change, such as a mapped file or BPF map. The Set writes them until it is closed; others may read them. Nil: memory
	// of the Set's own, of Size octets.
	Memory []uint64

	Size        uint64 // octets, MinSize to MaxSize; 0: DefaultSize
	MaxFIBs     int    // FIBs and snapshots, 1 to 1,048,576; 0: 16,384
	MaxNextHops int    // next hops and groups, 1 to 16,777,216; 0: 65,535. Up to that many, a route takes least memory
}

// Defaults and bounds of Config.
const (
	defaultFIBs     = 16384
	defaultNextHops = 65535
	boundFIBs       = 1 << 20
	boundNextHops   = 1 << 24
)

func (c *Config) validate() error {
	octets := func(n uint64) string { return strconv.FormatUint(n, 10) + " octets" }
	size := c.Size
	if c.Memory != nil {
		if size = uint64(len(c.Memory)) * 8; c.Size != 0 && c.Size != size {
			return &FieldError{"Size", octets(c.Size), "that of Memory, or 0"}
		}
	}
	if size < MinSize || size > MaxSize {
		return &FieldError{"Size", octets(size), octets(MinSize) + " to " + octets(MaxSize)}
	}
	if c.MaxFIBs < 1 || c.MaxFIBs > boundFIBs {
		return &FieldError{"MaxFIBs", strconv.Itoa(c.MaxFIBs), "1 to 1048576"}
	}
	if c.MaxNextHops < 1 || c.MaxNextHops > boundNextHops {
		return &FieldError{"MaxNextHops", strconv.Itoa(c.MaxNextHops), "1 to 16777216"}
	}
	if heapBegin(c)*8+MinSize/2 > size {
		return &FieldError{"Size", octets(size), "room for the directories of MaxFIBs and MaxNextHops, which take " + octets(heapBegin(c)*8) + ", and for routes"}
	}
	return nil
}

// words of the directories and what is before them.
func heapBegin(c *Config) uint64 {
	return image.HeaderWords + uint64(c.MaxFIBs+1)*image.DescWords + uint64(c.MaxNextHops) + 1
}

// Set is a number of FIBs and the next hops that their routes lead to. The zero value is ready to use, as if made by New
// with a zero Config. All methods are safe for concurrent use; those that look something up never block.
type Set struct {
	once    sync.Once
	err     error // of once
	im      image.Words
	release func()
	space   space
	hops    hops

	mu     sync.RWMutex // guards what follows; taken before a Table's
	byID   map[ID]*Table
	byName map[string]*Table
	descs  []uint32 // descriptors that are not in use
}

// New makes a Set. cfg may be nil. Errors: *FieldError; ErrInUse when Memory has an image already; what the system says
// when it has no memory.
func New(cfg *Config) (*Set, error) {
	s := &Set{}
	var c Config
	if cfg != nil {
		c = *cfg
	}
	s.once.Do(func() { s.err = s.start(c) })
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

// ready makes the zero value a Set.
func (s *Set) ready() error {
	s.once.Do(func() { s.err = s.start(Config{}) })
	return s.err
}

func (s *Set) start(c Config) error {
	if c.MaxFIBs == 0 {
		c.MaxFIBs = defaultFIBs
	}
	if c.MaxNextHops == 0 {
		c.MaxNextHops = defaultNextHops
	}
	if c.Size == 0 && c.Memory == nil {
		c.Size = DefaultSize
	}
	if err := c.validate(); err != nil {
		return err
	}
	words, release := c.Memory, func() {}
	if words == nil {
		var err error
		if words, release, err = anonymous(c.Size); err != nil {
			return err
		}
	}
	if words[image.HeaderMagic] != 0 {
		return &OpError{"open", "image", ErrInUse}
	}
	s.im, s.release = image.Make(words), release
	s.byID, s.byName = map[ID]*Table{}, map[string]*Table{}

	heap := uint32(heapBegin(&c))
	dir := uint32(image.HeaderWords)
	nhs := dir + uint32(c.MaxFIBs+1)*image.DescWords
	m := &s.im
	s.space.arena = trie.NewArena(heap, m.End())
	s.hops.init(m, &s.space, nhs, uint32(c.MaxNextHops)+1)
	// The first descriptor stays empty: it is what removed FIBs look up in.
	for i := c.MaxFIBs; i > 0; i-- {
		s.descs = append(s.descs, dir+uint32(i)*image.DescWords)
	}
	m.Fill(image.HeaderVersion, image.Version)
	m.Fill(image.HeaderSize, uint64(m.Len()))
	m.Fill(image.HeaderFIBs, image.Pair(dir, uint32(c.MaxFIBs)+1))
	m.Fill(image.HeaderNextHops, image.Pair(nhs, uint32(c.MaxNextHops)+1))
	m.Fill(image.HeaderHeap, image.Pair(heap, m.End()))
	m.Store(image.HeaderMagic, image.Magic) // now it is one
	return nil
}

// noDesc is the descriptor that is always empty.
const noDesc = image.HeaderWords

// Close gives the memory of the Set's own back. Nothing of the Set may be used any more, by anybody, from before Close
// is called. Memory that came with Config stays as it is.
func (s *Set) Close() error {
	s.once.Do(func() { s.err = ErrRemoved })
	if s.release != nil {
		s.release()
		s.release = nil
	}
	return nil
}

// space is the arena, shared by the writers of all FIBs.
type space struct {
	mu    sync.Mutex
	arena *trie.Arena
}

func (s *space) Take(units uint32, urgent bool) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arena.Take(units, urgent)
}

// Claim implements trie.Claimer.
func (s *space) Claim(start, units uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arena.Claim(start, units)
}

func (s *space) Give(start, units uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arena.Give(start, units)
}

// Create makes an empty FIB. The name is optional; it has up to 15 octets, like an interface's, and is unique.
// Errors: *FieldError; ErrExists; ErrTooMany when there are Config.MaxFIBs.
func (s *Set) Create(id ID, name string) (*Table, error) {
	if id == 0 {
		return nil, &FieldError{"id", "0", "1 to 4294967295"}
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] != nil || (name != "" && s.byName[name] != nil) {
		return nil, &OpError{"create", "fib " + label(id, name), ErrExists}
	}
	t, err := s.newTable(id, name)
	if err != nil {
		return nil, &OpError{"create", "fib " + label(id, name), err}
	}
	s.byID[id] = t
	if name != "" {
		s.byName[name] = t
	}
	var b [16]byte
	copy(b[:], name)
	d := t.desc.Load()
	s.im.Store(d+image.DescName, binary.NativeEndian.Uint64(b[:8]))
	s.im.Store(d+image.DescName+1, binary.NativeEndian.Uint64(b[8:]))
	s.im.Store(d+image.DescID, image.Pair(uint32(id), image.DescInUse))
	s.hops.retarget(id, d)
	return t, nil
}

func checkName(name string) error {
	if len(name) > 15 || strings.ContainsAny(name, "/: \t\n\x00") || name == "." || name == ".." {
		return &FieldError{"name", name, "up to 15 octets without space, slash or colon"}
	}
	return nil
}

func label(id ID, name string) string {
	if name == "" {
		return id.String()
	}
	return name + " (" + id.String() + ")"
}

// newTable makes a FIB, or a snapshot, that nobody can find yet. s.mu is held.
func (s *Set) newTable(id ID, name string) (*Table, error) {
	if len(s.descs) == 0 {
		return nil, ErrTooMany
	}
	d := s.descs[len(s.descs)-1]
	s.descs = s.descs[:len(s.descs)-1]
	return s.tableAt(d, id, name), nil
}

// tableAt makes the Table of a descriptor.
func (s *Set) tableAt(d uint32, id ID, name string) *Table {
	t := &Table{set: s, view: s.im.View, id: id, name: name}
	t.desc.Store(d)
	t.heap = *trie.NewHeap(&s.im, &s.space, d+image.DescEpoch)
	for f := range t.tree {
		t.tree[f] = trie.NewTree(&s.im, &t.heap, d, uint32(f))
	}
	return t
}

// Remove empties and removes a FIB. Lookups that are under way end with the old answer or with none; routes of other
// FIBs that lead into it lead nowhere from then on. Lookups in its Table find nothing, changes return ErrRemoved.
func (s *Set) Remove(id ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[id]
	if t == nil {
		return &OpError{"remove", "fib " + id.String(), ErrNotFound}
	}
	delete(s.byID, id)
	delete(s.byName, t.name)
	s.hops.retarget(id, 0)
	s.im.Store(t.desc.Load()+image.DescID, 0)
	s.drop(t)
	return nil
}

// drop empties a FIB or snapshot and frees its descriptor. s.mu is held.
func (s *Set) drop(t *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.desc.Load()
	t.removed = true
	t.desc.Store(noDesc)
	t.clear()
	s.descs = append(s.descs, d)
	for _, w := range t.watches {
		w.end(false)
	}
	t.watches = nil
}

// Table returns a FIB by its id.
func (s *Set) Table(id ID) (*Table, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.byID[id]
	return t, ok
}

// ByName returns a FIB by its name.
func (s *Set) ByName(name string) (*Table, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.byName[name]
	return t, ok
}

// Tables returns all FIBs in the order of their ids.
func (s *Set) Tables() []*Table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := make([]*Table, 0, len(s.byID))
	for _, t := range s.byID {
		l = append(l, t)
	}
	slices.SortFunc(l, func(a, b *Table) int { return int(int64(a.id) - int64(b.id)) })
	return l
}

// Resolve says where packets to an address go that are looked up in a FIB: it follows groups by the hash of the flow,
// and routes of type Lookup from FIB to FIB, through eight of them at most. Hop.Type is Unreachable and Hop.ID 0 when
// there is no route, when it leads nowhere, or when all its next hops are down. It does not block and does not allocate.
func (s *Set) Resolve(t *Table, to netip.Addr, hash uint32) Hop {
	family, k, ok := key(to)
	if !ok {
		return nowhere
	}
	for {
		epoch, d := s.im.Load(image.HeaderEpoch), t.desc.Load()
		h := s.resolve(d, family, k, hash)
		if s.im.Load(image.HeaderEpoch) == epoch && t.desc.Load() == d {
			return h
		}
	}
}

var nowhere = Hop{NextHop: NextHop{Type: Unreachable}}

func (s *Set) resolve(desc, family uint32, k image.Key, hash uint32) Hop {
	for range image.MaxLeaks {
		nh, ok := s.im.Lookup(desc, family, k)
		if !ok {
			nh = s.lookupLocked(desc, family, k)
		}
		if nh == 0 {
			return nowhere
		}
		g := s.im.Target(nh, hash)
		switch g.Kind {
		case 0:
			return nowhere
		case image.KindLookup:
			desc = g.Desc
			continue
		}
		return Hop{NextHop{Type: Type(g.Kind), Gateway: gatewayOf(g.Gateway), Device: g.Device}, NextHopID(g.ID), ID(image.Lo(s.im.Load(desc + image.DescID)))}
	}
	return nowhere
}

// lookupLocked is Table.lookupLocked for the FIB that has a descriptor; 0 if there is none any more.
func (s *Set) lookupLocked(desc, family uint32, k image.Key) uint32 {
	t, ok := s.Table(ID(image.Lo(s.im.Load(desc + image.DescID))))
	if !ok {
		return 0
	}
	nh, _ := t.lookupLocked(family, k)
	return uint32(nh)
}

func gatewayOf(k image.Key) netip.Addr {
	if k == (image.Key{}) {
		return netip.Addr{}
	}
	return addrOf(ipv6, k).Unmap()
}

// Stats is how much of the image is in use, in octets.
type Stats struct {
	Size     uint64 // of the image
	Free     uint64 // not taken by any FIB, next hop or directory
	FIBs     int
	NextHops int // and groups
}

// Stats returns how much of the image is in use.
func (s *Set) Stats() Stats {
	if s.ready() != nil {
		return Stats{}
	}
	s.mu.RLock()
	n := len(s.byID)
	s.mu.RUnlock()
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return Stats{Size: uint64(s.im.Len()) * 8, Free: s.space.arena.Free() * 8, FIBs: n, NextHops: s.hops.len()}
}
