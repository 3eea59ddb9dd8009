package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// fileSource is how routes of a loaded file are shown.
const fileSource = "file"

// Load makes the routes that next returns those of a FIB's file: with replace in place of those that it has, in one step
// for those who look up; else in addition to them. next is asked until it is done; an error of it ends the load, and the
// FIB is as before. Of several routes of one prefix the last counts. Routes to devices that are not there are skipped, but
// are kept with the file. The memory needed does not depend on how many next returns, but for that of the table itself.
func (s *Service) Load(ctx context.Context, which string, replace bool, origin string, next func() (r spec.Route, done bool, err error)) (spec.LoadInfo, error) {
	var info spec.LoadInfo
	s.mu.RLock()
	f, err := s.find(which)
	if err == nil {
		err = f.loadable()
	}
	s.mu.RUnlock()
	if err != nil {
		return info, err
	}
	tmp, err := os.CreateTemp(s.dir, "table.new-*")
	if err != nil {
		return info, err
	}
	name := tmp.Name()
	tmp.Close()
	defer os.Remove(name) // it is not there any more when it was kept
	info.Read, err = writeTable(name, s.store != nil, func() (spec.Route, bool, error) {
		if err := ctx.Err(); err != nil {
			return spec.Route{}, false, err
		}
		r, done, err := next()
		if err != nil || done {
			return r, done, err
		}
		return r, false, r.Check()
	})
	if err != nil {
		return info, err
	}
	ticket, err := s.loadFile(which, name, replace, origin, &info)
	if err != nil {
		return info, err
	}
	s.counts.changes.Add(1)
	if s.store != nil {
		return info, s.store.Wait(ticket)
	}
	return info, nil
}

func (f *fibState) loadable() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.source != nil && f.source.feed != "" {
		return inUse("load", "fib "+f.title(), "feed "+f.source.feed)
	}
	return nil
}

func (s *Service) loadFile(which, name string, replace bool, origin string, info *spec.LoadInfo) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errClosed
	}
	f, err := s.find(which)
	if err != nil {
		return 0, err
	}
	if err := f.loadable(); err != nil {
		return 0, err
	}
	var kept []fib.Route
	if !replace {
		if kept, err = s.holdOthers(f); err != nil {
			return 0, err
		}
	}
	defer func() {
		for _, r := range kept {
			s.ways.unhold(r.NextHop)
		}
	}()
	before := f.load
	if info.Skipped, err = s.fill(f, name, kept); err != nil {
		return 0, err
	}
	load := spec.Load{Origin: origin, Routes: f.count() - f.actives() + len(f.shadow)}
	info.Routes = load.Routes
	if s.store == nil {
		f.load = &item[spec.Load]{v: load}
		return 0, nil
	}
	if !replace { // what the file has is not all
		if err := s.dump(f, name); err != nil {
			return 0, err
		}
	}
	s.tables++
	load.File = fmt.Sprintf("table-%d-%d", f.ID, s.tables)
	if err := os.Rename(name, filepath.Join(s.dir, load.File)); err != nil {
		return 0, err
	}
	f.load = &item[spec.Load]{v: load}
	ticket, err := s.record([]spec.Op{{Do: spec.LoadSet, FIB: f.ID.String(), Load: &load}})
	if err != nil {
		f.load = before
		return 0, err
	}
	if before != nil && before.v.File != "" {
		if err := os.Remove(filepath.Join(s.dir, before.v.File)); err != nil {
			s.log.Warn("loaded table", "err", err)
		}
	}
	return ticket, nil
}

// holdOthers returns the routes of a FIB's source, whose next hops are held.
func (s *Service) holdOthers(f *fibState) (l []fib.Route, err error) {
	for r := range f.others() {
		if err = s.ways.hold(r.NextHop); err != nil {
			break
		}
		l = append(l, r)
	}
	if err != nil {
		for _, r := range l {
			s.ways.unhold(r.NextHop)
		}
		return nil, err
	}
	return l, nil
}

func (f *fibState) count() int { v4, v6 := f.t.Len(); return v4 + v6 }

// actives counts the static routes in the table.
func (f *fibState) actives() (n int) {
	for _, st := range f.static {
		if st.active {
			n++
		}
	}
	return n
}

// fill makes kept and the routes of a file those of the FIB's source.
func (s *Service) fill(f *fibState, name string, kept []fib.Route) (skipped int, err error) {
	var ids []fib.NextHopID // of the file's ways; 0: its device is not there
	defer func() {
		for _, id := range ids {
			if id != 0 {
				s.ways.unhold(id)
			}
		}
	}()
	via := map[string]uint32{}
	// Once through the whole file before anything is changed: it may be damaged.
	err = readTable(name, func(r spec.Route, p netip.Prefix, n int) error {
		if p.IsValid() {
			if ids[n] == 0 {
				skipped++
			}
			return nil
		}
		for _, h := range r.Hops {
			via[h.Dev], _ = s.links.Index(f.ID, h.Dev)
		}
		to, err := s.way(f, r)
		if err != nil {
			ids = append(ids, 0)
			return nil
		}
		return s.ways.with(to, func(id fib.NextHopID) error {
			err := s.ways.hold(id)
			if err == nil {
				ids = append(ids, id)
			}
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var readErr error
	err = s.replaceSource(f, func(yield func(fib.Route) bool) {
		for _, r := range kept {
			if !yield(r) {
				return
			}
		}
		errStop := errors.New("stop")
		readErr = readTable(name, func(_ spec.Route, p netip.Prefix, n int) error {
			if p.IsValid() && ids[n] != 0 && !yield(fib.Route{Prefix: p, NextHop: ids[n]}) {
				return errStop
			}
			return nil
		})
	})
	if err == nil {
		err = readErr
	}
	if err == nil {
		f.source, f.via = &Source{s: s, f: f, kind: fileSource}, via
	}
	return skipped, err
}

// refill reads a FIB's file again when its devices are others than they were.
func (s *Service) refill(f *fibState) {
	if f.load == nil || f.load.v.File == "" {
		return
	}
	for dev, was := range f.via {
		if now, _ := s.links.Index(f.ID, dev); now == was {
			continue
		}
		if _, err := s.fill(f, filepath.Join(s.dir, f.load.v.File), nil); err != nil {
			s.log.Error("loaded table", "fib", f.title(), "err", err)
		}
		return
	}
}

// dump writes the routes of a FIB's source into a file.
func (s *Service) dump(f *fibState, name string) error {
	var l []fib.Route
	for r := range f.others() {
		l = append(l, r)
	}
	i := 0
	_, err := writeTable(name, true, func() (spec.Route, bool, error) {
		if i == len(l) {
			return spec.Route{}, true, nil
		}
		i++
		return s.words(f, l[i-1]), false, nil
	})
	return err
}

// setLoad notes, while the state is read, which file a FIB has; it is read when all is known.
func (s *Service) setLoad(f *fibState, op *spec.Op) (undo, error) {
	if !s.loading {
		return nil, &fib.FieldError{Field: "do", Value: string(op.Do), Want: "midplane fib load"}
	}
	if strings.ContainsRune(op.Load.File, filepath.Separator) || !strings.HasPrefix(op.Load.File, "table-") {
		return nil, &fib.FieldError{Field: "file", Value: op.Load.File, Want: "a file of the state directory"}
	}
	f.load = &item[spec.Load]{v: *op.Load}
	return func() {}, nil
}

// delLoad empties a FIB of what was loaded.
func (s *Service) delLoad(f *fibState, op *spec.Op) (undo, error) {
	old := f.load
	if old == nil {
		return nil, notFound("loaded file of fib " + f.title())
	}
	f.load = nil
	if s.loading {
		return func() {}, nil
	}
	l, err := s.holdOthers(f)
	if err != nil {
		f.load = old
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	src := f.source
	err = s.withdraw(f)
	release := func() {
		for _, r := range l {
			s.ways.unhold(r.NextHop)
		}
	}
	if err != nil {
		f.load, f.source = old, src
		release()
		return nil, err
	}
	s.later = append(s.later, release)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.load, f.source = old, src
		if err := s.replaceSource(f, func(yield func(fib.Route) bool) {
			for _, r := range l {
				if !yield(r) {
					return
				}
			}
		}); err != nil {
			s.log.Error("loaded table", "fib", f.title(), "err", err)
		}
	}, nil
}

// loadFiles fills the FIBs from the files that they have, when the state is read.
func (s *Service) loadFiles() error {
	for _, f := range s.fibs {
		if f.load == nil {
			continue
		}
		name := filepath.Join(s.dir, f.load.v.File)
		skipped, err := s.fill(f, name, nil)
		if err != nil {
			return fmt.Errorf("loaded table of fib %s: %s: %w", f.title(), name, err)
		}
		if skipped > 0 {
			s.log.Warn("loaded table: routes to devices that are not there are left out", "fib", f.title(), "routes", skipped)
		}
	}
	s.sweepFiles()
	return nil
}

// sweepFiles removes tables on disk that no FIB has: a crash left them.
func (s *Service) sweepFiles() {
	if s.store == nil {
		return
	}
	used := map[string]bool{}
	for _, f := range s.fibs {
		if f.load != nil {
			used[f.load.v.File] = true
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.log.Warn("state directory", "err", err)
		return
	}
	for _, e := range entries {
		var id, n uint64
		switch k, _ := fmt.Sscanf(e.Name(), "table-%d-%d", &id, &n); {
		case k == 2:
			s.tables = max(s.tables, n)
			if used[e.Name()] {
				continue
			}
		case !strings.HasPrefix(e.Name(), "table.new-") || !s.loading:
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("state directory", "err", err)
		}
	}
}
