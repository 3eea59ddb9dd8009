package fibtool

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"midplane/internal/fib/flowhash"
	"midplane/internal/fib/service/spec"
)

const routeArgs = "[TYPE] PREFIX fib FIB [proto P] {[via [FAMILY] ADDRESS] dev DEV | nhid N | nexthop [via ADDRESS] dev DEV [weight N]... | lookup FIB}"

var routeTypes = []string{spec.Unicast, spec.Local, spec.Blackhole, spec.Unreachable, spec.Prohibit}

// absent are the key words of ip-route(8) that there is nothing for here.
var absent = []string{"metric", "preference", "src", "mtu", "tos", "dsfield", "realms", "encap", "expires", "pref", "rtt", "window", "advmss", "initcwnd", "initrwnd", "quickack", "congctl", "features", "ttl-propagate"}

// route is a route as it is read.
type route struct {
	spec.Route
	fib    string
	prefix string
	scope  string
	onlink bool
	via    netip.Addr
	dev    string
	weight int
	lookup string
}

// hopKeys are the key words of one way out.
func (c *call) hopKeys(via *netip.Addr, dev *string, weight *int, onlink *bool) []keyword {
	return []keyword{
		{name: "via", take: func() error {
			w, err := c.Word("the address of a gateway")
			if err == nil && (w == "inet" || w == "inet6") {
				w, err = c.Word("the address of a gateway")
			}
			if err == nil {
				*via, err = c.address("via", w)
			}
			return err
		}},
		c.text("dev", dev, "oif"),
		c.number("weight", 1, 256, func(n uint64) { *weight = int(n) }),
		c.flagword("onlink", onlink),
	}
}

// readRoute reads what routeArgs says.
func (c *call) readRoute() (*route, error) {
	r := &route{}
	if slices.Contains(routeTypes, c.Peek()) {
		r.Type, _ = c.Word("type")
	}
	keys := append(c.hopKeys(&r.via, &r.dev, &r.weight, &r.onlink),
		c.which(&r.fib),
		c.text("proto", &r.Proto, "protocol"),
		c.text("lookup", &r.lookup),
		c.text("scope", &r.scope),
		c.number("nhid", 1, 1<<32-1, func(n uint64) { r.NHID = uint32(n) }),
		keyword{name: "to", take: func() (err error) {
			r.prefix, err = c.Word("a prefix")
			return err
		}},
		keyword{name: "nexthop", take: func() error { return c.readHop(r) }},
	)
	err := c.keywords(keys, func(w string) error {
		if slices.Contains(absent, w) {
			return c.Wrongf("%s: routes here have none: want %s", w, names(keys))
		}
		if r.prefix != "" {
			return c.Wrongf("unknown or ambiguous key word %q: want %s", w, names(keys))
		}
		r.prefix = w
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.prefix == "" {
		return nil, c.Wrongf("missing a prefix")
	}
	if r.fib == "" {
		return nil, c.Wrongf("missing fib FIB")
	}
	// default is of the gateway's family.
	if gw := r.via; c.family == 0 {
		if !gw.IsValid() && len(r.Hops) > 0 {
			gw = r.Hops[0].Gateway
		}
		if gw.Is6() {
			c.family = 6
			defer func() { c.family = 0 }()
		}
	}
	if r.Dst, err = c.prefix("prefix", r.prefix); err != nil {
		return nil, err
	}
	if r.lookup != "" {
		if r.Type != "" {
			return nil, c.Wrongf("lookup and type %s: want one", r.Type)
		}
		r.Type, r.Table = spec.Lookup, r.lookup
	}
	if r.dev != "" || r.via.IsValid() || r.weight != 0 {
		if len(r.Hops) > 0 {
			return nil, c.Wrongf("via and dev beside nexthop: want one or the other")
		}
		r.Hops = []spec.Hop{{Gateway: r.via, Dev: r.dev}}
		if r.weight > 1 {
			return nil, c.Wrongf("weight %d: want it with nexthop", r.weight)
		}
	}
	if r.scope != "" && r.scope != "global" && r.scope != "link" && r.scope != "host" {
		return nil, c.Wrongf("scope %q: want global, link or host; it follows from the gateway", r.scope)
	}
	if r.Type == spec.Unicast {
		r.Type = ""
	}
	return r, nil
}

// readHop reads what is behind the key word nexthop, up to the next one.
func (c *call) readHop(r *route) error {
	var h spec.Hop
	var onlink bool
	keys := c.hopKeys(&h.Gateway, &h.Dev, &h.Weight, &onlink)
	for len(c.Args) > 0 {
		k := match(keys, c.Args[0])
		if k == nil {
			break
		}
		c.Args = c.Args[1:]
		if err := k.take(); err != nil {
			return err
		}
	}
	if h.Dev == "" {
		return c.Wrongf("nexthop: want dev DEV")
	}
	h.Weight = max(h.Weight, 1)
	r.Hops = append(r.Hops, h)
	return nil
}

func routeChange(c *call) error {
	do := map[string]spec.Verb{"add": spec.RouteAdd, "change": spec.RouteChange, "replace": spec.RouteReplace}[c.Cmd.Name]
	r, err := c.readRoute()
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: do, FIB: r.fib, Route: &r.Route})
}

func routeDel(c *call) error {
	r, err := c.readRoute()
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.RouteDel, FIB: r.fib, Route: &r.Route})
}

// protocols are the names of IP protocols (IANA), beside numbers.
var protocols = map[string]uint8{"icmp": 1, "tcp": flowhash.TCP, "udp": flowhash.UDP, "dccp": flowhash.DCCP, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58,
	"sctp": flowhash.SCTP, "udplite": flowhash.UDPLite}

func (c *call) protocol(w string) (uint8, error) {
	if p, ok := protocols[w]; ok {
		return p, nil
	}
	n, err := strconv.ParseUint(w, 10, 8)
	if err != nil {
		return 0, c.Wrongf("ipproto %q: want %s, or a number from 0 to 255", w, strings.Join(slices.Sorted(maps.Keys(protocols)), ", "))
	}
	return uint8(n), nil
}

func routeGet(c *call) error {
	var address, from, protocol string
	var q spec.LookupQuery
	flow := spec.Flow{Protocol: flowhash.UDP} // as for ip(8) (net/ipv4/route.c, inet_rtm_getroute)
	var match, hash, ports bool
	keys := []keyword{
		c.which(&q.FIB),
		c.text("from", &from),
		c.text("iif", &q.Iif),
		c.text("ipproto", &protocol),
		c.number("sport", 0, 1<<16-1, func(n uint64) { flow.SPort, ports = uint16(n), true }),
		c.number("dport", 0, 1<<16-1, func(n uint64) { flow.DPort, ports = uint16(n), true }),
		c.number("hash", 0, 1<<32-1, func(n uint64) { q.Hash, hash = uint32(n), true }),
		c.flagword("fibmatch", &match),
		c.text("to", &address),
	}
	err := c.keywords(keys, func(w string) error {
		if address != "" {
			return c.Wrongf("unknown or ambiguous key word %q: want %s", w, names(keys))
		}
		address = w
		return nil
	})
	if err != nil {
		return err
	}
	if address == "" || q.FIB == "" && q.Iif == "" {
		return c.Wrongf("missing an address, or fib FIB or iif PORT")
	}
	if q.Addr, err = c.address("address", address); err != nil {
		return err
	}
	switch {
	case from == "" && (protocol != "" || ports):
		return c.Wrongf("missing from ADDRESS: ipproto, sport and dport are of a flow")
	case from != "" && hash:
		return c.Wrongf("hash and from: want one, a flow has its own hash")
	case from != "":
		if flow.From, err = c.address("from", from); err != nil {
			return err
		}
		if protocol != "" {
			if flow.Protocol, err = c.protocol(protocol); err != nil {
				return err
			}
		}
		if ports && !flowhash.HasPorts(flow.Protocol) {
			return c.Wrongf("sport and dport with ipproto %s: it has no ports", protocol)
		}
		q.Flow = &flow
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	i, err := node.Lookup(c.ctx, q)
	if err != nil {
		return err
	}
	if !i.Found || i.FIB == 0 {
		return errUnreachable{q.Addr, cmp.Or(q.FIB, "of "+q.Iif)}
	}
	if match {
		return c.list(func() error { c.printRoute(i.Route, true); return nil }, func() error { c.jsonRoute(i.Route, true); return nil })
	}
	return c.list(func() error { c.printLookup(q, i); return nil }, func() error { c.jsonLookup(q, i); return nil })
}

// errUnreachable says that no route leads to an address.
type errUnreachable struct {
	addr netip.Addr
	fib  string
}

func (e errUnreachable) Error() string { return "no route to " + e.addr.String() + " in fib " + e.fib }

const showArgs = "[fib FIB] [[to] [root | match | exact] PREFIX] [proto P] [type T] [dev DEV] [via ADDRESS] [nhid N] [hidden]"

func (c *call) readQuery() (spec.RouteQuery, error) {
	q := spec.RouteQuery{Family: c.family}
	var via string
	prefix := func(to *netip.Prefix) func() error {
		return func() error {
			w, err := c.Word("a prefix")
			if err == nil {
				*to, err = c.prefix("prefix", w)
			}
			return err
		}
	}
	keys := []keyword{
		c.which(&q.FIB),
		{name: "exact", take: prefix(&q.Exact)},
		{name: "root", take: prefix(&q.Root)},
		{name: "match", take: prefix(&q.Match)},
		{name: "to", take: func() error {
			if k := match([]keyword{{name: "root"}, {name: "match"}, {name: "exact"}}, c.Peek()); k != nil {
				return nil
			}
			return prefix(&q.Exact)()
		}},
		c.text("proto", &q.Proto, "protocol"),
		c.text("type", &q.Type),
		c.text("dev", &q.Dev, "oif"),
		c.text("via", &via),
		c.number("nhid", 1, 1<<32-1, func(n uint64) { q.NHID = uint32(n) }),
		c.flagword("hidden", &q.Hidden),
	}
	err := c.keywords(keys, func(w string) (err error) {
		if slices.Contains(routeTypes, w) || w == spec.Lookup {
			q.Type = w
			return nil
		}
		if q.Exact.IsValid() || !startsPrefix(w) {
			return c.Wrongf("unknown or ambiguous key word %q: want %s, or a prefix", w, names(keys))
		}
		q.Exact, err = c.prefix("prefix", w)
		return err
	})
	if err == nil && via != "" {
		q.Via, err = c.address("via", via)
	}
	return q, err
}

func startsPrefix(w string) bool {
	return w == "default" || w == "any" || w == "all" || w[0] >= '0' && w[0] <= '9' || w[0] >= 'a' && w[0] <= 'f' || w[0] >= 'A' && w[0] <= 'F' || w[0] == ':'
}

func routeShow(c *call) error {
	q, err := c.readQuery()
	if err != nil {
		return err
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	table := q.FIB == ""
	return c.list(func() error {
		return node.Routes(c.ctx, q, func(r spec.RouteInfo) bool {
			c.printRoute(chosen(q, r), table)
			return c.ctx.Err() == nil
		})
	}, func() error {
		return node.Routes(c.ctx, q, func(r spec.RouteInfo) bool {
			c.jsonRoute(chosen(q, r), table)
			return c.ctx.Err() == nil
		})
	})
}

func routeFlush(c *call) error {
	q, err := c.readQuery()
	if err != nil {
		return err
	}
	if q.FIB == "" {
		return c.Wrongf("missing fib FIB")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	n, err := node.Flush(c.ctx, q)
	if err == nil && c.stats {
		c.printf("%d routes removed\n", n)
	}
	return err
}
