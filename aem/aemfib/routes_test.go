package aemfib_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemfib"
	"midplane/fib"
)

// TestRoutes follows a FIB through events, also with a class that refuses most of them.
func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		queue int
		late  bool // everything has happened before the first Reread is handled
	}{{1, false}, {1 << 16, false}, {1 << 16, true}} {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		l := newLoop(t)
		var set fib.Set
		defer set.Close()
		blue, err := set.Create(10, "blue")
		must(err)
		hop, err := set.Intern(fib.NextHop{Type: fib.Unicast, Device: 3})
		must(err)

		var want map[netip.Prefix]fib.NextHopID
		table := func() (map[netip.Prefix]fib.NextHopID, uint64) {
			m := map[netip.Prefix]fib.NextHopID{}
			now, err := blue.Snapshot()
			if errors.Is(err, fib.ErrRemoved) { // a Reread that was owed at the end
				return want, 0
			}
			must(err)
			for r := range now.All() {
				m[r.Prefix] = r.NextHop
			}
			g := now.Generation()
			must(now.Close())
			return m, g
		}
		followed, rereads := map[netip.Prefix]fib.NextHopID{}, 0
		begin := make(chan struct{})
		if !c.late {
			close(begin)
		}
		var last, read uint64 // generations: of the last change, and of what was read last
		done := make(chan struct{})
		handle := func(_ *aem.Ctx, c aemfib.RouteChange) {
			<-begin
			switch {
			case c.Reread:
				followed, read = table()
				rereads++
			case c.Generation <= read: // it has that
			case c.New != 0:
				followed[c.Prefix] = c.New
			default:
				delete(followed, c.Prefix)
			}
			if c.Generation <= last && !c.Reread {
				t.Errorf("generation %d after %d", c.Generation, last)
			}
			last = c.Generation
			if _, end := followed[netip.MustParsePrefix("::/0")]; end {
				select {
				case <-done:
				default:
					close(done)
				}
			}
		}
		one, err := l.Executor().Class("routes", aem.ClassConfig{Workers: 1, Queue: 1 << 16})
		must(err)
		ended := make(chan error, 1)
		cfg := aem.EventConfig{Class: one, Deadline: aem.NoDeadline, Pending: c.queue, OnError: func(err error) { ended <- err }}
		e, err := aem.Register(l, aemfib.Routes(blue, 1<<16), handle, cfg)
		must(err)
		must(e.Start())
		r := rand.New(rand.NewPCG(1, 1))
		for range 5000 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(100)), 0, 0}), 16)
			if r.IntN(2) == 0 {
				_, _, err = blue.Insert(p, hop)
			} else {
				_, _, err = blue.Delete(p)
			}
			must(err)
		}
		_, _, err = blue.Insert(netip.MustParsePrefix("::/0"), hop)
		must(err)
		if c.late {
			close(begin)
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatal("the end was not told")
		}
		want, _ = table()
		must(set.Remove(10))
		select {
		case err := <-ended:
			if !errors.Is(err, fib.ErrRemoved) {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the end of the FIB was not told")
		}
		must(e.Shutdown())
		if !maps.Equal(followed, want) {
			t.Errorf("%+v: followed to %v, want %v", c, followed, want)
		}
		if c.queue > 1 && rereads != 1 {
			t.Errorf("%d rereads, want the first", rereads)
		}
	}
}
