package aemfib_test

import (
	"net/netip"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemfib"
	"midplane/fib"
)

// newLoop makes a loop that ends after the test.
func newLoop(t *testing.T) *aem.Loop {
	t.Helper()
	ex, err := aem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	l, err := aem.NewLoop(ex, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestChanges(t *testing.T) {
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
	got := make(chan aemfib.Change, 100)
	e, err := aem.Register(l, aemfib.Changes(&set, time.Millisecond), func(_ *aem.Ctx, c aemfib.Change) { got <- c }, aem.EventConfig{Deadline: aem.NoDeadline})
	must(err)
	must(e.Start())
	until := func(what string, fits func(aemfib.Change) bool) {
		t.Helper()
		for {
			select {
			case c := <-got:
				if fits(c) {
					return
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no event of", what)
			}
		}
	}
	until("blue", func(c aemfib.Change) bool { return c.New && c.ID == 10 && c.Name == "blue" })
	hop, err := set.Intern(fib.NextHop{Type: fib.Unicast, Device: 3, Gateway: netip.MustParseAddr("192.0.2.1")})
	must(err)
	for i := range 5 {
		_, _, err = blue.Insert(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16), hop)
		must(err)
	}
	until("routes", func(c aemfib.Change) bool { return !c.New && c.IPv4 == 5 && c.Changes > 0 })
	_, err = set.Create(11, "red")
	must(err)
	until("red", func(c aemfib.Change) bool { return c.New && c.ID == 11 })
	must(set.Remove(10))
	until("the end of blue", func(c aemfib.Change) bool { return c.Gone && c.ID == 10 && c.Name == "blue" })
	must(e.Stop())
	must(e.Start()) // all that is there is new again
	until("red again", func(c aemfib.Change) bool { return c.New && c.ID == 11 })
	must(e.Shutdown())
}
