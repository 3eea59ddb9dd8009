package aemhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/aem"
)

type fixture struct {
	ex           *aem.Executor
	inline, slow *aem.Class
	srv          *httptest.Server
	mux          *http.ServeMux
	client       *http.Client
}

func setUp(t *testing.T, cfg Config, slow aem.ClassConfig) *fixture {
	t.Helper()
	ex, err := aem.New(&aem.Config{Workers: 1, OnPanic: func(aem.Panic) {}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{ex: ex, mux: http.NewServeMux()}
	if f.inline, err = ex.Class("inline", aem.ClassConfig{Inline: true}); err != nil {
		t.Fatal(err)
	}
	if f.slow, err = ex.Class("slow", slow); err != nil {
		t.Fatal(err)
	}
	cfg.Classify = func(r *http.Request) *aem.Class {
		switch {
		case strings.HasPrefix(r.URL.Path, "/slow"):
			return f.slow
		case strings.HasPrefix(r.URL.Path, "/inline"):
			return f.inline
		}
		return nil
	}
	f.srv = httptest.NewUnstartedServer(f.mux)
	if err := Configure(f.srv.Config, cfg); err != nil {
		t.Fatal(err)
	}
	f.srv.EnableHTTP2 = true
	f.srv.StartTLS()
	f.client = f.srv.Client()
	t.Cleanup(func() { f.srv.Close(); ex.Close() })
	return f
}

func (f *fixture) get(t *testing.T, path string, body io.Reader) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", f.srv.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := f.client.Do(r)
	if err != nil {
		return nil, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return res, err.Error()
	}
	return res, string(b)
}

func slowClass() aem.ClassConfig {
	return aem.ClassConfig{Level: aem.Normal, Nice: 19, Queue: 1, Deadline: time.Minute}
}

func TestRequests(t *testing.T) {
	f := setUp(t, Config{Buffer: 1000}, slowClass())
	echo := func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if x := Run(r); (x == nil) != (r.URL.Path == "/plain") {
			t.Errorf("%s: run %v", r.URL.Path, x)
		}
		_, limited := r.Context().Deadline()
		if limited != (r.URL.Path != "/plain") {
			t.Errorf("%s: deadline %v", r.URL.Path, limited)
		}
		w.Header().Set("X-Length", r.URL.Path)
		w.WriteHeader(http.StatusTeapot)
		w.Write(b[:len(b)/2])
		w.Write(b[len(b)/2:])
	}
	for _, path := range []string{"/slow", "/inline", "/plain"} {
		f.mux.HandleFunc(path, echo)
		for _, n := range []int{0, 1, 999, 1000, 1001, 100_000} {
			want := strings.Repeat("x", n)
			res, got := f.get(t, path, strings.NewReader(want))
			if res == nil || res.StatusCode != http.StatusTeapot || got != want || res.Header.Get("X-Length") != path {
				t.Errorf("%s, %d octets: %v, %d octets", path, n, res, len(got))
			}
			// Of unknown length.
			if res, got := f.get(t, path, io.MultiReader(strings.NewReader(want))); res == nil || got != want {
				t.Errorf("%s, %d octets in chunks: %v, %d octets", path, n, res, len(got))
			}
		}
	}
	if n := f.slow.Stats().Ran; n != 12 {
		t.Errorf("%d requests ran in the class", n)
	}
}

// What the class does not take is refused at once, while it is full.
func TestRefused(t *testing.T) {
	var mu sync.Mutex
	var fates []aem.Fate
	for _, own := range []bool{false, true} {
		cfg := Config{RetryAfter: 1500 * time.Millisecond}
		if own {
			cfg.Refused = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				fates = append(fates, aem.FateOf(Error(r)))
				mu.Unlock()
				io.WriteString(w, "own words")
			})
		}
		f := setUp(t, cfg, slowClass())
		began, gate := make(chan struct{}, 8), make(chan struct{})
		f.mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { began <- struct{}{}; <-gate })
		var all sync.WaitGroup
		all.Go(func() {
			if res, text := f.get(t, "/slow", nil); res == nil || res.StatusCode != http.StatusOK {
				t.Errorf("the first: %v", text)
			}
		})
		<-began
		all.Go(func() {
			if res, text := f.get(t, "/slow", nil); res == nil || res.StatusCode != http.StatusOK {
				t.Errorf("the second: %v", text)
			}
		})
		for f.slow.Stats().Waiting == 0 {
			time.Sleep(time.Millisecond)
		}
		res, text := f.get(t, "/slow", strings.NewReader("body"))
		if res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "2" {
			t.Errorf("refused: %v", res)
		}
		if (text == "own words") != own {
			t.Errorf("refused with %q", text)
		}
		close(gate)
		all.Wait()
		if err := f.ex.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if res, _ := f.get(t, "/slow", nil); res == nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("after Shutdown: %v", res)
		}
	}
	if len(fates) != 2 || fates[0] != aem.Rejected {
		t.Errorf("refused for %v", fates)
	}
}

// A request whose peer has gone while it waits is taken back.
func TestClientGone(t *testing.T) {
	f := setUp(t, Config{}, slowClass())
	began, gate := make(chan struct{}, 8), make(chan struct{})
	f.mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { began <- struct{}{}; <-gate })
	var all sync.WaitGroup
	all.Go(func() { f.get(t, "/slow", nil) })
	<-began
	ctx, cancel := context.WithCancel(context.Background())
	all.Go(func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", f.srv.URL+"/slow", nil)
		if _, err := f.client.Do(r); !errors.Is(err, context.Canceled) {
			t.Errorf("the request: %v", err)
		}
	})
	for f.slow.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for f.slow.Stats().Canceled == 0 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	all.Wait()
}

func TestPanics(t *testing.T) {
	f := setUp(t, Config{}, slowClass())
	for _, path := range []string{"/slow", "/inline"} {
		f.mux.HandleFunc(path+"/panic", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "part"); panic("on purpose") })
		f.mux.HandleFunc(path+"/abort", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		for _, what := range []string{"/panic", "/abort"} {
			if res, _ := f.get(t, path+what, nil); res != nil {
				t.Errorf("%s%s was answered: %v", path, what, res)
			}
		}
	}
	if s := f.slow.Stats(); s.Panicked != 1 || s.Ran != 1 {
		t.Errorf("panicked %d, ran %d", s.Panicked, s.Ran)
	}
}

func TestStreamsAndHijack(t *testing.T) {
	f := setUp(t, Config{}, slowClass())
	f.srv.Close()
	plain := httptest.NewServer(f.srv.Config.Handler)
	defer plain.Close()
	more := make(chan struct{})
	f.mux.HandleFunc("/slow/stream", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-more
		io.WriteString(w, " second")
	})
	res, err := http.Get(plain.URL + "/slow/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
	close(more)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != " second" {
		t.Errorf("%q, %v", rest, err)
	}
	f.mux.HandleFunc("/slow/hijack", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nmine")
		c.Close()
	})
	res, err = http.Get(plain.URL + "/slow/hijack")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); !bytes.Equal(b, []byte("mine")) {
		t.Errorf("%q", b)
	}
}

func TestConfigErrors(t *testing.T) {
	ok := func(*http.Request) *aem.Class { return nil }
	for field, cfg := range map[string]Config{
		"Classify": {}, "Buffer": {Classify: ok, Buffer: -1}, "RetryAfter": {Classify: ok, RetryAfter: -1},
	} {
		var e *aem.ConfigError
		if _, err := Handler(http.NotFoundHandler(), cfg); !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := Handler(nil, Config{Classify: ok}); err == nil {
		t.Error("a nil handler")
	}
}
