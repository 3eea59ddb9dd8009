package aemhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"midplane/aem"
)

// Config is how requests are classed.
type Config struct {
	// Classify returns the class of a request; nil lets the request run without one. It must not read the body.
	Classify func(*http.Request) *aem.Class
	// Buffer is how many octets of a request's body are read before it goes to a worker, and how many of its response are kept
	// until the handler has ended. What is beyond passes through, and a slow peer then holds up the worker. 0 is 64 KiB, at
	// most 16 MiB.
	Buffer int
	// RetryAfter is what refused requests are told to wait, rounded up to seconds; 0 is 1 s, at most an hour.
	RetryAfter time.Duration
	// Refused answers requests that were not served, in place of the default, which is plain text. The status (503) and
	// Retry-After are set already. FateOf(Error(r)) tells why.
	Refused http.Handler
}

const (
	defaultBuffer = 64 << 10
	maxBuffer     = 16 << 20
	maxRetry      = time.Hour
)

type handler struct {
	next  http.Handler
	cfg   Config
	retry string
}

// Handler wraps a handler so that requests run by the rules of their class. A *aem.ConfigError names what is wrong.
func Handler(next http.Handler, cfg Config) (http.Handler, error) {
	switch {
	case next == nil:
		return nil, &aem.ConfigError{Field: "the handler", Value: nil, Want: "a handler"}
	case cfg.Classify == nil:
		return nil, &aem.ConfigError{Field: "Classify", Value: nil, Want: "a function"}
	case cfg.Buffer < 0 || cfg.Buffer > maxBuffer:
		return nil, &aem.ConfigError{Field: "Buffer", Value: cfg.Buffer, Want: "1 to 16777216 octets, or 0 for 65536"}
	case cfg.RetryAfter < 0 || cfg.RetryAfter > maxRetry:
		return nil, &aem.ConfigError{Field: "RetryAfter", Value: cfg.RetryAfter, Want: "up to an hour, or 0 for a second"}
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = defaultBuffer
	}
	retry := max(1, int64((cfg.RetryAfter+time.Second-1)/time.Second))
	return &handler{next: next, cfg: cfg, retry: strconv.FormatInt(retry, 10)}, nil
}

// Configure makes a server ready to be used: its handler (nil is http.DefaultServeMux) is wrapped, and limits that are not set get
// values under which no peer can hold a connection for ever: 5 s for headers, 2 min idle, 64 KiB of headers.
func Configure(srv *http.Server, cfg Config) error {
	next := srv.Handler
	if next == nil {
		next = http.DefaultServeMux
	}
	h, err := Handler(next, cfg)
	if err != nil {
		return err
	}
	srv.Handler = h
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = 5 * time.Second
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = 2 * time.Minute
	}
	if srv.MaxHeaderBytes == 0 {
		srv.MaxHeaderBytes = 64 << 10
	}
	return nil
}

type key int

const (
	runKey key = iota
	errorKey
)

// Run returns what the executor knows of the run of a request, within its handler; nil outside of one.
func Run(r *http.Request) *aem.Ctx {
	x, _ := r.Context().Value(runKey).(*aem.Ctx)
	return x
}

// Error returns why a request was refused, within Config.Refused.
func Error(r *http.Request) error {
	err, _ := r.Context().Value(errorKey).(error)
	return err
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := h.cfg.Classify(r)
	if c == nil {
		h.next.ServeHTTP(w, r)
		return
	}
	if c.Config().Inline {
		h.serve(c, w, r, func() {})
		return
	}
	if err := h.readBody(r); err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			http.Error(w, "the body is too long", http.StatusRequestEntityTooLarge)
			return
		}
		panic(http.ErrAbortHandler) // the peer is gone
	}
	b := &buffered{w: w, limit: h.cfg.Buffer}
	h.serve(c, b, r, b.end)
}

// serve runs a request in its class; end sends what was kept of the response.
func (h *handler) serve(c *aem.Class, w http.ResponseWriter, r *http.Request, end func()) {
	aborted := false
	err := c.Do(r.Context(), func(x *aem.Ctx) {
		ctx := context.WithValue(r.Context(), runKey, x)
		if left := x.Remaining(); left < 1<<62 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, left)
			defer cancel()
		}
		defer func() {
			// This one is how a handler says that it wants the connection closed. Others are reported by the executor.
			if p := recover(); p == http.ErrAbortHandler {
				aborted = true
			} else if p != nil {
				panic(p)
			}
		}()
		h.next.ServeHTTP(w, r.WithContext(ctx))
	})
	switch {
	case aborted || aem.FateOf(err) == aem.Panicked:
		panic(http.ErrAbortHandler)
	case err == nil:
		end()
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody waits for an answer
	default:
		if b, ok := w.(*buffered); ok {
			w = b.w
		}
		h.refuse(w, r, err)
	}
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Retry-After", h.retry)
	if errors.Is(err, aem.ErrClosed) {
		w.Header().Set("Connection", "close")
	}
	if h.cfg.Refused == nil {
		http.Error(w, "overloaded, try again later", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	h.cfg.Refused.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), errorKey, err)))
}

// readBody reads the beginning of the body, so that a worker does not wait for it.
func (h *handler) readBody(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	n := int64(h.cfg.Buffer)
	if r.ContentLength > 0 {
		n = min(n, r.ContentLength)
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(n))
	}
	if _, err := io.CopyN(&b, r.Body, n); err != nil && err != io.EOF {
		return err
	}
	r.Body = body{io.MultiReader(&b, r.Body), r.Body}
	return nil
}

type body struct {
	io.Reader
	io.Closer
}
