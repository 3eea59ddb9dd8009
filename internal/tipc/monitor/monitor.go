package monitor

import (
	"iter"
	"slices"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// DefaultThreshold is the number of nodes, this one included, above which a Monitor is active
// (TIPC_DEF_MON_THRESHOLD).
const DefaultThreshold = 32

// State is a link's memory of its monitor (struct tipc_mon_state). The link resets it to the zero value with itself.
type State struct {
	listGen  uint16
	peerGen  uint16
	ackedGen uint16
	synched  bool

	Monitoring bool // probe the peer regularly
	Probing    bool // probe the peer now: it may be lost
	Reset      bool // others have lost the peer: reset the link
}

// peer is one node of the ring (struct tipc_peer).
type peer struct {
	addr    uint32
	domain  *record // the last that it sent; its own for this node
	applied int     // members of it that match the ring
	downCnt int     // reports of its loss
	up      bool
	head    bool // head of a domain, as this node divides the ring
	local   bool // in this node's own domain
}

// Monitor supervises the peers on one bearer. Use [New].
type Monitor struct {
	ring      []*peer // by address, this node included
	self      *peer
	threshold int
	listGen   uint16
	domGen    uint16
	interval  mono.Time
	next      mono.Time
}

// New makes the monitor of a bearer. own is this node's address and random its random number, which spreads the
// timers of nodes.
func New(now mono.Time, own, random uint32) *Monitor {
	self := &peer{addr: own, domain: &record{}, up: true, head: true}
	m := &Monitor{ring: []*peer{self}, self: self, threshold: DefaultThreshold}
	m.interval = mono.Time(120_000+random&0xffff) * 1e6 // MON_TIMEOUT, ms
	m.next = now + m.interval
	return m
}

// SetOwn changes this node's address (net/tipc/monitor.c tipc_mon_reinit_self). There must be no peer yet.
func (m *Monitor) SetOwn(addr uint32) { m.self.addr = addr }

// SetThreshold sets the number of nodes above which the monitor is active.
func (m *Monitor) SetThreshold(n int) { m.threshold = n }

// Threshold is that number.
func (m *Monitor) Threshold() int { return m.threshold }

// Active reports whether the cluster is large enough.
func (m *Monitor) Active() bool { return len(m.ring) > m.threshold }

// domSize is the size of a domain, its head included, in a cluster of n: the root, rounded up.
func domSize(n int) int {
	i := 0
	for i*i < n {
		i++
	}
	return min(i, MaxDomain)
}

func (m *Monitor) find(addr uint32) (int, bool) {
	return slices.BinarySearchFunc(m.ring, addr, func(p *peer, a uint32) int {
		switch {
		case p.addr < a:
			return -1
		case p.addr > a:
			return 1
		}
		return 0
	})
}

func (m *Monitor) index(p *peer) int { i, _ := m.find(p.addr); return i }
func (m *Monitor) nextIdx(i int) int { return (i + 1) % len(m.ring) }
func (m *Monitor) prevIdx(i int) int { return (i + len(m.ring) - 1) % len(m.ring) }

// headOf is the head of the domain that ring[i] is in, possibly itself.
func (m *Monitor) headOf(i int) int {
	for !m.ring[i].head {
		i = m.prevIdx(i)
	}
	return i
}

// PeerUp notes that the link to a peer came up, PeerDown that it went down, Remove that it was deleted.
func (m *Monitor) PeerUp(addr uint32) {
	i, ok := m.find(addr)
	if !ok {
		m.ring = slices.Insert(m.ring, i, &peer{addr: addr})
		m.updateNeighbors(i)
	}
	m.ring[i].up = true
	m.roleChange(m.headOf(i))
}

// PeerDown: see PeerUp.
func (m *Monitor) PeerDown(addr uint32) {
	i, ok := m.find(addr)
	p := m.self
	if ok {
		p = m.ring[i]
	}
	if p == m.self {
		return
	}
	applied, before := p.applied, p.domain
	p.applied, p.domain = 0, nil
	if p.head {
		m.findLost(i, before, applied)
	}
	p.up, p.head, p.local, p.downCnt = false, false, false, 0
	m.roleChange(m.headOf(i))
}

// Remove: see PeerUp.
func (m *Monitor) Remove(addr uint32) {
	i, ok := m.find(addr)
	if !ok || m.ring[i] == m.self {
		return
	}
	m.ring = slices.Delete(m.ring, i, i+1)
	prev := m.prevIdx(i)
	head := m.headOf(prev)
	if m.ring[head] == m.self {
		m.updateLocal()
	}
	m.updateNeighbors(prev)
	if !m.Active() { // back to supervising every link
		for _, p := range m.ring {
			if p != m.self {
				p.domain, p.applied = nil, 0
			}
		}
	}
	m.assignRoles(head)
}

func (m *Monitor) roleChange(head int) {
	if m.ring[head] == m.self {
		m.updateLocal()
	}
	m.assignRoles(head)
}

// updateLocal brings the own domain record up to date; a change starts a new generation.
func (m *Monitor) updateLocal() {
	d := m.self.domain
	n := domSize(len(m.ring)) - 1
	m.self.applied = n
	changed := len(d.members) != n
	before := d.upMap
	old := d.members
	members := make([]uint32, n)
	i := m.index(m.self)
	for k := range n {
		i = m.nextIdx(i)
		members[k] = m.ring[i].addr
		changed = changed || k >= len(old) || old[k] != members[k]
		d.setUp(k, m.ring[i].up)
	}
	d.members = members
	if !changed && d.upMap == before {
		return
	}
	m.domGen++
	d.gen = m.domGen
	m.apply(m.index(m.self))
}

// apply matches a peer's record against the ring.
func (m *Monitor) apply(i int) {
	p := m.ring[i]
	if p.domain == nil || !p.up {
		return
	}
	p.applied = 0
	for _, addr := range p.domain.members {
		i = m.nextIdx(i)
		if addr != m.ring[i].addr {
			return
		}
		p.applied++
	}
}

// updateNeighbors matches the records of the nodes before ring[i] again, whose domains reach over the change.
func (m *Monitor) updateNeighbors(i int) {
	for range domSize(len(m.ring)) {
		m.apply(i)
		i = m.prevIdx(i)
	}
}

// assignRoles divides the ring behind a head into domains anew, until an existing division fits.
func (m *Monitor) assignRoles(head int) {
	h, n := m.ring[head], 0
	for i := m.nextIdx(head); m.ring[i] != m.self; i = m.nextIdx(i) {
		p := m.ring[i]
		p.local = false
		if n < h.applied {
			n++
			p.head = false
			p.local = h == m.self
			continue
		}
		n++
		if !p.up {
			continue
		}
		if p.head {
			break
		}
		h, n = p, 0
		h.head = true
	}
	m.listGen++
}

// findLost counts what the change of a peer's record says about the loss of its members. before is the record that
// applied members of were valid before.
func (m *Monitor) findLost(i int, before *record, applied int) {
	p := m.ring[i]
	for k := range applied {
		i = m.nextIdx(i)
		member := m.ring[i]
		// What this node or the peer saw down already, and what it supervises itself, needs no report.
		if !member.up || !before.up(k) || member.local {
			continue
		}
		if p.applied == 0 || p.applied < k {
			member.downCnt = 1 // not seen by the peer any more: probe it
		} else if !p.domain.up(k) {
			member.downCnt++
		}
	}
}

// Receive takes the domain record of a STATE message of the peer (net/tipc/monitor.c tipc_mon_rcv). Malformed records
// are ignored.
func (m *Monitor) Receive(data []byte, addr uint32, s *State) {
	probing := s.Probing
	s.Probing = false
	gen, acked, members, ok := parse(data)
	if !ok {
		return
	}
	if !s.synched {
		s.peerGen, s.ackedGen, s.synched = gen-1, acked, true
	}
	if wire.SeqMore(acked, s.ackedGen) {
		s.ackedGen = acked
	}
	fresh := wire.SeqMore(gen, s.peerGen)
	if !fresh && !probing {
		return
	}
	i, ok := m.find(addr)
	if !ok || !m.ring[i].up || m.ring[i] == m.self {
		return
	}
	p := m.ring[i]
	p.downCnt = 0
	if !fresh {
		return
	}
	s.peerGen = gen
	before, applied := p.domain, p.applied
	p.domain = &record{}
	p.domain.load(data, gen, members)
	m.apply(i)
	m.findLost(i, before, min(applied, before.size()))
	m.assignRoles(m.headOf(i))
}

func (r *record) size() int {
	if r == nil {
		return 0
	}
	return len(r.members)
}

// Prep writes what a STATE message shall say and returns its length: nothing when the monitor is not active, a header
// alone when the peer has the current record, the record otherwise (net/tipc/monitor.c tipc_mon_prep). dst must hold
// [MaxRecord] octets.
func (m *Monitor) Prep(dst []byte, s *State) int {
	if !m.Active() {
		return 0
	}
	if s.ackedGen == m.domGen {
		clear(dst[:headerLen])
		putHeader(dst, headerLen, m.domGen, s.peerGen, 0)
		return headerLen
	}
	return m.self.domain.put(dst, s.peerGen)
}

// Update brings a link's state up to date before its timer acts on it (net/tipc/monitor.c tipc_mon_get_state).
func (m *Monitor) Update(addr uint32, s *State) {
	if !m.Active() {
		s.Probing, s.Monitoring = false, true
		return
	}
	if !s.Probing && s.listGen == m.listGen && s.ackedGen == m.domGen {
		return
	}
	i, ok := m.find(addr)
	if !ok {
		return
	}
	p := m.ring[i]
	s.Probing = s.ackedGen != m.domGen || p.downCnt > 0
	s.Reset = s.Reset || p.downCnt >= maxDownEvents
	s.Monitoring = p.local || p.head
	s.listGen = m.listGen
}

// Deadline is when Tick wants to be called.
func (m *Monitor) Deadline() mono.Time { return m.next }

// Tick corrects a domain whose size no longer fits the cluster (net/tipc/monitor.c mon_timeout).
func (m *Monitor) Tick(now mono.Time) {
	if now < m.next {
		return
	}
	m.next = now + m.interval
	if domSize(len(m.ring))-1 != m.self.applied {
		m.updateLocal()
		m.assignRoles(m.index(m.self))
	}
}

// PeerInfo describes one node of the ring, for display.
type PeerInfo struct {
	Addr    uint32
	Up      bool
	Head    bool
	Local   bool
	Applied int      // members of its domain that fit the ring
	Gen     uint16   // of its record
	UpMap   uint64   // bit i: Members[i] is up
	Members []uint32 // shared: do not change
}

// Peers lists the ring from this node on.
func (m *Monitor) Peers() iter.Seq[PeerInfo] {
	return func(yield func(PeerInfo) bool) {
		for k, i := 0, m.index(m.self); k < len(m.ring); k, i = k+1, m.nextIdx(i) {
			p := m.ring[i]
			pi := PeerInfo{Addr: p.addr, Up: p.up, Head: p.head, Local: p.local, Applied: p.applied}
			if p.domain != nil {
				pi.Gen, pi.UpMap, pi.Members = p.domain.gen, p.domain.upMap, p.domain.members
			}
			if !yield(pi) {
				return
			}
		}
	}
}

// Info is the monitor's summary: nodes in the ring, its generation and whether it is active.
func (m *Monitor) Info() (nodes int, listGen uint16, active bool) {
	return len(m.ring), m.listGen, m.Active()
}
