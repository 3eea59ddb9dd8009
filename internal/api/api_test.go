package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// refuser answers every change with err. What it does not define panics, which no test here reaches.
type refuser struct {
	Control
	err error
}

func (r refuser) SetMonitor(context.Context, uint32) error   { return r.err }
func (r refuser) SetLink(context.Context, PropertySet) error { return r.err }
func (r refuser) Names(context.Context) ([]Name, error)      { return nil, r.err }
func (r refuser) DisableBearer(_ context.Context, name string) error {
	return fmt.Errorf("%s: %w", name, r.err)
}

func TestErrorsTravel(t *testing.T) {
	for _, tt := range []struct {
		err    error
		code   Code
		status int
		is     error
	}{
		{&Error{Busy, "in use"}, Busy, 409, syscall.EBUSY},
		{&Error{NotFound, "no such"}, NotFound, 404, syscall.ENOENT},
		{&Error{Unsupported, "absent"}, Unsupported, 501, errors.ErrUnsupported},
		{syscall.EPERM, NotAllowed, 403, syscall.EPERM},
		{syscall.EINVAL, Invalid, 400, syscall.EINVAL},
		{fs.ErrExist, Internal, 500, nil},
		{syscall.EEXIST, Exists, 409, syscall.EEXIST},
		{errors.New("broken"), Internal, 500, nil},
	} {
		srv := httptest.NewServer(Handler(refuser{err: tt.err}))
		resp, err := http.Post(srv.URL+"/v1/bearers/disable", "application/json", strings.NewReader(`"udp:u1"`))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != tt.status {
			t.Errorf("%v: status %d, want %d", tt.err, resp.StatusCode, tt.status)
		}
		resp.Body.Close()
		c := &Client{http: srv.Client(), path: "test"}
		c.http.Transport = redirect{srv.URL}
		err = c.DisableBearer(t.Context(), "udp:u1")
		var e *Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.err.Error()) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%v: the client has %v", tt.err, err)
		}
		if _, err := c.Names(t.Context()); !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%v: reading: %v", tt.err, err)
		}
		srv.Close()
	}
}

// redirect sends all requests to one server.
type redirect struct{ url string }

func (r redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	u, err := req.URL.Parse(r.url + req.URL.Path)
	if err != nil {
		return nil, err
	}
	req.URL = u
	return http.DefaultTransport.RoundTrip(req)
}

func TestBadRequests(t *testing.T) {
	srv := httptest.NewServer(Handler(refuser{}))
	defer srv.Close()
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/links/set", `{"name":"x","property":"priority","value":1}`, 200},
		{"POST", "/v1/links/set", `{"name":"x","property":"priority","value":-1}`, 400},
		{"POST", "/v1/links/set", `{"nam":"x"}`, 400},
		{"POST", "/v1/links/set", ``, 400},
		{"POST", "/v1/monitors/set", `"many"`, 400},
		{"POST", "/v1/monitors/set", `"` + strings.Repeat("x", maxRequest) + `"`, 400},
		{"GET", "/v1/links/set", ``, 405},
		{"GET", "/v1/nosuch", ``, 404},
		{"GET", "/", ``, 404},
	} {
		req, err := http.NewRequest(tt.method, srv.URL+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || tt.status == 400 && !bytes.Contains(b, []byte(`"code":"invalid"`)) {
			t.Errorf("%s %s %.40s: %d %s, want %d", tt.method, tt.path, tt.body, resp.StatusCode, b, tt.status)
		}
	}
}
