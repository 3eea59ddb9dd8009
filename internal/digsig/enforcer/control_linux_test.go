package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/enforcer"
	. "midplane/internal/digsig/enforcer/enforcetest"
)

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Modes by policy, command and configuration, and what each says.
func TestIntegrationModes(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	bad := Put(t, Compile(t, Hello), filepath.Join(dir, "bad"))
	r.Policy.Mode = digsig.Permissive
	r.SignPolicy()
	r.Start()
	ctx := ctxOf(t)
	events := make(chan audit.Record, 1000)
	listening := make(chan struct{})
	go func() {
		_ = r.Client.Events(ctx, func(a audit.Record) bool {
			events <- a
			return true
		})
	}()
	go func() {
		for ctx.Err() == nil { // until it listens nothing comes
			if len(events) > 0 {
				close(listening)
				return
			}
			_ = r.Client.SetMode(ctx, "")
		}
	}()
	<-listening
	if o := Exec(bad); !o.Ran() {
		t.Errorf("permissive: %+v", o)
	}
	want := func(verdict, mode string) {
		t.Helper()
		for {
			select {
			case a := <-events:
				if a.Type != "verdict" || a.Verdict != verdict {
					continue
				}
				if a.Mode != mode || a.Reason != "unsigned" || a.Path != bad || a.PID == 0 || a.PPID == 0 || a.Exe == "" || a.UID == nil || a.Digest == "" || a.Cgroup == "" {
					t.Errorf("%+v", a)
				}
				return
			case <-ctx.Done():
				t.Fatalf("no %s", verdict)
			}
		}
	}
	want("would-deny", "permissive")
	if err := r.Client.SetMode(ctx, "enforce"); err != nil {
		t.Fatal(err)
	}
	if o := Exec(bad); !o.Denied() {
		t.Errorf("enforce: %+v", o)
	}
	want("deny", "enforce")
	if err := r.Client.SetMode(ctx, "learn"); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Mode != "learn" || s.Why != "command" {
		t.Errorf("%s by %s", s.Mode, s.Why)
	}
	if o := Exec(bad); !o.Ran() {
		t.Errorf("learn: %+v", o)
	}
	if err := r.Client.SetMode(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Mode != "permissive" || s.Why != "policy" {
		t.Errorf("%s by %s", s.Mode, s.Why)
	}
	var no *enforcer.RefusedError
	if err := r.Client.SetMode(ctx, "off"); !errors.As(err, &no) {
		t.Errorf("mode off: %v", err)
	}
}

// A policy or key that would deny what runs is refused, unless forced; a revocation is what it says.
func TestIntegrationReload(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	second := NewKey(t, 7)
	b, err := KeyFile(second, digsig.AllPurposes)
	if err != nil {
		t.Fatal(err)
	}
	r.Write("trust/second.pub", b)
	p := Put(t, Compile(t, Sleep), filepath.Join(t.TempDir(), "sleeper"))
	st := r.SignBy(second, p, 0)
	sleeper := Put(t, p, filepath.Join(dir, "sleeper"))
	r.Start()
	ctx := ctxOf(t)
	cmd := exec.Command(sleeper)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if c, err := r.Client.Check(ctx); err != nil || c.Files == 0 || len(c.Denied) != 0 {
		t.Errorf("check: %+v, %v", c, err)
	}
	if e, err := r.Client.Explain(ctx, sleeper); err != nil || !e.Verdicts["exec"].Allow || e.Watched != "local" || !e.Cached {
		t.Errorf("explain: %+v, %v", e, err)
	}
	if err := os.Remove(filepath.Join(r.Config.Dir, "trust/second.pub")); err != nil {
		t.Fatal(err)
	}
	var no *enforcer.RefusedError
	if _, err := r.Reload(false); !errors.As(err, &no) || no.Check == nil || len(no.Check.Denied) != 1 || no.Check.Denied[0].PIDs[0] != cmd.Process.Pid {
		t.Errorf("a key of what runs was taken away: %v", err)
	}
	start := func() Outcome {
		c := exec.Command(sleeper)
		if err := c.Start(); err != nil {
			return Outcome{Code: -1, Err: err}
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		return Outcome{}
	}
	if o := start(); !o.Ran() {
		t.Errorf("after the refusal: %+v", o)
	}
	if _, err := r.Reload(true); err != nil {
		t.Error(err)
	}
	if o := start(); !o.Denied() {
		t.Errorf("after force: %+v", o)
	}
	r.Write("trust/second.pub", b)
	if _, err := r.Reload(false); err != nil {
		t.Error(err)
	}
	for range 2 {
		if o := start(); !o.Ran() {
			t.Errorf("trusted again: %+v", o)
		}
	}
	r.Revoke(func(l *digsig.Revocations) { l.Digests[st.Digest] = "test" })
	if _, err := r.Reload(false); err != nil {
		t.Error(err)
	}
	if o := start(); !o.Denied() {
		t.Errorf("revoked: %+v", o)
	}
	if c, err := r.Client.Check(ctx); err != nil || len(c.Denied) != 1 || !c.Denied[0].Wanted {
		t.Errorf("check: %+v, %v", c, err)
	}
	if err := r.Client.Stop(ctx); err != nil {
		t.Error(err)
	}
	Eventually(t, "the end", func() error {
		if o := start(); !o.Ran() {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
}

// A data file that has a mark, and becomes a program by stores through a mapping, is asked about again.
func TestIntegrationDataBecomesProgram(t *testing.T) {
	needRoot(t)
	for name, dir := range map[string]string{"tmpfs": Tmpfs(t), "ext4": Image(t, 64, "", "mkfs.ext4", "-q", "-F")} {
		t.Run(name, func(t *testing.T) {
			r := New(t, dir)
			elf, err := os.ReadFile(Compile(t, Lib, "-shared", "-fPIC"))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "file")
			if err := os.WriteFile(file, make([]byte, len(elf)), 0o755); err != nil {
				t.Fatal(err)
			}
			r.Start()
			for range 10 {
				if _, err := os.ReadFile(file); err != nil {
					t.Fatal(err)
				}
			}
			if s := r.Status().Stats.Gate; s.Held != 1 || s.Requests > 3 {
				t.Errorf("a data file has no mark: %+v", s)
			}
			fd, err := unix.Open(file, unix.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			m, err := unix.Mmap(fd, 0, len(elf), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			copy(m, elf)
			unix.Munmap(m)
			unix.Close(fd)
			if _, err := os.ReadFile(file); !errors.Is(err, os.ErrPermission) {
				t.Errorf("it is a library now, and was opened: %v", err)
			}
		})
	}
}

// The enforcer's own program is on the file system that it watches, and not even signed: workers and supervisors start
// while nobody answers.
func TestIntegrationOwnProgram(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	r.Program = Put(t, "/proc/self/exe", filepath.Join(dir, "enforcer"))
	r.Config.Force = true
	files := stormBed(t, dir, r, 2)
	r.Start()
	before := r.Status()
	_ = syscall.Kill(before.Worker, syscall.SIGKILL)
	Eventually(t, "another worker", func() error {
		s, err := r.TryStatus()
		if err == nil && s.Worker == before.Worker {
			err = errors.New("the same")
		}
		return err
	})
	_ = r.Process.Kill()
	Eventually(t, "another supervisor", func() error {
		s, err := r.TryStatus()
		if err == nil && s.Supervisor.PID == before.Supervisor.PID {
			err = errors.New("the same")
		}
		return err
	})
	if o := Exec(files[0]); !o.Ran() {
		t.Errorf("%+v", o)
	}
	if o := Exec(files[1]); !o.Denied() {
		t.Errorf("%+v", o)
	}
}

// While one disk gives nothing, what is on others is decided.
func TestIntegrationSlowDisk(t *testing.T) {
	needRoot(t)
	slow, fast := Image(t, 64, "", "mkfs.ext4", "-q", "-F"), Tmpfs(t)
	r := New(t, slow, fast)
	signed := r.Signed(Compile(t, `static char big[8<<20]={1}; int main(){return 0;}`, "-static"), 0)
	var there []string
	for i := range 12 {
		there = append(there, Put(t, signed, filepath.Join(slow, fmt.Sprint("good", i))))
	}
	files := stormBed(t, fast, r, 2)
	throttle := throttler(t, slow)
	r.Start()
	worker := r.Status().Worker
	throttle(worker, 1)
	defer throttle(worker, 0)
	for _, p := range there { // what is in memory is not read from the disk
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Sync()
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
	}
	end := begin(t, Compile(t, Storm), len(there), 1, there...)
	Eventually(t, "questions about the slow disk", func() error {
		if s := r.Status().Stats.Gate; s.Running < 8 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	for range 20 {
		if o := Exec(files[0]); !o.Ran() {
			t.Errorf("signed, on the fast disk: %+v", o)
		}
		if o := Exec(files[1]); !o.Denied() {
			t.Errorf("unsigned, on the fast disk: %+v", o)
		}
	}
	if s := r.Status(); s.Stats.Gate.Running == 0 || s.Worker != worker {
		t.Errorf("the slow disk was not slow, this showed nothing: %+v", s.Stats.Gate)
	}
	throttle(worker, 0)
	if s := end(); s.goodRan != len(there) {
		t.Errorf("signed, on the slow disk: %+v", s)
	}
}

// throttler returns what bounds the octets a second that a process reads from the disk of a file system; 0 is no bound.
func throttler(t *testing.T, dir string) func(pid, rate int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	name := fmt.Sprintf("mptest%d", os.Getpid())
	group, file := filepath.Join("/sys/fs/cgroup/blkio", name), "blkio.throttle.read_bps_device"
	line := func(rate int) string { return fmt.Sprintf("%s %d", dev, rate) }
	if _, err := os.Stat("/sys/fs/cgroup/blkio"); err != nil {
		group, file = filepath.Join("/sys/fs/cgroup", name), "io.max"
		line = func(rate int) string {
			if rate == 0 {
				return dev + " rbps=max"
			}
			return fmt.Sprintf("%s rbps=%d", dev, rate)
		}
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+io"), 0)
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		procs, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(procs)) {
			_ = os.WriteFile(filepath.Join(filepath.Dir(group), "cgroup.procs"), []byte(pid), 0)
		}
		Eventually(t, "the end of the cgroup", func() error { return os.Remove(group) })
	})
	return func(pid, rate int) {
		t.Helper()
		err := errors.Join(os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, pid), 0), os.WriteFile(filepath.Join(group, file), []byte(line(rate)), 0))
		if err != nil {
			t.Fatal(err)
		}
	}
}
