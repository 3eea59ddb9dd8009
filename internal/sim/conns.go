package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"midplane/internal/mono"
	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

// conn is the oracle's view of a stream connection. The client sends the number of the connection and then total[0]
// octets, the server sends total[1]; when the client has all of these, it shuts the connection down.
type conn struct {
	id        uint64
	client    *site
	server    *site
	total     [2]uint64
	done      bool // the client has shut it down
	mayBreak  bool // contact was lost since it began
	connected bool
}

func (n *conn) excuse(a, b *site) {
	if n.client == a && n.server == b || n.client == b && n.server == a {
		n.mayBreak = true
	}
}

// half is one end of a connection.
type half struct {
	s       *site
	sk      *socket.Sock
	conn    *conn // nil: a server that does not know yet
	end     int   // 0 client, 1 server
	peer    int   // site
	sent    uint64
	recvd   uint64
	hello   []byte // of the server: octets of the number
	pending bool   // the client is not connected yet
	closed  bool
}

// connect begins a connection to another site.
func (s *site) connect(now mono.Time, to int) {
	c := s.c
	sk, err := s.st.Sockets().Create(now, socket.Stream)
	if err != nil {
		c.Failf("site %d: %v", s.h.Index, err)
		return
	}
	err = sk.Connect(now, sockif.Dest{Kind: sockif.ServiceDest, Range: wire.ServiceRange{Type: typeConn, Lower: uint32(to), Upper: uint32(to)}})
	if err != nil && err != socket.ErrInProgress {
		if err != socket.ErrHostUnreach {
			c.Failf("site %d: connect to %d: %v", s.h.Index, to, err)
		}
		sk.Close(now)
		return
	}
	c.connID++
	n := &conn{id: c.connID, client: s, server: c.sites[to]}
	for i := range n.total {
		n.total[i] = uint64(c.load.IntN(c.sc.MaxStream + 1))
		if c.load.IntN(2) == 0 {
			n.total[i] %= 1000
		}
	}
	c.conns[n.id] = n
	h := &half{s: s, sk: sk, conn: n, peer: to, pending: true}
	s.addHalf(h)
	c.Tracef("%2d -- connection %d to %d begins, %d octets there and %d back", s.h.Index, n.id, to, n.total[0], n.total[1])
	h.poll(now)
}

func (s *site) addHalf(h *half) {
	s.halves = append(s.halves, h)
	s.ports[h.sk.Port()] = h
}

// accept takes all waiting connections.
func (s *site) accept(now mono.Time) {
	for {
		sk, err := s.lst.Accept(now)
		if err == socket.ErrWouldBlock {
			return
		}
		if err != nil {
			s.c.Failf("site %d: accept: %v", s.h.Index, err)
			return
		}
		a, err := sk.PeerAddr()
		if err != nil {
			sk.Close(now) // it ended already
			continue
		}
		p := s.c.byNet[a.Node]
		if a.Node == 0 {
			p = s // before the node has an address
		}
		if p == nil {
			s.c.Failf("site %d: connection from unknown node %x", s.h.Index, a.Node)
			return
		}
		h := &half{s: s, sk: sk, end: 1, peer: p.h.Index}
		s.addHalf(h)
		h.poll(now)
	}
}

// poll reads and writes what is possible.
func (h *half) poll(now mono.Time) {
	if h.closed {
		return
	}
	if h.pending {
		switch err := h.sk.ConnectResult(); err {
		case socket.ErrInProgress:
			return
		case nil:
			h.pending, h.conn.connected = false, true
			h.s.c.cs.Conns++
		default:
			h.broken(now, "set up", err)
			return
		}
	}
	h.recv(now)
	if !h.closed {
		h.send(now)
	}
}

func (h *half) recv(now mono.Time) {
	c := h.s.c
	buf := make([]byte, 16384)
	for {
		n, info, err := h.sk.Recv(now, buf, 0)
		switch {
		case err == socket.ErrWouldBlock:
			return
		case err == io.EOF && h.end == 1 && h.conn != nil && h.conn.done:
			if h.recvd != h.conn.total[0] {
				c.Failf("connection %d: the server got %d of %d octets, then the end", h.conn.id, h.recvd, h.conn.total[0])
			}
			h.close(now)
			delete(c.conns, h.conn.id)
			return
		case err != nil:
			h.broken(now, fmt.Sprintf("read (%v)", info.Err), err)
			return
		}
		b := buf[:n]
		if h.end == 1 && h.conn == nil {
			k := min(8-len(h.hello), len(b))
			h.hello = append(h.hello, b[:k]...)
			if b = b[k:]; len(h.hello) < 8 {
				continue
			}
			h.conn = c.conns[binary.BigEndian.Uint64(h.hello)]
			if h.conn == nil || h.conn.server != h.s || h.conn.client.h.Index != h.peer {
				c.Failf("site %d: a connection from %d starts with % x", h.s.h.Index, h.peer, h.hello)
				return
			}
			c.Tracef("%2d -- connection %d accepted", h.s.h.Index, h.conn.id)
		}
		from := 1 - h.end
		if h.recvd+uint64(len(b)) > h.conn.total[from] || !checkFill(b, h.conn.id<<1|uint64(from), h.recvd) {
			c.Failf("connection %d: wrong octets between %d and %d of end %d", h.conn.id, h.recvd, h.recvd+uint64(len(b)), from)
			return
		}
		h.recvd += uint64(len(b))
		c.cs.Octets += len(b)
		c.mark(h.s.h.Index, h.conn.id, h.recvd)
	}
}

func (h *half) send(now mono.Time) {
	if h.conn == nil {
		return
	}
	c := h.s.c
	total := h.conn.total[h.end]
	lead := uint64(8 * (1 - h.end)) // the client's number comes first
	for h.sent < total+lead {
		b := c.buf[:min(total+lead-h.sent, uint64(1+c.load.IntN(c.sc.MaxSize)))]
		o := 0
		if h.sent < lead {
			var num [8]byte
			binary.BigEndian.PutUint64(num[:], h.conn.id)
			o = copy(b, num[h.sent:])
		}
		if o < len(b) {
			fill(b[o:], h.conn.id<<1|uint64(h.end), h.sent+uint64(o)-lead)
		}
		n, err := h.sk.Send(now, b, sockif.Dest{})
		h.sent += uint64(n)
		if err == socket.ErrWouldBlock {
			c.cs.Congested++
			return
		}
		if err != nil {
			h.broken(now, "write", err)
			return
		}
		if n == 0 {
			c.Failf("connection %d: nothing sent, no error", h.conn.id)
			return
		}
	}
	if h.end == 0 && h.recvd == h.conn.total[1] {
		h.conn.done = true
		if err := h.sk.Shutdown(now); err != nil {
			h.broken(now, "shut down", err)
			return
		}
		c.Tracef("%2d -- connection %d done", h.s.h.Index, h.conn.id)
		h.close(now)
	}
}

func (h *half) close(now mono.Time) {
	h.closed = true
	delete(h.s.ports, h.sk.Port())
	if i := slices.Index(h.s.halves, h); i >= 0 {
		h.s.halves = slices.Delete(h.s.halves, i, i+1)
	}
	h.sk.Close(now)
}

// broken ends a connection that failed. Loss of contact excuses it: also one that this node has seen, but of which its
// applications will be told only at the end of this step.
func (h *half) broken(now mono.Time, what string, err error) {
	c := h.s.c
	c.cs.Broken++
	excused := h.conn == nil || h.conn.mayBreak || !h.s.contact(h.peer) && h.peer != h.s.h.Index
	for _, d := range h.s.downs {
		excused = excused || d.peer == h.peer
	}
	if h.conn != nil {
		c.Tracef("%2d -- connection %d to %d broken: %s: %v", h.s.h.Index, h.conn.id, h.peer, what, err)
		h.conn.mayBreak = true
		if !excused {
			c.Failf("site %d: connection %d to %d broke without loss of contact: %s: %v", h.s.h.Index, h.conn.id, h.peer, what, err)
		}
	}
	h.close(now)
}

// expectBroken checks that connections to a node that was lost end at once.
func (s *site) expectBroken(now mono.Time, peer int) {
	for _, h := range slices.Clone(s.halves) {
		if h.peer != peer || h.pending {
			continue
		}
		if h.recv(now); !h.closed {
			s.c.Failf("site %d: a connection to %d outlives the contact", s.h.Index, peer)
		}
	}
}

// pollConns gives all connections of the site a chance to go on, and ends those whose opening never completes.
func (s *site) pollConns(now mono.Time) {
	for _, h := range slices.Clone(s.halves) {
		h.poll(now)
	}
}
