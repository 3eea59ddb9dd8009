package enforcer_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/enforcer"
	. "midplane/internal/digsig/enforcer/enforcetest"
)

// storm is what came of many executions.
type storm struct{ goodRan, goodDenied, goodOther, badRan, badDenied, badOther, errno int }

func (s storm) total() int {
	return s.goodRan + s.goodDenied + s.goodOther + s.badRan + s.badDenied + s.badOther
}

// begin starts processes that each execute so many of the files.
func begin(t *testing.T, program string, processes, times int, files ...string) func() storm {
	t.Helper()
	cmd := exec.Command(program, append([]string{fmt.Sprint(processes), fmt.Sprint(times)}, files...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return func() (s storm) {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("storm: %v: %s", err, out.b)
			}
		case <-time.After(5 * Patience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Fatal("executions hang")
		}
		if _, err := fmt.Sscanf(string(out.b), "%d %d %d %d %d %d errno %d", &s.goodRan, &s.goodDenied, &s.goodOther, &s.badRan, &s.badDenied, &s.badOther, &s.errno); err != nil {
			t.Fatalf("storm: %v: %s", err, out.b)
		}
		if s.total() != processes*times {
			t.Errorf("%d of %d executions were decided", s.total(), processes*times)
		}
		if s.badRan > 0 {
			t.Errorf("%d unsigned programs ran", s.badRan)
		}
		return s
	}
}

type output struct{ b []byte }

func (o *output) Write(b []byte) (int, error) { o.b = append(o.b, b...); return len(b), nil }

// stormBed makes signed and unsigned programs.
func stormBed(t *testing.T, dir string, r *Rig, n int) (files []string) {
	t.Helper()
	hello := Compile(t, Hello, "-static")
	signed := r.Signed(hello, 0)
	for i := range n {
		files = append(files, Put(t, signed, filepath.Join(dir, fmt.Sprint("good", i))), Put(t, hello, filepath.Join(dir, fmt.Sprint("bad", i))))
	}
	return files
}

// 10,000 executions by 100 processes, while the worker is killed and stopped, lists are reloaded, and more questions come
// than the gate takes: each is decided, and none wrongly allowed.
func TestIntegrationStorm(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	r.Config.Watchdog = time.Second
	r.Config.Gate.MaxPending, r.Config.Gate.MaxEntries = 40, 16
	files := stormBed(t, dir, r, 20)
	r.Start()
	end := begin(t, Compile(t, Storm), 100, 100, files...)
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGKILL} {
		s := r.Status()
		Eventually(t, "some executions", func() error {
			now, err := r.TryStatus()
			if err == nil && now.Worker == s.Worker && now.Stats.Gate.Requests < s.Stats.Gate.Requests+50 && now.Stats.Gate.Pending > 0 {
				return fmt.Errorf("%d questions", now.Stats.Gate.Requests)
			}
			return err
		})
		_ = syscall.Kill(s.Worker, sig)
		Eventually(t, "another worker", func() error {
			now, err := r.TryStatus()
			if err == nil && now.Worker == s.Worker {
				return fmt.Errorf("worker %d is still there", s.Worker)
			}
			return err
		})
		r.Revoke(func(l *digsig.Revocations) { l.Digests[[32]byte{byte(i)}] = "nothing" })
		if _, err := r.Reload(false); err != nil {
			t.Error(err)
		}
	}
	s := end()
	t.Logf("%+v", s)
	st := r.Status()
	t.Logf("%+v", st.Stats.Gate)
	if s.goodRan == 0 || s.badDenied == 0 || s.goodOther+s.badOther > 0 {
		t.Errorf("the storm: %+v", s)
	}
	if st.Stats.Overflows != 0 || len(st.Supervisor.Restarts) != 3 {
		t.Errorf("%d overflows, restarts %+v", st.Stats.Overflows, st.Supervisor.Restarts)
	}
	if st.Stats.Gate.Pending != 0 || st.Stats.Gate.Entries > 16 {
		t.Errorf("at the end: %+v", st.Stats.Gate)
	}
	for _, f := range files[:2] {
		want := filepath.Base(f)[:4] == "good"
		if o := Exec(f); o.Ran() != want {
			t.Errorf("after the storm %s: %+v", f, o)
		}
	}
}

// A worker that runs out of descriptors denies, and goes on when there are some again.
func TestIntegrationNoDescriptors(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 10)
	r.Start()
	worker := r.Status().Worker
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%d:%d", was.Max, was.Max)
	limit := func(n string) { Tool(t, "prlimit", "--pid", fmt.Sprint(worker), "--nofile="+n) }
	limit(fmt.Sprintf("24:%d", was.Max))
	s := begin(t, Compile(t, Storm), 50, 20, files...)()
	limit(all)
	t.Logf("%+v, unopened %d", s, r.Status().Stats.Unopened)
	if s.badDenied == 0 || s.goodOther+s.badOther > 0 {
		t.Errorf("without descriptors: %+v", s)
	}
	Eventually(t, "a signed program", func() error {
		if o := Exec(files[0]); !o.Ran() {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	if o := Exec(files[1]); !o.Denied() {
		t.Errorf("an unsigned program: %+v", o)
	}
}

// The disk of the log and of what is watched is full: verdicts do not wait for it, and records are written when there is
// room again.
func TestIntegrationFullDisk(t *testing.T) {
	needRoot(t)
	dir := Mount(t, "tmpfs", "test", "size=24m,mode=755")
	r := New(t, dir)
	r.Config.Audit.Path = filepath.Join(dir, "log")
	files := stormBed(t, dir, r, 3)
	r.Start()
	fill := filepath.Join(dir, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	f.Close()
	s := begin(t, Compile(t, Storm), 20, 20, files...)()
	if s.goodRan == 0 || s.goodDenied+s.goodOther+s.badOther > 0 {
		t.Errorf("with a full disk: %+v", s)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the records", func() error {
		a := r.Status().Stats.Audit
		if a.Waiting > 0 || a.Written+a.Lost < uint64(s.badDenied) {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
}

// Killing the supervisor opens nothing: the worker goes on, and starts another, which does what the first did.
func TestIntegrationSupervisorKilled(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 5)
	r.Start()
	for range 2 {
		Exec(files[0])
	}
	end := begin(t, Compile(t, Storm), 10, 100, files...)
	old := r.Status()
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var s *enforcer.Status
	Eventually(t, "another supervisor", func() (err error) {
		if s, err = r.TryStatus(); err == nil && s.Supervisor.PID == old.Supervisor.PID {
			err = fmt.Errorf("still %d", s.Supervisor.PID)
		}
		return err
	})
	if s.Worker != old.Worker {
		t.Errorf("the worker changed from %d to %d", old.Worker, s.Worker)
	}
	got := end()
	if got.goodDenied+got.goodOther+got.badOther > 0 {
		t.Errorf("meanwhile: %+v", got)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL} {
		before := r.Status()
		_ = syscall.Kill(before.Worker, sig)
		if o := Exec(files[1]); !o.Denied() {
			t.Errorf("unsigned, after the worker was killed under the new supervisor: %+v", o)
		}
		Eventually(t, "another worker", func() error {
			now, err := r.TryStatus()
			if err == nil && now.Worker == before.Worker {
				err = fmt.Errorf("still %d", now.Worker)
			}
			return err
		})
		if o := Exec(files[0]); !o.Ran() {
			t.Errorf("signed: %+v", o)
		}
	}
}

// What has a mark stays pinned when the worker dies, until the supervisor has taken the mark back.
func TestIntegrationLeasesOutliveWorker(t *testing.T) {
	needRoot(t)
	dir := Tmpfs(t)
	r := New(t, dir)
	files := stormBed(t, dir, r, 1)
	r.Start()
	for range 3 {
		if o := Exec(files[0]); !o.Ran() {
			t.Fatalf("%+v", o)
		}
	}
	s := r.Status()
	if err := r.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(s.Worker, syscall.SIGKILL)
	Eventually(t, "the worker's end", func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Worker))
		if err == nil && !zombie(b) {
			err = fmt.Errorf("%s", b)
		} else {
			err = nil
		}
		return err
	})
	if o := Exec(files[0]); !o.Ran() {
		t.Errorf("by its mark: %+v", o)
	}
	if _, err := syscall.Open(files[0], syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
		t.Error("a file with a mark was opened for writing while nobody held a lease")
	}
	if err := r.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if o := Exec(files[1]); !o.Denied() {
		t.Errorf("unsigned: %+v", o)
	}
	Eventually(t, "writing", func() error {
		fd, err := syscall.Open(files[0], syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			syscall.Close(fd)
		}
		return err
	})
}

func zombie(stat []byte) bool {
	for i := len(stat) - 1; i > 1; i-- {
		if stat[i] == ')' {
			return i+2 < len(stat) && stat[i+2] == 'Z'
		}
	}
	return false
}
