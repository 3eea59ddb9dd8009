package daemon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"midplane/fib"
	"midplane/internal/fib/binding"
	"midplane/internal/fib/kernel"
	fibs "midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
	"midplane/internal/fib/setfib"
)

// kernelSide gives the FIBs of a daemon the kernel side.
type kernelSide struct {
	k     *kernel.Kernel
	set   *fib.Set
	dir   string // of the bindings
	links *fibLinks
	log   *slog.Logger
}

var _ fibs.Kernel = (*kernelSide)(nil)

// openKernel opens the kernel side and puts in order what a crash left.
func openKernel(ctx context.Context, dir string, set *fib.Set, links *fibLinks, log *slog.Logger) (*kernelSide, error) {
	if dir == "" {
		dir = binding.DefaultDir()
	}
	k, err := kernel.Open(kernel.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	s := &kernelSide{k: k, set: set, dir: dir, links: links, log: log}
	r, err := k.Recover(ctx)
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("kernel side: %w", err)
	}
	if len(r.Operations)+len(r.Orphans)+len(r.Missing) > 0 {
		log.Info("kernel side put in order", "operations", len(r.Operations), "orphans", r.Orphans, "missing", r.Missing)
	}
	s.noteNetns()
	return s, nil
}

// refreshEvery is how often what belongs to programs is looked after: cgroups whose programs have ended go.
const refreshEvery = time.Minute

func (s *kernelSide) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := setfib.Refresh(s.dir); err != nil {
				s.log.Warn("programs in FIBs", "err", err)
			}
		}
	}
}

// noteNetns tells the devices which FIBs are namespaces.
func (s *kernelSide) noteNetns() {
	l, err := binding.Load(s.dir)
	if err != nil {
		s.log.Warn("FIBs' record", "err", err)
		return
	}
	spaces := map[fib.ID]string{}
	for _, b := range l {
		if b.Backend == binding.Netns {
			spaces[fib.ID(b.FIB)] = b.Netns
		}
	}
	s.links.setSpaces(spaces)
}

// Apply implements service.Kernel.
func (s *kernelSide) Apply(ctx context.Context, l []fibs.KernelFIB) error {
	return s.apply(ctx, l, func(err error) error { return err })
}

// Restore implements service.Kernel.
func (s *kernelSide) Restore(ctx context.Context, l []fibs.KernelFIB) error {
	return s.apply(ctx, l, func(err error) error {
		s.log.Warn("a FIB goes that has processes", "err", err)
		return nil
	})
}

func (s *kernelSide) apply(ctx context.Context, l []fibs.KernelFIB, busy func(error) error) error {
	bound, err := binding.Load(s.dir)
	if err != nil {
		return err
	}
	for _, b := range bound {
		if slices.ContainsFunc(l, func(f fibs.KernelFIB) bool { return uint32(f.ID) == b.FIB }) {
			continue
		}
		if err := setfib.Remove(ctx, s.dir, b, false); err != nil {
			var e *setfib.BusyError
			if !errors.As(err, &e) {
				s.log.Warn("FIB", "id", b.FIB, "err", err)
			} else if err := busy(err); err != nil {
				return err
			}
		}
	}
	want := make([]kernel.FIB, 0, len(l))
	for _, f := range l {
		k := kernel.FIB{ID: uint32(f.ID), Name: f.Name, Backend: kernel.Backend(f.Backend), DNS: f.DNS, Forward: f.Forward}
		for _, p := range f.Ports {
			k.Ports = append(k.Ports, kernel.Port{Device: p.Dev, Parent: p.Parent, VLAN: int(p.VLAN), Addresses: p.Addrs, NoDAD: p.NoDAD})
		}
		want = append(want, k)
	}
	r, err := s.k.Apply(ctx, want)
	for _, op := range r.Operations {
		s.log.Debug("kernel side", "did", op)
	}
	s.noteNetns()
	if err != nil {
		return err
	}
	if _, err := setfib.Refresh(s.dir); err != nil { // programs run on; the next change tries again
		s.log.Warn("programs in FIBs", "err", err)
	}
	return nil
}

// Bound implements service.Kernel.
func (s *kernelSide) Bound(id fib.ID) (backend, device string) {
	for _, f := range s.k.FIBs() {
		if f.ID != uint32(id) {
			continue
		}
		if f.Backend == kernel.VRF {
			device = f.Title()
		}
		return string(f.Backend), device
	}
	return "", ""
}

// SyncRoutes implements service.Kernel.
func (s *kernelSide) SyncRoutes(ctx context.Context, t *fib.Table, keep func(netip.Prefix) bool) error {
	var routes iter.Seq[kernel.Route] = func(func(kernel.Route) bool) {}
	if keep != nil {
		all := kernel.Routes(s.set, t)
		routes = func(yield func(kernel.Route) bool) {
			for r := range all {
				if keep(r.Prefix) && !yield(r) {
					return
				}
			}
		}
	}
	r, err := s.k.SyncRoutes(ctx, t.ID(), routes)
	if err == nil && r.Skipped > 0 {
		s.log.Warn("routes that the kernel cannot have", "fib", t.ID(), "routes", r.Skipped, "first", r.SkippedErr)
	}
	return err
}

// UpdateRoutes implements service.Kernel.
func (s *kernelSide) UpdateRoutes(ctx context.Context, t *fib.Table, put, del []netip.Prefix) error {
	var routes []kernel.Route
	for _, p := range put {
		if id, ok := t.Get(p); ok {
			routes = append(routes, kernel.RouteOf(s.set, fib.Route{Prefix: p, NextHop: id}))
		}
	}
	return s.k.UpdateRoutes(ctx, t.ID(), routes, del)
}

// SetNeigh implements service.Kernel.
func (s *kernelSide) SetNeigh(id fib.ID, n spec.Neigh, add bool) error {
	mac, err := spec.ParseMAC(n.LLAddr)
	if err != nil {
		return err
	}
	if add {
		return s.k.AddNeighbour(id, n.Dev, n.Dst, kernel.MAC(mac), true)
	}
	return s.k.SetNeighbour(id, n.Dev, n.Dst, kernel.MAC(mac), true)
}

// DelNeigh implements service.Kernel.
func (s *kernelSide) DelNeigh(id fib.ID, n spec.Neigh) error {
	return s.k.DeleteNeighbour(id, n.Dev, n.Dst)
}

// FlushNeighs implements service.Kernel.
func (s *kernelSide) FlushNeighs(id fib.ID, dev string) (int, error) {
	return s.k.FlushNeighbours(id, dev, false)
}

// Neighs implements service.Kernel.
func (s *kernelSide) Neighs(id fib.ID, dev string) ([]spec.NeighInfo, error) {
	all, err := s.k.Neighbours(id, dev)
	if err != nil {
		return nil, err
	}
	var l []spec.NeighInfo
	for _, n := range all {
		i := spec.NeighInfo{Dst: n.IP, Dev: s.links.Name(id, n.Device), State: spec.StateNames(n.State.String()), Router: n.Router}
		if n.State.Usable() {
			i.LLAddr = n.MAC.String()
		}
		l = append(l, i)
	}
	return l, nil
}
