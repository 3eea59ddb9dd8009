package enforcer_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"midplane/internal/digsig/enforcer"
	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/digsig/gaps"
	"midplane/internal/lab"
)

// A whole host is watched, in a guest: its own programs, store and log, what is mounted later, and what is mounted in
// other mount namespaces. Workers and supervisors are killed meanwhile.
func TestIntegrationWholeHost(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots a guest")
	}
	lab.InVM(t, lab.VMConfig{}, nil, func(t *testing.T) {
		r := New(t)
		r.Config.Remote = true // the guest's root is the host's, by 9p
		r.Config.Mode = "permissive"
		hello := Compile(t, Hello, "-static")
		signed := r.Signed(hello, 0)
		sandbox := Compile(t, Sandbox, "-static")
		r.Start()
		s := r.Status()
		if len(s.Marks) < 5 || !slices.ContainsFunc(s.Marks, func(m enforcer.Marked) bool { return m.Mount == "/" }) {
			t.Errorf("marks: %+v", s.Marks)
		}
		if o := Exec("/bin/true"); !o.Ran() {
			t.Errorf("permissive: %+v", o)
		}
		// The guest's root is an overlay of what is mounted nowhere that it sees: that must be told.
		if !slices.ContainsFunc(s.Marks, func(m enforcer.Marked) bool { return m.Mount == "/" && m.Type == "overlay" && m.Err != "" }) ||
			!slices.ContainsFunc(s.Gaps, func(g gaps.Gap) bool { return strings.Contains(g.Text, "layer") }) {
			t.Errorf("the layers of the root are not watched, and nothing says so: %+v", s.Gaps)
		}
		dir := Tmpfs(t)
		good, bad := Put(t, signed, filepath.Join(dir, "good")), Put(t, hello, filepath.Join(dir, "bad"))
		marked := func(namespace bool, mount string) {
			t.Helper()
			Eventually(t, "the mark of "+mount, func() error {
				s, err := r.TryStatus()
				if err == nil && !slices.ContainsFunc(s.Marks, func(m enforcer.Marked) bool {
					return m.Mount == mount && m.Err == "" && (m.Namespace != "") == namespace
				}) {
					err = fmt.Errorf("%+v", s.Marks)
				}
				return err
			})
		}
		marked(false, dir)

		// A sandbox: another mount namespace with a tmpfs in it.
		other := t.TempDir()
		box := exec.Command(sandbox, other)
		box.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if err := box.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = box.Process.Kill(); _ = box.Wait() }()
		marked(true, other)
		inside := fmt.Sprintf("/proc/%d/root%s/bad", box.Process.Pid, other)
		Put(t, hello, inside)

		if err := r.Client.SetMode(ctxOf(t), "enforce"); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			if o := Exec(good); !o.Ran() {
				t.Errorf("%s: signed: %+v", when, o)
			}
			for _, p := range []string{bad, inside} {
				if o := Exec(p); !o.Denied() {
					t.Errorf("%s: unsigned %s: %+v", when, p, o)
				}
			}
		}
		check("at first")
		before := r.Status()
		_ = syscall.Kill(before.Worker, syscall.SIGKILL)
		Eventually(t, "another worker", func() error {
			s, err := r.TryStatus()
			if err == nil && s.Worker == before.Worker {
				err = errors.New("the same")
			}
			return err
		})
		check("by the second worker")
		before = r.Status()
		_ = r.Process.Kill()
		Eventually(t, "another supervisor", func() error {
			s, err := r.TryStatus()
			if err == nil && s.Supervisor.PID == before.Supervisor.PID {
				err = errors.New("the same")
			}
			return err
		})
		check("under the second supervisor")
		if err := r.Client.SetMode(ctxOf(t), "permissive"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(r.Config.Audit.Path); err != nil {
			t.Error(err)
		}
	})
}
