package fibtool

import (
	"net/netip"

	"midplane/internal/cli/ipjson"
	"midplane/internal/fib/service/spec"
)

// dst is a destination as ip(8) prints it.
func dst(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// onLink says whether ip(8) prints scope link: no gateway, and IPv4.
func onLink(r spec.RouteInfo) bool {
	return r.Type == spec.Unicast && !r.Multi && len(r.Hops) == 1 && !r.Hops[0].Gateway.IsValid() && r.Dst.Addr().Is4()
}

func title(name string, id string) string {
	if name != "" {
		return name
	}
	return id
}

// chosen leaves out what all routes of a query have, as ip(8) does.
func chosen(q spec.RouteQuery, r spec.RouteInfo) spec.RouteInfo {
	if q.Proto != "" {
		r.Proto = ""
	}
	if len(r.Hops) == 1 && !r.Multi && q.Dev != "" {
		r.Hops[0].Dev = ""
	}
	return r
}

// printRoute prints a route in the order of print_route in iproute2's ip/iproute.c.
func (c *call) printRoute(r spec.RouteInfo, table bool) {
	if r.Type != spec.Unicast && r.Type != spec.Lookup || c.detail {
		c.printf("%s ", r.Type)
	}
	c.printf("%s ", dst(r.Dst))
	if r.NHID != 0 {
		c.printf("nhid %d ", r.NHID)
	}
	if r.Type == spec.Lookup {
		c.printf("lookup %s ", r.Table)
	}
	if !r.Multi && len(r.Hops) == 1 {
		c.printHop(r.Hops[0], r.Dst.Addr())
	}
	if table {
		c.printf("table %s ", title(r.Name, r.FIB.String()))
	}
	if r.Proto != "" {
		c.printf("proto %s ", r.Proto)
	}
	if onLink(r) {
		c.printf("scope link ")
	}
	if !r.Multi && len(r.Hops) == 1 && r.Hops[0].Down {
		c.printf("dead ")
	}
	if r.State != "" {
		c.printf("%s ", r.State)
	}
	if r.Multi {
		for _, h := range r.Hops {
			if c.line {
				c.printf("\\\tnexthop ")
			} else {
				c.printf("\n\tnexthop ")
			}
			c.printHop(h, r.Dst.Addr())
			c.printf("weight %d ", h.Weight)
			if h.Down {
				c.printf("dead ")
			}
		}
	}
	c.printf("\n")
}

func (c *call) printHop(h spec.HopInfo, family netip.Addr) {
	switch {
	case !h.Gateway.IsValid():
	case family.IsValid() && h.Gateway.Is4() != family.Is4():
		c.printf("via %s %s ", inet(h.Gateway), h.Gateway)
	default:
		c.printf("via %s ", h.Gateway)
	}
	if h.Dev != "" {
		c.printf("dev %s ", h.Dev)
	}
}

func inet(a netip.Addr) string {
	if a.Is4() {
		return "inet"
	}
	return "inet6"
}

func (c *call) jsonRoute(r spec.RouteInfo, table bool) {
	w := &c.w
	w.BeginObject()
	if r.Type != spec.Unicast || c.detail {
		w.Field("type", r.Type)
	}
	w.Field("dst", dst(r.Dst))
	if r.NHID != 0 {
		w.Field("nhid", r.NHID)
	}
	if r.Type == spec.Lookup {
		w.Field("lookup", r.Table)
	}
	if !r.Multi && len(r.Hops) == 1 {
		jsonHop(w, r.Hops[0], r.Dst.Addr())
	}
	if table {
		w.Field("table", title(r.Name, r.FIB.String()))
	}
	if r.Proto != "" {
		w.Field("protocol", r.Proto)
	}
	if onLink(r) {
		w.Field("scope", "link")
	}
	down := !r.Multi && len(r.Hops) == 1 && r.Hops[0].Down
	w.Strings("flags", flags(down))
	if r.State != "" {
		w.Field("state", r.State)
	}
	if r.Multi {
		w.Name("nexthops")
		w.BeginArray()
		for _, h := range r.Hops {
			w.BeginObject()
			jsonHop(w, h, r.Dst.Addr())
			w.Field("weight", h.Weight)
			w.Strings("flags", flags(h.Down))
			w.EndObject()
		}
		w.EndArray()
	}
	w.EndObject()
	c.spill()
}

func flags(down bool) []string {
	if down {
		return []string{"dead"}
	}
	return nil
}

func jsonHop(w *ipjson.Writer, h spec.HopInfo, family netip.Addr) {
	switch {
	case !h.Gateway.IsValid():
	case family.IsValid() && h.Gateway.Is4() != family.Is4():
		w.Name("via")
		w.BeginObject()
		w.Field("family", inet(h.Gateway))
		w.Field("host", h.Gateway.String())
		w.EndObject()
	default:
		w.Field("gateway", h.Gateway.String())
	}
	if h.Dev != "" {
		w.Field("dev", h.Dev)
	}
}

func (c *call) printLookup(q spec.LookupQuery, i spec.LookupInfo) {
	if i.Type != spec.Unicast {
		c.printf("%s ", i.Type)
	}
	c.printf("%s ", i.Addr)
	if q.Flow != nil {
		c.printf("from %s ", q.Flow.From)
	}
	c.printHop(i.Hop, i.Addr)
	c.printf("table %s ", title(i.Name, i.FIB.String()))
	if q.Iif != "" {
		c.printf("iif %s ", q.Iif)
	}
	if c.detail {
		c.printf("hash %d ", i.Hash)
	}
	c.printf("\n")
}

func (c *call) jsonLookup(q spec.LookupQuery, i spec.LookupInfo) {
	w := &c.w
	w.BeginObject()
	if i.Type != spec.Unicast {
		w.Field("type", i.Type)
	}
	w.Field("dst", i.Addr.String())
	if q.Flow != nil {
		w.Field("from", q.Flow.From.String())
	}
	jsonHop(w, i.Hop, i.Addr)
	w.Field("table", title(i.Name, i.FIB.String()))
	if q.Iif != "" {
		w.Field("iif", q.Iif)
	}
	if c.detail {
		w.Field("hash", i.Hash)
	}
	w.Strings("flags", nil)
	w.EndObject()
}
