package service

import (
	"fmt"
	"strconv"
	"sync"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

func (s *Service) addFeed(op *spec.Op, config bool) (undo, error) {
	v := *op.Feed
	what := op.About()
	if s.feeds == nil {
		return nil, &fib.FieldError{Field: "feed", Value: v.Name, Want: "none: this daemon has no feeds"}
	}
	if s.running[v.Name] != nil {
		return nil, exists(what)
	}
	if len(s.running) >= spec.MaxFeeds {
		return nil, tooMany(what, spec.MaxFeeds)
	}
	if v.FIB != "" {
		f, err := s.find(v.FIB)
		if err != nil {
			return nil, err
		}
		if f.source != nil && !s.loading {
			return nil, inUse("feed", "fib "+f.title(), f.source.title())
		}
		v.FIB = f.ID.String()
	}
	op.Feed = &v
	if err := s.feeds.Check(v); err != nil {
		return nil, err
	}
	f := &feedState{Feed: v, config: config}
	if !s.loading {
		if err := s.startFeed(f); err != nil {
			return nil, err
		}
	}
	s.running[v.Name] = f
	return func() {
		delete(s.running, v.Name)
		s.endFeed(f)
	}, nil
}

// title says what a source is, for messages.
func (c *Source) title() string {
	if c.feed != "" {
		return "feed " + c.feed
	}
	return "a loaded file"
}

func (s *Service) startFeed(f *feedState) error {
	run, err := s.feeds.Start(f.Feed, func(table uint32) (*Source, error) {
		c, err := s.target(f.Feed, table)
		if err != nil {
			f.missed.add(table)
		}
		return c, err
	})
	if err != nil {
		return err
	}
	f.run, f.err = run, nil
	return nil
}

// target is the FIB that a feed's table goes to. It does not take s.mu: whoever closes a feed has it.
func (s *Service) target(v spec.Feed, table uint32) (*Source, error) {
	if v.FIB != "" {
		n, err := strconv.ParseUint(v.FIB, 10, 32)
		if err != nil {
			return nil, err
		}
		table = uint32(n)
	}
	x, ok := s.byTable.Load(table)
	if !ok {
		return nil, notFound(fmt.Sprint("fib ", table))
	}
	f := x.(*fibState)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone:
		return nil, notFound(fmt.Sprint("fib ", table))
	case f.source == nil:
		f.source = &Source{s: s, f: f, feed: v.Name, kind: v.Kind}
	case f.source.feed != v.Name:
		return nil, inUse("feed", "fib "+f.title(), f.source.title())
	}
	return f.source, nil
}

// delFeed ends a feed and withdraws its routes.
func (s *Service) delFeed(op *spec.Op) (undo, error) {
	f := s.running[op.Feed.Name]
	if f == nil {
		return nil, notFound(op.About())
	}
	if f.config {
		return nil, &ConfigError{op.About()}
	}
	delete(s.running, f.Name)
	taken := false
	if !s.loading {
		s.later = append(s.later, func() {
			if !taken {
				s.endFeed(f)
			}
		})
	}
	return func() { s.running[f.Name], taken = f, true }, nil
}

func (s *Service) endFeed(f *feedState) {
	if f.run != nil {
		if err := f.run.Close(); err != nil {
			s.log.Warn("feed", "name", f.Name, "err", err)
		}
		f.run.Withdraw()
	}
	for _, t := range s.fibs {
		t.mu.Lock()
		if t.source != nil && t.source.feed == f.Name {
			if err := s.withdraw(t); err != nil {
				s.log.Error("feed", "name", f.Name, "fib", t.title(), "err", err)
			}
		}
		t.mu.Unlock()
	}
}

// misses are the tables that a feed spoke of while there was no FIB for them.
type misses struct {
	mu     sync.Mutex
	tables map[uint32]struct{}
	many   bool
}

// maxMisses bounds them; with more, every new FIB counts as missed.
const maxMisses = 4096

func (m *misses) add(table uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.many = m.many || len(m.tables) >= maxMisses; m.many {
		return
	}
	if m.tables == nil {
		m.tables = map[uint32]struct{}{}
	}
	m.tables[table] = struct{}{}
}

func (m *misses) take(table uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, missed := m.tables[table]
	delete(m.tables, table)
	return missed || m.many
}

// newFIB lets feeds that feed any FIB say again what they had for one that was not there.
func (s *Service) newFIB(id fib.ID) {
	for _, f := range s.running {
		if f.FIB == "" && f.run != nil && f.missed.take(uint32(id)) {
			if err := f.run.Resync(); err != nil {
				s.log.Warn("feed", "name", f.Name, "err", err)
			}
		}
	}
}

// Resync lets a feed compare all it has with the FIBs.
func (s *Service) Resync(name string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := s.running[name]
	switch {
	case f == nil:
		return notFound("feed " + name)
	case f.run == nil:
		return f.err
	}
	return f.run.Resync()
}

// adoptAll sorts out what the tables have from before the daemon was started: FIBs that nobody wants go; so do routes
// that are not wanted, of FIBs that no feed may speak for. The others stay until the feed has spoken.
func (s *Service) adoptAll() {
	s.ways.adopt(s.hopIDs)
	defer s.ways.forget()
	for _, t := range s.set.Tables() {
		if s.fibs[t.ID()] == nil && t.ID() != holdID {
			s.purge(t.ID())
		}
	}
	any := false
	fed := map[string]bool{}
	for _, f := range s.running {
		any = any || f.FIB == ""
		fed[f.FIB] = true
	}
	for _, f := range s.fibs {
		if any || fed[f.ID.String()] || f.load != nil {
			f.mu.Lock()
			f.stale = f.load == nil && f.count() > f.actives()
			f.mu.Unlock()
			continue
		}
		f.mu.Lock()
		if f.count() > f.actives() {
			if err := s.replaceSource(f, func(func(fib.Route) bool) {}); err != nil {
				s.log.Error("FIB", "id", f.ID, "err", err)
			}
		}
		f.mu.Unlock()
	}
	s.ways.sweep()
}
