package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
)

// A script is a seeded sequence of what both ends do with a few connections. What must come of it is known without a
// loop: what each side said arrives whole and in order, ends are told once. Every back end must agree with that.
type script struct {
	steps []step
	conns int
}

type step struct {
	conn, size int
	what       string
}

var verbs = []string{"peer sends", "peer sends", "we send", "we send", "pause", "resume", "wait", "peer ends", "we end", "we close", "peer closes"}

func makeScript(seed uint64) script {
	rng := rand.New(rand.NewPCG(seed, 5))
	s := script{conns: 1 + rng.IntN(5)}
	for range 10 + rng.IntN(60) {
		s.steps = append(s.steps, step{rng.IntN(s.conns), 1 + rng.IntN(1<<rng.IntN(16)), verbs[rng.IntN(len(verbs))]})
	}
	return s
}

// outcome of one connection.
type outcome struct {
	weGot, peerGot []byte
	weEOF, peerEOF bool
	closed         string
}

func (o outcome) String() string {
	return fmt.Sprintf("we got %d octets, EOF %v; peer got %d, EOF %v; %s", len(o.weGot), o.weEOF, len(o.peerGot), o.peerEOF, o.closed)
}

// want is the reference: who may still speak, and what was said.
func (s script) want() []outcome {
	out := make([]outcome, s.conns)
	type side struct{ weEnded, peerEnded, closed bool }
	sides := make([]side, s.conns)
	for i, st := range s.steps {
		o, c := &out[st.conn], &sides[st.conn]
		if c.closed {
			continue
		}
		switch st.what {
		case "peer sends":
			if !c.peerEnded {
				o.weGot = append(o.weGot, pattern(st.size, byte(i))...)
			}
		case "we send":
			if !c.weEnded {
				o.peerGot = append(o.peerGot, pattern(st.size, byte(i))...)
			}
		case "peer ends", "peer closes": // a peer closes its sending half, and reads to the end: else it would reset
			c.peerEnded = true
		case "we end":
			c.weEnded = true
		case "we close": // after all that the peer said has come
			c.closed = true
		}
	}
	for i := range out {
		out[i].weEOF = sides[i].peerEnded
		out[i].peerEOF = true // all are closed at the end
		out[i].closed = "closed"
	}
	return out
}

func (s script) run(r *rig, network string) []outcome {
	type end struct {
		h                          Handle
		peer                       net.Conn
		weEnded, peerEnded, closed bool
		said                       int // by the peer
		read                       chan []byte
		write                      chan []byte
	}
	ends := make([]*end, s.conns)
	out := make([]outcome, s.conns)
	for i := range ends {
		h, peer := r.pair(network)
		e := &end{h: h, peer: peer, read: make(chan []byte, 1), write: make(chan []byte, len(s.steps)+1)}
		go func() {
			b, _ := io.ReadAll(peer)
			e.read <- b
		}()
		go func() {
			for p := range e.write {
				if p == nil {
					_ = peer.(interface{ CloseWrite() error }).CloseWrite()
					return
				}
				_, _ = peer.Write(p)
			}
		}()
		ends[i] = e
	}
	eof := map[Handle]bool{}
	note := func() {
		r.unread = slices.DeleteFunc(r.unread, func(e Event) bool {
			if e.Op != OpEOF {
				return false
			}
			if eof[e.H] {
				r.Fatal("EOF was told twice")
			}
			eof[e.H] = true
			return true
		})
	}
	finish := func(i int) {
		e := ends[i]
		if e.closed {
			return
		}
		e.closed = true
		r.ok(r.l.Resume(e.h))
		r.until("what the peer said", func() bool { note(); return len(r.got[e.h]) >= e.said && (!e.peerEnded || eof[e.h]) })
		r.ok(r.l.Close(e.h))
		if ev := r.next(OpClosed, e.h); ev.Err != nil {
			out[i].closed = ev.Err.Error()
		} else {
			out[i].closed = "closed"
		}
		note()
	}
	for i, st := range s.steps {
		e := ends[st.conn]
		if e.closed {
			continue
		}
		p := pattern(st.size, byte(i))
		switch st.what {
		case "peer sends":
			if !e.peerEnded {
				e.said += len(p)
				e.write <- p
			}
		case "we send":
			if !e.weEnded {
				for len(p) > 0 {
					n, err := r.l.Send(e.h, p)
					r.ok(err)
					if p = p[n:]; len(p) > 0 {
						r.next(OpWritable, e.h)
					}
				}
			}
		case "pause":
			r.ok(r.l.Pause(e.h))
		case "resume":
			r.ok(r.l.Resume(e.h))
		case "wait":
			r.step(time.Duration(st.size%3) * time.Millisecond)
			note()
		case "peer ends", "peer closes":
			if !e.peerEnded {
				e.peerEnded = true
				e.write <- nil
			}
		case "we end":
			if !e.weEnded {
				e.weEnded = true
				r.ok(r.l.Shutdown(e.h))
			}
		case "we close":
			finish(st.conn)
		}
	}
	for i := range ends {
		finish(i)
	}
	for i, e := range ends {
		r.background(func() error {
			out[i].peerGot = <-e.read
			return nil
		})
		close(e.write)
		out[i].peerEOF = true
		out[i].weGot, out[i].weEOF = r.got[e.h], eof[e.h]
	}
	if st := r.l.Stats(); st.Endpoints != 0 || st.Held != 0 || st.Queued != 0 {
		r.Fatalf("left behind: %+v", st)
	}
	return out
}

func compareScript(t *testing.T, name string, seed uint64, network string) {
	s := makeScript(seed)
	on(t, name, Config{Buffers: 16, BufferSize: 1024, Held: 4, SendQueue: 4096, Linger: bound}, func(r *rig) {
		want := s.want()
		for i, o := range s.run(r, network) {
			if !bytes.Equal(o.weGot, want[i].weGot) || !bytes.Equal(o.peerGot, want[i].peerGot) || o.String() != want[i].String() {
				r.Fatalf("seed %d over %s, connection %d: %v; want %v", seed, network, i, o, want[i])
			}
		}
	})
}

// All back ends do the same with random sequences of operations.
func TestConformRandom(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for _, name := range Backends {
		t.Run(name, func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			for seed := range uint64(seeds) {
				compareScript(t, name, seed, streams[seed%2])
			}
		})
	}
}

func FuzzConform(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		for _, name := range Backends {
			if Probe(name) == nil {
				compareScript(t, name, seed, streams[seed%2])
			}
		}
	})
}

func TestConfigNamesMistakes(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Buffers is 7":        {Buffers: 7},
		"Buffers is 24":       {Buffers: 24},
		"BufferSize is 10":    {BufferSize: 10},
		"Held is 1000":        {Held: 1000},
		"SendQueue is -1":     {SendQueue: -1},
		"MaxEndpoints is -5":  {MaxEndpoints: -5},
		"AcceptRetry is -1ns": {AcceptRetry: -1},
	} {
		if _, _, err := Open("stdnet", cfg); err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, _, err := Open("kqueue", Config{}); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an unknown back end: %v", err)
	}
}
