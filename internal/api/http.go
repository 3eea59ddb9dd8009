package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"midplane/internal/ctlpath"
)

// Prefix is the path before every request of this version of the interface.
const Prefix = "/v1/"

// maxBody bounds a request's and an answer's body. The name table alone can have 65,535 entries of about 200 octets.
const (
	maxRequest = 64 << 10
	maxAnswer  = 64 << 20
)

// Handler serves c. Reads are GET, changes POST with a JSON body; unknown fields are refused.
func Handler(c Control) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(context.Context) (any, error)) {
		mux.HandleFunc("GET "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r.Context())
			answer(w, v, err)
		})
	}
	get("node", func(ctx context.Context) (any, error) { return c.Node(ctx) })
	get("peers", func(ctx context.Context) (any, error) { return c.Peers(ctx) })
	get("bearers", func(ctx context.Context) (any, error) { return c.Bearers(ctx) })
	get("media", func(ctx context.Context) (any, error) { return c.Media(ctx) })
	get("links", func(ctx context.Context) (any, error) { return c.Links(ctx, false) })
	get("links/all", func(ctx context.Context) (any, error) { return c.Links(ctx, true) })
	get("broadcast", func(ctx context.Context) (any, error) { return c.Broadcast(ctx) })
	get("monitors", func(ctx context.Context) (any, error) { return c.Monitors(ctx) })
	get("names", func(ctx context.Context) (any, error) { return c.Names(ctx) })
	get("sockets", func(ctx context.Context) (any, error) { return c.Sockets(ctx) })

	post(mux, "node/set", c.SetNode)
	post(mux, "node/key", c.SetKey)
	post(mux, "node/flush-keys", func(ctx context.Context, _ struct{}) error { return c.FlushKeys(ctx) })
	post(mux, "peers/remove", c.RemovePeer)
	post(mux, "bearers/enable", c.EnableBearer)
	post(mux, "bearers/disable", c.DisableBearer)
	post(mux, "bearers/add", c.AddRemote)
	post(mux, "bearers/set", c.SetBearer)
	post(mux, "media/set", c.SetMedium)
	post(mux, "links/set", c.SetLink)
	post(mux, "links/reset", c.ResetLink)
	post(mux, "broadcast/set", c.SetBroadcast)
	post(mux, "monitors/set", c.SetMonitor)
	return mux
}

func post[T any](mux *http.ServeMux, path string, f func(context.Context, T) error) {
	mux.HandleFunc("POST "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		dec.DisallowUnknownFields()
		var arg T
		if err := dec.Decode(&arg); err != nil {
			answer(w, nil, &Error{Invalid, "request body: " + err.Error()})
			return
		}
		answer(w, struct{}{}, f(r.Context(), arg))
	})
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		e := ToError(err)
		w.WriteHeader(e.Code.Status())
		v = e
	}
	_ = json.NewEncoder(w).Encode(v) // the peer hung up: nobody is left to tell
}

// Client asks a node over its control socket. It is safe for concurrent use; the zero value is not ready.
type Client struct {
	http *http.Client
	path string
}

var _ Control = (*Client)(nil)

// NoDaemonError says that nothing answers at the control socket.
type NoDaemonError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *NoDaemonError) Error() string {
	return fmt.Sprintf("no node answers at %s: %v (start one with: midplane node --control %s, or name its socket with --control)", e.Path, e.Err, e.Path)
}

// NoDaemon makes a NoDaemonError of the error of a connection to path; that of a place not to be trusted stays.
func NoDaemon(path string, err error) error {
	var foreign *ctlpath.Error
	if errors.As(err, &foreign) {
		return foreign
	}
	// The path is said once; what is left of a network error is its errno.
	var sys *os.SyscallError
	var file *os.PathError
	switch {
	case errors.As(err, &sys):
		err = sys.Err
	case errors.As(err, &file):
		err = file.Err
	}
	return &NoDaemonError{path, err}
}

// Unwrap returns the cause.
func (e *NoDaemonError) Unwrap() error { return e.Err }

// Transport connects to the control socket at path, for a client of any of its interfaces. A failure to connect is a
// *NoDaemonError.
func Transport(path string) *http.Transport {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := ctlpath.Check(path); err != nil {
			return nil, NoDaemon(path, err)
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, NoDaemon(path, err)
		}
		return c, nil
	}
	return &http.Transport{DialContext: dial, MaxIdleConns: 2, IdleConnTimeout: time.Minute}
}

// NewClient returns a client of the node whose control socket is at path. It connects when it is first used.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: Transport(path), Timeout: 30 * time.Second}}
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, arg, result any) error {
	var body io.Reader
	if method == http.MethodPost {
		b, err := json.Marshal(arg)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://midplane"+Prefix+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var nd *NoDaemonError
		var foreign *ctlpath.Error
		switch {
		case errors.As(err, &foreign):
			return foreign
		case errors.As(err, &nd):
			return nd
		}
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("answer of the node at %s: %w", c.path, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &Error{}
		if json.Unmarshal(b, e) != nil || e.Code == "" {
			e = &Error{Internal, fmt.Sprintf("the node at %s answers: %s %s", c.path, resp.Status, strings.TrimSpace(string(b)))}
		}
		return e
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("answer of the node at %s: %w", c.path, err)
	}
	return nil
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

func (c *Client) post(ctx context.Context, path string, arg any) error {
	return c.do(ctx, http.MethodPost, path, arg, nil)
}

// Node implements Control.
func (c *Client) Node(ctx context.Context) (Node, error) { return get[Node](ctx, c, "node") }

// SetNode implements Control.
func (c *Client) SetNode(ctx context.Context, s NodeSet) error { return c.post(ctx, "node/set", s) }

// SetKey implements Control.
func (c *Client) SetKey(ctx context.Context, s KeySet) error { return c.post(ctx, "node/key", s) }

// FlushKeys implements Control.
func (c *Client) FlushKeys(ctx context.Context) error {
	return c.post(ctx, "node/flush-keys", struct{}{})
}

// Peers implements Control.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) { return get[[]Peer](ctx, c, "peers") }

// RemovePeer implements Control.
func (c *Client) RemovePeer(ctx context.Context, p PeerRemove) error {
	return c.post(ctx, "peers/remove", p)
}

// Bearers implements Control.
func (c *Client) Bearers(ctx context.Context) ([]Bearer, error) {
	return get[[]Bearer](ctx, c, "bearers")
}

// EnableBearer implements Control.
func (c *Client) EnableBearer(ctx context.Context, b BearerEnable) error {
	return c.post(ctx, "bearers/enable", b)
}

// DisableBearer implements Control.
func (c *Client) DisableBearer(ctx context.Context, name string) error {
	return c.post(ctx, "bearers/disable", name)
}

// AddRemote implements Control.
func (c *Client) AddRemote(ctx context.Context, r BearerRemote) error {
	return c.post(ctx, "bearers/add", r)
}

// SetBearer implements Control.
func (c *Client) SetBearer(ctx context.Context, s PropertySet) error {
	return c.post(ctx, "bearers/set", s)
}

// Media implements Control.
func (c *Client) Media(ctx context.Context) ([]Medium, error) { return get[[]Medium](ctx, c, "media") }

// SetMedium implements Control.
func (c *Client) SetMedium(ctx context.Context, s PropertySet) error {
	return c.post(ctx, "media/set", s)
}

// Links implements Control.
func (c *Client) Links(ctx context.Context, withBroadcastPeers bool) ([]Link, error) {
	if withBroadcastPeers {
		return get[[]Link](ctx, c, "links/all")
	}
	return get[[]Link](ctx, c, "links")
}

// SetLink implements Control.
func (c *Client) SetLink(ctx context.Context, s PropertySet) error {
	return c.post(ctx, "links/set", s)
}

// ResetLink implements Control.
func (c *Client) ResetLink(ctx context.Context, name string) error {
	return c.post(ctx, "links/reset", name)
}

// Broadcast implements Control.
func (c *Client) Broadcast(ctx context.Context) (Broadcast, error) {
	return get[Broadcast](ctx, c, "broadcast")
}

// SetBroadcast implements Control.
func (c *Client) SetBroadcast(ctx context.Context, b Broadcast) error {
	return c.post(ctx, "broadcast/set", b)
}

// Monitors implements Control.
func (c *Client) Monitors(ctx context.Context) (Monitors, error) {
	return get[Monitors](ctx, c, "monitors")
}

// SetMonitor implements Control.
func (c *Client) SetMonitor(ctx context.Context, threshold uint32) error {
	return c.post(ctx, "monitors/set", threshold)
}

// Names implements Control.
func (c *Client) Names(ctx context.Context) ([]Name, error) { return get[[]Name](ctx, c, "names") }

// Sockets implements Control.
func (c *Client) Sockets(ctx context.Context) ([]Socket, error) {
	return get[[]Socket](ctx, c, "sockets")
}
