package fibapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"midplane/fib"
	"midplane/internal/api"
	"midplane/internal/fib/service"
	"midplane/internal/fib/service/spec"
)

// fake is a Control that answers with err, or streams n routes before it. What it does not define panics.
type fake struct {
	Control
	err    error
	n      int
	loaded []spec.Route
	ended  bool
}

func (f *fake) Apply(context.Context, ...spec.Op) error { return f.err }
func (f *fake) Routes(_ context.Context, _ spec.RouteQuery, yield func(spec.RouteInfo) bool) error {
	for i := range f.n {
		if !yield(spec.RouteInfo{FIB: 1, Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Type: spec.Blackhole, Proto: "static"}) {
			return nil
		}
	}
	return f.err
}
func (f *fake) Load(_ context.Context, q LoadQuery, next func() (spec.Route, bool, error)) (spec.LoadInfo, error) {
	for {
		r, done, err := next()
		if err != nil {
			return spec.LoadInfo{}, err
		}
		if done {
			f.ended = true
			return spec.LoadInfo{Read: len(f.loaded)}, f.err
		}
		f.loaded = append(f.loaded, r)
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

func connect(t *testing.T, h http.Handler) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &Client{path: "test", http: &http.Client{Transport: redirect{srv.URL}}}
}

func serve(t *testing.T, f Control) *Client {
	mux := http.NewServeMux()
	Register(mux, f)
	return connect(t, mux)
}

func TestErrorsTravel(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code api.Code
		is   error
	}{
		{&fib.FieldError{Field: "dst", Value: "x", Want: "y"}, api.Invalid, syscall.EINVAL},
		{&fib.OpError{Op: "find", What: "fib x", Err: fib.ErrNotFound}, api.NotFound, syscall.ENOENT},
		{&fib.OpError{Op: "add", What: "fib x", Err: fib.ErrExists}, api.Exists, syscall.EEXIST},
		{&fib.OpError{Op: "del", What: "fib x", Err: fmt.Errorf("%w by port eth0", fib.ErrInUse)}, api.Busy, syscall.EBUSY},
		{&fib.OpError{Op: "add", What: "fib x", Err: fib.ErrTooMany}, api.NotAllowed, syscall.EPERM},
		{&service.BatchError{Index: 3, About: "x", Err: fib.ErrFull}, api.NotAllowed, syscall.EPERM},
		{&service.ConfigError{What: "fib x"}, api.NotAllowed, syscall.EPERM},
		{syscall.ENODEV, api.NotFound, syscall.ENOENT},
		{errors.New("broken"), api.Internal, nil},
	} {
		c := serve(t, &fake{err: tt.err, n: 3})
		var e *api.Error
		if err := c.Apply(t.Context(), spec.Op{}); !errors.As(err, &e) || e.Code != tt.code || e.Message != tt.err.Error() || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%v: the client has %v", tt.err, err)
		}
		n := 0 // also behind a part of the answer
		if err := c.Routes(t.Context(), spec.RouteQuery{}, func(spec.RouteInfo) bool { n++; return true }); !errors.As(err, &e) || e.Code != tt.code || n != 3 {
			t.Errorf("%v: %d routes, then %v", tt.err, n, err)
		}
	}
}

func TestStreams(t *testing.T) {
	c := serve(t, &fake{n: 20_000})
	n := 0
	if err := c.Routes(t.Context(), spec.RouteQuery{}, func(spec.RouteInfo) bool { n++; return true }); err != nil || n != 20_000 {
		t.Errorf("%d routes, %v", n, err)
	}
	n = 0 // who has enough ends it
	if err := c.Routes(t.Context(), spec.RouteQuery{}, func(spec.RouteInfo) bool { n++; return n < 10 }); err != nil || n != 10 {
		t.Errorf("%d routes, %v", n, err)
	}
	for _, body := range []string{"", `{"fib":1,"dst":"10.0.0.0/8","type":"blackhole","proto":"static"}` + "\n", `{"fib":`, `{"end":`} {
		c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		if err := c.Routes(t.Context(), spec.RouteQuery{}, func(spec.RouteInfo) bool { return true }); err == nil {
			t.Errorf("an answer that was cut off at %q is taken for whole", body)
		}
	}
}

func TestLoadStreams(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	p := netip.MustParsePrefix("10.0.0.0/8")
	i := 0
	next := func(most int, last error) func() (spec.Route, bool, error) {
		i = 0
		return func() (spec.Route, bool, error) {
			if i++; i > most {
				return spec.Route{}, last == nil, last
			}
			return spec.Route{Dst: p, Type: spec.Blackhole}, false, nil
		}
	}
	info, err := c.Load(t.Context(), LoadQuery{FIB: "x"}, next(5000, nil))
	if err != nil || info.Read != 5000 || !f.ended || f.loaded[4999].Dst != p {
		t.Fatalf("%+v, %v", info, err)
	}
	// One that ends early is not taken for whole, and its error comes back.
	*f = fake{}
	broken := errors.New("the file is broken")
	if _, err := c.Load(t.Context(), LoadQuery{FIB: "x"}, next(5000, broken)); !errors.Is(err, broken) || f.ended {
		t.Errorf("%v, ended %v", err, f.ended)
	}
	// A daemon that refuses need not read all.
	refused := serve(t, &refuser{})
	var e *api.Error
	if _, err := refused.Load(t.Context(), LoadQuery{FIB: "x"}, next(200_000, nil)); !errors.As(err, &e) || e.Code != api.NotFound {
		t.Errorf("refused: %v", err)
	}
}

type refuser struct{ Control }

func (refuser) Load(context.Context, LoadQuery, func() (spec.Route, bool, error)) (spec.LoadInfo, error) {
	return spec.LoadInfo{}, &fib.OpError{Op: "find", What: "fib x", Err: fib.ErrNotFound}
}

func TestBadRequests(t *testing.T) {
	mux := http.NewServeMux()
	Register(mux, &fake{})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	long := strings.Repeat("x", maxLine+1)
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "apply", `[]`, 200},
		{"POST", "apply", `{}`, 400},
		{"POST", "apply", `[{"do":"x","nosuch":1}]`, 400},
		{"POST", "routes", `{"fib":1}`, 400},
		{"POST", "routes", `{"exact":"10.0.0.0/33"}`, 400},
		{"POST", "load", ``, 400},
		{"POST", "load", `{"fib":"x"}` + "\n", 400},
		{"POST", "load", `{"fib":"x"}` + "\n" + `{"dst":"10.0.0.0/8"}` + "\n", 400},
		{"POST", "load", `{"fib":"x"}` + "\n" + `{"dst":"` + long + `"}` + "\n", 400},
		{"POST", "load", `{"fib":"x"}` + "\n" + `{"dst":"10.0.0.0/99"}` + "\n" + `{"end":true}` + "\n", 400},
		{"POST", "load", `{"fib":"x"}` + "\n" + `{"dst":"10.0.0.0/8"}` + "\n" + `{"end":true}` + "\n", 200},
		{"GET", "apply", ``, 405},
		{"GET", "nosuch", ``, 404},
	} {
		req, err := http.NewRequest(tt.method, srv.URL+Prefix+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s %.60s: %d, want %d", tt.method, tt.path, tt.body, resp.StatusCode, tt.status)
		}
	}
}
