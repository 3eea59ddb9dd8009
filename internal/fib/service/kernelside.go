package service

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// kernelFIBs are the FIBs that the kernel shall have. Ports whose device is not there are left out when ready is given
// and says so.
func (s *Service) kernelFIBs(ready func(fib.ID, spec.Port) bool) []KernelFIB {
	var l []KernelFIB
	for _, f := range s.fibs {
		if f.Backend != spec.None {
			l = append(l, KernelFIB{FIB: f.FIB})
		}
	}
	slices.SortFunc(l, func(a, b KernelFIB) int { return int(int64(a.ID) - int64(b.ID)) })
	for _, p := range s.ports {
		i := slices.IndexFunc(l, func(k KernelFIB) bool { return k.ID == p.fib })
		if i >= 0 && (ready == nil || ready(p.fib, p.Port)) {
			l[i].Ports = append(l[i].Ports, p.Port)
		}
	}
	for i := range l {
		slices.SortFunc(l[i].Ports, func(a, b spec.Port) int {
			if a.Key() < b.Key() {
				return -1
			}
			return 1
		})
	}
	return l
}

// structural says whether an operation changes which FIBs and ports the kernel has.
func structural(v spec.Verb) bool {
	return v == spec.FIBAdd || v == spec.FIBDel || v == spec.PortAdd || v == spec.PortDel
}

// tellKernel makes the kernel have what was done. s.mu is held.
func (s *Service) tellKernel(ctx context.Context, ops []spec.Op) error {
	if s.kern == nil {
		return nil
	}
	if slices.ContainsFunc(ops, func(o spec.Op) bool { return structural(o.Do) }) {
		if err := s.kern.Apply(ctx, s.kernelFIBs(s.ready)); err != nil {
			return err
		}
		for _, op := range ops {
			// A device that came into a FIB, or left it, may have another index.
			if f, err := s.find(op.FIB); err == nil && (op.Do == spec.PortAdd || op.Do == spec.PortDel) {
				s.connect(f)
				s.retryIn(f)
				s.follow(f)
				if f.Backend != spec.None {
					if err := s.kern.SyncRoutes(ctx, f.t, s.keep(f)); err != nil {
						return err
					}
				}
			}
			if op.Do == spec.FIBAdd {
				if f := s.fibs[op.NewFIB.ID]; f != nil {
					s.follow(f)
				}
			}
		}
	}
	if slices.ContainsFunc(ops, func(o spec.Op) bool { return structural(o.Do) }) {
		if err := s.setForward(); err != nil {
			return err
		}
	}
	put, del := map[fib.ID][]netip.Prefix{}, map[fib.ID][]netip.Prefix{}
	for _, op := range ops {
		f, err := s.find(op.FIB)
		if err != nil || f.Backend == spec.None {
			continue
		}
		switch op.Do {
		case spec.NeighAdd, spec.NeighReplace:
			err = s.kern.SetNeigh(f.ID, *op.Neigh, op.Do == spec.NeighAdd)
		case spec.NeighDel:
			if err = s.kern.DelNeigh(f.ID, *op.Neigh); errors.Is(err, fib.ErrNotFound) && op.Neigh.LLAddr != "" {
				err = nil
			}
		case spec.RouteAdd, spec.RouteChange, spec.RouteReplace, spec.RouteDel:
			p := op.Route.Dst
			if _, in := f.t.Get(p); f.mirrored(p) && in {
				put[f.ID] = append(put[f.ID], p)
			} else if f.Kernel != spec.KernelNone {
				del[f.ID] = append(del[f.ID], p)
			}
		}
		if err != nil {
			return err
		}
	}
	for _, f := range s.fibs {
		if len(put[f.ID])+len(del[f.ID]) > 0 {
			if err := s.kern.UpdateRoutes(ctx, f.t, put[f.ID], del[f.ID]); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(ops, func(o spec.Op) bool { return o.Do == spec.NextHopReplace }) {
		return s.syncAll(ctx)
	}
	return nil
}

// mirrored says whether the kernel's table of a FIB has its route of a prefix.
func (f *fibState) mirrored(p netip.Prefix) bool {
	switch f.Kernel {
	case spec.KernelNone:
		return false
	case spec.KernelAll:
		st := f.static[p]
		return st == nil || !st.implied
	}
	st := f.static[p]
	return st != nil && st.active && !st.implied
}

// syncAll compares the kernel's tables with what they should have.
func (s *Service) syncAll(ctx context.Context) error {
	for _, f := range s.fibs {
		if f.Backend == spec.None {
			continue
		}
		if err := s.kern.SyncRoutes(ctx, f.t, s.keep(f)); err != nil {
			return err
		}
	}
	return nil
}

// keep chooses the routes for the kernel's table of a FIB.
func (s *Service) keep(f *fibState) func(netip.Prefix) bool {
	switch f.Kernel {
	case spec.KernelNone:
		return nil
	}
	all := f.Kernel == spec.KernelAll
	f.mu.RLock()
	defer f.mu.RUnlock()
	in := make(map[netip.Prefix]bool, len(f.static)) // static routes: whether the kernel is told
	for p, st := range f.static {
		in[p] = st.active && !st.implied // the kernel has those of addresses by itself
	}
	return func(p netip.Prefix) bool {
		told, static := in[p]
		return told || all && !static
	}
}

// untellKernel brings the kernel back to what is wanted after operations were taken back.
func (s *Service) untellKernel(ctx context.Context, ops []spec.Op) {
	if s.kern == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	complain := func(err error) {
		if err != nil {
			s.counts.kernelErrs.Add(1)
			s.log.Error("kernel: taking a change back", "err", err)
		}
	}
	if slices.ContainsFunc(ops, func(o spec.Op) bool { return structural(o.Do) }) {
		complain(s.kern.Apply(ctx, s.kernelFIBs(s.ready)))
		s.retry()
		complain(s.setForward())
	}
	for _, op := range ops {
		if op.Neigh == nil {
			continue
		}
		f, err := s.find(op.FIB)
		if err != nil || f.Backend == spec.None {
			continue
		}
		if n := s.neighs[neighKey{f.ID, op.Neigh.Dev, op.Neigh.Dst}]; n != nil {
			complain(s.kern.SetNeigh(f.ID, n.v, false))
		} else {
			_ = s.kern.DelNeigh(f.ID, *op.Neigh) // it may not have come to be
		}
	}
	complain(s.syncAll(ctx))
}

// ready says whether the device of a port, or that which carries it, is there.
func (s *Service) ready(id fib.ID, p spec.Port) bool {
	if _, ok := s.links.Index(id, p.Key()); ok {
		return true
	}
	dev := p.Key() // it may still be outside the FIB's namespace
	if p.VLAN != 0 {
		dev = p.Parent
	}
	_, ok := s.links.Index(0, dev)
	return ok
}

// restoreKernel makes the kernel have what is wanted, after a start or when somebody changed it. What does not go is in the log: the tables are there
// all the same.
func (s *Service) restoreKernel(ctx context.Context) {
	if s.kern == nil {
		return
	}
	complain := func(what string, err error) {
		if err != nil {
			s.counts.kernelErrs.Add(1)
			s.log.Error("kernel", "what", what, "err", err)
		}
	}
	complain("FIBs and ports", s.kern.Restore(ctx, s.kernelFIBs(s.ready)))
	s.retry()
	complain("forwarder", s.setForward())
	s.restoreNeighs(complain)
	for _, f := range s.fibs {
		if f.Backend != spec.None {
			s.follow(f)
			if f.Kernel != spec.KernelAll {
				complain("routes", s.kern.SyncRoutes(ctx, f.t, s.keep(f)))
				continue
			}
			f.mu.Lock()
			f.touchAll() // a large table is not waited for
			f.mu.Unlock()
		}
	}
}

// restoreNeighs enters the neighbours that are wanted and that the kernel has not, such as after their device was down.
func (s *Service) restoreNeighs(complain func(string, error)) {
	have := map[fib.ID]map[neighKey]string{}
	for k, n := range s.neighs {
		f, p := s.fibs[k.fib], s.ports[k.dev]
		if f == nil || p == nil || f.Backend == spec.None || !s.ready(k.fib, p.Port) {
			continue
		}
		if have[k.fib] == nil {
			have[k.fib] = map[neighKey]string{}
			l, err := s.kern.Neighs(k.fib, "")
			complain("neighbours", err)
			for _, i := range l {
				if slices.Contains(i.State, "PERMANENT") {
					have[k.fib][neighKey{k.fib, i.Dev, i.Dst}] = i.LLAddr
				}
			}
		}
		if !strings.EqualFold(have[k.fib][k], n.v.LLAddr) {
			complain("neigh "+k.dst.String(), s.kern.SetNeigh(k.fib, n.v, false))
		}
	}
}

// follow begins to tell the kernel what the source of a FIB changes, if it shall know.
func (s *Service) follow(f *fibState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Backend == spec.None || f.Kernel != spec.KernelAll || f.dirty != nil {
		return
	}
	f.dirty, f.work, f.stop = map[netip.Prefix]struct{}{}, make(chan struct{}, 1), make(chan struct{})
	s.wg.Go(func() { s.tell(f) })
}

// retryKernel is how long after an error the kernel's table is compared again.
const retryKernel = time.Second

func (s *Service) tell(f *fibState) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-f.stop; cancel() }()
	for {
		select {
		case <-f.stop:
			return
		case <-f.work:
		}
		f.mu.Lock()
		all, dirty := f.all, f.dirty
		f.all, f.dirty = false, map[netip.Prefix]struct{}{}
		f.mu.Unlock()
		var err error
		if all {
			err = s.kern.SyncRoutes(ctx, f.t, s.keep(f))
		} else {
			var put, del []netip.Prefix
			for p := range dirty {
				f.mu.RLock()
				told := f.mirrored(p)
				f.mu.RUnlock()
				if _, ok := f.t.Get(p); ok && told {
					put = append(put, p)
				} else {
					del = append(del, p)
				}
			}
			err = s.kern.UpdateRoutes(ctx, f.t, put, del)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.counts.kernelErrs.Add(1)
		s.log.Error("kernel: routes", "fib", f.title(), "err", err)
		select {
		case <-f.stop:
			return
		case <-time.After(retryKernel):
		}
		f.mu.Lock()
		f.touchAll()
		f.mu.Unlock()
	}
}
