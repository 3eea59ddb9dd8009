package bpflsm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/envelope"
	"midplane/internal/lab"
)

// gateTest is what the parts of TestIntegrationGate share. They run in order, each on what the one before left.
type gateTest struct {
	g         *Gate
	good, bad string // programs on a file system with fs-verity
	manager   string // the same, and it is a manager
	grant     map[string]Grant
	tmp       string // a tmpfs
}

func TestIntegrationGate(t *testing.T) {
	lab.InVM(t, lab.VMConfig{CPUs: 2}, func() []string { return []string{lab.Ext4Image(t, lab.Ext4{Size: 128})} }, func(t *testing.T) {
		g := &gateTest{good: "/mnt/good", bad: "/mnt/bad", manager: "/mnt/manager", tmp: "/dev/shm", grant: map[string]Grant{}}
		if err := unix.Mount("/dev/vda", "/mnt", "ext4", 0, ""); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{g.good, g.bad, g.manager} {
			program(t, p, p)
			g.grant[p] = Grant{Digest: enable(t, p), Roles: envelope.RoleExec}
		}
		g.grant[g.manager] = Grant{Digest: g.grant[g.manager].Digest, Roles: envelope.RoleExec, Manager: true}
		for _, part := range []struct {
			name string
			f    func(*testing.T)
		}{
			{"none", g.none}, {"off", g.off}, {"permissive", g.permissive}, {"enforce", g.enforce}, {"replace", g.replace},
			{"content", g.content}, {"races", g.races}, {"upgrade", g.upgrade}, {"guard", g.guard}, {"kill", g.kill}, {"remove", g.remove},
		} {
			if !t.Run(part.name, part.f) {
				t.Fatal("the parts after it would only repeat that")
			}
		}
	})
}

func (x *gateTest) none(t *testing.T) {
	if err := Probe(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("no gate: %v", err)
	}
	if _, err := Attach(Config{Pins: "/tmp/pins"}); err == nil || !strings.Contains(err.Error(), "bpffs") {
		t.Errorf("pins on no bpffs: %v", err)
	}
}

func (x *gateTest) off(t *testing.T) {
	g, err := Attach(Config{Grants: 1000})
	if err != nil {
		t.Fatal(err)
	}
	x.g = g
	runs(t, x.bad)
	if st, err := g.Status(); err != nil || st.Policy != (Policy{}) || st.Counters.Denied() != 0 || st.Grants != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := g.Allow(Grant{Digest: Digest{Kind: Pending}}); err == nil {
		t.Error("a grant for nothing")
	}
}

func (x *gateTest) permissive(t *testing.T) {
	p := Policy{Mode: Permissive, Modules: true}
	if err := x.g.SetPolicy(p, false); err != nil {
		t.Fatal(err)
	}
	if got, err := x.g.Policy(); got != p || err != nil {
		t.Errorf("policy is %+v, %v", got, err)
	}
	runs(t, x.bad)
	st, err := x.g.Status()
	if err != nil || st.Counters[Exec][Unknown] != 1 || st.Counters[Map][Unknown] == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	d, err := x.g.Denials()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.SetDeadline(time.Now().Add(time.Minute))
	n, err := d.Next()
	want := Denial{
		Hook: Exec, Reason: Unknown, Mode: Permissive, Digest: x.grant[x.bad].Digest, Need: envelope.RoleExec, Path: x.bad,
		Since: n.Since, PID: n.PID, Parent: os.Getpid(), Command: n.Command, Cgroup: n.Cgroup, Device: n.Device, Inode: n.Inode,
	}
	var s unix.Stat_t
	if err := unix.Stat(x.bad, &s); err != nil {
		t.Fatal(err)
	}
	if err != nil || n != want || n.PID == 0 || n.Since <= 0 || n.Device != s.Dev || n.Inode != s.Ino || n.Cgroup == 0 || !strings.HasPrefix(n.Command, "bpflsm") {
		t.Errorf("denial %+v, %v; the file is %d of %d", n, err, s.Ino, s.Dev)
	}
}

func (x *gateTest) enforce(t *testing.T) {
	var lockout *LockoutError
	if err := x.g.SetPolicy(Policy{Mode: Enforce}, false); !errors.As(err, &lockout) || lockout.Program == "" {
		t.Errorf("a policy that locks this very program out: %v", err)
	}
	runs(t, x.bad) // it is not in force
	admitRuntime(t, x.g)
	if err := x.g.SetPolicy(Policy{Mode: Enforce}, true); err != nil {
		t.Fatal(err)
	}
	denied(t, x.good)
	if err := x.g.Allow(x.grant[x.good]); err != nil {
		t.Fatal(err)
	}
	runs(t, x.good)
	denied(t, x.bad)
	if got, err := x.g.Granted(x.grant[x.good].Digest); err != nil || got != x.grant[x.good] {
		t.Errorf("granted %+v, %v", got, err)
	}
	other := x.grant[x.good]
	other.Roles = envelope.RoleLib | envelope.RoleInterp | envelope.RoleScript | envelope.RoleData | envelope.RoleModule
	if err := x.g.Allow(other); err != nil {
		t.Fatal(err)
	}
	denied(t, x.good)
	if err := x.g.Allow(x.grant[x.good]); err != nil {
		t.Fatal(err)
	}
	runs(t, x.good)
	for range 2 { // revoking what is not there does no harm
		if err := x.g.Revoke(x.grant[x.good].Digest); err != nil {
			t.Fatal(err)
		}
	}
	denied(t, x.good)
}

// replace also sees that what stays granted never lacks.
func (x *gateTest) replace(t *testing.T) {
	libs := x.libraries(t)
	if err := x.g.Allow(x.grant[x.good], x.grant[x.bad]); err != nil {
		t.Fatal(err)
	}
	runs(t, x.bad)
	var stop atomic.Bool
	lacked := make(chan string, 1)
	go func() {
		defer close(lacked)
		for !stop.Load() {
			if got, err := x.g.Granted(x.grant[x.good].Digest); err != nil || got.Roles == 0 {
				lacked <- fmt.Sprint(got, err)
				return
			}
		}
	}()
	var last uint64
	for range 20 {
		n, err := x.g.Replace(append(libs, x.grant[x.good]))
		if err != nil || n != last+1 && last != 0 {
			t.Errorf("generation %d after %d, %v", n, last, err)
		}
		last = n
	}
	stop.Store(true)
	if s := <-lacked; s != "" {
		t.Errorf("what stays granted lacked: %s", s)
	}
	denied(t, x.bad)
	runs(t, x.good)
	if st, err := x.g.Status(); err != nil || st.Grants != len(libs)+1 || st.Generation != last {
		t.Errorf("%d grants, want %d; generation %d, %v", st.Grants, len(libs)+1, st.Generation, err)
	}
	many := make([]Grant, 2000)
	for i := range many {
		many[i] = Grant{Digest: Digest{Verity, [32]byte{byte(i), byte(i >> 8), 1}}, Roles: envelope.RoleExec}
	}
	if _, err := x.g.Replace(many); err == nil || !strings.Contains(err.Error(), "room is for 1000") {
		t.Errorf("more than there is room for: %v", err)
	}
	runs(t, x.good) // and nothing was taken away, or given
	if st, err := x.g.Status(); err != nil || st.Grants != len(libs)+1 || st.Generation != last {
		t.Errorf("%d grants, want %d; generation %d, %v", st.Grants, len(libs)+1, st.Generation, err)
	}
	if _, err := x.g.Replace(append(libs, x.grant[x.good])); err != nil {
		t.Fatal(err)
	}
}

// libraries returns the grants that admitRuntime made.
func (x *gateTest) libraries(t *testing.T) (all []Grant) {
	t.Helper()
	var key lsmDigest
	var value lsmGrant
	entries := x.g.maps.Allowed.Iterate()
	for entries.Next(&key, &value) {
		if Kind(key.Kind) == Content {
			all = append(all, Grant{Digest: Digest{Content, key.Sum}, Roles: envelope.Role(value.Roles)})
		}
	}
	if entries.Err() != nil {
		t.Fatal(entries.Err())
	}
	return all
}

// content is about verdicts of user space, on a file system without fs-verity.
func (x *gateTest) content(t *testing.T) {
	path := filepath.Join(x.tmp, "p")
	program(t, path, "content")
	denied(t, path)
	again := func() {
		t.Helper()
		admit(t, x.g, path, envelope.RoleExec)
		runs(t, path)
	}
	again()
	if d, err := x.g.Known(open(t, path)); err != nil || d.Kind != Content || d.Sum == [32]byte{} {
		t.Errorf("known is %v, %v", d, err)
	}
	for name, change := range map[string]func() error{
		"opened for writing": func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				err = f.Close()
			}
			return err
		},
		"opened for reading and writing": func() error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				err = f.Close()
			}
			return err
		},
		"cut by name": func() error {
			s, err := os.Stat(path)
			if err != nil {
				return err
			}
			return unix.Truncate(path, s.Size()) // even to the size that it has
		},
		"forgotten":     func() error { return x.g.Forget(open(t, path)) },
		"all forgotten": func() error { return errors.Join(x.g.ForgetAll(), nil) },
		"revoked": func() error {
			d, err := x.g.Known(open(t, path))
			return errors.Join(err, x.g.Revoke(d))
		},
	} {
		again()
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "all forgotten" {
			admitRuntime(t, x.g)
		}
		if out, denied, err := run(t, "end", path); !denied {
			t.Errorf("%s: %v, want EPERM\n%s", name, err, out)
		}
	}
	again()
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	runs(t, path) // its content is the same
	w, err := os.OpenFile(filepath.Join(x.tmp, "w"), os.O_CREATE|os.O_RDWR, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := x.g.Admit(open(t, w.Name()), contentOf(w.Name(), envelope.RoleExec)); !errors.Is(err, ErrBusy) {
		t.Errorf("a file that somebody writes to: %v", err)
	}
	no := errors.New("unsigned")
	if err := x.g.Admit(open(t, path), func() (Grant, bool, error) { return Grant{}, false, no }); !errors.Is(err, no) {
		t.Errorf("a judge that refuses: %v", err)
	}
	denied(t, path)
	if d, err := x.g.Known(open(t, path)); err != nil || d != (Digest{}) {
		t.Errorf("known is %v, %v", d, err)
	}
	if err := x.g.Begin(open(t, "/proc/version")); err == nil || !strings.Contains(err.Error(), "0x9fa0") {
		t.Errorf("a verdict about a file of procfs: %v", err)
	}
	// 9p gives the number of the host's file system for its own, but not to the kernel.
	shared := "/run/lab/shared"
	program(t, shared, "shared")
	f := open(t, shared)
	grant, _, err := contentOf(shared, envelope.RoleExec)()
	if err := errors.Join(err, x.g.Begin(f), x.g.Allow(grant), x.g.Commit(f, grant.Sum)); err != nil {
		t.Fatal(err)
	}
	denied(t, shared)
	if st, err := x.g.Status(); err != nil || st.Counters[Exec][Remote] != 1 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
}

// races has writers come between the reading and the verdict.
func (x *gateTest) races(t *testing.T) {
	path := filepath.Join(x.tmp, "r")
	program(t, path, "race")
	f := open(t, path)
	if err := x.g.Begin(f); err != nil {
		t.Fatal(err)
	}
	denied(t, path)
	grant, _, err := contentOf(path, envelope.RoleExec)()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.g.Allow(grant); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.g.Commit(f, grant.Sum); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that was opened for writing in between: %v", err)
	}
	// One who was there all the time, and whom a careless caller did not see: the file is not code while he is.
	if err := x.g.Begin(f); err != nil {
		t.Fatal(err)
	}
	if err := x.g.Commit(f, grant.Sum); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE); !errors.Is(err, unix.EPERM) {
		t.Errorf("mapping a file that somebody can write to: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := x.g.Status()
	if err != nil || st.Counters[Map][Writers] == 0 || st.Counters[Exec][Undecided] == 0 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
}

// upgrade replaces the programs while others try to run.
func (x *gateTest) upgrade(t *testing.T) {
	var stop atomic.Bool
	ran := make(chan int, 1)
	tries := make(chan int, 1)
	go func() {
		n, all := 0, 0
		for ; !stop.Load(); all++ {
			if exec.Command(x.bad, "-test.run=^$").Run() == nil {
				n++
			}
		}
		ran <- n
		tries <- all
	}()
	for range 2 {
		g, err := Attach(Config{Grants: 5}) // the room stays what it was
		if err != nil {
			t.Fatal(err)
		}
		x.g.Close()
		x.g = g
	}
	stop.Store(true)
	if n := <-ran; n > 0 {
		t.Errorf("%d unsigned programs ran while the programs were replaced", n)
	}
	if n := <-tries; n == 0 {
		t.Error("nobody tried")
	}
	runs(t, x.good)
	denied(t, x.bad)
	dirs, err := linkDirs(DefaultPins)
	if err != nil || !slices.Equal(dirs, []int{3}) {
		t.Errorf("links are in %v, %v", dirs, err)
	}
}

// guard has root without leave try to end the gate.
func (x *gateTest) guard(t *testing.T) {
	if err := x.g.Allow(x.grant[x.manager]); err != nil {
		t.Fatal(err)
	}
	if err := x.g.SetPolicy(Policy{Mode: Enforce, Guard: true}, true); err != nil {
		t.Fatal(err)
	}
	if out, _, err := run(t, "open", x.manager); err != nil {
		t.Errorf("a manager: %v\n%s", err, out)
	}
	if out, _, err := run(t, "open", x.good); err == nil || !strings.Contains(out, "not permitted") {
		t.Errorf("one who is no manager opened the gate: %s", out)
	}
	if out, _, err := run(t, "maps", x.good); err != nil || strings.Contains(out, "allowed") {
		t.Errorf("one who is no manager got maps: %s, %v", out, err)
	}
	if out, _, err := run(t, "maps", x.manager); err != nil || !strings.Contains(out, "allowed") {
		t.Errorf("a manager got no maps: %s, %v", out, err)
	}
	// The same by this process, which is a manager itself, through a shell, which is not.
	admitTools(t, x.g)
	for _, line := range []string{
		"rm -f " + DefaultPins + "/links-3/exec", "rm -rf " + DefaultPins, "mv " + DefaultPins + "/links-3/exec " + DefaultPins + "/away",
		"mv " + DefaultPins + "/links-3/exec /sys/fs/bpf/", "umount /sys/fs/bpf", "umount -l /sys/fs/bpf", "rm -f " + DefaultPins + "/maps/allowed",
	} {
		if out, _, err := run(t, "", "/bin/sh", "-c", line); err == nil {
			t.Errorf("%s: %s", line, out)
		}
	}
	runs(t, x.good)
	denied(t, x.bad)
	if dirs, err := linkDirs(DefaultPins); err != nil || len(dirs) != 1 {
		t.Errorf("links are in %v, %v", dirs, err)
	}
	st, err := x.g.Status()
	if err != nil || st.Counters[StateMap][Guarded] == 0 || st.Counters[StatePin][Guarded] == 0 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
}

// admitTools grants a shell and what the lines of the test run, with their libraries.
func admitTools(t *testing.T, g *Gate) {
	t.Helper()
	all, err := filepath.Glob("/lib/x86_64-linux-gnu/lib*.so*")
	if err != nil {
		t.Fatal(err)
	}
	for _, lib := range all {
		if slices.ContainsFunc([]string{"libselinux", "libc.so", "libpcre2-8", "libmount", "libblkid", "libacl", "libattr", "libtinfo"}, func(s string) bool {
			return strings.HasPrefix(filepath.Base(lib), s)
		}) {
			admit(t, g, lib, envelope.RoleLib)
		}
	}
	for _, p := range []string{"/bin/sh", "/bin/rm", "/bin/mv", "/bin/umount"} {
		admit(t, g, p, envelope.RoleExec)
	}
	if out, _, err := run(t, "", "/bin/sh", "-c", "rm --version && mv --version && umount --version"); err != nil {
		t.Fatalf("the tools do not run: %v\n%s", err, out)
	}
}

// kill ends the process that made the programs.
func (x *gateTest) kill(t *testing.T) {
	cmd := exec.Command(x.manager)
	cmd.Env = append(os.Environ(), roleVariable+"=hold")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "attached\n" {
		t.Fatalf("%q, %v", line, err)
	}
	// Root without leave does not get at its memory.
	if err := unix.PtraceAttach(cmd.Process.Pid); err != nil {
		t.Errorf("a manager attaches to another: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	runs(t, x.good)
	denied(t, x.bad)
	if dirs, err := linkDirs(DefaultPins); err != nil || !slices.Equal(dirs, []int{4}) {
		t.Errorf("links are in %v, %v", dirs, err)
	}
}

func (x *gateTest) remove(t *testing.T) {
	if err := x.g.Remove(); err != nil {
		t.Fatal(err)
	}
	runs(t, x.bad)
	entries, err := os.ReadDir("/sys/fs/bpf")
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := Open(Config{}); !errors.Is(err, ErrNotAttached) {
		t.Errorf("a gate that was removed: %v", err)
	}
}
