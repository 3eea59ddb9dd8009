package enforcer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/enforcer"
	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/digsig/gaps"
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

// Where the kernel carries no higher tier, or the configuration forbids it, fanotify decides, and the status says why.
func TestIntegrationTierFallsBack(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	bad := Put(t, Compile(t, Hello), filepath.Join(dir, "bad"))
	lack := "it is for the whole machine"
	if err := bpflsm.Probe(); err != nil {
		lack = err.Error()
	}
	for tier, want := range map[string]string{
		enforcer.TierAuto:     "no tier bpf-lsm: " + lack,
		enforcer.TierVerity:   "no tier bpf-lsm: the configuration wants no higher one",
		enforcer.TierFanotify: "no tier bpf-lsm: the configuration wants no higher one",
	} {
		r.Config.Tier = tier
		r.Start()
		if o := Exec(bad); !o.Denied() {
			t.Errorf("tier %s: %+v", tier, o)
		}
		Eventually(t, "why tier "+tier, func() error {
			s := r.Status()
			if s.Kernel != nil || s.Tier != gaps.TierFanotify && s.Tier != gaps.TierVerity || tier == enforcer.TierFanotify && s.Tier != gaps.TierFanotify {
				t.Fatalf("tier %s: %v, %+v", tier, s.Tier, s.Kernel)
			}
			if len(s.NotHigher) == 0 || !strings.HasPrefix(s.NotHigher[len(s.NotHigher)-1], want) {
				return fmt.Errorf("%q, want %q", s.NotHigher, want)
			}
			return nil
		})
		r.Stop()
	}
	r.Config.Tier = enforcer.TierBPF
	if err := r.TryStart(); err == nil || !strings.Contains(err.Error(), "tier bpf: "+lack) {
		t.Errorf("tier bpf of some file systems: %v", err)
	}
	if o := Exec(bad); !o.Ran() {
		t.Errorf("after an enforcer that could not begin: %+v", o)
	}
}

func TestTierNames(t *testing.T) {
	for want, c := range map[string]enforcer.Config{
		`Tier is "lsm", want auto, fanotify, verity or bpf`:          {Tier: "lsm"},
		`Kernel has "all", want anonymous, modules, guard or ptrace`: {Kernel: []string{"guard", "all"}},
	} {
		if err := enforcer.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
