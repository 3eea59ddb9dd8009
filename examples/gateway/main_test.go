package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"midplane/aem"
)

// start runs the gateway and returns its address.
func start(t *testing.T, upstream string, deadline time.Duration) (*aem.Executor, string) {
	t.Helper()
	ex, err := aem.New(&aem.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{}
	if err := setUp(ex, srv, upstream, deadline); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close(); ex.Close() })
	return ex, "http://" + l.Addr().String()
}

// client keeps its connections: making them would be most of the work.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
		t.Error("refused, and not told when to come again")
	}
	return res.StatusCode, string(b)
}

func TestGateway(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "upstream "+r.URL.Path) }))
	defer up.Close()
	_, gw := start(t, up.URL, time.Minute)
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/lookup/nl", 200, "Netherlands\n"},
		{"/lookup/xx", 404, "404 page not found\n"},
		{"/report?rows=1", 200, "0,"},
		{"/report?rows=0", 400, `rows is "0", want 1 to 1000000` + "\n"},
		{"/upstream/a/b", 200, "upstream /a/b"},
	} {
		status, body := get(t, gw+c.path)
		if status != c.status || len(body) < len(c.body) || body[:len(c.body)] != c.body {
			t.Errorf("%s: %d %q", c.path, status, body)
		}
	}
}

// Many more ask for reports than can be served: each is told quickly that it is refused or gets its report, no queue grows, and
// look-ups go on.
func TestOverload(t *testing.T) {
	ex, gw := start(t, "", 50*time.Millisecond)
	var stop atomic.Bool
	var served, refused atomic.Int64
	var all sync.WaitGroup
	for range 100 { // the queue has 64 places
		all.Go(func() {
			for !stop.Load() {
				switch status, _ := get(t, gw+"/report?rows=10000"); status {
				case http.StatusOK:
					served.Add(1)
				case http.StatusServiceUnavailable:
					refused.Add(1)
					time.Sleep(50 * time.Millisecond) // a patient client; still many times what can be served
				default:
					t.Errorf("status %d", status)
				}
			}
		})
	}
	lookups := 0
	for give := time.Now().Add(time.Minute); lookups < 100 || served.Load() < 10 || refused.Load() < 10; lookups++ {
		if time.Now().After(give) {
			t.Errorf("in a minute %d look-ups, %d reports served, %d refused", lookups, served.Load(), refused.Load())
			break
		}
		if status, body := get(t, gw+"/lookup/se"); status != 200 || body != "Sweden\n" {
			t.Errorf("look-up: %d %q", status, body)
		}
	}
	stop.Store(true)
	all.Wait()
	s := ex.Lookup("reports").Stats()
	if s.MostWaiting > s.Queue || s.Waiting != 0 || s.Shed+s.Expired+s.Rejected == 0 {
		t.Errorf("%d waited at most, of %d; %d wait; shed %d, expired %d, rejected %d", s.MostWaiting, s.Queue, s.Waiting, s.Shed, s.Expired, s.Rejected)
	}
	if l := ex.Lookup("lookups").Stats(); int(l.Ran) != lookups || l.Rejected != 0 {
		t.Errorf("%d of %d look-ups ran, %d were refused", l.Ran, lookups, l.Rejected)
	}
	t.Logf("%d look-ups, %d reports served, %d refused", lookups, served.Load(), refused.Load())
}
