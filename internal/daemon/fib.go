package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"midplane/fib"
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
	links := newFIBLinks()
	c := &fibControl{log: log, links: links}
	var err error
	if cfg.Forward == "xdp" {
		if c.forward, err = openForwarder(cfg, log); err != nil {
			return nil, err
		}
		c.set = c.forward.set
	} else if c.set, err = fib.New(&fib.Config{Size: uint64(cfg.ImageSize)}); err != nil {
		return nil, err
	}
	o := fibs.Options{Set: c.set, Dir: cfg.State, NoSync: cfg.NoSync, Links: links, Log: log, Config: cfg.Ops, Backend: cfg.Backend, Seed: cfg.Seed}
	o.Feeds = &feeder{set: c.set, log: log}
	if o.Backend == "auto" {
		o.Backend = ""
	}
	if cfg.Backend == "" && os.Geteuid() != 0 {
		o.Backend = spec.None
	}
	if cfg.needsKernel(o.Backend) {
		if c.kernel, err = openKernel(ctx, cfg.Run, c.set, links, log); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		o.Kernel = c.kernel
	}
	if c.forward != nil {
		o.Forward = c.forward
	}
	if c.Service, err = fibs.Open(ctx, o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if c.forward != nil {
		c.forward.follow(log)
	}
	watch, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	changed := func() { links.forget(); c.LinksChanged() }
	if c.kernel != nil {
		c.wg.Go(func() {
			if err := c.kernel.k.WatchDevices(watch, changed); watch.Err() == nil {
				log.Error("devices are not watched any more", "err", err)
			}
		})
		c.wg.Go(func() { c.kernel.refresh(watch) })
	} else if err := watchDevices(watch, changed); err != nil {
		return nil, errors.Join(fmt.Errorf("watching devices: %w", err), c.Close())
	}
	return c, nil
}

// needsKernel says whether a FIB may have a kernel side.
func (c FIBConfig) needsKernel(backend string) bool {
	return backend != spec.None || slices.ContainsFunc(c.Ops, func(o spec.Op) bool {
		return o.NewFIB != nil && o.NewFIB.Backend != "" && o.NewFIB.Backend != spec.None
	})
}

// Close ends the FIBs of this process. What the kernel has stays, for the processes in it and for the next start.
func (c *fibControl) Close() error {
	var errs []error
	if c.cancel != nil {
		c.cancel()
		c.wg.Wait()
	}
	if c.Service != nil {
		errs = append(errs, c.Service.Close())
	}
	if c.kernel != nil {
		errs = append(errs, c.kernel.k.Close())
	}
	errs = append(errs, c.set.Close())
	if c.forward != nil {
		errs = append(errs, c.forward.Close())
	}
	return errors.Join(errs...)
}

// fibControl is the fibapi.Control of FIBs in this process.
type fibControl struct {
	*fibs.Service
	set     *fib.Set
	kernel  *kernelSide // nil: none
	forward *forwarder  // nil: none
	links   *fibLinks
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	log     *slog.Logger
}

var _ fibapi.Control = (*fibControl)(nil)

func (c *fibControl) FIBs(context.Context) ([]spec.FIBInfo, error) { return c.Service.FIBs(), nil }

func (c *fibControl) Lookup(_ context.Context, q spec.LookupQuery) (spec.LookupInfo, error) {
	return c.Service.Lookup(q)
}

func (c *fibControl) NextHops(context.Context) ([]spec.NextHopInfo, error) {
	return c.Service.NextHops(), nil
}

func (c *fibControl) Ports(context.Context) ([]spec.PortInfo, error) { return c.Service.Ports(), nil }

func (c *fibControl) Neighs(_ context.Context, which, dev string) ([]spec.NeighInfo, error) {
	return c.Service.Neighs(which, dev)
}

func (c *fibControl) FlushNeighs(_ context.Context, which, dev string) (int, error) {
	return c.Service.FlushNeighs(which, dev)
}

func (c *fibControl) Feeds(context.Context) ([]spec.FeedInfo, error) { return c.Service.Feeds(), nil }

func (c *fibControl) Resync(_ context.Context, feed string) error { return c.Service.Resync(feed) }

func (c *fibControl) Load(ctx context.Context, q fibapi.LoadQuery, next func() (spec.Route, bool, error)) (spec.LoadInfo, error) {
	return c.Service.Load(ctx, q.FIB, q.Replace, q.Origin, next)
}

func (c *fibControl) Stats(context.Context) (spec.Stats, error) { return c.Service.Stats(), nil }
