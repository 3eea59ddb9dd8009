package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"midplane/digsig"
	. "midplane/internal/digsig/enforcer/enforcetest"
)

// before makes what the cases on the tmpfs need, before the enforcer begins.
func (k *kit) before() {
	t, r := k.t, k.r
	in := func(name string) string { return filepath.Join(k.main, name) }
	k.tools = t.TempDir()
	for name, source := range map[string]string{
		"store": StoreMapped, "mapfd": MapFD, "mprotect": MapProtect, "implies": ReadImplies, "anonymous": Anonymous, "poke": Poke, "memfd": Memfd,
		"fdexec": FDExec, "ask": Ask, "nobody": Nobody, "chroot": Chroot, "binfmt": BinfmtF, "dlopen": Dlopen,
	} {
		Put(t, Compile(t, source), filepath.Join(k.tools, name))
	}
	Put(t, Compile(t, Racer, "-static"), filepath.Join(k.tools, "racer"))
	const marker = "A_MARKER_OF_THE_TEST_"
	hot := r.Signed(Compile(t, `volatile const char x[]="`+marker+`0"; int main(){return x[sizeof x-2]=='0'?0:66;}`, "-static"), 0)
	var err error
	k.hot, err = os.ReadFile(hot)
	must(t, err)
	k.hotAt = bytes.Index(k.hot, []byte(marker+"0")) + len(marker)

	Put(t, Compile(t, Sleep), in("early"))
	lib := Compile(t, Lib, "-shared", "-fPIC")
	Put(t, lib, in("bad.so"))
	Put(t, r.Signed(lib, digsig.RoleLib), in("good.so"))
	must(t, os.Mkdir(in("rpath"), 0o755))
	must(t, os.Mkdir(in("rpath2"), 0o755))
	uses := Compile(t, `int answer(); int main(){return answer()==42?0:1;}`, lib, "-Wl,-rpath,"+in("rpath"))
	_ = uses
	Put(t, lib, in("rpath/libx.so"))
	Put(t, r.Signed(lib, digsig.RoleLib), in("rpath2/libx.so"))
	for _, n := range []string{"rpath", "rpath2"} {
		dir := t.TempDir()
		Put(t, Compile(t, Lib, "-shared", "-fPIC", "-Wl,-soname,libx.so"), filepath.Join(dir, "libx.so"))
		p := Compile(t, `int answer(); int main(){return answer()==42?0:1;}`, filepath.Join(dir, "libx.so"), "-Wl,-rpath,"+in(n))
		Put(t, r.Signed(p, 0), in(n+"-user"))
	}
	Put(t, loader(t), in("ld-bad"))
	Put(t, r.Signed(Compile(t, Hello, "-Wl,--dynamic-linker="+in("ld-bad")), 0), in("interp-bad"))
	Put(t, r.Signed(loader(t), digsig.RoleInterp|digsig.RoleLib), in("ld-good"))
	Put(t, r.Signed(Compile(t, Hello, "-Wl,--dynamic-linker="+in("ld-good")), 0), in("interp-good"))

	for name, text := range map[string]string{
		"bad.sh": "#!/bin/sh\nexit 0\n", "good.sh": "#!/bin/sh\n:\n", "good-bad-interp": "#!" + in("sh-bad") + "\n", "good-indirect": "#!" + in("sh-indirect") + "\n",
	} {
		must(t, os.WriteFile(in(name), []byte(text), 0o755))
	}
	Put(t, "/bin/sh", in("sh-bad"))
	Put(t, r.Signed("/bin/sh", digsig.RoleInterp), in("sh-indirect"))
	r.Manifest("scripts", digsig.RoleScript, in("good.sh"), in("good-bad-interp"), in("good-indirect"))
	must(t, os.WriteFile(in("protected.conf"), []byte("good\n"), 0o644))
	r.Manifest("data", digsig.RoleData, in("protected.conf"))

	sh, err := digest("/bin/sh")
	must(t, err)
	cp, err := digest("/bin/cp")
	must(t, err)
	r.Policy.Interpreters[sh] = digsig.Interpreter{Scripts: []string{"*.sh"}}
	r.Policy.Exempt[cp] = "copies files"
	racer, err := digest(filepath.Join(k.tools, "racer"))
	must(t, err)
	r.Policy.Exempt[racer] = "writes"
	r.Policy.Protect = []string{"*/protected.conf"}
	r.Policy.Version++
	r.SignPolicy()

	for _, n := range []string{"revoked", "revoked-key", "old-version", "unlink", "lib-in-use", "minimum"} {
		Put(t, r.Signed(k.hello, 0), in(n))
	}
	Put(t, r.Signed(Compile(t, Hello+`int version_of_it=1;`), 0, func(o *digsig.SignOptions) { o.Name, o.Version = "tool", 3 }), in("minimum"))
	Put(t, r.Signed(Compile(t, Hello+`int to_be_revoked=1;`), 0), in("revoked"))
	second := NewKey(t, 9)
	b, err := KeyFile(second, digsig.AllPurposes)
	must(t, err)
	r.Write("trust/second.pub", b)
	p := Put(t, Compile(t, Hello+`int by_second=1;`), filepath.Join(t.TempDir(), "p"))
	r.SignBy(second, p, 0)
	Put(t, p, in("revoked-key"))
	lists := NewKey(t, 8)
	b, err = KeyFile(lists, digsig.PurposePolicy|digsig.PurposeRevocations)
	must(t, err)
	r.Write("trust/lists.pub", b)
	p = Put(t, Compile(t, Hello+`int by_lists=1;`), filepath.Join(t.TempDir(), "p"))
	r.SignBy(lists, p, 0)
	Put(t, p, in("purpose"))

	must(t, os.WriteFile(in("sparse"), []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00"), 0o755))
	must(t, os.Truncate(in("sparse"), 10<<30))
	must(t, os.WriteFile(in("sparse-in-limit"), []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00"), 0o755))
	must(t, os.Truncate(in("sparse-in-limit"), 1<<30))
	must(t, os.WriteFile(in("empty"), nil, 0o755))
	must(t, syscall.Mkfifo(in("fifo"), 0o755))

	k.loops = map[string]string{}
	root := filepath.Join(k.main, "root")
	must(t, os.Mkdir(root, 0o755))
	Put(t, Compile(t, Hello, "-static"), filepath.Join(root, "bad"))
	Put(t, r.Signed(Compile(t, Hello, "-static"), 0), filepath.Join(root, "good"))
}

func digest(path string) ([32]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return [32]byte{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return [32]byte{}, err
	}
	st, err := digsig.StatementOf(context.Background(), f, info.Size(), digsig.Template{Issued: time.Now()})
	if err != nil {
		return [32]byte{}, err
	}
	return st.Digest, nil
}

// loader finds this machine's ld.so.
func loader(t interface{ Fatal(...any) }) string {
	for _, p := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Fatal("no dynamic loader found")
	return ""
}

// loading are the cases about libraries and loaders.
func (k *kit) loading() {
	in := func(name string) string { return filepath.Join(k.main, name) }
	ld := loader(k.t)
	k.add(20, "ld.so ./unsigned", "tmpfs", deny, notOpened(Exec(ld, in("bad"))))
	k.add(20, "ld.so ./signed", "tmpfs", allow, ran(Exec(ld, in("good"))))
	k.add(21, "LD_PRELOAD of an unsigned library", "tmpfs", deny, loaded(ExecEnv([]string{"LD_PRELOAD=" + in("bad.so")}, in("good"))))
	k.add(21, "LD_PRELOAD of a signed library", "tmpfs", allow, loaded(ExecEnv([]string{"LD_PRELOAD=" + in("good.so")}, in("good"))))
	k.add(21, "LD_AUDIT of an unsigned library", "tmpfs", deny, loaded(ExecEnv([]string{"LD_AUDIT=" + in("bad.so")}, in("good"))))
	k.add(21, "LD_PRELOAD of an unsigned library into an exempt program", "tmpfs", deny, loaded(ExecEnv([]string{"LD_PRELOAD=" + in("bad.so")}, "/bin/cp", "--version")))
	k.add(22, "dlopen of an unsigned plug-in", "tmpfs", deny, loaded(Exec(filepath.Join(k.tools, "dlopen"), in("bad.so"))))
	k.add(22, "dlopen of a signed plug-in", "tmpfs", allow, loaded(Exec(filepath.Join(k.tools, "dlopen"), in("good.so"))))
	k.add(22, "RPATH leads to an unsigned library", "tmpfs", deny, loaded(Exec(in("rpath-user"))))
	k.add(22, "RPATH leads to a signed library", "tmpfs", allow, loaded(Exec(in("rpath2-user"))))
	k.add(23, "PT_INTERP is an unsigned loader", "tmpfs", deny, ran(Exec(in("interp-bad"))))
	k.add(23, "PT_INTERP is a signed loader", "tmpfs", allow, ran(Exec(in("interp-good"))))
	k.add(20, "an exempt program copies an unsigned one", "tmpfs", allow, ran(Exec("/bin/cp", in("bad"), in("bad-copy"))))
	k.add(20, "one that is not exempt reads an unsigned one", "tmpfs", deny, notOpened(Exec("/bin/cat", in("bad"))))
	k.inUse()
}

// notOpened is for programs that say so in words.
func notOpened(o Outcome) string {
	if strings.Contains(o.Output, "not permitted") {
		return deny
	}
	return ran(o)
}

// inUse overwrites a library that somebody has mapped.
func (k *kit) inUse() {
	t := k.t
	path := filepath.Join(k.main, "in-use.so")
	must(t, copyFile(filepath.Join(k.main, "good.so"), path))
	script := fmt.Sprintf("import ctypes,sys\nl=ctypes.CDLL(%q)\nprint('up',flush=True)\nsys.stdin.readline()\n", path)
	cmd := exec.Command("python3", "-c", script)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { in.Close(); _ = cmd.Wait() }()
	var b [64]byte
	_, err = out.Read(b[:])
	must(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		k.add(35, "a library in use is overwritten", "tmpfs", detect, deny)
		return
	}
	_, err = f.WriteAt([]byte{0xcc}, 0x1000)
	must(t, err)
	f.Close()
	got := gap
	Eventually(t, "the record of the write", func() error {
		log, err := os.ReadFile(k.r.Config.Audit.Path)
		if err == nil && !bytes.Contains(log, []byte(`"type":"file"`)) {
			err = errors.New("it is not there")
		}
		return err
	})
	got += ", detected"
	k.add(35, "a library in use is overwritten", "tmpfs", detect, got)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// ways are the cases about other ways to run code. fd is open on a file with code since before the enforcer.
func (k *kit) ways(fd *os.File) {
	in := func(name string) string { return filepath.Join(k.main, name) }
	tool := func(name string) string { return filepath.Join(k.tools, name) }
	memfd := gap
	if b, err := os.ReadFile("/proc/sys/vm/memfd_noexec"); err == nil && strings.TrimSpace(string(b)) == "2" {
		memfd = deny
	}
	k.add(24, "memfd_create and fexecve", "memfd", memfd, gapIf(Exec(tool("memfd"), k.hello)))
	k.add(25, "unlinked, by /proc/self/fd", "tmpfs", deny, ran(Exec(tool("fdexec"), in("bad-copy"))))
	k.add(25, "signed, unlinked, by /proc/self/fd", "tmpfs", allow, ran(Exec(tool("fdexec"), in("unlink"))))
	userns := gap
	if b, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil && strings.TrimSpace(string(b)) == "0" {
		userns = deny
	}
	k.add(26, "tmpfs in a user and mount namespace, as nobody", "tmpfs", userns, gapIf(Exec(tool("nobody"), Put(k.t, k.hello, filepath.Join(publicDir(k), "hello")))))
	k.loop()
	k.fuse()

	cmd := exec.Command(tool("mapfd"))
	cmd.ExtraFiles = []*os.File{fd}
	k.add(36, "a descriptor from before is mapped executable", "tmpfs", gap, gapIf(outcome(cmd)))
	k.add(37, "mapped to read, then mprotect", "tmpfs", gap, gapIf(Exec(tool("mprotect"), in("code"))))
	k.add(38, "READ_IMPLIES_EXEC", "tmpfs", gap, gapIf(Exec(tool("implies"), in("code"))))
	k.add(39, "read into anonymous memory", "tmpfs", gap, gapIf(Exec(tool("anonymous"), in("code"))))
	k.add(40, "ptrace writes code", "-", gap, gapIf(Exec(tool("poke"))))

	k.overlay()
	root := filepath.Join(k.main, "root")
	k.add(30, "unsigned in a chroot", "tmpfs", deny, ran(Exec(tool("chroot"), root, "/bad")))
	k.add(30, "signed in a chroot", "tmpfs", allow, ran(Exec(tool("chroot"), root, "/good")))
	bind := k.t.TempDir()
	must(k.t, syscall.Mount(k.main, bind, "", syscall.MS_BIND, ""))
	k.add(28, "through a bind mount", "tmpfs", allow, ran(Exec(filepath.Join(bind, "good"))))
	k.add(28, "unsigned through a bind mount", "tmpfs", deny, ran(Exec(filepath.Join(bind, "bad"))))
	must(k.t, syscall.Unmount(bind, syscall.MNT_DETACH))
}

func outcome(cmd *exec.Cmd) Outcome {
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return Outcome{Code: exit.ExitCode()}
	}
	return Outcome{Err: err}
}

// publicDir is one that others may look into.
func publicDir(k *kit) string {
	dir, err := os.MkdirTemp("", "public")
	must(k.t, err)
	k.t.Cleanup(func() { os.RemoveAll(dir) })
	must(k.t, os.Chmod(dir, 0o755))
	return dir
}

// overlay changes the layers of an overlay under it, and has files copied up.
func (k *kit) overlay() {
	t := k.t
	layers := filepath.Join(k.main, "layers")
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.MkdirAll(filepath.Join(layers, d), 0o755))
	}
	for _, n := range []string{"lower-changed", "copied-up", "touched"} {
		must(t, copyFile(filepath.Join(k.main, "good"), filepath.Join(layers, "lower", n)))
	}
	over := Mount(t, "overlay", "test", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers))
	for range 2 {
		k.add(29, "signed, from the lower layer", "overlay", allow, ran(Exec(filepath.Join(over, "lower-changed"))))
	}
	poke := func(path string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte{1}, 0x1008)
		must(t, err)
		must(t, f.Close())
	}
	poke(filepath.Join(layers, "lower", "lower-changed"))
	k.add(29, "the lower layer's file was changed", "overlay", deny, ran(Exec(filepath.Join(over, "lower-changed"))))
	k.add(29, "signed, before it is copied up", "overlay", allow, ran(Exec(filepath.Join(over, "copied-up"))))
	poke(filepath.Join(over, "copied-up"))
	k.add(29, "changed, which copied it up", "overlay", deny, ran(Exec(filepath.Join(over, "copied-up"))))
	must(t, os.Chmod(filepath.Join(over, "touched"), 0o700))
	k.add(29, "copied up as it was", "overlay", allow, ran(Exec(filepath.Join(over, "touched"))))
}

// loop mounts an image as an administrator would, after the enforcer of everything else began.
func (k *kit) loop() {
	dir := Image(k.t, 32, "", "mkfs.ext4", "-q", "-F")
	r := New(k.t, dir)
	bad, good := Put(k.t, k.hello, filepath.Join(dir, "bad")), Put(k.t, k.r.Signed(k.hello, 0), filepath.Join(dir, "good"))
	r.Start()
	defer r.Stop()
	k.add(27, "unsigned, on a loop mount", "ext4", deny, ran(Exec(bad)))
	k.add(27, "signed, on a loop mount", "ext4", allow, ran(Exec(good)))
}

// fuse mounts a file system that a process serves. Its content can change unseen, so everything on it is denied.
func (k *kit) fuse() {
	dir, img := k.t.TempDir(), filepath.Join(k.t.TempDir(), "img")
	tree := k.t.TempDir()
	Put(k.t, k.hello, filepath.Join(tree, "bad"))
	Put(k.t, k.r.Signed(k.hello, 0), filepath.Join(tree, "good"))
	Tool(k.t, "mksquashfs", tree, img, "-quiet", "-no-progress")
	Tool(k.t, "squashfuse", img, dir)
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	// It is another enforcer's, as the list of what is watched is fixed.
	r := New(k.t, dir)
	r.Start()
	defer r.Stop()
	k.add(27, "unsigned, on FUSE", "fuse", deny, ran(Exec(filepath.Join(dir, "bad"))))
	k.add(27, "signed, on FUSE (its content can change unseen)", "fuse", deny, ran(Exec(filepath.Join(dir, "good"))))
}

// scripts are the cases about scripts and interpreters.
func (k *kit) scripts() {
	in := func(name string) string { return filepath.Join(k.main, name) }
	tool := func(name string) string { return filepath.Join(k.tools, name) }
	k.add(41, "unsigned #! script", "tmpfs", deny, ran(Exec(in("bad.sh"))))
	k.add(41, "signed #! script", "tmpfs", allow, ran(Exec(in("good.sh"))))
	k.add(41, "signed script, unsigned interpreter", "tmpfs", deny, ran(Exec(in("good-bad-interp"))))
	k.add(41, "signed script, interpreter that may be run so only", "tmpfs", allow, ran(Exec(in("good-indirect"))))
	k.add(41, "the same interpreter, run directly", "tmpfs", deny, ran(Exec(in("sh-indirect"), "-c", ":")))
	k.add(42, "sh unsigned.sh, by the policy's open rule", "tmpfs", deny, shDenied(Exec("/bin/sh", in("bad.sh"))))
	k.add(42, "sh signed.sh, by the policy's open rule", "tmpfs", allow, ran(Exec("/bin/sh", in("good.sh"))))
	k.add(42, "sh -c", "-", gap, gapIf(Exec("/bin/sh", "-c", ":")))
	k.add(42, "a protected file that was changed is not read", "tmpfs", deny, k.protected())
	if o := Exec(tool("ask"), in("good")); o.Code == 3 {
		k.add(43, "AT_EXECVE_CHECK", "tmpfs", gap, gap, "needs Linux 6.14")
	} else {
		k.add(43, "AT_EXECVE_CHECK of a signed program", "tmpfs", allow, ran(o))
		k.add(43, "AT_EXECVE_CHECK of an unsigned program", "tmpfs", deny, ran(Exec(tool("ask"), in("bad"))))
		k.add(43, "AT_EXECVE_CHECK of an unsigned script", "tmpfs", deny, ran(Exec(tool("ask"), in("bad.sh"))))
	}
	switch o := Exec(tool("binfmt"), in("sh-bad")); o.Code {
	case 3, 4, 5:
		k.add(44, "binfmt_misc with flag F, unsigned handler", "tmpfs", notHas, notHas, "user namespaces have none before Linux 6.7")
	default:
		k.add(44, "binfmt_misc with flag F, unsigned handler", "tmpfs", deny, ran(o))
	}
	k.helper()
	if _, err := os.Stat("/proc/modules"); err != nil {
		k.add(46, "unsigned kernel module", "-", notHas, notHas)
	} else {
		k.add(46, "unsigned kernel module", "-", inGuest, inGuest)
	}
}

func shDenied(o Outcome) string {
	if o.Code != 0 && (strings.Contains(o.Output, "not permitted") || strings.Contains(o.Output, "cannot open") || strings.Contains(o.Output, "can't open")) {
		return deny
	}
	return ran(o)
}

// protected reads a file that must not change, changes it, and reads it again.
func (k *kit) protected() string {
	path := filepath.Join(k.main, "protected.conf")
	if b, err := os.ReadFile(path); err != nil || string(b) != "good\n" {
		return fmt.Sprintf("%q, %v", b, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Sprintf("opened to write: %v", err)
	}
	_, err = f.WriteString("evil\n")
	must(k.t, errors.Join(err, f.Close()))
	if _, err := os.ReadFile(path); !errors.Is(err, os.ErrPermission) {
		return fmt.Sprint(err)
	}
	return deny
}

// helper has the kernel itself start programs: the release agent of a cgroup hierarchy of the test's own.
func (k *kit) helper() {
	t := k.t
	dir := t.TempDir()
	name := fmt.Sprintf("mptest%d", os.Getpid())
	if err := syscall.Mount("cgroup", dir, "cgroup", 0, "none,name="+name); err != nil {
		k.add(45, "a helper that the kernel starts", "-", notHas, notHas, err.Error())
		return
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	trace := filepath.Join(k.main, "trace")
	agent := Compile(t, fmt.Sprintf(`#include <fcntl.h>
#include <unistd.h>
int main(int n,char**v){int f=open("/proc/%d/root%s",O_CREAT|O_WRONLY|O_APPEND,0644);write(f,"ran\n",4);return 0;}`, os.Getpid(), trace), "-static")
	run := func(program string) bool {
		_ = os.Remove(trace)
		must(t, os.WriteFile(filepath.Join(dir, "release_agent"), fmt.Appendf(nil, "/proc/%d/root%s\n", os.Getpid(), program), 0))
		group := filepath.Join(dir, "g")
		must(t, os.Mkdir(group, 0o755))
		must(t, os.WriteFile(filepath.Join(group, "notify_on_release"), []byte("1\n"), 0))
		before := k.r.Status().Stats.Gate
		cmd := exec.Command("/bin/sleep", "1000")
		must(t, cmd.Start())
		must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Appendf(nil, "%d\n", cmd.Process.Pid), 0))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ran := false
		Eventually(t, "the kernel's helper", func() error {
			if b, err := os.ReadFile(trace); err == nil && len(b) > 0 {
				ran = true
				return nil
			}
			if now := k.r.Status().Stats.Gate; now.Denied > before.Denied {
				return nil
			}
			return errors.New("neither ran nor was it denied")
		})
		_ = os.Remove(group)
		return ran
	}
	must(t, os.WriteFile(filepath.Join(dir, "notify_on_release"), []byte("1\n"), 0))
	Put(t, k.r.Signed(agent, 0), filepath.Join(k.main, "agent-good"))
	good := run(filepath.Join(k.main, "agent-good"))
	k.add(45, "a signed helper that the kernel starts", "tmpfs", allow, map[bool]string{true: allow, false: deny}[good])
	must(t, copyFile(agent, filepath.Join(k.main, "agent-bad")))
	bad := run(filepath.Join(k.main, "agent-bad"))
	k.add(45, "an unsigned helper that the kernel starts", "tmpfs", deny, map[bool]string{true: allow, false: deny}[bad])
}

// lists are the cases about keys and revocation.
func (k *kit) lists() {
	t, r := k.t, k.r
	in := func(name string) string { return filepath.Join(k.main, name) }
	k.add(12, "signed by a key of another purpose", "tmpfs", deny, ran(Exec(in("purpose"))))
	for range 2 {
		for _, n := range []string{"revoked", "revoked-key", "minimum"} {
			k.add(14, "before the revocation: "+n, "tmpfs", allow, ran(Exec(in(n))))
		}
	}
	d, err := digest(k.r.Signed(Compile(t, Hello+`int to_be_revoked=1;`), 0))
	must(t, err)
	old, err := os.ReadFile(filepath.Join(r.Config.Dir, digsig.RevocationsFile))
	must(t, err)
	r.Revoke(func(l *digsig.Revocations) {
		l.Digests[d] = "test"
		l.Keys[NewKey(t, 9).KeyID()] = "test"
		l.Below["tool"] = digsig.Minimum{Version: 4}
	})
	_, err = r.Reload(false)
	must(t, err)
	k.add(14, "a revoked digest, though marked", "tmpfs", deny, ran(Exec(in("revoked"))))
	k.add(14, "a revoked key, though marked", "tmpfs", deny, ran(Exec(in("revoked-key"))))
	k.add(15, "a version below the minimum, though marked", "tmpfs", deny, ran(Exec(in("minimum"))))
	k.add(14, "what is not revoked", "tmpfs", allow, ran(Exec(in("good"))))
	r.Write(digsig.RevocationsFile, old)
	rel, err := r.Reload(false)
	if err == nil && rel.Kept == "" {
		t.Error("an older revocation list was taken without a word")
	}
	k.add(16, "an older revocation list is loaded again", "tmpfs", deny, ran(Exec(in("revoked"))))
	r.Write("trust/broken.pub", []byte("nonsense\n"))
	if _, err := r.Reload(false); err == nil {
		t.Error("a broken store was taken")
	}
	must(t, os.Remove(filepath.Join(r.Config.Dir, "trust/broken.pub")))
	k.add(49, "a broken store is refused, the old one stays: signed", "tmpfs", allow, ran(Exec(in("good"))))
	k.add(49, "a broken store is refused, the old one stays: revoked", "tmpfs", deny, ran(Exec(in("revoked"))))
}

// odd are the cases about the enforcer itself and about strange files.
func (k *kit) odd() {
	t := k.t
	in := func(name string) string { return filepath.Join(k.main, name) }
	begin := time.Now()
	k.add(54, "10 GB of nothing with an ELF head", "tmpfs", deny, ran(Exec(in("sparse"))))
	k.add(54, "empty", "tmpfs", deny, noFormat(Exec(in("empty"))))
	k.add(54, "FIFO", "tmpfs", deny, noAccess(Exec(in("fifo"))))
	k.add(54, "device", "-", deny, noAccess(Exec("/dev/null")))
	var big Outcome
	var wait sync.WaitGroup
	wait.Go(func() { big = Exec(in("sparse-in-limit")) })
	k.add(54, "a small one while a big one is read", "tmpfs", allow, ran(Exec(in("good"))))
	wait.Wait()
	k.add(54, "1 GB of nothing with an ELF head", "tmpfs", deny, ran(big))
	if d := time.Since(begin); d > 10*Patience {
		t.Errorf("the odd files took %v", d)
	}

	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		s := k.r.Status()
		must(t, syscall.Kill(s.Worker, sig))
		bad := ran(Exec(in("bad")))
		k.add(48, fmt.Sprintf("unsigned, right after the worker got %v", sig), "tmpfs", deny, bad)
		Eventually(t, "another worker", func() error {
			now, err := k.r.TryStatus()
			if err == nil && now.Worker == s.Worker {
				err = errors.New("the same worker")
			}
			return err
		})
		k.add(48, fmt.Sprintf("signed, by the worker after %v", sig), "tmpfs", allow, ran(Exec(in("good"))))
		k.add(49, fmt.Sprintf("revoked stays denied after %v", sig), "tmpfs", deny, ran(Exec(in("revoked"))))
	}

	var failed sync.Map
	for i := range 8 {
		wait.Go(func() {
			for n := range 20 {
				p := in(fmt.Sprintf("storm%d-%d", i, n))
				o := Exec(in("bad"))
				if !o.Denied() {
					failed.Store("bad", o)
				}
				// By another process: a descriptor that is open for writing here would be inherited by what others start.
				if o := Exec("/bin/cp", in("good"), p); !o.Ran() {
					failed.Store("copy", o)
				} else if o := Exec(p); !o.Ran() {
					failed.Store("good", o)
				}
				_ = os.Rename(p, p+"~")
				_ = os.Remove(p + "~")
			}
		})
	}
	wait.Wait()
	got47, got51 := "all decided", allow
	failed.Range(func(what, o any) bool {
		got47, got51 = fmt.Sprint(what, o), fmt.Sprint(what, o)
		return true
	})
	k.add(47, "many at once (TestIntegrationStorm has 10,000)", "tmpfs", "all decided", got47)
	k.add(51, "files written, renamed and executed by many", "tmpfs", allow, got51)
	k.ownFiles()
	k.rootEnds()
}

func noFormat(o Outcome) string {
	if errors.Is(o.Err, syscall.ENOEXEC) {
		return deny
	}
	return ran(o)
}

func noAccess(o Outcome) string {
	if errors.Is(o.Err, syscall.EACCES) {
		return deny
	}
	return ran(o)
}

// rootEnds has root kill supervisor and worker at once, where there is neither systemd nor a guardian.
func (k *kit) rootEnds() {
	dir := Tmpfs(k.t)
	r := New(k.t, dir)
	bad := Put(k.t, k.hello, filepath.Join(dir, "bad"))
	r.Start()
	if o := Exec(bad); !o.Denied() {
		k.t.Errorf("before root ends the enforcer: %+v", o)
	}
	s := r.Status()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range []int{s.Supervisor.PID, s.Worker} {
			must(k.t, syscall.Kill(pid, sig))
		}
	}
	k.add(52, "root ends the enforcer by killing all of it", "tmpfs", gap, gapIf(Exec(bad)))
	r.Stop()
}

// ownFiles runs an enforcer whose store, state and log are on the file system that it watches.
func (k *kit) ownFiles() {
	dir := Tmpfs(k.t)
	r := New(k.t, dir)
	must(k.t, os.Rename(r.Config.Dir, filepath.Join(k.t.TempDir(), "etc")))
	r.Config.Dir, r.Config.StateDir, r.Config.Audit.Path = filepath.Join(dir, "etc"), filepath.Join(dir, "var"), filepath.Join(dir, "log")
	b, err := KeyFile(r.Key, digsig.AllPurposes)
	must(k.t, err)
	r.Write("trust/test.pub", b)
	r.SignPolicy()
	Put(k.t, k.hello, filepath.Join(dir, "bad"))
	Put(k.t, r.Signed(k.hello, 0), filepath.Join(dir, "good"))
	r.Start()
	got := ran(Exec(filepath.Join(dir, "good")))
	if o := ran(Exec(filepath.Join(dir, "bad"))); o != deny {
		got = o
	}
	if _, err := r.Reload(false); err != nil {
		got = err.Error()
	}
	must(k.t, syscall.Kill(r.Status().Worker, syscall.SIGKILL))
	if o := ran(Exec(filepath.Join(dir, "bad"))); o != deny {
		got = o
	}
	if o := ran(Exec(filepath.Join(dir, "good"))); o != allow {
		got = o
	}
	r.Stop()
	k.add(50, "store, state and log on the file system that is watched", "tmpfs", allow, got)
}
