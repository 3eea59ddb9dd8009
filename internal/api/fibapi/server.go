package fibapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"midplane/fib"
	"midplane/internal/api"
	"midplane/internal/fib/service/spec"
)

// Prefix is the path before every request of this version of the interface.
const Prefix = api.Prefix + "fib/"

// Bounds of requests, in octets.
const (
	maxRequest = 32 << 20 // a batch of operations
	maxLine    = 64 << 10 // one route of a load
)

// Register serves c on a mux, below Prefix. Reads are GET or, with a question in the body, POST.
func Register(mux *http.ServeMux, c Control) {
	get(mux, "fibs", func(ctx context.Context) (any, error) { return c.FIBs(ctx) })
	get(mux, "nexthops", func(ctx context.Context) (any, error) { return c.NextHops(ctx) })
	get(mux, "ports", func(ctx context.Context) (any, error) { return c.Ports(ctx) })
	get(mux, "feeds", func(ctx context.Context) (any, error) { return c.Feeds(ctx) })
	get(mux, "stats", func(ctx context.Context) (any, error) { return c.Stats(ctx) })
	post(mux, "apply", func(ctx context.Context, ops []spec.Op) (any, error) { return struct{}{}, c.Apply(ctx, ops...) })
	post(mux, "lookup", func(ctx context.Context, q spec.LookupQuery) (any, error) { return c.Lookup(ctx, q) })
	post(mux, "flush", func(ctx context.Context, q spec.RouteQuery) (any, error) { return counted(c.Flush(ctx, q)) })
	post(mux, "neighs", func(ctx context.Context, q neighQuery) (any, error) { return c.Neighs(ctx, q.FIB, q.Dev) })
	post(mux, "neighs/flush", func(ctx context.Context, q neighQuery) (any, error) {
		return counted(c.FlushNeighs(ctx, q.FIB, q.Dev))
	})
	post(mux, "resync", func(ctx context.Context, name string) (any, error) { return struct{}{}, c.Resync(ctx, name) })
	stream(mux, "routes", func(ctx context.Context, q spec.RouteQuery, send func(any) bool) error {
		return c.Routes(ctx, q, func(r spec.RouteInfo) bool { return send(r) })
	})
	stream(mux, "diff", func(ctx context.Context, q DiffQuery, send func(any) bool) error {
		return c.Diff(ctx, q, func(d spec.DiffLine) bool { return send(d) })
	})
	mux.HandleFunc("POST "+Prefix+"load", func(w http.ResponseWriter, r *http.Request) { load(w, r, c) })
}

type neighQuery struct {
	FIB string `json:"fib,omitempty"`
	Dev string `json:"dev,omitempty"`
}

type count struct {
	Count int `json:"count"`
}

func counted(n int, err error) (any, error) { return count{n}, err }

func get(mux *http.ServeMux, path string, f func(context.Context) (any, error)) {
	mux.HandleFunc("GET "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r.Context())
		answer(w, v, err)
	})
}

// decode reads the body of a request.
func decode[T any](w http.ResponseWriter, r *http.Request) (arg T, err error) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&arg); err != nil {
		return arg, &api.Error{Code: api.Invalid, Message: "request body: " + err.Error()}
	}
	return arg, nil
}

func post[T any](mux *http.ServeMux, path string, f func(context.Context, T) (any, error)) {
	mux.HandleFunc("POST "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		arg, err := decode[T](w, r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		v, err := f(r.Context(), arg)
		answer(w, v, err)
	})
}

// end is the last line of a stream.
type end struct {
	End   bool       `json:"end,omitempty"`
	Error *api.Error `json:"error,omitempty"`
}

func stream[T any](mux *http.ServeMux, path string, f func(ctx context.Context, arg T, send func(any) bool) error) {
	mux.HandleFunc("POST "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		arg, err := decode[T](w, r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := bufio.NewWriterSize(w, 64<<10)
		enc := json.NewEncoder(out)
		err = f(r.Context(), arg, func(v any) bool { return enc.Encode(v) == nil })
		last := end{End: err == nil}
		if err != nil {
			last.Error = toError(err)
		}
		_ = enc.Encode(last) // the peer hung up: nobody is left to tell
		_ = out.Flush()
	})
}

// load reads a query and then routes, one a line, until a line that has the member "end".
func load(w http.ResponseWriter, r *http.Request, c Control) {
	in := bufio.NewScanner(r.Body)
	in.Buffer(make([]byte, 4096), maxLine)
	bad := func(err error) error {
		return &api.Error{Code: api.Invalid, Message: "request body: " + err.Error()}
	}
	line := func() ([]byte, error) {
		switch {
		case in.Scan():
			return in.Bytes(), nil
		case in.Err() != nil:
			return nil, bad(in.Err())
		}
		return nil, bad(io.ErrUnexpectedEOF)
	}
	var q LoadQuery
	b, err := line()
	if err == nil {
		if err = json.Unmarshal(b, &q); err != nil {
			err = bad(err)
		}
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	n := 0
	info, err := c.Load(r.Context(), q, func() (spec.Route, bool, error) {
		b, err := line()
		if err != nil {
			return spec.Route{}, false, err
		}
		var item struct {
			spec.Route
			end
		}
		if err := json.Unmarshal(b, &item); err != nil {
			return spec.Route{}, false, bad(fmt.Errorf("route %d: %w", n+1, err))
		}
		n++
		return item.Route, item.End, nil
	})
	answer(w, info, err)
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		e := toError(err)
		w.WriteHeader(e.Code.Status())
		v = e
	}
	_ = json.NewEncoder(w).Encode(v) // the peer hung up: nobody is left to tell
}

// toError says what kind of refusal an error is.
func toError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	var field *fib.FieldError
	code := api.Code("")
	switch {
	case errors.As(err, &field):
		code = api.Invalid
	case errors.Is(err, fib.ErrNotFound), errors.Is(err, fib.ErrRemoved):
		code = api.NotFound
	case errors.Is(err, fib.ErrExists):
		code = api.Exists
	case errors.Is(err, fib.ErrInUse):
		code = api.Busy
	case errors.Is(err, fib.ErrTooMany), errors.Is(err, fib.ErrFull), errors.As(err, new(interface{ NotAllowed() })):
		code = api.NotAllowed
	default:
		return api.ToError(err)
	}
	return &api.Error{Code: code, Message: err.Error()}
}
