//go:build unix

package aemdigsig_test

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemdigsig"
)

// lines are what an enforcer answers to the request for events: first that it listens, then records as it logs them.
var lines = []string{
	`{}`,
	`{"event":{"seq":1,"time":"2026-11-26T08:00:00Z","type":"start","prev":"0000000000000000000000000000000000000000000000000000000000000000"}}`,
	`{"event":{"seq":2,"time":"2026-11-26T08:00:01Z","type":"verdict","verdict":"allow","path":"/bin/true","prev":"0000000000000000000000000000000000000000000000000000000000000000"}}`,
	`{"event":{"seq":3,"time":"2026-11-26T08:00:02Z","type":"verdict","verdict":"deny","reason":"unsigned","use":"exec","path":"/tmp/x","pid":77,"uid":1000,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}}`,
	`{"event":{"seq":4,"time":"2026-11-26T08:00:03Z","type":"verdict","verdict":"would-deny","reason":"revoked","use":"lib","path":"/tmp/y","prev":"0000000000000000000000000000000000000000000000000000000000000000"}}`,
	`{"event":{"seq":5,"time":"2026-11-26T08:00:04Z","type":"lost","count":9,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}}`,
}

// newLoop makes a loop that ends after the test.
func newLoop(t *testing.T) *aem.Loop {
	t.Helper()
	ex, err := aem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	l, err := aem.NewLoop(ex, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Denials come as events, other records do not; an enforcer that goes and comes back is found again.
func TestDenials(t *testing.T) {
	dir, err := os.MkdirTemp("", "aem")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "control")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if q, err := bufio.NewReader(c).ReadString('\n'); err != nil || q != "{\"op\":\"events\"}\n" {
				t.Errorf("asked for %q, %v", q, err)
			}
			for _, l := range lines {
				_, _ = c.Write([]byte(l + "\n"))
			}
			c.Close()
		}
	}()
	l := newLoop(t)
	inline, err := l.Executor().Class("in order", aem.ClassConfig{Inline: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan aemdigsig.Denial, 100)
	e, err := aem.Register(l, aemdigsig.Denials(path), func(_ *aem.Ctx, d aemdigsig.Denial) { got <- d }, aem.EventConfig{Class: inline, KeepAlive: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	next := func() aemdigsig.Denial {
		t.Helper()
		select {
		case d := <-got:
			return d
		case <-time.After(30 * time.Second):
			t.Fatal("no denial")
			panic("not reached")
		}
	}
	for range 2 {
		if d := next(); !d.Enforced || d.Reason != "unsigned" || d.Path != "/tmp/x" || d.PID != 77 || d.UID != 1000 {
			t.Fatalf("%+v", d)
		}
		if d := next(); d.Enforced || d.Reason != "revoked" || d.UID != -1 {
			t.Fatalf("%+v", d)
		}
		if d := next(); d.Lost != 9 {
			t.Fatalf("%+v", d)
		}
	}
	if err := e.Shutdown(); err != nil {
		t.Fatal(err)
	}
}
