package fibtool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"

	"midplane/internal/api/fibapi"
	"midplane/internal/fib/mrt"
	"midplane/internal/fib/service/spec"
)

const loadHelp = `FILE is an MRT dump (RFC 6396, of RouteViews or RIPE RIS, say), or text: prefixes, routes as ip route shows them, or lines
of bgpdump -m; each also in gzip or bzip2; - is standard input. Routes without gateway or device get those of the
command line; with override all do. peer chooses the paths of one peer of a dump.
With replace the FIB's file is exchanged as a whole, in one step for those who look up; else routes are added to it. They
stay until they are unloaded, also over restarts; static routes win over them. A record that is malformed ends the load
and nothing is changed, unless --force is given: then it is passed over.`

// loader turns the entries of a file into routes.
type loader struct {
	r        *mrt.Reader
	def      spec.Hop
	override bool
	force    bool
	bad      int // malformed records passed over
	first    error
	other    int // withdrawals, and types that no FIB has
}

// route returns the next route.
func (l *loader) route() (spec.Route, bool, error) {
	for {
		e, err := l.r.Next()
		if errors.Is(err, io.EOF) {
			return spec.Route{}, true, nil
		}
		var rec *mrt.RecordError
		if errors.As(err, &rec) && l.force && !rec.Fatal {
			if l.bad++; l.first == nil {
				l.first = err
			}
			continue
		}
		if err != nil {
			return spec.Route{}, false, err
		}
		if r, ok := l.entry(e); ok {
			return r, false, nil
		}
		l.other++
	}
}

func (l *loader) entry(e *mrt.Entry) (spec.Route, bool) {
	r := spec.Route{Dst: e.Prefix, Type: e.Type}
	if _, ok := spec.TypeOf(e.Type); e.Kind != mrt.Announce || !ok {
		return r, false
	}
	switch {
	case r.Type == spec.Lookup:
		r.Table = fmt.Sprint(e.Table)
		return r, e.Table != 0
	case r.Type != "" && r.Type != spec.Unicast && r.Type != spec.Local:
		return r, true
	}
	if r.Type == spec.Unicast {
		r.Type = ""
	}
	hops := e.Hops
	if len(hops) == 0 || l.override {
		hops = []mrt.Hop{{}}
	}
	for _, h := range hops {
		hop := spec.Hop{Gateway: h.Gateway, Dev: h.Device}
		if len(hops) > 1 {
			hop.Weight = max(int(h.Weight), 1)
		}
		if !hop.Gateway.IsValid() && r.Type == "" && (hop.Dev == "" || l.override) {
			hop.Gateway = l.def.Gateway
		}
		if hop.Dev == "" {
			hop.Dev = l.def.Dev
		}
		r.Hops = append(r.Hops, hop)
	}
	return r, true
}

func load(c *call) error {
	var file, which, peer string
	var replace, onlink, quiet bool
	var weight int
	l := &loader{force: c.force}
	keys := append(c.hopKeys(&l.def.Gateway, &l.def.Dev, &weight, &onlink)[:2],
		c.which(&which), c.flagword("replace", &replace), c.flagword("override", &l.override), c.text("peer", &peer), c.flagword("quiet", &quiet))
	err := c.keywords(keys, func(w string) error {
		if file != "" {
			return c.Wrongf("unknown or ambiguous key word %q: want %s", w, names(keys))
		}
		file = w
		return nil
	})
	if err != nil {
		return err
	}
	if file == "" || which == "" {
		return c.Wrongf("missing a file or fib FIB")
	}
	o := mrt.Options{IPv4: c.family == 4, IPv6: c.family == 6}
	if peer != "" {
		if o.Peer, err = c.address("peer", peer); err != nil {
			return err
		}
	}
	node, err := c.ask()
	if err != nil {
		return err
	}
	in, size := c.tool.Stdin, int64(-1)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			size = fi.Size()
		}
		in = f
	}
	if bar := c.progress(size, quiet); bar != nil {
		defer bar.Exit()
		o.Progress = func(n int64) { _ = bar.Set64(n) } // of the terminal, if it is gone
	}
	if l.r, err = mrt.NewReader(in, o); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	info, err := node.Load(c.ctx, fibapi.LoadQuery{FIB: which, Replace: replace, Origin: filepath.Base(file)}, l.route)
	if err != nil {
		var rec *mrt.RecordError
		if errors.As(err, &rec) {
			err = fmt.Errorf("%s: %w", file, err)
		}
		return err
	}
	if l.bad > 0 {
		fmt.Fprintf(c.tool.Stderr, "%s: %d records were malformed and passed over, the first: %v\n", file, l.bad, l.first)
	}
	return c.list(func() error {
		c.printf("%d routes read, %d in the FIB", info.Read, info.Routes)
		if info.Skipped > 0 {
			c.printf(", %d left out: their device is not there", info.Skipped)
		}
		if l.other > 0 {
			c.printf(", %d entries were no routes", l.other)
		}
		c.printf("\n")
		return nil
	}, func() error {
		c.w.BeginObject()
		c.w.Field("read", info.Read)
		c.w.Field("routes", info.Routes)
		c.w.Field("skipped", info.Skipped)
		c.w.Field("others", l.other)
		c.w.Field("malformed", l.bad)
		c.w.EndObject()
		return nil
	})
}

// progress makes a bar on a terminal, for files of 1 MiB and more.
func (c *call) progress(size int64, quiet bool) *progressbar.ProgressBar {
	f, ok := c.tool.Stderr.(*os.File)
	if !ok || quiet || size < 1<<20 {
		return nil
	}
	if fi, err := f.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return progressbar.NewOptions64(size, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true), progressbar.OptionSetDescription("loading"),
		progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100_000_000))
}

func unload(c *call) error {
	w, err := c.Word("the name or number of a FIB")
	if err == nil {
		err = c.Done()
	}
	if err != nil {
		return err
	}
	return c.apply(spec.Op{Do: spec.LoadDel, FIB: w})
}
