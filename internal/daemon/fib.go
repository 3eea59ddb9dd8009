package daemon

import (
	"context"
	"log/slog"
	"os"

	"midplane/internal/api/fibapi"
	fibs "midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
)

// openFIB makes the FIBs of a daemon.
func openFIB(ctx context.Context, cfg FIBConfig, log *slog.Logger) (*fibControl, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.State == "" {
		var err error
		if cfg.State, err = DefaultFIBState(); err != nil {
			return nil, err
		}
	}
	o := fibs.Options{Dir: cfg.State, NoSync: cfg.NoSync, Log: log, Config: cfg.Ops, Backend: cfg.Backend}
	if o.Backend == "auto" {
		o.Backend = ""
	}
	if cfg.Backend == "" && os.Geteuid() != 0 {
		o.Backend = spec.None
	}
	s, err := fibs.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &fibControl{Service: s}, nil
}

// fibControl is the fibapi.Control of FIBs in this process.
type fibControl struct{ *fibs.Service }

var _ fibapi.Control = (*fibControl)(nil)

func (c *fibControl) FIBs(context.Context) ([]spec.FIBInfo, error) { return c.Service.FIBs(), nil }

func (c *fibControl) Lookup(_ context.Context, q spec.LookupQuery) (spec.LookupInfo, error) {
	return c.Service.Lookup(q)
}

func (c *fibControl) NextHops(context.Context) ([]spec.NextHopInfo, error) {
	return c.Service.NextHops(), nil
}

func (c *fibControl) Ports(context.Context) ([]spec.PortInfo, error) { return c.Service.Ports(), nil }

func (c *fibControl) Neighs(_ context.Context, fib, dev string) ([]spec.NeighInfo, error) {
	return c.Service.Neighs(fib, dev)
}

func (c *fibControl) FlushNeighs(_ context.Context, fib, dev string) (int, error) {
	return c.Service.FlushNeighs(fib, dev)
}

func (c *fibControl) Feeds(context.Context) ([]spec.FeedInfo, error) { return c.Service.Feeds(), nil }

func (c *fibControl) Resync(_ context.Context, feed string) error { return c.Service.Resync(feed) }

func (c *fibControl) Load(ctx context.Context, q fibapi.LoadQuery, next func() (spec.Route, bool, error)) (spec.LoadInfo, error) {
	return c.Service.Load(ctx, q.FIB, q.Replace, q.Origin, next)
}

func (c *fibControl) Stats(context.Context) (spec.Stats, error) { return c.Service.Stats(), nil }

func (c *fibControl) Diff(context.Context, fibapi.DiffQuery, func(spec.DiffLine) bool) error {
	return failf("unsupported", "diff: not yet")
}
