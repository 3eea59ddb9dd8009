package enforcer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/lab"
)

// assault executes a program again and again until the returned function is called, which says how often it was tried and
// how often it ran.
func assault(path string) func() (tried, ran int64) {
	var tries, runs atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if exec.Command(path).Run() == nil {
				runs.Add(1)
			}
			tries.Add(1)
		}
	}()
	return func() (int64, int64) {
		close(stop)
		<-done
		return tries.Load(), runs.Load()
	}
}

// decides wants signed programs to run and unsigned ones not to, as soon as somebody answers.
func decides(t *testing.T, r *Rig, when string, files []string) {
	t.Helper()
	for range 2 {
		// Without a pipe for its output, which a process of assault that waits would hold.
		if err := exec.Command(files[0]).Run(); err != nil {
			t.Errorf("%s: signed: %v\n%s", when, err, r.Log())
		}
		if o := Exec(files[1]); !o.Denied() {
			t.Errorf("%s: unsigned: %+v", when, o)
		}
	}
}

// A unit that is restarted twenty times, by order and by SIGKILL, with the program and configuration of before or others,
// runs nothing unsigned at any time. When it is stopped, everything runs.
func TestIntegrationRestarts(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	programs := []string{Put(t, "/proc/self/exe", filepath.Join(dir, "one")), Put(t, "/proc/self/exe", filepath.Join(dir, "two"))}
	r.Config.Force = true
	files := stormBed(t, dir, r, 2)
	for _, p := range programs {
		r.Sign(p, 0)
	}
	r.Program = programs[0]
	r.Guardian()
	u := r.Unit()
	u.Start()
	decides(t, r, "begun", files)
	end := assault(files[1])
	for i := range 20 {
		before := r.Status()
		sig := syscall.SIGTERM
		if i%2 == 1 {
			sig = syscall.SIGKILL
		}
		u.End(sig)
		if o := Exec(files[3]); !o.Denied() { // nobody supervises now
			t.Errorf("unsigned, after %v: %+v", sig, o)
		}
		upgrade := i%4 == 3
		if upgrade {
			r.Program = programs[i/4%2^1]
		} else if i%4 == 2 {
			r.Config.Allowed = !r.Config.Allowed
		}
		u.Start()
		decides(t, r, fmt.Sprint("start ", i), files)
		now := r.Status()
		if now.Supervisor.PID == before.Supervisor.PID || (now.Worker == before.Worker) == (i%4 >= 2) {
			t.Errorf("start %d: supervisors %d, %d, workers %d, %d", i, before.Supervisor.PID, now.Supervisor.PID, before.Worker, now.Worker)
		}
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", now.Worker)); exe != r.Program {
			t.Errorf("start %d: the worker is of %s, want %s", i, exe, r.Program)
		}
	}
	if tried, ran := end(); ran > 0 || tried < 20 {
		t.Errorf("an unsigned program ran %d of %d times", ran, tried)
	}
	if s := r.Status(); s.Supervisor.Guardian != "guardian" || s.Stats.Overflows > 0 {
		t.Errorf("%+v", s.Supervisor)
	}
	worker := r.Status().Worker
	u.Stop()
	Eventually(t, "the end of enforcement", func() error {
		if o := Exec(files[1]); !o.Ran() {
			return fmt.Errorf("%+v", o)
		}
		return syscallIs(syscall.Kill(worker, 0), syscall.ESRCH)
	})
	if _, err := os.Stat(r.Config.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the control socket is still there: %v", err)
	}
}

func syscallIs(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%v, want %v", err, want)
}

// Both killed at once: the guardian has another supervisor started, which systemd's takes over from later. The gate stays
// shut all the time.
func TestIntegrationBothKilled(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 2)
	r.Guardian()
	u := r.Unit()
	u.Start()
	end := assault(files[1])
	for i := range 6 {
		before := r.Status()
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range []int{before.Supervisor.PID, before.Worker} {
				_ = syscall.Kill(pid, sig)
			}
		}
		if i%2 == 0 { // systemd hangs until somebody answers
			decides(t, r, "both killed", files)
			now := r.Status()
			if now.Supervisor.PID == before.Supervisor.PID || now.Worker == before.Worker {
				t.Errorf("the same are there: %+v", now.Supervisor)
			}
			decides(t, r, "systemd starts its own", files)
			before = now
		}
		u.End(syscall.SIGKILL)
		u.Start()
		decides(t, r, "systemd's own", files)
		if now := r.Status(); now.Supervisor.PID == before.Supervisor.PID {
			t.Errorf("the same supervisor")
		} else if i%2 == 0 {
			Eventually(t, "the end of the supervisor in its place", func() error { return syscallIs(syscall.Kill(before.Supervisor.PID, 0), syscall.ESRCH) })
		}
	}
	if tried, ran := end(); ran > 0 || tried < 20 {
		t.Errorf("an unsigned program ran %d of %d times", ran, tried)
	}
}

// The supervisor is killed at any moment of its start, its restart and its work, and sometimes the worker besides, or, at
// another time, the guardian: what is executed waits or is decided, and in the end there is an enforcer.
func TestIntegrationKilledAtAnyMoment(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 2)
	guardian, gone := r.Guardian()
	u := r.Unit()
	u.Start()
	end := assault(files[1])
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	attack := func(times int, besides func()) {
		t.Helper()
		for range times {
			time.Sleep(time.Duration(random.Int64N(int64(40 * time.Millisecond)))) // any moment
			if random.IntN(4) == 0 {
				besides()
			}
			u.End(syscall.SIGKILL)
			u.Begin()
		}
		Eventually(t, "an enforcer", func() error {
			select {
			case <-u.Done(): // it found others in its place
				u.Begin()
			default:
			}
			_, err := r.TryStatus()
			return err
		})
		decides(t, r, "after the attack", files)
	}
	attack(30, func() {
		if s, err := r.TryStatus(); err == nil {
			_ = syscall.Kill(s.Worker, syscall.SIGKILL)
		}
	})
	attack(20, func() {
		_ = guardian.Kill()
		gone()
		guardian, gone = r.Guardian()
	})
	if tried, ran := end(); ran > 0 {
		t.Errorf("seed %d: an unsigned program ran %d of %d times\n%s", seed, ran, tried, r.Log())
	}
}

// A supervisor that hangs while its worker dies is replaced: systemd's watchdog could not, as systemd waits for an answer too.
func TestIntegrationSupervisorHangs(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	r.Config.Watchdog = time.Second
	files := stormBed(t, dir, r, 1)
	r.Guardian()
	u := r.Unit()
	u.Start()
	before := r.Status()
	_ = syscall.Kill(before.Supervisor.PID, syscall.SIGSTOP)
	decides(t, r, "the supervisor is stopped", files)
	_ = syscall.Kill(before.Worker, syscall.SIGKILL)
	decides(t, r, "and its worker is dead", files)
	if now := r.Status(); now.Supervisor.PID == before.Supervisor.PID || now.Worker == before.Worker {
		t.Errorf("nobody was replaced: %+v", now.Supervisor)
	}
	u.End(syscall.SIGKILL)
	u.Start()
	decides(t, r, "systemd's own", files)
}

// A second enforcer is refused, and changes nothing.
func TestIntegrationSecondRefused(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	r.Guardian()
	r.Start()
	first := r.Process
	ended := func(p *os.Process) {
		t.Helper()
		Eventually(t, "the end of an enforcer", func() error { return syscallIs(syscall.Kill(p.Pid, 0), syscall.ESRCH) })
	}
	_ = r.TryStart() // the first may be who answers
	ended(r.Process)
	if s := r.Status(); s.Supervisor.PID != first.Pid {
		t.Errorf("the first is not in charge: %+v", s.Supervisor)
	}
	_ = first.Signal(syscall.SIGTERM)
	ended(first)
}

// What cannot be written is not pinned by a lease.
func TestIntegrationNoLeaseOnImmutable(t *testing.T) {
	needRoot(t)
	tree := t.TempDir()
	img := filepath.Join(t.TempDir(), "img")
	dir := ""
	r := New(t)
	good := r.Signed(Compile(t, Hello, "-static"), 0)
	Put(t, good, filepath.Join(tree, "good"))
	Tool(t, "mksquashfs", tree, img, "-quiet", "-no-progress")
	dir = Loop(t, img, "ro")
	other := Put(t, good, filepath.Join(Tmpfs(t), "good"))
	r.Config.Mounts = []string{dir, filepath.Dir(other)}
	r.Start()
	for _, p := range []string{filepath.Join(dir, "good"), other} {
		for range 3 {
			if o := Exec(p); !o.Ran() {
				t.Errorf("%s: %+v", p, o)
			}
		}
		if got, want := lab.Leased(t, p), p == other; got != want {
			t.Errorf("%s has a lease: %v, want %v", p, got, want)
		}
	}
	if s := r.Status().Stats.Gate; s.Verified != 2 || s.Requests > 8 {
		t.Errorf("there are no marks: %+v", s)
	}
}

// A program that somebody writes to is busy, as without an enforcer, where the kernel can say so (Linux 6.14).
func TestIntegrationBusy(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 1)
	r.Start()
	fd, err := syscall.Open(files[0], syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := syscall.ETXTBSY
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if major < 6 || major == 6 && minor < 14 {
		want = syscall.EPERM
	}
	if o := Exec(files[0]); !errors.Is(o.Err, want) {
		t.Errorf("with a writer: %+v, want %v", o, want)
	}
	syscall.Close(fd)
	if o := Exec(files[0]); !o.Ran() {
		t.Errorf("without: %+v", o)
	}
	if o := Exec(files[1]); !o.Denied() {
		t.Errorf("unsigned: %+v", o)
	}
}
