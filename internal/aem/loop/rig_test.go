package loop

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"midplane/internal/mono"
)

// bound is far above what any step takes: it ends a test that hangs.
const bound = 30 * time.Second

// rig is a loop under test, on the test's own thread.
type rig struct {
	*testing.T
	l      Loop
	events [64]Event
	unread []Event // told, and not asked for yet
	got    map[Handle][]byte
	keep   bool // received data is kept in unread as events, not collected
	ended  map[Handle]int
}

// each runs a test over every back end that this machine has; those that can keep their P while they wait, in both ways.
func each(t *testing.T, cfg Config, f func(r *rig)) {
	for _, name := range Backends {
		t.Run(name, func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			on(t, name, cfg, f)
		})
		if name == "stdnet" {
			continue
		}
		t.Run(name+" held", func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			held := cfg
			held.Hold = func(mono.Time) bool { return true }
			on(t, name, held, f)
		})
	}
}

func on(t *testing.T, name string, cfg Config, f func(r *rig)) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, _, err := Open(name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, l: l, got: map[Handle][]byte{}, ended: map[Handle]int{}}
	defer func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
	}()
	f(r)
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// step waits once and sorts what came.
func (r *rig) step(d time.Duration) {
	r.Helper()
	n, err := r.l.Wait(r.events[:], mono.Now().Add(d))
	r.ok(err)
	for _, e := range r.events[:n] {
		if k := r.ended[e.H]; k > 0 {
			r.Fatalf("%v after the last event", e.Op)
		}
		switch e.Op {
		case OpClosed, OpDetached:
			r.ended[e.H]++
		case OpRecv:
			if !r.keep {
				r.got[e.H] = append(r.got[e.H], e.Data...)
				r.l.Release(e.Buf)
				continue
			}
		}
		r.unread = append(r.unread, e)
	}
}

// until steps until cond holds.
func (r *rig) until(what string, cond func() bool) {
	r.Helper()
	for end := time.Now().Add(bound); !cond(); {
		if time.Now().After(end) {
			var told []string
			for _, e := range r.unread[:min(20, len(r.unread))] {
				told = append(told, fmt.Sprintf("%v %x %v", e.Op, e.H, e.Err))
			}
			r.Fatalf("waited %v for %s; %d events were told: %v; %+v", bound, what, len(r.unread), told, r.l.Stats())
		}
		r.step(20 * time.Millisecond)
	}
}

// next is the next event of that kind, of h if that is not zero.
func (r *rig) next(op Op, h Handle) (e Event) {
	r.Helper()
	r.until(op.String(), func() bool {
		for i, u := range r.unread {
			if u.Op == op && (h == 0 || u.H == h) {
				e = u
				r.unread = append(r.unread[:i:i], r.unread[i+1:]...)
				return true
			}
		}
		return false
	})
	return e
}

func (r *rig) none(op Op, h Handle) {
	r.Helper()
	for _, u := range r.unread {
		if u.Op == op && (h == 0 || u.H == h) {
			r.Fatalf("unexpected event %v of %x", u.Op, u.H)
		}
	}
}

// background runs f while the loop is driven, and waits for it.
func (r *rig) background(f func() error) {
	r.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	var err error
	r.until("the peer", func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	r.ok(err)
}

// listen is a listener of the loop, and how to reach it.
func (r *rig) listen(network string) (h Handle, dial func() net.Conn) {
	r.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "aem")
		r.ok(err)
		r.Cleanup(func() { os.RemoveAll(dir) })
		addr = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, addr)
	r.ok(err)
	to := l.Addr().String()
	h, err = r.l.Listener(l, "listener")
	r.ok(err)
	return h, func() net.Conn {
		r.Helper()
		c, err := net.Dial(network, to)
		r.ok(err)
		r.Cleanup(func() { c.Close() })
		return c
	}
}

// pair is a connection of the loop that receives, and its peer.
func (r *rig) pair(network string) (Handle, net.Conn) {
	r.Helper()
	h, peer := r.paused(network)
	r.ok(r.l.Resume(h))
	return h, peer
}

// paused is a pair that does not receive yet.
func (r *rig) paused(network string) (Handle, net.Conn) {
	r.Helper()
	ln, dial := r.listen(network)
	peer := dial()
	h := r.next(OpAccept, ln).Conn
	r.ok(r.l.Close(ln))
	r.next(OpClosed, ln)
	return h, peer
}

// sendAll sends p, with as many Sends as that takes.
func (r *rig) sendAll(h Handle, p []byte) {
	r.Helper()
	for {
		n, err := r.l.Send(h, p)
		r.ok(err)
		if p = p[n:]; len(p) == 0 {
			return
		}
		r.next(OpWritable, h)
	}
}

// fill queues more than the kernel takes for a peer that does not read; the Config is full.
func (r *rig) fill(h Handle) {
	r.Helper()
	n, err := r.l.Send(h, pattern(48<<20, 0))
	r.ok(err)
	if n != 48<<20 {
		r.Fatalf("%d octets were taken", n)
	}
	r.step(0)
	r.step(time.Millisecond)
}

var full = Config{SendQueue: 64 << 20, SendMemory: 128 << 20, Linger: bound}

func (r *rig) wantGot(h Handle, want []byte) {
	r.Helper()
	r.until(fmt.Sprintf("%d octets", len(want)), func() bool { return len(r.got[h]) >= len(want) })
	if sha256.Sum256(r.got[h]) != sha256.Sum256(want) {
		r.Fatalf("got %d octets that differ from the %d sent", len(r.got[h]), len(want))
	}
}

// pattern is n octets in which each place is known from its neighbours.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*3 ^ byte(i>>16)*7 ^ seed
	}
	return b
}

func readFull(c net.Conn, want []byte) error {
	got := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(bound))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("peer read %d of %d octets: %w", n, len(want), err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		return fmt.Errorf("peer got %d octets that differ from those sent", len(got))
	}
	return nil
}

func readEOF(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(bound))
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("peer read %d, %v; want EOF", n, err)
	}
	return nil
}
