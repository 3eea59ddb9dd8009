package enforcer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"midplane/internal/digsig/audit"
)

// Client talks to a running enforcer. Each call makes a connection of its own; it is safe for concurrent use. Calls wait
// for the enforcer until their context ends.
type Client struct{ path string }

// Dial returns a client of the control socket at path; empty is DefaultSocket. Only root may use it.
func Dial(path string) *Client {
	if path == "" {
		path = DefaultSocket
	}
	return &Client{path}
}

// RefusedError is what the enforcer answered.
type RefusedError struct {
	Text  string
	Check *CheckReport // of a reload that was refused because of what runs
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Text }

func (c *Client) stream(ctx context.Context, q request, each func(reply) bool) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return fmt.Errorf("the enforcer does not run: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return err
	}
	r := json.NewDecoder(bufio.NewReader(conn))
	for {
		var a reply
		if err := r.Decode(&a); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		if a.Err != "" {
			return &RefusedError{a.Err, a.Check}
		}
		if !each(a) {
			return nil
		}
	}
}

func (c *Client) call(ctx context.Context, q request) (a reply, err error) {
	err = c.stream(ctx, q, func(r reply) bool { a = r; return false })
	return a, err
}

// Status returns how things stand.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	a, err := c.call(ctx, request{Op: "status"})
	return a.Status, err
}

// SetMode sets the mode until the enforcer ends: enforce, permissive, learn, or empty for the policy's.
func (c *Client) SetMode(ctx context.Context, mode string) error {
	_, err := c.call(ctx, request{Op: "mode", Mode: mode})
	return err
}

// Reload takes what is in the store now: it is in force when the call returns. A policy, key or manifest that would deny
// what runs now is refused with a *RefusedError, unless force is set; revocations never are.
func (c *Client) Reload(ctx context.Context, force bool) (*Reload, error) {
	a, err := c.call(ctx, request{Op: "reload", Force: force})
	return a.Reload, err
}

// Explain says what would be decided about a file, by its path in the enforcer's mount namespace.
func (c *Client) Explain(ctx context.Context, path string) (*Explanation, error) {
	a, err := c.call(ctx, request{Op: "explain", Path: path})
	return a.Explain, err
}

// Check looks at what runs with the lists in force.
func (c *Client) Check(ctx context.Context) (*CheckReport, error) {
	a, err := c.call(ctx, request{Op: "check"})
	return a.Check, err
}

// Events calls each for what is logged from now on, until ctx ends or each returns false. A caller that is too slow loses
// records, never the enforcer's time.
func (c *Client) Events(ctx context.Context, each func(audit.Record) bool) error {
	return c.stream(ctx, request{Op: "events"}, func(r reply) bool { return r.Event == nil || each(*r.Event) })
}

// Stop ends the enforcer: from then on everything runs.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: "stop"})
	return err
}
