package spec

import (
	"fmt"

	"midplane/fib"
)

// Op is one change. Exactly the field that its verb is about is set. FIBs are named by name or number; on disk always by
// number.
type Op struct {
	Do      Verb     `json:"do"`
	FIB     string   `json:"fib,omitempty"` // whose route, neighbour, port or load it is
	NewFIB  *FIB     `json:"new,omitempty"`
	Route   *Route   `json:"route,omitempty"`
	NextHop *NextHop `json:"nexthop,omitempty"`
	Neigh   *Neigh   `json:"neigh,omitempty"`
	Port    *Port    `json:"port,omitempty"`
	Feed    *Feed    `json:"feed,omitempty"`
	Load    *Load    `json:"load,omitempty"`
}

// Verb is what an Op does. The words are part of the format on disk: never give one another meaning.
type Verb string

// Verbs. Add fails when it is there, del when it is not, change is del and add in one, replace is add or change.
const (
	FIBAdd         Verb = "fib-add"
	FIBDel         Verb = "fib-del"
	RouteAdd       Verb = "route-add"
	RouteChange    Verb = "route-change"
	RouteReplace   Verb = "route-replace"
	RouteDel       Verb = "route-del"
	NextHopAdd     Verb = "nexthop-add"
	NextHopReplace Verb = "nexthop-replace"
	NextHopDel     Verb = "nexthop-del"
	NeighAdd       Verb = "neigh-add"
	NeighReplace   Verb = "neigh-replace"
	NeighDel       Verb = "neigh-del"
	PortAdd        Verb = "port-add"
	PortDel        Verb = "port-del"
	FeedAdd        Verb = "feed-add"
	FeedDel        Verb = "feed-del"
	LoadSet        Verb = "load-set" // of the daemon itself
	LoadDel        Verb = "load-del"
)

// Check returns a *fib.FieldError when the verb is unknown or its field is missing or wrong.
func (o Op) Check() error {
	want := func(have bool, needFIB bool, check func() error) error {
		if !have {
			return &fib.FieldError{Field: "do", Value: string(o.Do), Want: "what it is about"}
		}
		if needFIB && o.FIB == "" {
			return &fib.FieldError{Field: "fib", Value: "", Want: "the name or number of a FIB"}
		}
		return check()
	}
	switch o.Do {
	case FIBAdd:
		return want(o.NewFIB != nil, false, func() error { return o.NewFIB.Check() })
	case FIBDel, LoadDel:
		return want(true, true, func() error { return nil })
	case RouteAdd, RouteChange, RouteReplace:
		return want(o.Route != nil, true, func() error { return o.Route.Check() })
	case RouteDel:
		return want(o.Route != nil, true, func() error { return CheckPrefix("dst", o.Route.Dst) })
	case NextHopAdd, NextHopReplace:
		return want(o.NextHop != nil, false, func() error { return o.NextHop.Check() })
	case NextHopDel:
		return want(o.NextHop != nil, false, func() error { return nil })
	case NeighAdd, NeighReplace, NeighDel:
		return want(o.Neigh != nil, true, func() error {
			if o.Do != NeighDel {
				if _, err := ParseMAC(o.Neigh.LLAddr); err != nil {
					return err
				}
			}
			return o.Neigh.Check()
		})
	case PortAdd:
		return want(o.Port != nil, true, func() error { return o.Port.Check() })
	case PortDel:
		return want(o.Port != nil, false, func() error { return o.Port.Check() })
	case FeedAdd:
		return want(o.Feed != nil, false, func() error { return o.Feed.Check() })
	case FeedDel:
		return want(o.Feed != nil, false, func() error { return nil })
	case LoadSet:
		return want(o.Load != nil, true, func() error { return nil })
	}
	return &fib.FieldError{Field: "do", Value: string(o.Do), Want: "a verb such as route-add"}
}

// ParseMAC reads a link-layer address of Ethernet.
func ParseMAC(s string) (m [6]byte, err error) {
	bad := &fib.FieldError{Field: "lladdr", Value: s, Want: "the address of a device, such as 02:00:00:00:00:01"}
	if len(s) != 17 {
		return m, bad
	}
	for i := range m {
		var v byte
		for k, c := range []byte(s[3*i : 3*i+2]) {
			var d byte
			switch {
			case c >= '0' && c <= '9':
				d = c - '0'
			case c >= 'a' && c <= 'f':
				d = c - 'a' + 10
			case c >= 'A' && c <= 'F':
				d = c - 'A' + 10
			default:
				return m, bad
			}
			v |= d << (4 * (1 - k))
		}
		if i < 5 && s[3*i+2] != ':' {
			return m, bad
		}
		m[i] = v
	}
	if m[0]&1 != 0 || m == [6]byte{} {
		return m, bad
	}
	return m, nil
}

// About says in a word or two what an operation is about, for messages.
func (o Op) About() string {
	switch {
	case o.Route != nil:
		return fmt.Sprintf("route %s in fib %s", o.Route.Dst, o.FIB)
	case o.NextHop != nil:
		return fmt.Sprint("nexthop ", o.NextHop.ID)
	case o.Neigh != nil:
		return fmt.Sprintf("neigh %s dev %s", o.Neigh.Dst, o.Neigh.Dev)
	case o.Port != nil:
		return "port " + o.Port.Key()
	case o.Feed != nil:
		return "feed " + o.Feed.Name
	case o.NewFIB != nil && o.NewFIB.Name != "":
		return "fib " + o.NewFIB.Name
	case o.NewFIB != nil:
		return "fib " + o.NewFIB.ID.String()
	}
	return "fib " + o.FIB
}
