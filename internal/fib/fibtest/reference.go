package fibtest

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Route is a prefix and what it leads to.
type Route struct {
	Prefix  netip.Prefix
	NextHop uint32
}

// Reference is a table as slow and as obvious as can be: a map, asked for each length in turn. Prefixes are masked by
// whoever calls.
type Reference map[netip.Prefix]uint32

// Lookup returns the route of the longest prefix that contains an address. IPv4 in IPv6 is IPv4.
func (m Reference) Lookup(a netip.Addr) (Route, bool) {
	a = a.Unmap()
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, _ := a.Prefix(bits)
		if nh, ok := m[p]; ok {
			return Route{p, nh}, true
		}
	}
	return Route{}, false
}

// Sorted returns all routes: IPv4 first, by address, shorter prefixes first.
func (m Reference) Sorted() []Route {
	return sorted(maps.All(m))
}

func sorted(routes iter.Seq2[netip.Prefix, uint32]) []Route {
	var l []Route
	for p, nh := range routes {
		l = append(l, Route{p, nh})
	}
	slices.SortFunc(l, func(a, b Route) int { return ComparePrefixes(a.Prefix, b.Prefix) })
	return l
}

// ComparePrefixes is the order of Sorted.
func ComparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c // netip puts IPv4 first
	}
	return a.Bits() - b.Bits()
}

// Covering returns the routes that contain p, itself among them, shortest first.
func (m Reference) Covering(p netip.Prefix) (l []Route) {
	for bits := 0; bits <= p.Bits(); bits++ {
		q, _ := p.Addr().Prefix(bits)
		if nh, ok := m[q]; ok {
			l = append(l, Route{q, nh})
		}
	}
	return l
}

// Covered returns the routes within p, itself among them, in the order of Sorted.
func (m Reference) Covered(p netip.Prefix) []Route {
	return sorted(func(yield func(netip.Prefix, uint32) bool) {
		for q, nh := range m {
			if q.Bits() >= p.Bits() && p.Contains(q.Addr()) && !yield(q, nh) {
				return
			}
		}
	})
}
