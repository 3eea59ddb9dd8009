package fibtool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"midplane/internal/api/fibapi"
	"midplane/internal/fib/service/spec"
)

const loadHelp = `A line of text is a prefix or a route as ip route shows it. Where a route has no way out, it gets that of the command line.
With replace the FIB's file is exchanged as a whole, in one step for those who look up; else routes are added to it. They
stay until they are unloaded; static routes win over them.`

func load(c *call) error {
	var file, which string
	var replace bool
	var def spec.Hop
	var onlink bool
	var weight int
	keys := append(c.hopKeys(&def.Gateway, &def.Dev, &weight, &onlink)[:2], c.which(&which), c.flagword("replace", &replace))
	err := c.keywords(keys, func(w string) error {
		if file != "" {
			return c.usagef("unknown or ambiguous key word %q: want %s", w, names(keys))
		}
		file = w
		return nil
	})
	if err != nil {
		return err
	}
	if file == "" || which == "" {
		return c.usagef("missing a file or fib FIB")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	in := c.tool.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReader(in)
	n := 0
	info, err := node.Load(c.ctx, fibapi.LoadQuery{FIB: which, Replace: replace, Origin: filepath.Base(file)}, func() (spec.Route, bool, error) {
		for {
			line, err := r.ReadString('\n')
			if err != nil && (!errors.Is(err, io.EOF) || line == "") {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return spec.Route{}, true, err
			}
			n++
			if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
				continue
			}
			p, err := netip.ParsePrefix(strings.TrimSpace(line))
			if err != nil {
				return spec.Route{}, false, fmt.Errorf("%s:%d: %q: want a prefix", file, n, strings.TrimSpace(line))
			}
			return spec.Route{Dst: p.Masked(), Hops: []spec.Hop{def}}, false, nil
		}
	})
	if err != nil {
		return err
	}
	return c.list(func() error {
		c.printf("%d routes read, %d in the FIB", info.Read, info.Routes)
		if info.Skipped > 0 {
			c.printf(", %d left out: their device is not there", info.Skipped)
		}
		c.printf("\n")
		return nil
	}, func() error {
		c.w.BeginObject()
		c.w.Field("read", info.Read)
		c.w.Field("routes", info.Routes)
		c.w.Field("skipped", info.Skipped)
		c.w.EndObject()
		return nil
	})
}

func unload(c *call) error {
	w, err := c.word("the name or number of a FIB")
	if err == nil {
		err = c.done()
	}
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.LoadDel, FIB: w})
}
