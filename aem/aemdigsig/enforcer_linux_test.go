package aemdigsig_test

import (
	"path/filepath"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemdigsig"
	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/lab"
)

func TestMain(m *testing.M) { Main(m) }

// TestIntegrationDenials has a running enforcer, which stops and comes back.
func TestIntegrationDenials(t *testing.T) {
	lab.RequireNamespaces(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	hello := Compile(t, Hello)
	bad := Put(t, hello, filepath.Join(dir, "bad"))
	r.Start()

	l := newLoop(t)
	got := make(chan aemdigsig.Denial, 1000)
	e, err := aem.Register(l, aemdigsig.Denials(r.Config.Socket), func(_ *aem.Ctx, d aemdigsig.Denial) { got <- d }, aem.EventConfig{KeepAlive: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	told := func() {
		t.Helper()
		for until := time.Now().Add(30 * time.Second); time.Now().Before(until); {
			if o := Exec(bad); !o.Denied() {
				t.Fatalf("an unsigned program: %+v", o)
			}
			select {
			case d := <-got:
				if d.Lost != 0 {
					continue
				}
				if !d.Enforced || d.Reason != "unsigned" || d.Path != bad || d.PID == 0 || d.UID != 0 {
					t.Errorf("%+v", d)
				}
				return
			case <-time.After(50 * time.Millisecond): // the event may not listen yet
			}
		}
		t.Fatal("no denial was told")
	}
	told()
	r.Stop()
	for len(got) > 0 {
		<-got
	}
	r.Start()
	told()
	if err := e.Shutdown(); err != nil {
		t.Fatal(err)
	}
	r.Stop()
}
