package diff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func hop(gateway string, device uint32, weight uint16) Hop {
	h := Hop{Type: "unicast", Device: device, Weight: weight}
	if gateway != "" {
		h.Gateway = netip.MustParseAddr(gateway)
	}
	return h
}

func route(p string, hops ...Hop) Route { return Route{netip.MustParsePrefix(p), hops} }

func of(l ...Route) Source {
	return func(yield func(Route, error) bool) {
		for _, r := range l {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func lines(t *testing.T, a, b Source) string {
	t.Helper()
	var l []string
	for d, err := range Diff(a, b) {
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, d.String())
	}
	return strings.Join(l, "\n")
}

func TestDiff(t *testing.T) {
	a := of(
		route("10.0.0.0/8", hop("192.0.2.1", 1, 1)),
		route("10.0.0.0/9", hop("192.0.2.1", 1, 1)),
		route("10.1.0.0/16", hop("", 3, 0)),
		route("172.16.0.0/12", Hop{Type: "lookup", Table: 20}),
		route("2001:db8::/32", Hop{Type: "blackhole"}),
	)
	b := of(
		route("10.0.0.0/8", hop("192.0.2.1", 1, 1)),
		route("10.1.0.0/16", hop("192.0.2.2", 4, 2), hop("192.0.2.1", 3, 6)),
		route("172.16.0.0/12", Hop{Type: "lookup", Table: 21}),
		route("::/0", Hop{Type: "local"}),
		route("2001:db8::/32", Hop{Type: "blackhole"}),
	)
	want := `< 10.0.0.0/9 via 192.0.2.1 dev 1
! 10.1.0.0/16 dev 3 | via 192.0.2.1 dev 3 weight 3, via 192.0.2.2 dev 4 weight 1
! 172.16.0.0/12 lookup 20 | lookup 21
> ::/0 local`
	if got := lines(t, a, b); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	c, err := Count(a, b, nil)
	if err != nil || c != (Counts{1, 1, 2}) || c.Equal() || c.String() != "1 only in a, 1 only in b, 2 differ" {
		t.Error(c, err)
	}
	for _, s := range []Source{a, b, of()} {
		if got := lines(t, s, s); got != "" {
			t.Errorf("from itself: %s", got)
		}
	}
	names := func(i uint32) string { return map[uint32]string{3: "eth3"}[i] }
	for d := range Diff(a, b) {
		if d.Kind == Differs {
			if got := d.Words(names); got != "! 10.1.0.0/16 dev eth3 | via 192.0.2.1 dev eth3 weight 3, via 192.0.2.2 dev 4 weight 1" {
				t.Error(got)
			}
			break // and the rest of both sides is left alone
		}
	}
}

func TestMeansTheSame(t *testing.T) {
	one, two := hop("192.0.2.1", 1, 1), hop("192.0.2.2", 2, 1)
	w := func(h Hop, weight uint16) Hop { h.Weight = weight; return h }
	silent := func(h Hop) Hop { h.Device = 0; return h }
	for i, c := range []struct {
		a, b []Hop
		same bool
	}{
		{[]Hop{one, two}, []Hop{two, one}, true},
		{[]Hop{w(one, 2), w(two, 4)}, []Hop{w(two, 2), w(one, 1)}, true},
		{[]Hop{w(one, 2), w(two, 4)}, []Hop{w(two, 1), w(one, 2)}, false},
		{[]Hop{w(one, 7)}, []Hop{one}, true},
		{[]Hop{w(one, 0)}, []Hop{one}, true},
		{[]Hop{one, one}, []Hop{one}, true},
		{[]Hop{one, one, two}, []Hop{w(one, 2), two}, true},
		{[]Hop{one, two}, []Hop{one}, false},
		{[]Hop{silent(one)}, []Hop{one}, true},
		{[]Hop{silent(one), silent(two)}, []Hop{two, one}, true},
		{[]Hop{silent(two)}, []Hop{one}, false},
		{[]Hop{{Type: "blackhole"}}, []Hop{{Type: "prohibit"}}, false},
	} {
		p := "10.0.0.0/8"
		if got := lines(t, of(route(p, c.a...)), of(route(p, c.b...))) == ""; got != c.same {
			t.Errorf("case %d: %v", i, got)
		}
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	fails := func(yield func(Route, error) bool) {
		if yield(route("10.0.0.0/8", hop("", 1, 1)), nil) {
			yield(Route{}, broken)
		}
	}
	if _, err := Count(fails, of(), nil); !errors.Is(err, broken) || !strings.Contains(err.Error(), "the first side") {
		t.Error(err)
	}
	if _, err := Count(of(), fails, nil); !errors.Is(err, broken) || !strings.Contains(err.Error(), "the second side") {
		t.Error(err)
	}
	if _, err := Count(of(), Sorted(fails), nil); !errors.Is(err, broken) {
		t.Error(err)
	}
	for _, second := range []string{"10.0.0.0/8", "9.0.0.0/8"} {
		if _, err := Count(of(route("10.0.0.0/8"), route(second)), of(), nil); err == nil || !strings.Contains(err.Error(), "want the order of prefixes") {
			t.Errorf("%s: %v", second, err)
		}
	}
}

// TestAgainstMaps compares random sides with what two maps say.
func TestAgainstMaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 300 {
		var side [2]map[netip.Prefix]Hop
		var src [2]Source
		for i := range side {
			side[i] = map[netip.Prefix]Hop{}
			var l []Route
			for range rng.IntN(40) {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(rng.IntN(4) << 6)}), rng.IntN(9)).Masked()
				if rng.IntN(2) == 0 {
					p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(rng.IntN(4) << 6)}), rng.IntN(17)).Masked()
				}
				h := hop("", uint32(1+rng.IntN(3)), 1)
				side[i][p] = h
				l = append(l, Route{p, []Hop{h}})
			}
			src[i] = Sorted(of(l...))
		}
		want := map[string]bool{}
		for p, h := range side[0] {
			if o, ok := side[1][p]; !ok {
				want[fmt.Sprintf("< %v dev %d", p, h.Device)] = true
			} else if o != h {
				want[fmt.Sprintf("! %v dev %d | dev %d", p, h.Device, o.Device)] = true
			}
		}
		for p, h := range side[1] {
			if _, ok := side[0][p]; !ok {
				want[fmt.Sprintf("> %v dev %d", p, h.Device)] = true
			}
		}
		var last netip.Prefix
		for d, err := range Diff(src[0], src[1]) {
			if err != nil {
				t.Fatal(err)
			}
			if !want[d.String()] || (last.IsValid() && last.Compare(d.Prefix) >= 0) {
				t.Fatalf("%v, after %v", d, last)
			}
			delete(want, d.String())
			last = d.Prefix
		}
		if len(want) != 0 {
			t.Fatalf("not found: %v", want)
		}
	}
}

func TestHopsAreTheReceivers(t *testing.T) {
	var kept []Difference
	for d := range Diff(of(route("10.0.0.0/8", hop("", 1, 1)), route("11.0.0.0/8", hop("", 2, 1))), of()) {
		kept = append(kept, d)
	}
	if !slices.Equal(kept[0].A, []Hop{hop("", 1, 1)}) {
		t.Error(kept)
	}
}
