package fibtool

import (
	"slices"
	"strings"

	"midplane/internal/fib/service/spec"
)

const neighArgs = "ADDRESS lladdr MAC dev DEV [fib FIB] [nud permanent]"

// readNeigh reads a neighbour and the FIB it is of, which is that of the device unless it is said.
func (c *call) readNeigh(withMAC bool) (string, spec.Neigh, error) {
	var n spec.Neigh
	var which, address, nud string
	keys := []keyword{c.which(&which), c.text("dev", &n.Dev), c.text("to", &address)}
	if withMAC {
		keys = append(keys, c.text("lladdr", &n.LLAddr), c.text("nud", &nud))
	}
	err := c.keywords(keys, func(w string) error {
		if address != "" {
			return c.Wrongf("unknown or ambiguous key word %q: want %s", w, names(keys))
		}
		address = w
		return nil
	})
	if err != nil {
		return "", n, err
	}
	if address == "" || n.Dev == "" {
		return "", n, c.Wrongf("missing an address or dev DEV")
	}
	if nud != "" && nud != "permanent" {
		return "", n, c.Wrongf("nud %q: want permanent: what is entered stays until it is removed", nud)
	}
	if n.Dst, err = c.address("address", address); err != nil {
		return "", n, err
	}
	if which == "" {
		if which, err = c.fibOf(n.Dev); err != nil {
			return "", n, err
		}
	}
	return which, n, nil
}

// fibOf returns the FIB that a device is a port of.
func (c *call) fibOf(dev string) (string, error) {
	args := c.Args
	c.Args = nil
	node, err := c.ask()
	c.Args = args
	if err != nil {
		return "", err
	}
	ports, err := node.Ports(c.ctx)
	if err != nil {
		return "", err
	}
	for _, p := range ports {
		if p.Dev == dev {
			return p.FIB.String(), nil
		}
	}
	return "", c.Wrongf("dev %q: want a port of a FIB, or fib FIB", dev)
}

func neighChange(c *call) error {
	which, n, err := c.readNeigh(true)
	if err != nil {
		return err
	}
	do := spec.NeighAdd
	if c.Cmd.Name == "replace" {
		do = spec.NeighReplace
	}
	return c.apply(spec.Op{Do: do, FIB: which, Neigh: &n})
}

func neighDel(c *call) error {
	which, n, err := c.readNeigh(false)
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.NeighDel, FIB: which, Neigh: &n})
}

func neighShow(c *call) error {
	var which, dev, nud string
	if err := c.keywords([]keyword{c.which(&which), c.text("dev", &dev), c.text("nud", &nud)}, nil); err != nil {
		return err
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	all, err := node.Neighs(c.ctx, which, dev)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(n spec.NeighInfo) bool {
		return c.family != 0 && (c.family == 4) != n.Dst.Is4() || nud != "" && nud != "all" && !slices.Contains(n.State, strings.ToUpper(nud))
	})
	// The order of print_neigh in iproute2's ip/ipneigh.c.
	return c.list(func() error {
		for _, n := range all {
			c.printf("%s dev %s ", n.Dst, n.Dev)
			if n.LLAddr != "" {
				c.printf("lladdr %s ", n.LLAddr)
			}
			if n.Router {
				c.printf("router ")
			}
			if which == "" {
				c.printf("fib %s ", title(n.Name, n.FIB.String()))
			}
			c.printf("%s \n", strings.Join(n.State, ","))
		}
		return nil
	}, func() error {
		w := &c.w
		for _, n := range all {
			w.BeginObject()
			w.Field("dst", n.Dst.String())
			w.Field("dev", n.Dev)
			if n.LLAddr != "" {
				w.Field("lladdr", n.LLAddr)
			}
			if n.Router {
				w.Field("router", nil)
			}
			if which == "" {
				w.Field("fib", title(n.Name, n.FIB.String()))
			}
			w.Strings("state", n.State)
			w.EndObject()
			c.spill()
		}
		return nil
	})
}

func neighFlush(c *call) error {
	var which, dev string
	if err := c.keywords([]keyword{c.which(&which), c.text("dev", &dev)}, nil); err != nil {
		return err
	}
	if which == "" {
		return c.Wrongf("missing fib FIB")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	n, err := node.FlushNeighs(c.ctx, which, dev)
	if err == nil && c.stats {
		c.printf("%d neighbours forgotten\n", n)
	}
	return err
}
