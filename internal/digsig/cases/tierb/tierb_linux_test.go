package tierb

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gaps/probe"
	"midplane/internal/digsig/verity/enrol"
	"midplane/internal/lab"
)

// Verdicts of the table.
const (
	allow  = "A"
	deny   = "D"
	gap    = "G" // it ran: a gap that status must tell
	notHas = "not on this kernel"
)

type line struct {
	number          int
	what, want, got string
}

// bench is what the cases share: the gate, who verifies, and what was enrolled.
type bench struct {
	t        *testing.T
	g        *bpflsm.Gate
	v        *digsig.Verifier
	settings gaps.Settings
	enrolled map[string]enrol.Result
	lines    []line
	early    *os.File // opened before anything was enforced
}

func TestIntegrationTierB(t *testing.T) {
	lab.InVM(t, lab.VMConfig{CPUs: 2, Memory: 768}, func() []string { return disk(t) }, func(t *testing.T) {
		b := &bench{t: t, enrolled: map[string]enrol.Result{}, settings: gaps.Settings{Modules: true, GuardBPF: true}}
		b.prepare()
		b.enforce()
		b.handed()
		b.signatures()
		b.loading()
		b.ways()
		b.filesystems()
		b.changes()
		b.memory()
		b.scripts()
		b.kernel()
		b.load()
		b.print()
	})
}

func (b *bench) case_(number int, what, want, got string) {
	b.lines = append(b.lines, line{number, what, want, got})
}

// run is a case about one program.
func (b *bench) run(number int, what, want, path string, args ...string) {
	b.case_(number, what, want, outcome(program(path, args...)))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) prepare() {
	b.must(unix.Mount("/dev/vda", "/mnt", "ext4", 0, ""))
	trust, err := digsig.NewTrustStore(&digsig.Key{Public: signerOf(b.t, key).Public(), Comment: "administrator", Purposes: digsig.AllPurposes, Roles: digsig.AllRoles})
	b.must(err)
	manifest, err := os.ReadFile("/mnt/meta/manifest")
	b.must(err)
	b.v, err = digsig.NewVerifier(digsig.Config{Trust: trust, Manifests: [][]byte{manifest}, Now: time.Now()})
	b.must(err)
	b.variants()
	b.mounts()
	b.early, err = os.Open("/mnt/bad/lib.so")
	b.must(err)
	b.g, err = bpflsm.Attach(bpflsm.Config{Grants: 1000})
	b.must(err)
}

// grants are those for what was enrolled, as package bpflsm finds them.
func (b *bench) grants() []bpflsm.Grant {
	all, err := bpflsm.Collect(b.t.Context(), b.v, []string{"/mnt"}, nil)
	b.must(err)
	r, ok := bpflsm.GrantOf(b.enrolled["/mnt/prog/magic"]) // neither ELF nor #!
	if !ok {
		b.t.Fatalf("%+v", b.enrolled["/mnt/prog/magic"])
	}
	return append(all, r)
}

// enforce enrols the disk and lets the gate decide.
func (b *bench) enforce() {
	b.must(enrol.Tree(b.t.Context(), "/mnt", enrol.Config{Verifier: b.v}, func(r enrol.Result) { b.enrolled[r.Path] = r }))
	for path, r := range b.enrolled {
		if good := strings.HasPrefix(path, "/mnt/prog/") && r.Outcome == enrol.Enrolled || strings.HasPrefix(path, "/mnt/bad/") && r.Outcome == enrol.Refused; !good &&
			path != "/mnt/bad/revoked" && path != "/mnt/bad/old" {
			b.t.Errorf("%s: outcome %d, %v, %v", path, r.Outcome, r.Verdict, r.Err)
		}
	}
	r := enrol.File(b.t.Context(), "/mnt/prog/magic", enrol.Config{Verifier: b.v})
	b.enrolled[r.Path] = r
	b.must(b.g.Allow(b.grants()...))
	for _, path := range system {
		b.must(b.admit(path))
	}
	b.must(b.g.SetPolicy(b.policy(), true))
}

func (b *bench) policy() bpflsm.Policy {
	return bpflsm.Policy{Mode: bpflsm.Enforce, Anonymous: b.settings.DenyAnonymous, Modules: b.settings.Modules, Guard: b.settings.GuardBPF, Ptrace: b.settings.GuardPtrace}
}

// admit is what the enforcer of tier F does for a file without fs-verity.
func (b *bench) admit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return b.g.Admit(f, func() (bpflsm.Grant, bool, error) {
		at := time.Now()
		v := b.v.VerifyFile(b.t.Context(), path, digsig.Request{Use: digsig.UseExec, At: at})
		if v.Reason == digsig.RoleMissing {
			v = b.v.Recheck(v, digsig.UseLib, at)
		}
		return bpflsm.Grant{Digest: bpflsm.Digest{Kind: bpflsm.Content, Sum: v.Digest}, Roles: v.Roles}, v.Reason == digsig.Signed, nil
	})
}

// print prints the table, and fails for what is not as it should be. Every gap must be one that the report tells.
func (b *bench) print() {
	h, err := probe.Host()
	b.must(err)
	report := gaps.Decide(h, b.settings)
	if report.Tier != gaps.TierBPF {
		b.t.Errorf("tier %v: %q", report.Tier, report.Why)
	}
	slices.SortStableFunc(b.lines, func(x, y line) int { return x.number - y.number })
	var s strings.Builder
	fmt.Fprintf(&s, "\n%4s  %-4s  %-75s %-20s %s\n", "case", "tier", "what", "expected", "got")
	seen := map[int]bool{}
	for _, l := range b.lines {
		seen[l.number] = true
		mark := ""
		if l.got != l.want {
			mark = "  <-- wrong"
			b.t.Errorf("case %d (%s): got %s, want %s", l.number, l.what, l.got, l.want)
		}
		if l.got == gap && !report.Open(l.number) {
			mark += "  <-- not told"
			b.t.Errorf("case %d (%s) is a gap that the report does not tell", l.number, l.what)
		}
		fmt.Fprintf(&s, "%4d  %-4s  %-75s %-20s %s%s\n", l.number, "B", l.what, l.want, l.got, mark)
	}
	b.t.Log(s.String())
	for n := 1; n <= 54; n++ {
		if !seen[n] {
			b.t.Errorf("case %d is not there", n)
		}
	}
}

// write makes a program with a content.
func (b *bench) write(path string, content []byte) {
	b.t.Helper()
	b.must(os.MkdirAll(filepath.Dir(path), 0o755))
	b.must(os.WriteFile(path, content, 0o755))
}

func (b *bench) read(path string) []byte {
	b.t.Helper()
	content, err := os.ReadFile(path)
	b.must(err)
	return content
}
