package fibtool

import (
	"maps"
	"slices"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

const feedArgs = "NAME kind {fpm | kernel | bgp} [fib FIB] [KEY VALUE]..."

func feedAdd(c *call) error {
	f := spec.Feed{Params: map[string]string{}}
	var err error
	if f.Name, err = c.Word("a name for the feed"); err != nil {
		return err
	}
	keys := []keyword{c.text("kind", &f.Kind), {name: "fib", take: func() (err error) {
		f.FIB, err = c.Word("a value for fib")
		return err
	}}}
	// Parameters are the kind's own: what is not a key word here is the name of one.
	for len(c.Args) > 0 {
		w, _ := c.Word("key word")
		if k := match(keys[:2], w); k != nil && (w == k.name || k.name == "kind") {
			if err := k.take(); err != nil {
				return err
			}
			continue
		}
		v, err := c.Word("a value for " + w)
		if err != nil {
			return err
		}
		if _, twice := f.Params[w]; twice {
			return c.Wrongf("%s is given twice", w)
		}
		f.Params[w] = v
	}
	if f.Kind == "" {
		return c.Wrongf("missing kind KIND")
	}
	return c.apply(spec.Op{Do: spec.FeedAdd, Feed: &f})
}

func feedDel(c *call) error {
	w, err := c.Word("the name of a feed")
	if err == nil {
		err = c.Done()
	}
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.FeedDel, Feed: &spec.Feed{Name: w}})
}

func feedResync(c *call) error {
	w, err := c.Word("the name of a feed")
	if err != nil {
		return err
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	return node.Resync(c.ctx, w)
}

func feedShow(c *call) error {
	name := ""
	if c.Peek() != "" {
		name, _ = c.Word("the name of a feed")
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	all, err := node.Feeds(c.ctx)
	if err != nil {
		return err
	}
	if name != "" {
		all = slices.DeleteFunc(all, func(f spec.FeedInfo) bool { return f.Name != name })
		if len(all) == 0 {
			return &fib.OpError{Op: "find", What: "feed " + name, Err: fib.ErrNotFound}
		}
	}
	return c.list(func() error {
		for _, f := range all {
			c.printf("%s kind %s", f.Name, f.Kind)
			for _, t := range f.FIBs {
				c.printf(" fib %s", t)
			}
			for _, k := range slices.Sorted(maps.Keys(f.Params)) {
				c.printf(" %s %s", k, f.Params[k])
			}
			c.printf(" state %s", f.State)
			if f.Config {
				c.printf(" config")
			}
			c.printf("\n")
			if f.Err != "" {
				c.printf("    error: %s\n", f.Err)
			}
			if c.stats || c.detail {
				for _, k := range slices.Sorted(maps.Keys(f.Counts)) {
					c.printf("    %s %d\n", k, f.Counts[k])
				}
			}
		}
		return nil
	}, func() error {
		for _, f := range all {
			w := &c.w
			w.BeginObject()
			w.Field("name", f.Name)
			w.Field("kind", f.Kind)
			w.Strings("fibs", f.FIBs)
			for _, k := range slices.Sorted(maps.Keys(f.Params)) {
				w.Field(k, f.Params[k])
			}
			w.Field("state", f.State)
			if f.Err != "" {
				w.Field("error", f.Err)
			}
			if f.Config {
				w.Field("config", true)
			}
			w.Name("counts")
			w.BeginObject()
			for _, k := range slices.Sorted(maps.Keys(f.Counts)) {
				w.Field(k, f.Counts[k])
			}
			w.EndObject()
			w.EndObject()
			c.spill()
		}
		return nil
	})
}
