package stack_test

import (
	"encoding/binary"
	"io"
	"time"

	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// innocent is honest traffic between two hosts that must not suffer from what goes on around it: a stream in both
// directions, and datagrams and broadcasts from a to b. Everything has to arrive, once and in order.
type innocent struct {
	w    *world
	a, b *host

	ends         [2]*socket.Sock // of the stream, at a and at b
	sent, recvd  [2]int          // octets by end
	rdm, rdmRcv  *socket.Sock
	mc, mcRcv    *socket.Sock
	nrdm, ngot   uint32
	nmc, nmcGot  uint32
	stop         bool
	chunk        int
	scratch, pat []byte
}

const (
	rdmService = 7001
	mcService  = 7002
)

func newInnocent(a, b *host) *innocent {
	w := a.w
	w.t.Helper()
	n := &innocent{w: w, a: a, b: b, chunk: 2500, scratch: make([]byte, 70000), pat: make([]byte, 70000)}
	l := b.socket(socket.Stream)
	if err := l.Listen(0); err != nil {
		w.t.Fatal(err)
	}
	n.ends[0], n.ends[1] = a.connect(socket.Stream, l, b)
	n.rdmRcv = b.bound(socket.RDM, rangeOf(rdmService, 1, 1))
	n.mcRcv = b.bound(socket.RDM, rangeOf(mcService, 1, 10))
	n.rdm, n.mc = a.socket(socket.RDM), a.socket(socket.RDM)
	n.mc.SetMcastBroadcast()
	w.run(50 * time.Millisecond)
	return n
}

// octet is what the stream has at a position.
func octet(pos int) byte { return byte(pos) ^ byte(pos>>8)*7 ^ byte(pos>>16)*31 }

// pump sends and receives what can be.
func (n *innocent) pump() {
	w := n.w
	w.t.Helper()
	for i, s := range n.ends {
		if !n.stop {
			p := n.pat[:n.chunk]
			for k := range p {
				p[k] = octet(n.sent[i] + k)
			}
			m, err := s.Send(w.now, p, socket.Dest{})
			if err != nil && err != socket.ErrWouldBlock {
				w.t.Fatalf("innocent stream, end %d: send: %v", i, err)
			}
			n.sent[i] += m
		}
		for {
			m, _, err := s.Recv(w.now, n.scratch, 0)
			if err == socket.ErrWouldBlock {
				break
			}
			if err != nil {
				w.t.Fatalf("innocent stream, end %d: receive: %v (EOF: %v)", i, err, err == io.EOF)
			}
			for k, c := range n.scratch[:m] {
				if want := octet(n.recvd[i] + k); c != want {
					w.t.Fatalf("innocent stream, end %d: octet %d is %#x, want %#x", i, n.recvd[i]+k, c, want)
				}
			}
			n.recvd[i] += m
		}
	}
	if !n.stop {
		n.number(n.rdm, service(rdmService, 1), &n.nrdm)
		n.number(n.mc, socket.Dest{Kind: socket.RangeDest, Range: rangeOf(mcService, 0, 20)}, &n.nmc)
	}
	n.count(n.rdmRcv, "datagram", &n.ngot)
	n.count(n.mcRcv, "broadcast", &n.nmcGot)
	n.a.flush()
	n.b.flush()
	if !n.a.up(n.b) || !n.b.up(n.a) {
		w.t.Fatal("innocent nodes lost each other")
	}
}

func (n *innocent) number(s *socket.Sock, to socket.Dest, next *uint32) {
	_, err := s.Send(n.w.now, binary.BigEndian.AppendUint32(nil, *next), to)
	switch err {
	case nil:
		*next++
	case socket.ErrWouldBlock:
	default:
		n.w.t.Fatalf("innocent send to %v: %v", to.Range, err)
	}
}

func (n *innocent) count(s *socket.Sock, what string, next *uint32) {
	for {
		m, info, err := s.Recv(n.w.now, n.scratch, 0)
		if err == socket.ErrWouldBlock {
			return
		}
		if err != nil {
			n.w.t.Fatalf("innocent %s: %v", what, err)
		}
		// Whoever sends to the same service from elsewhere is not what is tested.
		if info.From.Node != n.a.addr() || info.From.Port != n.rdm.Port() && info.From.Port != n.mc.Port() {
			continue
		}
		if info.Err != wire.CodeOK || m != 4 || binary.BigEndian.Uint32(n.scratch) != *next {
			n.w.t.Fatalf("innocent %s: %d octets %x, code %v, want number %d", what, m, n.scratch[:min(m, 8)], info.Err, *next)
		}
		*next++
	}
}

// run lets time pass with traffic.
func (n *innocent) run(d time.Duration) {
	n.w.t.Helper()
	for end := n.w.now.Add(d); n.w.now < end; {
		n.pump()
		n.w.run(5 * time.Millisecond)
	}
}

// finish stops sending and checks that everything arrived.
func (n *innocent) finish() {
	w := n.w
	w.t.Helper()
	n.stop = true
	for range 1000 {
		n.run(5 * time.Millisecond)
		if n.recvd[1] == n.sent[0] && n.recvd[0] == n.sent[1] && n.ngot == n.nrdm && n.nmcGot == n.nmc {
			if n.sent[0] == 0 || n.sent[1] == 0 || n.nrdm == 0 || n.nmc == 0 {
				w.t.Fatalf("innocent traffic did not run: %v octets, %d datagrams, %d broadcasts", n.sent, n.nrdm, n.nmc)
			}
			return
		}
	}
	w.t.Fatalf("innocent traffic lost something: sent %v, received %v octets (by end); datagrams %d of %d, broadcasts %d of %d",
		n.sent, n.recvd, n.ngot, n.nrdm, n.nmcGot, n.nmc)
}
