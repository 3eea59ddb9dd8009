package fibtool

import (
	"net/netip"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

const portArgs = "DEV fib FIB [link DEV vlan N] [addr PREFIX]... [nodad]"

func portAdd(c *call) error {
	var p spec.Port
	var which string
	keys := []keyword{
		c.which(&which),
		c.text("link", &p.Parent),
		c.number("vlan", 1, 4094, func(n uint64) { p.VLAN = uint16(n) }),
		c.flagword("nodad", &p.NoDAD),
		{name: "addr", alias: []string{"address"}, take: func() error {
			w, err := c.Word("an address")
			if err != nil {
				return err
			}
			a, err := netip.ParsePrefix(w)
			if err != nil {
				return c.Wrongf("addr %q: want an address with its prefix length, such as 192.0.2.1/24", w)
			}
			p.Addrs = append(p.Addrs, a)
			return nil
		}},
	}
	if w := c.Peek(); w != "" && w != "link" && w != "fib" {
		if w == "dev" && len(c.Args) > 1 {
			c.Args = c.Args[1:]
		}
		p.Dev, _ = c.Word("device")
	}
	if err := c.keywords(keys, nil); err != nil {
		return err
	}
	if p.VLAN != 0 && p.Parent == "" {
		p.Parent, p.Dev = p.Dev, ""
	}
	if which == "" {
		return c.Wrongf("missing fib FIB")
	}
	return c.apply(spec.Op{Do: spec.PortAdd, FIB: which, Port: &p})
}

func portDel(c *call) error {
	var p spec.Port
	var which string
	w, err := c.Word("device")
	if err == nil && w == "dev" && len(c.Args) > 0 {
		w, err = c.Word("device")
	}
	if err != nil {
		return err
	}
	p.Dev = w
	if err := c.keywords([]keyword{c.which(&which)}, nil); err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.PortDel, FIB: which, Port: &p})
}

func portShow(c *call) error {
	var which, dev string
	err := c.keywords([]keyword{c.which(&which), c.text("dev", &dev)}, func(w string) error {
		if dev != "" {
			return c.Wrongf("unexpected %q", w)
		}
		dev = w
		return nil
	})
	if err != nil {
		return err
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	all, err := node.Ports(c.ctx)
	if err != nil {
		return err
	}
	var l []spec.PortInfo
	for _, p := range all {
		if (which == "" || p.Name == which || p.FIB.String() == which) && (dev == "" || dev == p.Dev) {
			l = append(l, p)
		}
	}
	if dev != "" && l == nil {
		return &fib.OpError{Op: "find", What: "port " + dev, Err: fib.ErrNotFound}
	}
	return c.list(func() error {
		for _, p := range l {
			c.printf("%s fib %s", p.Dev, title(p.Name, p.FIB.String()))
			if p.Parent != "" {
				c.printf(" link %s vlan %d", p.Parent, p.VLAN)
			}
			for _, a := range p.Addrs {
				c.printf(" addr %s", a)
			}
			if p.Forward != "" {
				c.printf(" forward %s", p.Forward)
			}
			if p.Config {
				c.printf(" config")
			}
			if p.Index == 0 {
				c.printf(" missing")
			}
			c.printf("\n")
		}
		return nil
	}, func() error {
		for _, p := range l {
			w := &c.w
			w.BeginObject()
			if p.Index != 0 {
				w.Field("ifindex", p.Index)
			}
			w.Field("ifname", p.Dev)
			w.Field("fib", title(p.Name, p.FIB.String()))
			if p.Parent != "" {
				w.Field("link", p.Parent)
				w.Field("vlan", int(p.VLAN))
			}
			var as []string
			for _, a := range p.Addrs {
				as = append(as, a.String())
			}
			w.Strings("addrs", as)
			if p.Forward != "" {
				w.Field("forward", p.Forward)
			}
			if p.Config {
				w.Field("config", true)
			}
			if p.Index == 0 {
				w.Field("missing", true)
			}
			w.EndObject()
			c.spill()
		}
		return nil
	})
}
