package fibtool

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"midplane/internal/api/fibapi"
	"midplane/internal/cli/grammar"
	"midplane/internal/fib/service/spec"
)

func stats(c *call) error {
	node, err := c.ask()
	if err != nil {
		return err
	}
	st, err := node.Stats(c.ctx)
	if err != nil {
		return err
	}
	keys := slices.Sorted(maps.Keys(st.Counts))
	if !c.JSON {
		c.printf("fibs %d\nroutes %d\nnexthops %d\n", st.FIBs, st.Routes, st.NextHops)
		for _, k := range keys {
			c.printf("%s %d\n", k, st.Counts[k])
		}
		for _, f := range st.PerFIB {
			c.printFIB(f)
			for _, k := range slices.Sorted(maps.Keys(f.Packets)) {
				c.printf("    %s %d\n", k, f.Packets[k])
			}
		}
		return nil
	}
	w := &c.w
	w.BeginObject()
	w.Field("fibs", st.FIBs)
	w.Field("routes", st.Routes)
	w.Field("nexthops", st.NextHops)
	for _, k := range keys {
		w.Field(k, st.Counts[k])
	}
	w.Name("tables")
	w.BeginArray()
	for _, f := range st.PerFIB {
		c.jsonFIB(f)
	}
	w.EndArray()
	w.EndObject()
	c.spill()
	c.printf("\n")
	return nil
}

const diffHelp = `A side is two words: fib FIB (a table of the daemon), table N (the kernel's), feed NAME (what a feed last said),
or file FILE (routes to load). The exit code is 1 when they differ.`

// sides are the first words of a side.
var sides = []keyword{{name: "fib"}, {name: "table"}, {name: "feed"}, {name: "file"}}

func diff(c *call) error {
	side := func() (string, error) {
		w, err := c.Word("fib FIB, table N, feed NAME or file FILE")
		if err != nil {
			return "", err
		}
		k := match(sides, w)
		if k == nil {
			return "", c.Wrongf("side %q: want fib, table, feed or file", w)
		}
		v, err := c.Word("a value for " + k.name)
		if err == nil && k.name == "file" {
			v, err = filepath.Abs(v) // the daemon reads it
		}
		return k.name + " " + v, err
	}
	var q fibapi.DiffQuery
	var err error
	if q.Left, err = side(); err == nil {
		q.Right, err = side()
	}
	if err != nil {
		return err
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	n := 0
	show := func(text bool) error {
		return node.Diff(c.ctx, q, func(d spec.DiffLine) bool {
			n++
			if text {
				if d.Left != "" {
					c.printf("- %s %s\n", dst(d.Dst), d.Left)
				}
				if d.Right != "" {
					c.printf("+ %s %s\n", dst(d.Dst), d.Right)
				}
				return c.ctx.Err() == nil
			}
			w := &c.w
			w.BeginObject()
			w.Field("dst", dst(d.Dst))
			if d.Left != "" {
				w.Field("left", d.Left)
			}
			if d.Right != "" {
				w.Field("right", d.Right)
			}
			w.EndObject()
			c.spill()
			return c.ctx.Err() == nil
		})
	}
	err = c.list(func() error { return show(true) }, func() error { return show(false) })
	if err == nil && n > 0 {
		err = exitError(grammar.ExitFailed)
	}
	return err
}

// errNoEnter says that this system has no processes in FIBs.
var errNoEnter = errors.New("processes in FIBs: this needs Linux")

func execIn(c *call) error {
	which, err := c.Word("the name or number of a FIB")
	if err != nil {
		return err
	}
	// Without -- what follows is the command, as in ip vrf exec; key words are only before --.
	var port string
	var hostDNS bool
	if i := slices.Index(c.Args, "--"); i >= 0 {
		argv := c.Args[i+1:]
		c.Args = c.Args[:i]
		if err := c.keywords([]keyword{c.text("port", &port), c.flagword("hostdns", &hostDNS)}, nil); err != nil {
			return err
		}
		c.Args = argv
	}
	if len(c.Args) == 0 {
		return c.Wrongf("missing a command")
	}
	if c.tool.Enter == nil {
		return errNoEnter
	}
	return c.tool.Enter.Exec(c.ctx, which, port, hostDNS, c.Args)
}

func identify(c *call) error {
	pid := os.Getpid()
	if c.Peek() != "" {
		w, _ := c.Word("PID")
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 {
			return c.Wrongf("pid %q: want the number of a process", w)
		}
		pid = n
	}
	if err := c.Done(); err != nil {
		return err
	}
	if c.tool.Enter == nil {
		return errNoEnter
	}
	name, err := c.tool.Enter.Identify(pid)
	if err != nil {
		return err
	}
	return c.list(func() error {
		if name != "" {
			c.printf("%s\n", name)
		}
		return nil
	}, func() error {
		if name != "" {
			c.w.BeginObject()
			c.w.Field("pid", pid)
			c.w.Field("fib", name)
			c.w.EndObject()
		}
		return nil
	})
}

func pids(c *call) error {
	which, err := c.Word("the name or number of a FIB")
	if err == nil {
		err = c.Done()
	}
	if err != nil {
		return err
	}
	if c.tool.Enter == nil {
		return errNoEnter
	}
	all, err := c.tool.Enter.Pids(which)
	if err != nil {
		return err
	}
	return c.list(func() error {
		for _, p := range all {
			c.printf("%d\n", p)
		}
		return nil
	}, func() error {
		for _, p := range all {
			c.w.BeginObject()
			c.w.Field("pid", p)
			c.w.EndObject()
		}
		return nil
	})
}
