package fibapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"midplane/internal/api"
	"midplane/internal/ctlpath"
	"midplane/internal/fib/service/spec"
)

// Client asks a daemon over its control socket. It is safe for concurrent use; the zero value is not ready. What it asks
// has no time limit but the context's: a load may take long.
type Client struct {
	http *http.Client
	path string
}

var _ Control = (*Client)(nil)

// maxAnswer bounds an answer that is not a stream.
const maxAnswer = 64 << 20

// NewClient returns a client of the daemon whose control socket is at path. It connects when it is first used.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: api.Transport(path)}}
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// send sends a request; body may be nil.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://midplane"+Prefix+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var nd *api.NoDaemonError
		var foreign *ctlpath.Error
		switch {
		case errors.As(err, &foreign):
			return nil, foreign
		case errors.As(err, &nd):
			return nil, nd
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		e := &api.Error{}
		if json.Unmarshal(b, e) != nil || e.Code == "" {
			e = &api.Error{Code: api.Internal, Message: fmt.Sprintf("the node at %s answers: %s %s", c.path, resp.Status, strings.TrimSpace(string(b)))}
			if resp.StatusCode == http.StatusNotFound {
				e = &api.Error{Code: api.Unsupported, Message: fmt.Sprintf("the node at %s has no FIBs", c.path)}
			}
		}
		return nil, e
	}
	return resp, nil
}

func ask[T any](ctx context.Context, c *Client, method, path string, arg any) (v T, err error) {
	var body io.Reader
	if method == http.MethodPost {
		b, err := json.Marshal(arg)
		if err != nil {
			return v, err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("answer of the node at %s: %w", c.path, err)
	}
	return v, nil
}

// read reads a stream, whose lines are T, until yield returns false.
func read[T any](ctx context.Context, c *Client, path string, arg any, yield func(T) bool) error {
	b, err := json.Marshal(arg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of what is left when yield wants no more
	resp, err := c.send(ctx, http.MethodPost, path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 64<<10), 16<<20) // a group of 256 ways is one line
	for in.Scan() {
		var e end
		if b := in.Bytes(); bytes.HasPrefix(b, []byte(`{"end"`)) || bytes.HasPrefix(b, []byte(`{"error"`)) {
			if err := json.Unmarshal(b, &e); err != nil {
				return fmt.Errorf("answer of the node at %s: %w", c.path, err)
			}
			if e.Error != nil {
				return e.Error
			}
			return nil
		}
		var v T
		if err := json.Unmarshal(in.Bytes(), &v); err != nil {
			return fmt.Errorf("answer of the node at %s: %w", c.path, err)
		}
		if !yield(v) {
			return nil
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("answer of the node at %s: %w", c.path, err)
	}
	return fmt.Errorf("answer of the node at %s: %w", c.path, io.ErrUnexpectedEOF)
}

// Apply implements Control.
func (c *Client) Apply(ctx context.Context, ops ...spec.Op) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "apply", ops)
	return err
}

// FIBs implements Control.
func (c *Client) FIBs(ctx context.Context) ([]spec.FIBInfo, error) {
	return ask[[]spec.FIBInfo](ctx, c, http.MethodGet, "fibs", nil)
}

// Routes implements Control.
func (c *Client) Routes(ctx context.Context, q spec.RouteQuery, yield func(spec.RouteInfo) bool) error {
	return read(ctx, c, "routes", q, yield)
}

// Lookup implements Control.
func (c *Client) Lookup(ctx context.Context, q spec.LookupQuery) (spec.LookupInfo, error) {
	return ask[spec.LookupInfo](ctx, c, http.MethodPost, "lookup", q)
}

// Flush implements Control.
func (c *Client) Flush(ctx context.Context, q spec.RouteQuery) (int, error) {
	n, err := ask[count](ctx, c, http.MethodPost, "flush", q)
	return n.Count, err
}

// NextHops implements Control.
func (c *Client) NextHops(ctx context.Context) ([]spec.NextHopInfo, error) {
	return ask[[]spec.NextHopInfo](ctx, c, http.MethodGet, "nexthops", nil)
}

// Ports implements Control.
func (c *Client) Ports(ctx context.Context) ([]spec.PortInfo, error) {
	return ask[[]spec.PortInfo](ctx, c, http.MethodGet, "ports", nil)
}

// Neighs implements Control.
func (c *Client) Neighs(ctx context.Context, fib, dev string) ([]spec.NeighInfo, error) {
	return ask[[]spec.NeighInfo](ctx, c, http.MethodPost, "neighs", neighQuery{fib, dev})
}

// FlushNeighs implements Control.
func (c *Client) FlushNeighs(ctx context.Context, fib, dev string) (int, error) {
	n, err := ask[count](ctx, c, http.MethodPost, "neighs/flush", neighQuery{fib, dev})
	return n.Count, err
}

// Feeds implements Control.
func (c *Client) Feeds(ctx context.Context) ([]spec.FeedInfo, error) {
	return ask[[]spec.FeedInfo](ctx, c, http.MethodGet, "feeds", nil)
}

// Resync implements Control.
func (c *Client) Resync(ctx context.Context, feed string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "resync", feed)
	return err
}

// Load implements Control. The error of next, if it ends the load, is the error of Load.
func (c *Client) Load(ctx context.Context, q LoadQuery, next func() (spec.Route, bool, error)) (info spec.LoadInfo, err error) {
	pr, pw := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		enc := json.NewEncoder(w)
		err := enc.Encode(q)
		var nextErr error
		for done := false; err == nil && !done; {
			var r spec.Route
			if r, done, nextErr = next(); nextErr != nil {
				err = nextErr
			} else if !done {
				err = enc.Encode(r)
			}
		}
		if err == nil {
			if err = enc.Encode(end{End: true}); err == nil {
				err = w.Flush()
			}
		}
		pw.CloseWithError(err) // nil is the end of the body
		failed <- nextErr
	}()
	resp, err := c.send(ctx, http.MethodPost, "load", pr)
	pr.CloseWithError(errors.New("the node wants no more"))
	if nextErr := <-failed; nextErr != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return info, nextErr
	}
	if err != nil {
		return info, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&info); err != nil {
		return info, fmt.Errorf("answer of the node at %s: %w", c.path, err)
	}
	return info, nil
}

// Diff implements Control.
func (c *Client) Diff(ctx context.Context, q DiffQuery, yield func(spec.DiffLine) bool) error {
	return read(ctx, c, "diff", q, yield)
}

// Stats implements Control.
func (c *Client) Stats(ctx context.Context) (spec.Stats, error) {
	return ask[spec.Stats](ctx, c, http.MethodGet, "stats", nil)
}
