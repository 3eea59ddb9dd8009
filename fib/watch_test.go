package fib

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unsafe"
)

// follower keeps a copy of a FIB by its watch.
type follower struct {
	t      *testing.T
	f      *Table
	w      *Watch
	routes map[netip.Prefix]NextHopID
	at     uint64
	losses int
}

func follow(t *testing.T, f *Table, backlog int) *follower {
	return &follower{t: t, f: f, w: must(f.Watch(backlog)), routes: maps.Collect(pairs(f)), at: f.Generation()}
}

func pairs(f *Table) func(func(netip.Prefix, NextHopID) bool) {
	return func(yield func(netip.Prefix, NextHopID) bool) {
		for r := range f.All() {
			if !yield(r.Prefix, r.NextHop) {
				return
			}
		}
	}
}

// catchUp reads to the end, with dst of a length.
func (l *follower) catchUp(length int) error {
	dst := make([]Update, length)
	for {
		n, err := l.w.Next(dst)
		if errors.Is(err, ErrLost) {
			l.routes, l.losses, l.at = maps.Collect(pairs(l.f)), l.losses+1, 0
			continue
		}
		if n == 0 || err != nil {
			return err
		}
		for _, u := range dst[:n] {
			if u.Generation <= l.at {
				l.t.Fatalf("%+v after generation %d", u, l.at)
			}
			l.at = u.Generation
			if u.New != 0 {
				l.routes[u.Prefix] = u.New
			} else {
				delete(l.routes, u.Prefix)
			}
		}
	}
}

func (l *follower) same() {
	l.t.Helper()
	if want := maps.Collect(pairs(l.f)); !maps.Equal(l.routes, want) {
		l.t.Errorf("followed to %v, want %v", l.routes, want)
	}
}

func TestWatch(t *testing.T) {
	var s Set
	defer s.Close()
	f := must(s.Create(10, "blue"))
	one, two := must(s.AddNextHop(via("192.0.2.1", 3))), must(s.AddNextHop(via("192.0.2.2", 3)))
	insert(t, f, "10.0.0.0/8", one)
	w := must(f.Watch(4))
	defer w.Close()
	next := func(want ...Update) {
		t.Helper()
		got := make([]Update, 10)
		n, err := w.Next(got)
		if err != nil || !slices.Equal(got[:n], want) {
			t.Errorf("got %v, %v, want %v", got[:n], err, want)
		}
	}
	next()
	g := f.Generation()
	insert(t, f, "10.0.0.0/8", one) // no change
	insert(t, f, "10.0.0.0/8", two)
	insert(t, f, "2001:db8::1/32", one)
	must2(f.Delete(pfx("10.0.0.0/8")))
	must2(f.Delete(pfx("10.0.0.0/8"))) // no change
	<-w.Ready()
	next(Update{pfx("10.0.0.0/8"), one, two, g + 1}, Update{pfx("2001:db8::/32"), 0, one, g + 2}, Update{pfx("10.0.0.0/8"), two, 0, g + 3})
	next()
	lost := func(what string) {
		t.Helper()
		<-w.Ready()
		if n, err := w.Next(make([]Update, 1)); n != 0 || !errors.Is(err, ErrLost) {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	for i := range 5 {
		insert(t, f, "10.0.0.0/"+string('1'+rune(i)), one)
	}
	g = f.Generation()
	lost("overflow")
	next(Update{pfx("8.0.0.0/5"), 0, one, g})
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	lost("Clear")
	if err := f.Replace(slices.Values([]Route{{pfx("10.0.0.0/8"), two}})); err != nil {
		t.Fatal(err)
	}
	lost("Replace")
	next()
	insert(t, f, "10.0.0.0/9", two)
	if err := s.Remove(10); err != nil {
		t.Fatal(err)
	}
	next(Update{pfx("10.0.0.0/9"), 0, two, g + 3})
	if _, err := w.Next(make([]Update, 1)); !errors.Is(err, ErrRemoved) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := f.Watch(1); !errors.Is(err, ErrRemoved) {
		t.Errorf("watch of what was removed: %v", err)
	}
	if got, want := unsafe.Sizeof(Update{}), uintptr(48); got > want {
		t.Errorf("an Update takes %d octets, documented are %d", got, want)
	}
}

func must2[T any](v T, _ bool, err error) T { return must(v, err) }

func TestWatchRefuses(t *testing.T) {
	var s Set
	defer s.Close()
	f := must(s.Create(10, ""))
	for _, n := range []int{-1, 0, 1<<20 + 1} {
		var fe *FieldError
		if _, err := f.Watch(n); !errors.As(err, &fe) || fe.Field != "backlog" {
			t.Errorf("%d: %v", n, err)
		}
	}
	a, b := must(f.Watch(1)), must(f.Watch(1))
	a.Close()
	a.Close()
	insert(t, f, "::/0", must(s.AddNextHop(via("", 1))))
	if _, err := a.Next(nil); !errors.Is(err, ErrRemoved) {
		t.Errorf("closed: %v", err)
	}
	if n, err := b.Next(make([]Update, 2)); n != 1 || err != nil {
		t.Errorf("the other: %d, %v", n, err)
	}
	b.Close()
	if len(f.watches) != 0 {
		t.Errorf("%d watches are left", len(f.watches))
	}
}

// TestWatchFollows: whoever applies the updates has the table, while several writers change it, with backlogs too small too.
func TestWatchFollows(t *testing.T) {
	for _, backlog := range []int{1, 7, 1 << 16} {
		var s Set
		f := must(s.Create(10, ""))
		hops := make([]NextHopID, 4)
		for i := range hops {
			hops[i] = must(s.AddNextHop(via("", uint32(i+1))))
		}
		l := follow(t, f, backlog)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r := rand.New(rand.NewPCG(uint64(backlog), 1))
			for i := range 20000 {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), 0}), 8+r.IntN(17)).Masked()
				switch {
				case i%5000 == 4999:
					f.Clear()
				case r.IntN(3) == 0:
					f.Delete(p)
				default:
					f.Insert(p, hops[r.IntN(len(hops))])
				}
			}
		}()
		for over := false; !over; {
			select {
			case <-l.w.Ready():
			case <-done:
				over = true
			}
			if err := l.catchUp(1 + backlog/3); err != nil {
				t.Fatal(err)
			}
		}
		l.same()
		if backlog == 1<<16 && l.losses > 4 {
			t.Errorf("%d losses, want one for each Clear", l.losses)
		}
		l.w.Close()
		s.Close()
	}
}

func TestWatchDoesNotAllocate(t *testing.T) {
	var s Set
	defer s.Close()
	f := must(s.Create(10, ""))
	hops := [2]NextHopID{must(s.AddNextHop(via("", 1))), must(s.AddNextHop(via("", 2)))}
	w := must(f.Watch(16))
	defer w.Close()
	dst := make([]Update, 4)
	p, i := pfx("10.0.0.0/8"), 0
	if n := testing.AllocsPerRun(1000, func() {
		f.Insert(p, hops[i&1])
		i++
		w.Next(dst)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
