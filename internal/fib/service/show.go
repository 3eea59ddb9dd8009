package service

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"midplane/fib"
	"midplane/internal/fib/flowhash"
	"midplane/internal/fib/service/spec"
)

// FIBs returns all FIBs in the order of their numbers.
func (s *Service) FIBs() []spec.FIBInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ports := map[fib.ID][]string{}
	for key, p := range s.ports {
		ports[p.fib] = append(ports[p.fib], key)
	}
	var l []spec.FIBInfo
	for _, id := range slices.Sorted(maps.Keys(s.fibs)) {
		f := s.fibs[id]
		i := f.info()
		i.Ports = ports[id]
		slices.Sort(i.Ports)
		if s.kern != nil && f.Backend != spec.None {
			i.Backend, i.Device = s.kern.Bound(id)
		}
		l = append(l, i)
	}
	return l
}

func (f *fibState) info() spec.FIBInfo {
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := spec.FIBInfo{FIB: f.FIB, Config: f.config}
	i.IPv4, i.IPv6 = f.t.Len()
	i.Generation = f.t.Generation()
	for _, st := range f.static {
		if st.implied {
			continue
		}
		if st.active {
			i.Static++
		} else {
			i.Pending++
		}
	}
	i.Shadowed = len(f.shadow)
	switch {
	case f.source != nil && f.source.feed == "" && f.load != nil:
		i.Source = "file " + f.load.v.Origin
	case f.source != nil:
		i.Source = f.source.title()
	}
	return i
}

// Routes hands the routes that are asked for to yield, FIB by FIB and in order, until that returns false. It shows what is
// there when it comes to it. Nothing is locked while yield runs.
func (s *Service) Routes(ctx context.Context, q spec.RouteQuery, yield func(spec.RouteInfo) bool) error {
	var all []*fibState
	s.mu.RLock()
	if q.FIB != "" {
		f, err := s.find(q.FIB)
		if err != nil {
			s.mu.RUnlock()
			return err
		}
		all = append(all, f)
	} else {
		for _, id := range slices.Sorted(maps.Keys(s.fibs)) {
			all = append(all, s.fibs[id])
		}
	}
	s.mu.RUnlock()
	for _, f := range all {
		more := true
		for r := range f.choose(q) {
			if err := ctx.Err(); err != nil {
				return err
			}
			i := s.describe(f, r)
			if q.FitsPrefix(r.Prefix) && q.Fits(i) {
				if more = yield(i); !more {
					return nil
				}
			}
		}
		if !q.Hidden {
			continue
		}
		for _, i := range s.hiddenOf(f) {
			if q.FitsPrefix(i.Dst) && q.Fits(i) && !yield(i) {
				return nil
			}
		}
	}
	return nil
}

// choose iterates over no more of the table than a query needs.
func (f *fibState) choose(q spec.RouteQuery) iter.Seq[fib.Route] {
	switch {
	case q.Exact.IsValid():
		return func(yield func(fib.Route) bool) {
			if id, ok := f.t.Get(q.Exact); ok {
				yield(fib.Route{Prefix: q.Exact, NextHop: id})
			}
		}
	case q.Match.IsValid():
		return f.t.Covering(q.Match)
	case q.Root.IsValid() && q.Root.Bits() > 0:
		return f.t.Covered(q.Root)
	}
	return f.t.All()
}

// hiddenOf are the routes that are wanted but not in the table.
func (s *Service) hiddenOf(f *fibState) []spec.RouteInfo {
	f.mu.RLock()
	var l []spec.RouteInfo
	for p, st := range f.static {
		if !st.active && !st.implied {
			l = append(l, spec.RouteInfo{FIB: f.ID, Name: f.Name, Dst: p, Type: cmp.Or(st.Type, spec.Unicast), Proto: cmp.Or(st.Proto, "static"), NHID: st.NHID, Hops: wantedHops(st.Hops), Multi: len(st.Hops) > 1, State: "pending"})
		}
	}
	f.mu.RUnlock()
	for _, r := range f.hidden() {
		i := spec.RouteInfo{FIB: f.ID, Name: f.Name, Dst: r.Prefix, Proto: f.kind(), State: "shadowed"}
		s.follows(&i, f.ID, r.NextHop)
		l = append(l, i)
	}
	slices.SortFunc(l, func(a, b spec.RouteInfo) int { return a.Dst.Compare(b.Dst) })
	return l
}

func wantedHops(l []spec.Hop) (hops []spec.HopInfo) {
	for _, h := range l {
		hops = append(hops, spec.HopInfo{Gateway: h.Gateway, Dev: h.Dev, Weight: max(h.Weight, 1)})
	}
	return hops
}

// kind is the protocol of routes that are not static.
func (f *fibState) kind() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.source != nil {
		return f.source.kind
	}
	return "stale"
}

// describe says in words what a route of the table is.
func (s *Service) describe(f *fibState, r fib.Route) spec.RouteInfo {
	i := spec.RouteInfo{FIB: f.ID, Name: f.Name, Dst: r.Prefix}
	f.mu.RLock()
	st := f.static[r.Prefix]
	switch {
	case st != nil && st.active:
		i.Proto, i.NHID = cmp.Or(st.Proto, "static"), st.NHID
	case f.source != nil:
		i.Proto = f.source.kind
	default:
		i.Proto = "stale" // of before the start, until the feed has spoken
	}
	f.mu.RUnlock()
	s.follows(&i, f.ID, r.NextHop)
	return i
}

// follows fills in where a route leads.
func (s *Service) follows(i *spec.RouteInfo, id fib.ID, nh fib.NextHopID) {
	n, ok := s.set.NextHop(nh)
	if !ok {
		i.Type = spec.Unreachable // it went meanwhile
		return
	}
	i.Type = spec.Unicast
	if n.Members == nil {
		i.Type = n.NextHop.Type.String()
		if n.NextHop.Type == fib.Lookup {
			i.Table = s.titleOf(n.NextHop.Table)
		}
		if n.NextHop.Device != 0 {
			i.Hops = []spec.HopInfo{s.hopInfo(id, n, 1)}
		}
		return
	}
	i.Multi = true
	for _, m := range n.Members {
		if h, ok := s.set.NextHop(m.NextHop); ok {
			i.Hops = append(i.Hops, s.hopInfo(id, h, int(max(m.Weight, 1))))
		}
	}
}

func (s *Service) hopInfo(id fib.ID, n fib.NextHopInfo, weight int) spec.HopInfo {
	return spec.HopInfo{Gateway: n.NextHop.Gateway, Dev: s.links.Name(id, n.NextHop.Device), Weight: weight, Down: n.Down}
}

func (s *Service) titleOf(id fib.ID) string {
	if t, ok := s.set.Table(id); ok && t.Name() != "" {
		return t.Name()
	}
	return id.String()
}

// Find returns the table of a FIB by its name or number.
func (s *Service) Find(which string) (*fib.Table, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, err := s.find(which)
	if err != nil {
		return nil, err
	}
	return f.t, nil
}

// Fed returns the routes that a feed has in its FIB, also those that static ones hide, in no order. The feed must be for
// one FIB.
func (s *Service) Fed(name string) (fib.ID, iter.Seq[fib.Route], error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w := s.running[name]
	if w == nil {
		return 0, nil, notFound("feed " + name)
	}
	if w.FIB == "" {
		return 0, nil, &fib.FieldError{Field: "feed", Value: name, Want: "one that is for one FIB; compare the FIB itself"}
	}
	f, err := s.find(w.FIB)
	if err != nil {
		return 0, nil, err
	}
	return f.ID, f.others(), nil
}

// Lookup says where packets to an address go.
func (s *Service) Lookup(q spec.LookupQuery) (spec.LookupInfo, error) {
	f, err := s.findFor(q)
	if err != nil {
		return spec.LookupInfo{}, err
	}
	if !q.Addr.IsValid() || q.Addr.Is4In6() {
		return spec.LookupInfo{}, &fib.FieldError{Field: "address", Value: q.Addr.String(), Want: "an IPv4 or IPv6 address"}
	}
	i := spec.LookupInfo{Addr: q.Addr.WithZone(""), Hash: q.Hash}
	if w := q.Flow; w != nil {
		switch {
		case q.Hash != 0:
			return i, &fib.FieldError{Field: "hash", Value: fmt.Sprint(q.Hash), Want: "none with a flow, which has its own"}
		case !w.From.IsValid() || w.From.Is4() != q.Addr.Is4() || w.From.Is4In6():
			return i, &fib.FieldError{Field: "from", Value: w.From.String(), Want: "an address of the family of " + i.Addr.String()}
		case (w.SPort != 0 || w.DPort != 0) && !flowhash.HasPorts(w.Protocol):
			return i, &fib.FieldError{Field: "ipproto", Value: fmt.Sprint(w.Protocol), Want: "one that has ports"}
		}
		i.Hash = flowhash.Hash(s.seed, flowhash.Flow{Src: w.From.WithZone(""), Dst: i.Addr, Protocol: w.Protocol, SrcPort: w.SPort, DstPort: w.DPort})
	}
	if r, ok := f.t.LookupRoute(q.Addr); ok {
		i.Found, i.Route = true, s.describe(f, r)
	}
	hop := s.set.Resolve(f.t, q.Addr, i.Hash)
	i.Type = hop.Type.String()
	if hop.Device != 0 {
		i.Hop = spec.HopInfo{Gateway: hop.Gateway, Dev: s.links.Name(hop.FIB, hop.Device)}
	}
	if i.FIB = hop.FIB; i.FIB != 0 {
		i.Name = s.titleOf(i.FIB)
	}
	return i, nil
}

// findFor is the FIB that packets are looked up in.
func (s *Service) findFor(q spec.LookupQuery) (*fibState, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if q.Iif == "" {
		return s.find(q.FIB)
	}
	p, ok := s.ports[q.Iif]
	if !ok {
		return nil, &fib.FieldError{Field: "iif", Value: q.Iif, Want: "a port of a FIB"}
	}
	f := s.fibs[p.fib]
	if q.FIB == "" {
		return f, nil
	}
	asked, err := s.find(q.FIB)
	if err == nil && asked != f {
		err = &fib.FieldError{Field: "iif", Value: q.Iif, Want: "a port of fib " + q.FIB + "; it is one of " + f.title()}
	}
	return asked, err
}

// NextHops returns the next hops with a number of the user's, in the order of these.
func (s *Service) NextHops() []spec.NextHopInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var l []spec.NextHopInfo
	for _, id := range slices.Sorted(maps.Keys(s.hops)) {
		h := s.hops[id]
		i := spec.NextHopInfo{NextHop: h.NextHop, Config: h.config, Pending: h.id == 0}
		if n, ok := s.set.NextHop(h.id); ok {
			i.Routes, i.Groups = n.Routes, n.Groups
		}
		l = append(l, i)
	}
	return l
}

// Ports returns all ports in the order of their names.
func (s *Service) Ports() []spec.PortInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var l []spec.PortInfo
	for _, key := range slices.Sorted(maps.Keys(s.ports)) {
		p := s.ports[key]
		i := spec.PortInfo{Port: p.Port, FIB: p.fib, Name: s.fibs[p.fib].Name, Config: p.config}
		i.Dev = key
		i.Index, _ = s.links.Index(p.fib, key)
		if slices.ContainsFunc(s.forwarded, func(f ForwardPort) bool { return f.Device == i.Index && f.FIB == p.fib }) {
			i.Forward = "xdp"
		}
		l = append(l, i)
	}
	return l
}

// Neighs returns the neighbours of a FIB or, with "", of all: those that the kernel has, and for FIBs without kernel side
// those that were entered.
func (s *Service) Neighs(which, dev string) ([]spec.NeighInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := slices.Sorted(maps.Keys(s.fibs))
	if which != "" {
		f, err := s.find(which)
		if err != nil {
			return nil, err
		}
		ids = []fib.ID{f.ID}
	}
	var l []spec.NeighInfo
	for _, id := range ids {
		f := s.fibs[id]
		var of []spec.NeighInfo
		if s.kern != nil && f.Backend != spec.None {
			var err error
			if of, err = s.kern.Neighs(id, dev); err != nil {
				return nil, err
			}
		} else {
			for k, n := range s.neighs {
				if k.fib == id && (dev == "" || dev == k.dev) {
					of = append(of, spec.NeighInfo{Dst: k.dst, Dev: k.dev, LLAddr: n.v.LLAddr, State: []string{"PERMANENT"}})
				}
			}
		}
		for i := range of {
			of[i].FIB, of[i].Name = id, f.Name
		}
		slices.SortFunc(of, func(a, b spec.NeighInfo) int {
			return cmp.Or(cmp.Compare(a.Dev, b.Dev), a.Dst.Compare(b.Dst))
		})
		l = append(l, of...)
	}
	return l, nil
}

// FlushNeighs removes neighbours that were learned; those entered by hand stay, as with ip-neighbour(8).
func (s *Service) FlushNeighs(which, dev string) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, err := s.find(which)
	if err != nil || s.kern == nil || f.Backend == spec.None {
		return 0, err
	}
	return s.kern.FlushNeighs(f.ID, dev)
}

// Feeds returns all feeds in the order of their names.
func (s *Service) Feeds() []spec.FeedInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var l []spec.FeedInfo
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		f := s.running[name]
		i := spec.FeedInfo{}
		if f.run != nil {
			i = f.run.Info()
		} else {
			i.State = "failed"
			if f.err != nil {
				i.Err = f.err.Error()
			}
		}
		i.Feed, i.Config = f.Feed, f.config
		if _, has := f.Params["password"]; has { // who may ask need not know it
			i.Params = maps.Clone(f.Params)
			i.Params["password"] = "(set)"
		}
		for _, id := range slices.Sorted(maps.Keys(s.fibs)) {
			t := s.fibs[id]
			t.mu.RLock()
			if t.source != nil && t.source.feed == name {
				i.FIBs = append(i.FIBs, t.title())
			}
			t.mu.RUnlock()
		}
		l = append(l, i)
	}
	return l
}

// Flush removes the static routes that are asked for, all or none, and returns how many.
func (s *Service) Flush(ctx context.Context, q spec.RouteQuery) (int, error) {
	if q.FIB == "" {
		return 0, &fib.FieldError{Field: "fib", Value: "", Want: "the name or number of a FIB"}
	}
	q.Hidden = true
	s.mu.RLock()
	f, err := s.find(q.FIB)
	s.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	var ops []spec.Op
	flushed := 0
	flush := func() error {
		err := s.Apply(ctx, ops...)
		if err == nil {
			flushed += len(ops)
		}
		ops = ops[:0]
		return err
	}
	var ferr error
	err = s.Routes(ctx, q, func(i spec.RouteInfo) bool {
		f.mu.RLock()
		st := f.static[i.Dst]
		f.mu.RUnlock()
		if st == nil || st.config || st.implied || i.State == "shadowed" {
			return true
		}
		if ops = append(ops, spec.Op{Do: spec.RouteDel, FIB: f.ID.String(), Route: &spec.Route{Dst: i.Dst}}); len(ops) == spec.MaxBatch {
			ferr = flush()
		}
		return ferr == nil
	})
	if err == nil {
		err = ferr
	}
	if err == nil {
		err = flush()
	}
	return flushed, err
}

// Stats counts.
func (s *Service) Stats() spec.Stats {
	st := spec.Stats{PerFIB: s.FIBs(), Counts: map[string]uint64{
		"changes":         s.counts.changes.Load(),
		"refused":         s.counts.refused.Load(),
		"snapshots":       s.counts.snapshots.Load(),
		"kernel_errors":   s.counts.kernelErrs.Load(),
		"unshadow_errors": s.counts.feedErrs.Load(),
	}}
	if s.store != nil {
		snapshot, log := s.store.Sizes()
		st.Counts["snapshot_octets"], st.Counts["journal_octets"] = uint64(snapshot), uint64(log)
	}
	st.FIBs = len(st.PerFIB)
	for i := range st.PerFIB {
		if s.forward == nil {
			break
		}
		packets, err := s.forward.Packets(st.PerFIB[i].ID)
		if err != nil {
			s.log.Warn("forwarder", "err", err)
			continue
		}
		st.PerFIB[i].Packets = packets
	}
	for _, f := range st.PerFIB {
		st.Routes += f.IPv4 + f.IPv6
	}
	for range s.set.NextHops() {
		st.NextHops++
	}
	return st
}

// words is the opposite of way: what a route of a source is, for a file.
func (s *Service) words(f *fibState, r fib.Route) spec.Route {
	i := s.describe(f, r)
	w := spec.Route{Dst: r.Prefix, Type: i.Type, Table: i.Table}
	if w.Type == spec.Unicast {
		w.Type = ""
	}
	for _, h := range i.Hops {
		hop := spec.Hop{Gateway: h.Gateway, Dev: h.Dev}
		if i.Multi {
			hop.Weight = h.Weight
		}
		w.Hops = append(w.Hops, hop)
	}
	return w
}
