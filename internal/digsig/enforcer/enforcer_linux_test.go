package enforcer_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/lab"
)

func TestMain(m *testing.M) { Main(m) }

func needRoot(t *testing.T) {
	t.Helper()
	lab.RequireNamespaces(t)
}

func TestIntegrationBasics(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	hello := Compile(t, Hello)
	good := Put(t, r.Signed(hello, 0), filepath.Join(dir, "good"))
	bad := Put(t, hello, filepath.Join(dir, "bad"))
	r.Start()
	for range 3 {
		if o := Exec(good); !o.Ran() {
			t.Errorf("a signed program: %+v\n%s", o, r.Log())
		}
		if o := Exec(bad); !o.Denied() {
			t.Errorf("an unsigned program: %+v", o)
		}
		if _, err := os.ReadFile(bad); !errors.Is(err, os.ErrPermission) {
			t.Errorf("reading an unsigned program: %v", err)
		}
	}
	s := r.Status()
	if s.Mode != "enforce" || s.Stats.Gate.Denied < 6 || s.Stats.Gate.Verified < 2 {
		t.Errorf("status: %+v", s)
	}
	if s.Stats.Gate.Requests > 3*6+10 {
		t.Errorf("%d questions: marks do not work", s.Stats.Gate.Requests)
	}
	r.Stop()
	if o := Exec(bad); !o.Ran() {
		t.Errorf("after the end: %+v", o)
	}
	rep, err := audit.Verify(r.Config.Audit.Path, nil)
	if err != nil || rep.Records < 5 {
		t.Errorf("the log: %+v, %v", rep, err)
	}
	_ = digsig.Exempt
}
