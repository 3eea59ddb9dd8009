package daemon

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"midplane/fib"
	"midplane/internal/api/fibapi"
	"midplane/internal/fib/diff"
	"midplane/internal/fib/diff/source"
	"midplane/internal/fib/mirror"
	"midplane/internal/fib/mrt"
	"midplane/internal/fib/service/spec"
)

// side is one side of a comparison.
type side struct {
	routes diff.Source
	id     fib.ID // whose devices its routes name
	end    func()
}

// side finds the side that the words of the command line name. "table" is a table of the kernel, in the network
// namespace of the daemon or, with @FILE behind its number, another one.
func (c *fibControl) side(words string) (*side, error) {
	kind, name, _ := strings.Cut(words, " ")
	switch kind {
	case "fib":
		t, err := c.Find(name)
		if err != nil {
			return nil, err
		}
		// Of one moment, though changes go on.
		snap, err := t.Snapshot()
		if err != nil {
			return nil, err
		}
		return &side{source.Routes(c.set, snap.All()), t.ID(), func() { _ = snap.Close() }}, nil
	case "feed":
		id, routes, err := c.Fed(name)
		if err != nil {
			return nil, err
		}
		return &side{diff.Sorted(source.Routes(c.set, routes)), id, func() {}}, nil
	case "table":
		number, space, _ := strings.Cut(name, "@")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 {
			return nil, &fib.FieldError{Field: "table", Value: name, Want: "the number of a routing table, from 1"}
		}
		return &side{mirror.Table(space, uint32(n), ownGuard), 0, func() {}}, nil
	case "file":
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s := source.File(f, mrt.Options{}, func(dev string) uint32 {
			i, _ := c.links.Index(0, dev)
			return i
		})
		return &side{s, 0, func() { f.Close() }}, nil
	}
	return nil, &fib.FieldError{Field: "side", Value: words, Want: "fib FIB, table N, feed NAME or file FILE"}
}

// Diff implements fibapi.Control.
func (c *fibControl) Diff(ctx context.Context, q fibapi.DiffQuery, yield func(spec.DiffLine) bool) error {
	a, err := c.side(q.Left)
	if err != nil {
		return err
	}
	defer a.end()
	b, err := c.side(q.Right)
	if err != nil {
		return err
	}
	defer b.end()
	words := func(s *side, hops []diff.Hop) string {
		return diff.Words(hops, func(i uint32) string { return c.links.Name(s.id, i) })
	}
	for d, err := range diff.Diff(a.routes, b.routes) {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		l := spec.DiffLine{Dst: d.Prefix}
		if d.Kind != diff.OnlyB {
			l.Left = words(a, d.A)
		}
		if d.Kind != diff.OnlyA {
			l.Right = words(b, d.B)
		}
		if !yield(l) {
			return nil
		}
	}
	return nil
}
