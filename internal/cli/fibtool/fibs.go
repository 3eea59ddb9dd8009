package fibtool

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

const addArgs = "[NAME] [id N] [backend {vrf | rules | netns | none}] [dns ADDRESS]... [forward] [kernel {static | all | none}]"

func fibAdd(c *call) error {
	var f spec.FIB
	keys := []keyword{
		c.number("id", 1, 1<<32-1, func(n uint64) { f.ID = fib.ID(n) }, "table"),
		c.text("backend", &f.Backend),
		c.flagword("forward", &f.Forward),
		c.text("kernel", &f.Kernel),
		{name: "dns", take: func() error {
			w, err := c.Word("the address of a name server")
			if err != nil {
				return err
			}
			a, err := c.address("dns", w)
			f.DNS = append(f.DNS, a)
			return err
		}},
	}
	// The name comes first, so that one that begins a key word is still a name.
	if w := c.Peek(); w != "" && w != "id" && w != "table" {
		f.Name, _ = c.Word("name")
		if f.Name == "name" && len(c.Args) > 0 {
			f.Name, _ = c.Word("name")
		}
	}
	if err := c.keywords(keys, nil); err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.FIBAdd, NewFIB: &f})
}

func fibDel(c *call) error {
	w, err := c.Word("the name or number of a FIB")
	if err != nil {
		return err
	}
	if err := c.Done(); err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.FIBDel, FIB: w})
}

func fibList(c *call) error {
	only := ""
	if c.Peek() != "" {
		only, _ = c.Word("FIB")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	all, err := node.FIBs(c.ctx)
	if err != nil {
		return err
	}
	if only != "" {
		var one []spec.FIBInfo
		for _, f := range all {
			if f.Name == only || f.ID.String() == only {
				one = append(one, f)
			}
		}
		if one == nil {
			return &fib.OpError{Op: "find", What: "fib " + only, Err: fib.ErrNotFound}
		}
		all = one
	}
	return c.list(func() error {
		for _, f := range all {
			c.printFIB(f)
		}
		return nil
	}, func() error {
		for _, f := range all {
			c.jsonFIB(f)
		}
		return nil
	})
}

func (c *call) printFIB(f spec.FIBInfo) {
	c.printf("%d:", f.ID)
	if f.Name != "" {
		c.printf(" %s:", f.Name)
	}
	c.printf(" backend %s", f.Backend)
	if f.Device != "" {
		c.printf(" device %s", f.Device)
	}
	c.printf(" routes %d/%d static %d", f.IPv4, f.IPv6, f.Static)
	if f.Pending > 0 {
		c.printf(" pending %d", f.Pending)
	}
	if f.Shadowed > 0 {
		c.printf(" shadowed %d", f.Shadowed)
	}
	if f.Source != "" {
		c.printf(" source %s", f.Source)
	}
	if len(f.Ports) > 0 {
		c.printf(" ports %s", strings.Join(f.Ports, ","))
	}
	if len(f.DNS) > 0 {
		c.printf(" dns %s", strings.Join(addrs(f.DNS), ","))
	}
	if f.Forward {
		c.printf(" forward")
	}
	if f.Kernel != "" {
		c.printf(" kernel %s", f.Kernel)
	}
	if f.Config {
		c.printf(" config")
	}
	if c.detail {
		c.printf(" generation %d", f.Generation)
	}
	c.printf("\n")
}

func addrs(l []netip.Addr) (s []string) {
	for _, a := range l {
		s = append(s, a.String())
	}
	return s
}

func (c *call) jsonFIB(f spec.FIBInfo) {
	w := &c.w
	w.BeginObject()
	w.Field("id", uint32(f.ID))
	if f.Name != "" {
		w.Field("name", f.Name)
	}
	w.Field("backend", f.Backend)
	if f.Device != "" {
		w.Field("device", f.Device)
	}
	w.Field("ipv4", f.IPv4)
	w.Field("ipv6", f.IPv6)
	w.Field("static", f.Static)
	w.Field("pending", f.Pending)
	w.Field("shadowed", f.Shadowed)
	if f.Source != "" {
		w.Field("source", f.Source)
	}
	w.Strings("ports", f.Ports)
	if len(f.DNS) > 0 {
		w.Strings("dns", addrs(f.DNS))
	}
	if f.Forward {
		w.Field("forward", true)
	}
	if f.Kernel != "" {
		w.Field("kernel", f.Kernel)
	}
	if f.Config {
		w.Field("config", true)
	}
	w.Field("generation", f.Generation)
	if len(f.Packets) > 0 {
		w.Name("packets")
		w.BeginObject()
		for _, k := range slices.Sorted(maps.Keys(f.Packets)) {
			w.Field(k, f.Packets[k])
		}
		w.EndObject()
	}
	w.EndObject()
	c.spill()
}
