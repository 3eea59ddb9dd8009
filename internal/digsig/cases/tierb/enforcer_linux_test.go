package tierb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/enforcer"
	"midplane/internal/digsig/gaps"
	"midplane/internal/lab"
)

// enforcerDisk has the real program in bin, signed programs in prog, a store in etc.
func enforcerDisk(t *testing.T) []string {
	lab.RequireTool(t, "gcc", "gcc libc6-dev")
	lab.RequireVM(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	do := func(env []string, argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	write := func(to string, b []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(at(to)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(at(to), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "prog", "bad", "late"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	do([]string{"CGO_ENABLED=0"}, "go", "build", "-o", at("bin/midplane"), "midplane/cmd/midplane")
	do(nil, "gcc", "-O1", "-static", "-o", at("prog/hello"), "testdata/hello.c")
	do(nil, "gcc", "-O1", "-static", "-o", at("prog/nsrun"), "testdata/nsrun.c")
	do(nil, "gcc", "-O1", "-static", "-DUNSIGNED", "-o", at("bad/hello"), "testdata/hello.c")
	do(nil, "cp", at("prog/hello"), at("prog/victim"))
	do(nil, "cp", at("prog/hello"), at("late/hello"))
	issued := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, name := range []string{"bin/midplane", "prog/hello", "prog/nsrun", "prog/victim", "late/hello"} {
		o := digsig.SignOptions{Template: digsig.Template{Name: name, Version: 1, Issued: issued}}
		if _, err := digsig.SignFile(t.Context(), at(name), o, signerOf(t, key)); err != nil {
			t.Fatalf("sign %s: %v", name, err)
		}
	}
	k := digsig.Key{Public: signerOf(t, key).Public(), Comment: "administrator", Purposes: digsig.AllPurposes, Roles: digsig.AllRoles}
	b, err := k.MarshalText()
	write("etc/trust/key.pub", b, err)
	b, err = digsig.SignPolicy(&digsig.Policy{Version: 1, Issued: issued}, signerOf(t, key))
	write("etc/"+digsig.PolicyFile, b, err)
	l := digsig.Revocations{Serial: 1, Issued: issued, Below: map[string]digsig.Minimum{"prog/victim": {Version: 2}}}
	b, err = digsig.SignRevocations(&l, signerOf(t, key))
	write("meta/revocations", b, err)
	return []string{lab.Ext4Image(t, lab.Ext4{Size: 192, From: dir})}
}

// enough bounds each wait: the guest is emulated.
const enough = 2 * time.Minute

// enforcing is the program on the disk.
const enforcing = "/mnt/bin/midplane"

// guest is the machine with the enforcer.
type guest struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
	c    *enforcer.Client
	bad  []byte // an unsigned program
}

// The enforcer in tier bpf-lsm, from its start to its end.
func TestIntegrationEnforcer(t *testing.T) {
	lab.InVM(t, lab.VMConfig{CPUs: 2, Memory: 768}, func() []string { return enforcerDisk(t) }, func(t *testing.T) {
		g := &guest{t: t, c: enforcer.Dial("/run/digsig.sock")}
		g.prepare()
		g.want("before: unsigned", "/mnt/bad/hello", true)
		if code := g.nsrun(); code != 0 {
			t.Fatalf("namespaces, before: %d, want 0", code)
		}
		if code := g.nsrun("over"); code != 0 {
			t.Fatalf("an overlay in namespaces, before: %d, want 0", code)
		}
		g.start()
		if s := g.status(); s.Tier != gaps.TierBPF || s.Kernel.Grants < 4 {
			t.Errorf("tier %v (%v), %+v", s.Tier, s.NotHigher, s.Kernel)
		}
		g.decides("begun")
		out, err := exec.Command(enforcing, "digsig", "status", "--socket", "/run/digsig.sock").CombinedOutput()
		if s := string(out); err != nil || !strings.Contains(s, "tier bpf-lsm") || !strings.Contains(s, "kernel: mode enforce") || !strings.Contains(s, "signed programs on an overlay") {
			t.Errorf("status: %v\n%s", err, s)
		}

		if s := g.status(); s.Stats.Enrolled == 0 || s.Kernel.Unhanded != 0 || s.Kernel.Denied == 0 {
			t.Errorf("%d verdicts without reading, %+v", s.Stats.Enrolled, s.Kernel)
		}

		// Not enrolled: the verdict of fanotify is handed to the kernel, and ends with a writer.
		g.must(unix.Mount("none", "/run/t", "tmpfs", 0, ""))
		g.copy("/mnt/late/hello", "/run/t/hello")
		g.want("a signed program that is not enrolled", "/run/t/hello", true)
		g.want("the same again", "/run/t/hello", true)
		f, err := os.OpenFile("/run/t/hello", os.O_WRONLY|os.O_APPEND, 0)
		g.must(err)
		_, err = f.WriteString("changed")
		g.must(errors.Join(err, f.Close()))
		g.want("changed", "/run/t/hello", false)

		if lab.Leased(t, "/mnt/prog/hello") || !lab.Leased(t, "/mnt/late/hello") {
			t.Error("a file with fs-verity has a lease, or one without has none")
		}
		g.overlays()

		g.want("not revoked yet", "/mnt/prog/victim", true)
		g.copy("/mnt/meta/revocations", "/run/etc/"+digsig.RevocationsFile)
		if _, err := g.c.Reload(g.ctx(), false); err != nil {
			t.Fatal(err)
		}
		g.want("revoked", "/mnt/prog/victim", false)
		g.decides("after a reload")

		g.kill()
		g.decides("both killed")
		g.want("revoked, both killed", "/mnt/prog/victim", false)
		g.start()
		g.decides("restarted")
		g.copy("/mnt/late/hello", "/run/t/other")
		g.want("handed by the new enforcer", "/run/t/other", true)

		g.must(g.c.SetMode(g.ctx(), "permissive"))
		g.want("permissive", "/mnt/bad/hello", true)
		if code := g.nsrun(); code != 0 {
			t.Errorf("namespaces, permissive: %d, want 0", code)
		}
		if err := g.memfd(); err != nil {
			t.Errorf("memfd, permissive: %v", err)
		}
		g.logged(`"verdict":"would-deny"`, `"detail":"in the kernel"`)
		g.must(g.c.SetMode(g.ctx(), ""))
		g.decides("enforcing again")
		g.logged(`"verdict":"deny"`, `"detail":"in the kernel"`)

		if out, err := exec.Command(enforcing, "digsig", "enforce", "--stop", "--socket", "/run/digsig.sock").CombinedOutput(); err != nil {
			t.Errorf("stop: %v\n%s", err, out)
		}
		g.ended()
		g.nothing()
		g.want("after the end", "/mnt/bad/hello", true)

		g.start("--keep")
		g.must(g.cmd.Process.Signal(unix.SIGTERM))
		g.ended()
		g.decides("kept")
		g.start()
		g.must(g.cmd.Process.Signal(unix.SIGTERM))
		g.ended()
		g.nothing()
		if t.Failed() {
			t.Logf("the enforcer:\n%s", g.log.String())
		}
	})
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatalf("%v\nthe enforcer:\n%s", err, g.log.String())
	}
}

func (g *guest) ctx() context.Context {
	ctx, cancel := context.WithTimeout(g.t.Context(), enough)
	g.t.Cleanup(cancel)
	return ctx
}

func (g *guest) eventually(what string, f func() error) {
	g.t.Helper()
	for deadline := time.Now().Add(enough); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: %v\nthe enforcer:\n%s", what, err, g.log.String())
		}
	}
}

func (g *guest) prepare() {
	g.must(unix.Mount("/dev/vda", "/mnt", "ext4", 0, ""))
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		g.must(err)
	}
	var err error
	g.bad, err = os.ReadFile("/mnt/bad/hello")
	g.must(err)
	g.must(os.MkdirAll("/run/t", 0o755))
	g.must(os.CopyFS("/run/etc", os.DirFS("/mnt/etc")))
	out, err := exec.Command(enforcing, "digsig", "enrol", "--store", "/run/etc", "/mnt/bin", "/mnt/prog").CombinedOutput()
	if err != nil {
		g.t.Fatalf("enrol: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "4 enrolled, 0 plain, 0 not good, 0 failed") {
		g.t.Errorf("enrol: %s", out)
	}
}

// start starts the enforcer and waits until the kernel decides. The test's own program is signed by nobody: by force.
func (g *guest) start(flags ...string) {
	g.t.Helper()
	g.cmd = exec.Command(enforcing, append([]string{"digsig", "enforce", "--foreground", "--force", "--tier", "bpf", "--kernel", "guard", "--enrolled", "/mnt",
		"--store", "/run/etc", "--state", "/run/var", "--audit", "/run/digsig.log", "--socket", "/run/digsig.sock"}, flags...)...)
	g.log.Reset()
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g.cmd.WaitDelay = time.Second
	g.must(g.cmd.Start())
	g.done = make(chan error, 1)
	done, cmd := g.done, g.cmd
	go func() { done <- cmd.Wait() }()
	g.eventually("the kernel decides", func() error {
		select {
		case err := <-done:
			g.t.Fatalf("the enforcer ended: %v\n%s", err, g.log.String())
		default:
		}
		s, err := g.c.Status(g.ctx())
		if err == nil && (s.Kernel == nil || s.Kernel.Mode != "enforce" || s.Tier != gaps.TierBPF) {
			err = fmt.Errorf("tier %v (%q), kernel %+v", s.Tier, s.NotHigher, s.Kernel)
		}
		return err
	})
}

func (g *guest) status() *enforcer.Status {
	g.t.Helper()
	s, err := g.c.Status(g.ctx())
	g.must(err)
	return s
}

// kill ends supervisor and worker at once, so that neither starts the other.
func (g *guest) kill() {
	g.t.Helper()
	s := g.status()
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		for _, pid := range []int{s.Supervisor.PID, s.Worker} {
			g.must(unix.Kill(pid, sig))
		}
	}
	g.ended()
	g.eventually("the worker is gone", func() error {
		if err := unix.Kill(s.Worker, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("worker %d: %v", s.Worker, err)
		}
		return nil
	})
}

func (g *guest) ended() {
	g.t.Helper()
	select {
	case <-g.done:
	case <-time.After(enough):
		g.t.Fatalf("the enforcer does not end\n%s", g.log.String())
	}
}

// want says whether a program runs.
func (g *guest) want(what, path string, ran bool) {
	g.t.Helper()
	out, err := exec.Command(path).CombinedOutput()
	switch {
	case ran && err != nil:
		g.t.Errorf("%s: %s: %v, want it to run (%s)", what, path, err, out)
	case !ran && !errors.Is(err, unix.EPERM):
		g.t.Errorf("%s: %s: %v, want EPERM", what, path, err)
	}
}

// decides tries what every tier does, and what the kernel alone can.
func (g *guest) decides(when string) {
	g.t.Helper()
	g.want(when+": enrolled", "/mnt/prog/hello", true)
	g.want(when+": unsigned", "/mnt/bad/hello", false)
	if err := g.memfd(); !errors.Is(err, unix.EPERM) {
		g.t.Errorf("%s: memfd: %v, want EPERM", when, err)
	}
	if code := g.nsrun(); code != 77 {
		g.t.Errorf("%s: tmpfs in namespaces: %d, want 77", when, code)
	}
	if code := g.nsrun("over"); code != 77 {
		g.t.Errorf("%s: overlay in namespaces: %d, want 77", when, code)
	}
}

// overlays runs programs of an image, as containers have it: from overlays, which fanotify decides about.
func (g *guest) overlays() {
	g.t.Helper()
	const dir = "/run/t/image"
	for _, d := range []string{"lower", "upper", "work", "root", "verity"} {
		g.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	g.copy("/mnt/late/hello", dir+"/lower/good")
	g.must(os.WriteFile(dir+"/lower/bad", g.bad, 0o755))
	g.must(unix.Mount("none", dir+"/root", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)))
	g.must(unix.Mount("none", dir+"/verity", "overlay", unix.MS_RDONLY, "lowerdir=/mnt/prog:/mnt/bad"))
	named := func(path string) {
		g.t.Helper()
		g.eventually("the overlay is seen", func() error { return exec.Command(path).Run() })
	}
	named(dir + "/root/good")
	named(dir + "/verity/hello")
	for range 2 {
		g.want("signed, on an overlay", dir+"/root/good", true)
		g.want("unsigned, on an overlay", dir+"/root/bad", false)
		g.want("signed, with fs-verity in the layer", dir+"/verity/hello", true)
	}
	f, err := os.OpenFile(dir+"/root/good", os.O_WRONLY|os.O_APPEND, 0)
	g.must(err)
	_, err = f.WriteString("changed")
	g.must(errors.Join(err, f.Close()))
	g.want("copied up and changed", dir+"/root/good", false)
	g.copy("/mnt/late/hello", dir+"/root/new")
	g.want("signed, copied into the image", dir+"/root/new", true)
	if g.status().Kernel.Unhanded != 0 {
		g.t.Errorf("%+v", g.status().Kernel)
	}
	g.must(unix.Unmount(dir+"/root", 0))
	g.must(unix.Unmount(dir+"/verity", 0))
}

// memfd runs a signed program from a memfd.
func (g *guest) memfd() error {
	g.t.Helper()
	b, err := os.ReadFile("/mnt/prog/hello")
	g.must(err)
	fd, err := unix.MemfdCreate("hello", unix.MFD_CLOEXEC)
	g.must(err)
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	_, err = f.Write(b)
	g.must(err)
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)) // a program that somebody can write to is busy
	g.must(err)
	defer r.Close()
	f.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{r}
	return cmd.Run()
}

// nsrun has a stranger run a changed program in namespaces of its own.
func (g *guest) nsrun(args ...string) int {
	g.t.Helper()
	cmd := exec.Command("/mnt/prog/nsrun", args...)
	cmd.SysProcAttr = inNamespaces().SysProcAttr
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		return -1
	}
	return cmd.ProcessState.ExitCode()
}

func (g *guest) copy(from, to string) {
	g.t.Helper()
	b, err := os.ReadFile(from)
	g.must(err)
	g.must(os.WriteFile(to, b, 0o755))
}

// logged waits for a record with all of the texts.
func (g *guest) logged(texts ...string) {
	g.t.Helper()
	g.eventually(fmt.Sprintf("a record with %q", texts), func() error {
		b, err := os.ReadFile("/run/digsig.log")
		for line := range strings.Lines(string(b)) {
			found := true
			for _, s := range texts {
				found = found && strings.Contains(line, s)
			}
			if found {
				return nil
			}
		}
		return errors.Join(err, errors.New("none"))
	})
}

// nothing says whether pins or links are left.
func (g *guest) nothing() {
	g.t.Helper()
	if _, err := os.Stat(bpflsm.DefaultPins); !errors.Is(err, os.ErrNotExist) {
		g.t.Errorf("pins: %v", err)
	}
	g.eventually("no link is left", func() error {
		left := 0
		links := new(link.Iterator)
		defer links.Close()
		for links.Next() {
			left++
		}
		if left > 0 {
			return fmt.Errorf("%d links", left)
		}
		return links.Err()
	})
}
