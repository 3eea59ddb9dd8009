package cases

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/lab"
)

// guestDisk has what the guest needs besides what it makes itself.
func guestDisk(t *testing.T) []string {
	lab.RequireTool(t, "gcc", "gcc libc6-dev")
	lab.RequireVM(t)
	dir := t.TempDir()
	for _, m := range []string{"dummy", "binfmt_misc"} {
		must(t, os.WriteFile(filepath.Join(dir, m+".ko"), lab.VMModule(t, m), 0o644))
	}
	Put(t, Compile(t, Hello, "-static"), filepath.Join(dir, "hello"))
	Put(t, Compile(t, Storm, "-static"), filepath.Join(dir, "storm"))
	return []string{lab.Ext4Image(t, lab.Ext4{Size: 64, From: dir})}
}

// TestIntegrationTierFGuest runs the cases of tier F that this machine's kernel has no means for, in a guest: modules, handlers
// of binfmt_misc, a network file system, and suspend.
func TestIntegrationTierFGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short: boots a guest")
	}
	lab.InVM(t, lab.VMConfig{CPUs: 2, Memory: 768}, func() []string { return guestDisk(t) }, func(t *testing.T) {
		k := &kit{table: &table{t: t, partial: true}, main: Tmpfs(t)}
		k.hello = "/mnt/hello"
		must(t, unix.Mount("/dev/vda", "/mnt", "ext4", 0, ""))
		share := sharePoint(t)
		k.r = New(t, k.main, share)
		in := func(dir, name string) string { return filepath.Join(dir, name) }
		good := k.r.Signed(k.hello, 0)
		for _, dir := range []string{k.main, share} {
			Put(t, k.hello, in(dir, "bad"))
			Put(t, good, in(dir, "good"))
		}
		Put(t, "/mnt/dummy.ko", in(k.main, "dummy.ko"))
		k.r.Config.Force = true
		k.r.Start()

		k.add(27, "unsigned, on a network file system", "9p", deny, ran(Exec(in(share, "bad"))))
		k.add(27, "signed, there (its content can change unseen)", "9p", deny, ran(Exec(in(share, "good"))))
		k.binfmt()
		k.module()
		k.suspend()
		k.print(k.r.Status())
		if t.Failed() {
			t.Logf("%.4000s", k.r.Log())
		}
	})
}

// sharePoint returns where the guest has a directory of the host by 9p, which both can write to.
func sharePoint(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "share" && f[2] == "9p" {
			return f[1]
		}
	}
	t.Fatalf("the guest has no share:\n%s", b)
	return ""
}

func insmod(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// binfmt registers handlers that the kernel opens at once (flag F).
func (k *kit) binfmt() {
	if err := insmod("/mnt/binfmt_misc.ko"); !errors.Is(err, unix.EEXIST) {
		must(k.t, err)
	}
	const dir = "/proc/sys/fs/binfmt_misc"
	if err := unix.Mount("none", dir, "binfmt_misc", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		must(k.t, err)
	}
	register := func(name, handler string) error {
		return os.WriteFile(dir+"/register", fmt.Appendf(nil, ":%s:E::%s::%s:F", name, name, handler), 0)
	}
	got := allow
	if err := register("mpbad", filepath.Join(k.main, "bad")); errors.Is(err, unix.EPERM) {
		got = deny
	} else if err != nil {
		got = err.Error()
	}
	k.add(44, "binfmt_misc with flag F, unsigned handler", "tmpfs", deny, got)
	got = allow
	if err := register("mpgood", filepath.Join(k.main, "good")); err != nil {
		got = err.Error()
	}
	k.add(44, "binfmt_misc with flag F, signed handler", "tmpfs", allow, got)
	file := filepath.Join(k.main, "what.mpgood")
	must(k.t, os.WriteFile(file, []byte("not signed"), 0o755))
	k.add(44, "an unsigned file for the signed handler", "tmpfs", deny, ran(Exec(file)))
	_ = os.WriteFile(dir+"/mpgood", []byte("-1"), 0)
}

// module loads a module that is not signed for this.
func (k *kit) module() {
	got := deny
	if err := insmod(filepath.Join(k.main, "dummy.ko")); err == nil {
		got = gap
		must(k.t, unix.DeleteModule("dummy", 0))
	} else if !errors.Is(err, unix.EPERM) {
		got = err.Error()
	}
	k.add(46, "unsigned kernel module", "tmpfs", gap, got)
}

// suspend freezes every process, as suspend does first of all, while programs are executed. A freezer that finds tasks waiting
// for an answer gives up after twenty seconds (Linux before 6.15 cannot freeze them): what counts is that all goes on.
func (k *kit) suspend() {
	if err := os.WriteFile("/sys/power/pm_test", []byte("freezer"), 0); err != nil {
		k.add(51, "suspend", "-", notHas, notHas, err.Error())
		return
	}
	freeze := func() string {
		if err := os.WriteFile("/sys/power/state", []byte("freeze"), 0); err != nil {
			return err.Error()
		}
		return allow
	}
	k.add(51, "suspend and resume, nothing waits", "-", allow, freeze())
	k.add(51, "signed, after it", "tmpfs", allow, ran(Exec(filepath.Join(k.main, "good"))))
	k.add(51, "unsigned, after it", "tmpfs", deny, ran(Exec(filepath.Join(k.main, "bad"))))

	cmd := exec.Command("/mnt/storm", "4", "200", filepath.Join(k.main, "bad"), filepath.Join(k.main, "good"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(k.t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	note := freeze()
	if note == allow {
		note = "frozen and thawed"
	}
	got := allow
	select {
	case err := <-done:
		if err != nil {
			got = fmt.Sprintf("%v: %s", err, out.String())
		} else if f := strings.Fields(out.String()); len(f) < 6 || f[0] == "0" || f[3] != "0" || f[2]+f[5] != "00" {
			got = out.String()
		}
	case <-time.After(3 * Patience):
		got = "executions hang"
		_ = cmd.Process.Kill()
	}
	k.add(51, "suspend while programs are executed: all are decided", "tmpfs", allow, got, note)
	k.add(51, "unsigned, after that", "tmpfs", deny, ran(Exec(filepath.Join(k.main, "bad"))))
}
