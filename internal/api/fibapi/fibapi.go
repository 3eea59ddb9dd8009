// Package fibapi is the control interface of the FIBs of a daemon: [Control] says what can be asked and changed,
// [Register] serves it as HTTP beside package api's, [Client] is the other end. Values are those of package spec.
//
// Answers that can be long are streams of JSON values, one a line; so is the body of a load. Neither side holds more of
// them than a line. A stream ends with a line that has the member "end" or "error": one that has neither was cut off.
package fibapi

import (
	"context"

	"midplane/internal/fib/service/spec"
)

// Control reads and changes the FIBs of one daemon. All methods are safe for concurrent use.
type Control interface {
	// Apply does all operations, or none.
	Apply(ctx context.Context, ops ...spec.Op) error
	FIBs(context.Context) ([]spec.FIBInfo, error)
	// Routes calls yield for each route until it returns false.
	Routes(ctx context.Context, q spec.RouteQuery, yield func(spec.RouteInfo) bool) error
	Lookup(context.Context, spec.LookupQuery) (spec.LookupInfo, error)
	// Flush removes static routes, and returns how many.
	Flush(context.Context, spec.RouteQuery) (int, error)
	NextHops(context.Context) ([]spec.NextHopInfo, error)
	Ports(context.Context) ([]spec.PortInfo, error)
	// Neighs lists the neighbours of a FIB and a device, or with "" of all.
	Neighs(ctx context.Context, fib, dev string) ([]spec.NeighInfo, error)
	FlushNeighs(ctx context.Context, fib, dev string) (int, error)
	Feeds(context.Context) ([]spec.FeedInfo, error)
	Resync(ctx context.Context, feed string) error
	// Load makes the routes that next returns until it is done those of a FIB's file.
	Load(ctx context.Context, q LoadQuery, next func() (r spec.Route, done bool, err error)) (spec.LoadInfo, error)
	// Diff calls yield for each difference of two sides until it returns false.
	Diff(ctx context.Context, q DiffQuery, yield func(spec.DiffLine) bool) error
	Stats(context.Context) (spec.Stats, error)
}

// LoadQuery says what is loaded.
type LoadQuery struct {
	FIB     string `json:"fib"`
	Replace bool   `json:"replace,omitempty"` // in place of what the FIB's file has
	Origin  string `json:"origin,omitempty"`  // what the user calls it
}

// DiffQuery names two sides, each in the words of the command line.
type DiffQuery struct {
	Left  string `json:"left"`
	Right string `json:"right"`
}
