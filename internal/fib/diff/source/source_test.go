package source

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/mrt"
)

func insert(t *testing.T, set *fib.Set, table *fib.Table, p string, hops ...fib.NextHop) {
	t.Helper()
	var members []fib.Member
	var id fib.NextHopID
	for _, h := range hops {
		var err error
		if id, err = set.AddNextHop(h); err != nil {
			t.Fatal(err)
		}
		members = append(members, fib.Member{NextHop: id})
	}
	if len(members) > 1 {
		var err error
		if id, err = set.AddGroup(members); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := table.Insert(netip.MustParsePrefix(p), id); err != nil {
		t.Fatal(err)
	}
}

// TestFIBsAndFile compares two FIBs of two Sets, where the same next hops have other numbers, and both with a file.
func TestFIBsAndFile(t *testing.T) {
	one := fib.NextHop{Type: fib.Unicast, Device: 1, Gateway: netip.MustParseAddr("192.0.2.1")}
	two := fib.NextHop{Type: fib.Unicast, Device: 2, Gateway: netip.MustParseAddr("192.0.2.2")}
	three := fib.NextHop{Type: fib.Unicast, Device: 3}
	var sides []diff.Source
	for i := range 2 {
		set := new(fib.Set)
		defer set.Close()
		table, err := set.Create(10, "")
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 { // other numbers
			for range 5 {
				if _, err := set.AddNextHop(three); err != nil {
					t.Fatal(err)
				}
			}
			one, two = two, one
		}
		insert(t, set, table, "10.0.0.0/8", one, two)
		insert(t, set, table, "10.0.0.0/9", three)
		insert(t, set, table, "2001:db8::/32", fib.NextHop{Type: fib.Lookup, Table: 7})
		insert(t, set, table, "172.16.0.0/12", fib.NextHop{Type: fib.Blackhole})
		s, err := table.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sides = append(sides, Routes(set, s.All()))
	}
	if c, err := diff.Count(sides[0], sides[1], nil); err != nil || !c.Equal() {
		t.Error(c, err)
	}
	file := func(text string) diff.Source {
		return File(strings.NewReader(text), mrt.Options{}, func(name string) uint32 { return map[string]uint32{"eth3": 3}[name] })
	}
	good := file("blackhole 172.16.0.0/12\n10.0.0.0/9 dev eth3\n2001:db8::/32 lookup 7\n10.0.0.0/8\n nexthop via 192.0.2.2\n nexthop via 192.0.2.1\n")
	if c, err := diff.Count(sides[0], good, func(d diff.Difference) { t.Log(d) }); err != nil || !c.Equal() {
		t.Error(c, err)
	}
	bad := file("10.0.0.0/9 dev eth3\nthrow 172.16.0.0/12\n10.0.0.0/8 via 192.0.2.1\n::/0 via 2001:db8::1\n")
	if c, err := diff.Count(sides[0], bad, nil); err != nil || c != (diff.Counts{OnlyA: 1, OnlyB: 1, Differ: 2}) {
		t.Error(c, err)
	}
	var re *mrt.RecordError
	if _, err := diff.Count(sides[0], file("10.0.0.0/9\nrubbish\n"), nil); !errors.As(err, &re) || re.Record != 2 {
		t.Error(err)
	}
}
