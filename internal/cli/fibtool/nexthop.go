package fibtool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

const nexthopArgs = "id N {via ADDRESS dev DEV | dev DEV | group ID[,WEIGHT][/ID[,WEIGHT]]... | blackhole | unreachable | prohibit} [proto P] [down]"

func nexthopChange(c *call) error {
	do := spec.NextHopAdd
	if c.Cmd.Name == "replace" {
		do = spec.NextHopReplace
	}
	var n spec.NextHop
	var h spec.Hop
	var onlink bool
	var group string
	kind := func(t string) keyword { return keyword{t, nil, func() error { n.Type = t; return nil }} }
	keys := append(c.hopKeys(&h.Gateway, &h.Dev, &h.Weight, &onlink)[:2],
		c.number("id", 1, 1<<32-1, func(v uint64) { n.ID = uint32(v) }),
		c.text("group", &group),
		c.text("proto", &n.Proto, "protocol"),
		kind(spec.Blackhole), kind(spec.Unreachable), kind(spec.Prohibit),
		c.flagword("down", &n.Down), c.flagword("onlink", &onlink),
	)
	if err := c.keywords(keys, nil); err != nil {
		return err
	}
	if h.Dev != "" || h.Gateway.IsValid() {
		n.Hop = &h
	}
	if group != "" {
		var err error
		if n.Group, err = c.group(group); err != nil {
			return err
		}
	}
	return c.apply(spec.Op{Do: do, NextHop: &n})
}

// group reads ID[,WEIGHT]/ID[,WEIGHT]/...
func (c *call) group(s string) (l []spec.GroupMember, err error) {
	for m := range strings.SplitSeq(s, "/") {
		id, weight, hasWeight := strings.Cut(m, ",")
		n, err := strconv.ParseUint(id, 10, 32)
		w := uint64(0)
		if err == nil && hasWeight {
			w, err = strconv.ParseUint(weight, 10, 16)
			if err == nil && (w < 1 || w > fib.MaxWeight) {
				err = strconv.ErrRange
			}
		}
		if err != nil || n == 0 {
			return nil, c.Wrongf("group %q: want ID or ID,WEIGHT with a weight of 1 to %d, separated by /", m, fib.MaxWeight)
		}
		l = append(l, spec.GroupMember{ID: uint32(n), Weight: int(w)})
	}
	return l, nil
}

func nexthopDel(c *call) error {
	var n spec.NextHop
	if err := c.keywords([]keyword{c.number("id", 1, 1<<32-1, func(v uint64) { n.ID = uint32(v) })}, nil); err != nil {
		return err
	}
	if n.ID == 0 {
		return c.Wrongf("missing id N")
	}
	return c.apply(spec.Op{Do: spec.NextHopDel, NextHop: &n})
}

func nexthopShow(c *call) error {
	var id uint32
	var dev string
	if err := c.keywords([]keyword{c.number("id", 1, 1<<32-1, func(v uint64) { id = uint32(v) }), c.text("dev", &dev)}, nil); err != nil {
		return err
	}
	if c.Cmd.Name == "get" && id == 0 {
		return c.Wrongf("missing id N")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	all, err := node.NextHops(c.ctx)
	if err != nil {
		return err
	}
	var l []spec.NextHopInfo
	for _, n := range all {
		if (id == 0 || n.ID == id) && (dev == "" || n.Hop != nil && n.Hop.Dev == dev) {
			l = append(l, n)
		}
	}
	if id != 0 && l == nil {
		return &fib.OpError{Op: "find", What: fmt.Sprint("nexthop ", id), Err: fib.ErrNotFound}
	}
	return c.list(func() error {
		for _, n := range l {
			c.printNextHop(n)
		}
		return nil
	}, func() error {
		for _, n := range l {
			c.jsonNextHop(n)
		}
		return nil
	})
}

func nexthopFlush(c *call) error {
	node, err := c.ask()
	if err != nil {
		return err
	}
	// Groups first: what they hold is free then.
	for _, groups := range []bool{true, false} {
		all, err := node.NextHops(c.ctx)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.Config || (n.Group != nil) != groups || n.Routes > 0 || n.Groups > 0 {
				continue
			}
			err := node.Apply(c.ctx, spec.Op{Do: spec.NextHopDel, NextHop: &spec.NextHop{ID: n.ID}})
			if err != nil && !errors.Is(err, syscall.EBUSY) {
				return err
			}
		}
	}
	return nil
}

// printNextHop prints in the order of print_nexthop in iproute2's ip/ipnexthop.c.
func (c *call) printNextHop(n spec.NextHopInfo) {
	c.printf("id %d ", n.ID)
	if n.Group != nil {
		var l []string
		for _, m := range n.Group {
			s := strconv.Itoa(int(m.ID))
			if m.Weight > 1 {
				s += "," + strconv.Itoa(m.Weight)
			}
			l = append(l, s)
		}
		c.printf("group %s ", strings.Join(l, "/"))
	}
	if n.Hop != nil {
		if n.Hop.Gateway.IsValid() {
			c.printf("via %s ", n.Hop.Gateway)
		}
		c.printf("dev %s scope link ", n.Hop.Dev)
	}
	if n.Type != "" && n.Type != spec.Unicast {
		c.printf("%s ", n.Type)
	}
	if n.Proto != "" {
		c.printf("proto %s ", n.Proto)
	}
	if n.Down {
		c.printf("dead ")
	}
	if n.Pending {
		c.printf("pending ")
	}
	if c.stats {
		c.printf("routes %d groups %d ", n.Routes, n.Groups)
	}
	c.printf("\n")
}

func (c *call) jsonNextHop(n spec.NextHopInfo) {
	w := &c.w
	w.BeginObject()
	w.Field("id", n.ID)
	if n.Group != nil {
		w.Name("group")
		w.BeginArray()
		for _, m := range n.Group {
			w.BeginObject()
			w.Field("id", m.ID)
			if m.Weight > 1 {
				w.Field("weight", m.Weight)
			}
			w.EndObject()
		}
		w.EndArray()
	}
	if n.Hop != nil {
		if n.Hop.Gateway.IsValid() {
			w.Field("gateway", n.Hop.Gateway.String())
		}
		w.Field("dev", n.Hop.Dev)
		w.Field("scope", "link")
	}
	if n.Type != "" && n.Type != spec.Unicast {
		w.Field(n.Type, nil)
	}
	if n.Proto != "" {
		w.Field("protocol", n.Proto)
	}
	w.Strings("flags", flags(n.Down))
	if n.Pending {
		w.Field("state", "pending")
	}
	if c.stats {
		w.Field("routes", n.Routes)
		w.Field("groups", n.Groups)
	}
	w.EndObject()
	c.spill()
}
