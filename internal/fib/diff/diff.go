// Package diff compares the routes of any two of a FIB, a kernel table, a feed and a file. It is pure: both sides are
// sequences in the order of prefixes, which are merged, so that nothing is held but the current route of each side.
package diff

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Hop is one next hop in words, not by number: numbers of next hops mean nothing outside their Set.
type Hop struct {
	Type    string     // as ip-route(8) writes it; "unicast", "local", "blackhole", "unreachable", "prohibit", "lookup"
	Gateway netip.Addr // the zero Addr: on the link, or not given
	Device  uint32     // interface index, 0: not given
	Table   uint32     // with "lookup"
	Weight  uint16     // 0 is 1
}

// Route is one route of a source. Hops belongs to the source and is valid until the next one.
type Route struct {
	Prefix netip.Prefix
	Hops   []Hop // in any order; one or more
}

// Source is a sequence of routes in the order of netip.Prefix.Compare, each prefix once. An error ends it.
type Source = iter.Seq2[Route, error]

// Kind says how two sides differ in a prefix.
type Kind uint8

// Kinds of differences.
const (
	OnlyA   Kind = iota // only the first side has the prefix
	OnlyB               // only the second has it
	Differs             // both have it, and it leads elsewhere
)

// String returns the name.
func (k Kind) String() string {
	switch k {
	case OnlyA:
		return "only-in-a"
	case OnlyB:
		return "only-in-b"
	case Differs:
		return "differs"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Difference is one prefix in which two sides differ. A and B are sorted and belong to the receiver.
type Difference struct {
	Kind   Kind
	Prefix netip.Prefix
	A, B   []Hop
}

// String returns the difference in a line: "< PREFIX HOPS", "> PREFIX HOPS" or "! PREFIX HOPS | HOPS".
func (d Difference) String() string { return d.Words(nil) }

// Words is String with the names of interfaces; nil writes their numbers.
func (d Difference) Words(device func(uint32) string) string {
	switch d.Kind {
	case OnlyA:
		return "< " + d.Prefix.String() + " " + Words(d.A, device)
	case OnlyB:
		return "> " + d.Prefix.String() + " " + Words(d.B, device)
	}
	return "! " + d.Prefix.String() + " " + Words(d.A, device) + " | " + Words(d.B, device)
}

// Words returns next hops in the words of ip-route(8).
func Words(hops []Hop, device func(uint32) string) string {
	var l []string
	for _, h := range hops {
		var w []string
		if h.Type != "unicast" {
			w = append(w, h.Type)
		}
		if h.Gateway.IsValid() {
			w = append(w, "via", h.Gateway.String())
		}
		if h.Device != 0 {
			name := ""
			if device != nil {
				name = device(h.Device)
			}
			if name == "" {
				name = strconv.FormatUint(uint64(h.Device), 10)
			}
			w = append(w, "dev", name)
		}
		if h.Table != 0 {
			w = append(w, strconv.FormatUint(uint64(h.Table), 10))
		}
		if len(hops) > 1 {
			w = append(w, "weight", strconv.Itoa(int(max(h.Weight, 1))))
		}
		if len(w) == 0 {
			w = append(w, "unicast")
		}
		l = append(l, strings.Join(w, " "))
	}
	return strings.Join(l, ", ")
}

// Diff compares two sources. It stops with an error of a source, or one that says that a source is out of order.
func Diff(a, b Source) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		sa, sb := begin(a, "the first side"), begin(b, "the second side")
		defer sa.stop()
		defer sb.stop()
		var hopsA, hopsB []Hop
		for {
			if err := cmp.Or(sa.err, sb.err); err != nil {
				yield(Difference{}, err)
				return
			}
			if !sa.ok && !sb.ok {
				return
			}
			order := 0
			switch {
			case !sb.ok:
				order = -1
			case !sa.ok:
				order = 1
			default:
				order = sa.r.Prefix.Compare(sb.r.Prefix)
			}
			hopsA, hopsB = hopsA[:0], hopsB[:0]
			d := Difference{Kind: Differs}
			if order <= 0 {
				d.Prefix, hopsA = sa.r.Prefix, canonical(hopsA, sa.r.Hops)
			}
			if order >= 0 {
				d.Prefix, hopsB = sb.r.Prefix, canonical(hopsB, sb.r.Hops)
			}
			if order < 0 {
				d.Kind = OnlyA
			} else if order > 0 {
				d.Kind = OnlyB
			}
			if d.Kind != Differs || !same(hopsA, hopsB) {
				d.A, d.B = slices.Clone(hopsA), slices.Clone(hopsB)
				if !yield(d, nil) {
					return
				}
			}
			if order <= 0 {
				sa.next()
			}
			if order >= 0 {
				sb.next()
			}
		}
	}
}

type side struct {
	name string
	pull func() (Route, error, bool)
	stop func()
	r    Route
	last netip.Prefix
	err  error
	ok   bool
}

func begin(s Source, name string) *side {
	d := &side{name: name}
	d.pull, d.stop = iter.Pull2(s)
	d.next()
	return d
}

func (s *side) next() {
	s.r, s.err, s.ok = s.pull()
	switch {
	case !s.ok:
		s.err = nil
	case s.err != nil:
		s.err = fmt.Errorf("%s: %w", s.name, s.err)
	case s.last.IsValid() && s.last.Compare(s.r.Prefix) >= 0:
		s.err = fmt.Errorf("%s: %v after %v: want the order of prefixes, each once", s.name, s.r.Prefix, s.last)
	default:
		s.last = s.r.Prefix
	}
}

// canonical appends next hops so that what means the same looks the same: in order, equal ones as one of their common
// weight, weights without a common factor.
func canonical(to, hops []Hop) []Hop {
	to = append(to, hops...)
	for i := range to {
		to[i].Weight = max(to[i].Weight, 1)
	}
	slices.SortFunc(to, compare)
	n := 0
	for _, h := range to {
		if last := n - 1; last >= 0 && compare(to[last], h) == 0 {
			to[last].Weight += h.Weight // 256 of 256 at most: it fits
			continue
		}
		to[n] = h
		n++
	}
	to = to[:n]
	div := uint16(0)
	for _, h := range to {
		for a, b := div, h.Weight; ; a, b = b, a%b {
			if b == 0 {
				div = a
				break
			}
		}
	}
	for i := range to {
		to[i].Weight /= max(div, 1)
	}
	return to
}

// compare orders next hops, whatever their weight.
func compare(a, b Hop) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), a.Gateway.Compare(b.Gateway), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Table, b.Table))
}

// same compares canonical next hops. A side that does not say the device, as files do, agrees with any.
func same(a, b []Hop) bool {
	if len(a) != len(b) {
		return false
	}
	silent := func(l []Hop) bool {
		return slices.ContainsFunc(l, func(h Hop) bool { return h.Device == 0 })
	}
	loose := silent(a) || silent(b)
	for i, h := range a {
		o := b[i]
		if loose {
			h.Device, o.Device = 0, 0
		}
		if h != o {
			return false
		}
	}
	return true
}

// Sorted makes a Source of routes in any order; of several of one prefix the last counts. It holds them all.
func Sorted(routes iter.Seq2[Route, error]) Source {
	return func(yield func(Route, error) bool) {
		var l []Route
		for r, err := range routes {
			if err != nil {
				yield(Route{}, err)
				return
			}
			l = append(l, Route{r.Prefix.Masked(), slices.Clone(r.Hops)})
		}
		slices.SortStableFunc(l, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
		for i, r := range l {
			if i+1 < len(l) && l[i+1].Prefix == r.Prefix {
				continue
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Counts is the sum of a comparison.
type Counts struct{ OnlyA, OnlyB, Differ int }

// Equal says whether there is no difference.
func (c Counts) Equal() bool { return c == Counts{} }

// String returns the numbers.
func (c Counts) String() string {
	return fmt.Sprintf("%d only in a, %d only in b, %d differ", c.OnlyA, c.OnlyB, c.Differ)
}

// Count compares two sources and counts. show, if not nil, gets each difference.
func Count(a, b Source, show func(Difference)) (Counts, error) {
	var c Counts
	for d, err := range Diff(a, b) {
		if err != nil {
			return c, err
		}
		switch d.Kind {
		case OnlyA:
			c.OnlyA++
		case OnlyB:
			c.OnlyB++
		default:
			c.Differ++
		}
		if show != nil {
			show(d)
		}
	}
	return c, nil
}
