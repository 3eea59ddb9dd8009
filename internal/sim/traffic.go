package sim

import (
	"encoding/binary"

	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// flowKey names what one life of a site sent to a site.
type flowKey struct {
	from, to int
	life     uint32
}

// flow is the oracle's memory of numbered messages from socket to socket. Numbers start with 1.
type flow struct {
	next     uint32 // to be sent
	last     uint32 // received
	excused  uint32 // those below this may be missing: contact was lost since they were sent
	returned map[uint32]bool
}

// mflow is the same for multicasts, of which a receiver is not due all.
type mflow struct {
	due     []uint32 // not yet received, in order of sending
	next    uint32   // number of the sender's next multicast; kept in the flow to itself
	last    uint32
	excused uint32
}

func (c *Cluster) flow(k flowKey) *flow {
	f := c.flows[k]
	if f == nil {
		f = &flow{next: 1}
		c.flows[k] = f
	}
	return f
}

func (c *Cluster) mflow(k flowKey) *mflow {
	f := c.mflows[k]
	if f == nil {
		f = &mflow{next: 1}
		c.mflows[k] = f
	}
	return f
}

// excuse notes that contact between two sites was lost: nothing sent so far need arrive.
func (c *Cluster) excuse(a, b *site) {
	for _, d := range [2][2]*site{{a, b}, {b, a}} {
		k := flowKey{d[0].h.Index, d[1].h.Index, d[0].life}
		if f := c.flows[k]; f != nil {
			f.excused = f.next
		}
		if f := c.mflows[k]; f != nil {
			f.excused = c.mflow(flowKey{k.from, k.from, k.life}).next
		}
	}
	for _, n := range c.conns {
		n.excuse(a, b)
	}
}

// A message is: magic, kind, sender's site and life, receiver's site, number; then octets that follow from these.
const (
	msgHeader = 20
	msgMagic  = 0x4d49_4450
	kindRDM   = 1
	kindMcast = 2
)

func (c *Cluster) message(kind, from int, life uint32, to int, seq uint32, size int) []byte {
	b := c.buf[:size]
	binary.BigEndian.PutUint32(b, msgMagic)
	b[4], b[5] = byte(kind), 0
	binary.BigEndian.PutUint16(b[6:], uint16(from))
	binary.BigEndian.PutUint32(b[8:], life)
	binary.BigEndian.PutUint32(b[12:], uint32(to))
	binary.BigEndian.PutUint32(b[16:], seq)
	fill(b[msgHeader:], uint64(from)<<32^uint64(seq), 0)
	return b
}

// fill writes octets that follow from key and their offset off.
func fill(b []byte, key, off uint64) {
	var w [8]byte
	for len(b) > 0 {
		binary.LittleEndian.PutUint64(w[:], patternWord(key, off&^7))
		n := copy(b, w[off&7:])
		b, off = b[n:], off+uint64(n)
	}
}

// checkFill reports whether b is what fill would have written.
func checkFill(b []byte, key, off uint64) bool {
	var w [8]byte
	for len(b) > 0 {
		if off&7 == 0 && len(b) >= 8 {
			if binary.LittleEndian.Uint64(b) != patternWord(key, off) {
				return false
			}
			b, off = b[8:], off+8
			continue
		}
		n := min(8-int(off&7), len(b))
		fill(w[:n], key, off)
		if string(b[:n]) != string(w[:n]) {
			return false
		}
		b, off = b[n:], off+uint64(n)
	}
	return true
}

func patternWord(key, off uint64) uint64 {
	x := (key + off + 1) * 0x9e3779b97f4a7c15
	return x ^ x>>31
}

// parseMessage returns the numbers of a message; ok is false when it is not one, or was changed. It may have been cut off
// behind the header.
func parseMessage(b []byte) (kind, from int, life uint32, to int, seq uint32, ok bool) {
	if len(b) < msgHeader || binary.BigEndian.Uint32(b) != msgMagic {
		return
	}
	kind, from = int(b[4]), int(binary.BigEndian.Uint16(b[6:]))
	life, to, seq = binary.BigEndian.Uint32(b[8:]), int(int32(binary.BigEndian.Uint32(b[12:]))), binary.BigEndian.Uint32(b[16:])
	return kind, from, life, to, seq, checkFill(b[msgHeader:], uint64(from)<<32^uint64(seq), 0)
}

// size draws the size of a message: mostly small, sometimes fragmented.
func (c *Cluster) size() int {
	switch r := c.load.IntN(1000); {
	case r < 800:
		return msgHeader + c.load.IntN(100)
	case r < 950:
		return msgHeader + c.load.IntN(2000)
	case r < 995:
		return msgHeader + c.load.IntN(c.sc.MaxSize/4)
	default:
		return msgHeader + c.load.IntN(c.sc.MaxSize-msgHeader+1)
	}
}

// sendRDM sends n numbered messages to another site, by its socket or by its name.
func (s *site) sendRDM(now mono.Time, to, n int) {
	c := s.c
	p := c.sites[to]
	f := c.flow(flowKey{s.h.Index, to, s.life})
	for range n {
		d := sockif.Dest{Kind: sockif.ServiceDest, Range: wire.ServiceRange{Type: typeRDM, Lower: uint32(to), Upper: uint32(to)}}
		if c.load.IntN(2) == 0 && p.st != nil && p.st.Addr() != 0 {
			d = sockif.Dest{Kind: sockif.SocketDest, Addr: p.rdm.LocalAddr()}
		}
		m := c.message(kindRDM, s.h.Index, s.life, to, f.next, c.size())
		switch _, err := s.rdm.Send(now, m, d); {
		case err == nil:
			if c.Tracing() {
				c.Tracef("%2d -- sends %d to %d, %d octets", s.h.Index, f.next, to, len(m))
			}
			f.next++
		case err == socket.ErrWouldBlock:
			c.cs.Congested++
			return
		case err == socket.ErrHostUnreach:
			if d.Kind == sockif.SocketDest && s != p && s.contact(to) {
				c.Failf("site %d: %d is up but cannot be reached", s.h.Index, to)
			}
			return
		default:
			c.Failf("site %d: send to %d: %v", s.h.Index, to, err)
			return
		}
	}
}

// sendMcast sends one multicast to all sites that the own name table knows.
func (s *site) sendMcast(now mono.Time) {
	c := s.c
	r := wire.ServiceRange{Type: typeMcast, Upper: uint32(len(c.sites))}
	remote, local := s.st.Names().AppendMulticastNodes(c.nodes[:0], r)
	c.nodes = remote
	own := c.mflow(flowKey{s.h.Index, s.h.Index, s.life})
	m := c.message(kindMcast, s.h.Index, s.life, -1, own.next, c.size())
	_, err := s.mc.Send(now, m, sockif.Dest{Kind: sockif.RangeDest, Range: r})
	if err == socket.ErrWouldBlock {
		c.cs.Congested++
		return
	}
	seq := own.next
	own.next++
	if err != nil {
		if err != socket.ErrHostUnreach || local {
			c.Failf("site %d: multicast: %v", s.h.Index, err)
		}
		return
	}
	if c.Tracing() {
		c.Tracef("%2d -- multicasts %d to %x, %d octets", s.h.Index, seq, remote, len(m))
	}
	if local {
		own.due = append(own.due, seq)
	}
	for _, a := range remote {
		p := c.byNet[a]
		if p == nil {
			c.Failf("site %d: multicast to unknown node %x", s.h.Index, a)
			return
		}
		f := c.mflow(flowKey{s.h.Index, p.h.Index, s.life})
		f.due = append(f.due, seq)
	}
}

// read takes what there is from a socket.
func (s *site) read(now mono.Time, sk *socket.Sock) {
	switch {
	case sk == s.lst:
		s.accept(now)
		return
	case sk == s.rdm || sk == s.mc || sk == s.churn:
	default:
		if h := s.ports[sk.Port()]; h != nil && h.sk == sk {
			h.poll(now)
		}
		return
	}
	for {
		b := s.c.buf[:wire.MaxUserMsgSize]
		n, info, err := sk.Recv(now, b, 0)
		if err == socket.ErrWouldBlock {
			return
		}
		if err != nil || info.Truncated {
			s.c.Failf("site %d: receive: %v %+v", s.h.Index, err, info)
			return
		}
		if info.Err != wire.CodeOK {
			s.takeReturned(b[:n], info)
			continue
		}
		kind, from, life, to, seq, ok := parseMessage(b[:n])
		if !ok || from >= len(s.c.sites) {
			s.c.Failf("site %d: received %d octets that nobody sent, from %+v", s.h.Index, n, info.From)
			return
		}
		k := flowKey{from, s.h.Index, life}
		s.c.mark(s.h.Index, uint64(kind)<<32|uint64(from), uint64(seq)<<32|uint64(n))
		switch {
		case kind == kindRDM && sk == s.rdm && to == s.h.Index:
			s.c.cs.Messages++
			s.c.took(k, seq)
		case kind == kindMcast && sk == s.mc:
			s.c.cs.Multicasts++
			s.c.tookMcast(k, seq)
		default:
			s.c.Failf("site %d: message of kind %d for %d at the wrong socket", s.h.Index, kind, to)
			return
		}
	}
}

// took checks a received message against what was sent.
func (c *Cluster) took(k flowKey, seq uint32) {
	f := c.flows[k]
	if f == nil || seq >= f.next {
		c.Failf("site %d received message %d of site %d (life %d), which was not sent", k.to, seq, k.from, k.life)
		return
	}
	if seq <= f.last {
		c.Failf("site %d received message %d of site %d (life %d) after %d: repeated or out of order", k.to, seq, k.from, k.life, f.last)
		return
	}
	c.missing(k, f, seq)
	f.last = seq
}

// missing checks that the messages between the last one and seq are excused.
func (c *Cluster) missing(k flowKey, f *flow, seq uint32) {
	for n := max(f.last+1, f.excused); n < seq; n++ {
		if !f.returned[n] {
			c.Failf("message %d of site %d (life %d) to site %d was lost without loss of contact (last %d, excused below %d)", n, k.from, k.life, k.to, f.last, f.excused)
			return
		}
	}
}

func (c *Cluster) tookMcast(k flowKey, seq uint32) {
	f := c.mflows[k]
	if f == nil {
		f = c.mflow(k) // not due, but the receiver bound in time
	}
	if seq <= f.last || seq >= c.mflow(flowKey{k.from, k.from, k.life}).next {
		c.Failf("site %d received multicast %d of site %d (life %d) after %d", k.to, seq, k.from, k.life, f.last)
		return
	}
	f.last = seq
	c.missingMcast(k, f, seq)
	if len(f.due) > 0 && f.due[0] == seq {
		f.due = f.due[1:]
	}
}

func (c *Cluster) missingMcast(k flowKey, f *mflow, seq uint32) {
	for ; len(f.due) > 0 && f.due[0] < seq; f.due = f.due[1:] {
		if f.due[0] >= f.excused {
			c.Failf("multicast %d of site %d (life %d) to site %d was lost without loss of contact (excused below %d)", f.due[0], k.from, k.life, k.to, f.excused)
			return
		}
	}
}

// takeReturned takes a message that came back.
func (s *site) takeReturned(b []byte, info socket.RecvInfo) {
	c := s.c
	c.cs.Returned++
	kind, from, life, to, seq, ok := parseMessage(b)
	if !ok || from != s.h.Index || life != s.life {
		c.Failf("site %d: a message came back that it did not send: %d octets, %+v", s.h.Index, len(b), info)
		return
	}
	c.mark(s.h.Index, uint64(info.Err), uint64(seq))
	c.Tracef("%2d -- message %d to %d came back: %v", s.h.Index, seq, to, info.Err)
	if kind == kindMcast {
		return // a receiver that is gone: judged by what is due
	}
	f := c.flow(flowKey{from, to, life})
	if info.Err == wire.CodeOverload || info.Err == wire.CodeNoPort && c.sites[to].life == 1 {
		c.Failf("site %d: message %d to %d came back with %v, but its receiver was there", s.h.Index, seq, to, info.Err)
	}
	if f.returned == nil {
		f.returned = map[uint32]bool{}
	}
	f.returned[seq] = true
}

// rebind binds or unbinds something.
func (s *site) rebind(now mono.Time) {
	c := s.c
	if n := len(s.bound); n > 0 && (n >= 8 || c.load.IntN(2) == 0) {
		i := c.load.IntN(n)
		b := s.bound[i]
		s.bound[i] = s.bound[n-1]
		s.bound = s.bound[:n-1]
		if err := s.churn.Unbind(now, b.r, b.scope); err != nil {
			c.Failf("site %d: unbind %+v: %v", s.h.Index, b, err)
		}
		return
	}
	lo := uint32(c.load.IntN(10))
	b := binding{wire.ServiceRange{Type: typeChurn + uint32(c.load.IntN(4)), Lower: lo, Upper: lo + uint32(c.load.IntN(5))}, wire.ScopeCluster}
	if c.load.IntN(4) == 0 {
		b.scope = wire.ScopeNode
	}
	for _, o := range s.bound {
		if o == b {
			return
		}
	}
	if err := s.churn.Bind(now, b.r, b.scope); err != nil {
		c.Failf("site %d: bind %+v: %v", s.h.Index, b, err)
		return
	}
	s.bound = append(s.bound, b)
}
