//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/enforcer"
)

// bed is a file system with programs in it, and what signs them.
type bed struct {
	dir string // of everything
	mnt string // the file system that is watched

	control string // the same on a file system that is not
	cfg     enforcer.Config
	files   []string // programs and libraries
	signer  *digsig.Signer

	programs []string // of the compiler
}

// helperSource is a program outside of what is watched, which starts and loads what is in there. It prints the median in
// nanoseconds.
const helperSource = `#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
/* Opening a file for writing ends what is kept about it. */
static void forget(char *dir) {
	static char *names[] = {"prog", "ld.so", "libc.so.6", "libbench.so", "data"};
	for (int i = 0; i < 5; i++) {
		char p[512]; snprintf(p, sizeof p, "%s/%s", dir, names[i]);
		int f = open(p, O_WRONLY); if (f >= 0) close(f);
	}
}
static int spawn(char *path, char *arg, char *arg2) {
	char *a[] = {path, arg, arg2, 0};
	pid_t q = vfork();
	if (!q) { execve(path, a, environ); _exit(99); }
	return q;
}
static double one(char *kind, char *dir, int cold) {
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, !strcmp(kind, "spawn") ? "prog" : !strcmp(kind, "dlopen") ? "libbench.so" : "data");
	if (cold) forget(dir);
	double b = now();
	if (!strcmp(kind, "spawn")) { int s; waitpid(spawn(path, 0, 0), &s, 0); if (s) { fprintf(stderr, "spawn: %d\n", s); exit(1); } }
	else if (!strcmp(kind, "dlopen")) { void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL); if (!h) { fprintf(stderr, "%s\n", dlerror()); exit(1); } dlclose(h); }
	else { int f = open(path, O_RDONLY); if (f < 0) { perror("open"); exit(1); } close(f); }
	return now() - b;
}
/* A job of a build: the compiler proper, with its libraries, compiles one unit of headers and code. */
static void compile(char *dir, int i) {
	static char path[512], in[512], out[512], inc[3][512], lib[512];
	snprintf(path, sizeof path, "%s/cc1", dir); snprintf(in, sizeof in, "%s/unit.c", dir); snprintf(out, sizeof out, "%s/out/u%d.s", dir, i);
	for (int k = 0; k < 3; k++) snprintf(inc[k], sizeof inc[k], "%s/inc%d", dir, k);
	snprintf(lib, sizeof lib, "LD_LIBRARY_PATH=%s/lib", dir);
	char *a[] = {path, "-quiet", "-O2", "-nostdinc", "-isystem", inc[0], "-isystem", inc[1], "-isystem", inc[2], in, "-o", out, 0}, *e[] = {lib, 0};
	if (!vfork()) { execve(path, a, e); _exit(99); }
}
static double build(char *dir, int jobs) {
	int running = 0, s, i = 0;
	double b = now();
	while (i < jobs || running) {
		if (i < jobs && running < 8) { compile(dir, i++); running++; continue; }
		wait(&s); running--; if (s) { fprintf(stderr, "job: %d\n", s); exit(1); }
	}
	return now() - b;
}
/* helper CONTROL DIR KIND warm|cold TIMES: both in turn */
int main(int n, char **v) {
	char *kind = v[3]; int cold = !strcmp(v[4], "cold"), times = atoi(v[5]);
	double *t[2] = {calloc(times, sizeof(double)), calloc(times, sizeof(double))};
	if (!strcmp(kind, "build")) {
		int rounds = 1; double sum[2] = {0, 0};
		for (int i = -1; i < rounds; i++) for (int k = 0; k < 2; k++) { double d = build(v[1 + (k ^ (i & 1))], times); if (i >= 0) sum[k ^ (i & 1)] += d; }
		printf("%.0f %.0f\n", sum[0] / rounds, sum[1] / rounds);
		return 0;
	}
	for (int i = -5; i < times; i++) for (int k = 0; k < 2; k++) {
		int which = k ^ (i & 1);
		double d = one(kind, v[1 + which], cold);
		if (i >= 0) t[which][i] = d;
	}
	for (int k = 0; k < 2; k++) qsort(t[k], times, sizeof(double), cmp);
	printf("%.0f %.0f\n", t[0][times / 2], t[1][times / 2]);
	return 0;
}
`

// progSource is what is started.
const progSource = `int bench(void);
int main(void) { return bench() - 42; }
`

// unitSource is what a job of the build compiles.
const unitSource = `#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
static int cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
int main(int n, char **v) {
	struct stat s; qsort(v + 1, n - 1, sizeof *v, cmp);
	for (int i = 1; i < n; i++) { int f = open(v[i], O_RDONLY); if (f < 0 || fstat(f, &s)) { perror(v[i]); continue; } printf("%s %lld\\n", v[i], (long long)s.st_size); close(f); }
	return 0;
}
`

func run(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func newBed() (*bed, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	b := &bed{dir: dir, mnt: filepath.Join(dir, "m")}
	if err := b.fill(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bed) fill() error {
	src := func(name string) string { return filepath.Join(b.dir, name) }
	err := errors.Join(os.WriteFile(src("helper.c"), []byte(helperSource), 0o644), os.WriteFile(src("prog.c"), []byte(progSource), 0o644),
		os.WriteFile(src("lib.c"), []byte("int bench(void) { return 42; }\n"), 0o644), run("gcc", "-O2", "-o", src("helper"), src("helper.c"), "-ldl"))
	if err != nil {
		return err
	}
	b.control = filepath.Join(b.dir, "c")
	if err := b.mount(b.control, "ext4", "mkfs.ext4", "-q", "-F"); err != nil {
		return err
	}
	if err := b.mount(b.mnt, "xfs", "mkfs.xfs", "-q"); err != nil {
		return err
	}
	for _, n := range append([]string{"prog", "ld.so", "libc.so.6", "libbench.so"}, b.programs...) {
		b.files = append(b.files, filepath.Join(b.mnt, n))
	}
	return b.sign()
}

// mount makes a file system with the programs in it.
func (b *bed) mount(dir, kind string, mkfs ...string) error {
	img := filepath.Join(b.dir, kind)
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 400<<20), run(append(mkfs, img)...), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	if err := run("mount", "-o", "loop", img, dir); err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	ld := ""
	for _, p := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, err := os.Stat(p); err == nil {
			ld = p
		}
	}
	libc, err := exec.Command("gcc", "-print-file-name=libc.so.6").Output()
	if err != nil {
		return err
	}
	err = errors.Join(os.Mkdir(in("out"), 0o755), copyFile(ld, in("ld.so")), copyFile(strings.TrimSpace(string(libc)), in("libc.so.6")),
		os.WriteFile(in("data"), make([]byte, 8192), 0o644))
	if err := errors.Join(err, b.compiler(dir)); err != nil {
		return err
	}
	lib, prog := filepath.Join(b.dir, "lib.c"), filepath.Join(b.dir, "prog.c")
	if err := run("gcc", "-O2", "-shared", "-fPIC", "-Wl,-soname,libbench.so", "-o", in("libbench.so"), lib); err != nil {
		return err
	}
	return run("gcc", "-O2", "-o", in("prog"), prog, in("libbench.so"), "-Wl,-rpath,"+dir, "-Wl,--dynamic-linker="+in("ld.so"))
}

// compiler puts gcc's compiler proper, its libraries and the headers of the unit into a directory.
func (b *bed) compiler(dir string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(in("lib"), 0o755), os.WriteFile(in("unit.c"), []byte(unitSource), 0o644)); err != nil {
		return err
	}
	out, err := exec.Command("gcc", "-print-prog-name=cc1").Output()
	if err != nil {
		return err
	}
	cc1 := strings.TrimSpace(string(out))
	if err := copyFile(cc1, in("cc1")); err != nil {
		return err
	}
	b.programs = []string{"cc1"}
	if out, err = exec.Command("ldd", cc1).Output(); err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if path, _, _ := strings.Cut(rest, " "); ok && path != "" {
			if err := copyFile(path, in("lib/"+name)); err != nil {
				return err
			}
			b.programs = append(b.programs, "lib/"+name)
		}
	}
	if out, err = exec.Command("sh", "-c", "gcc -v -E -x c /dev/null 2>&1 | sed -n '/<...>/,/^End/p' | grep '^ '").Output(); err != nil {
		return err
	}
	roots := strings.Fields(string(out))
	roots = slices.DeleteFunc(roots, func(r string) bool { return r == "/usr/local/include" })
	if len(roots) != 3 {
		return fmt.Errorf("gcc looks for headers in %q: want three places", roots)
	}
	if out, err = exec.Command("gcc", "-O2", "-M", in("unit.c")).Output(); err != nil {
		return err
	}
	for _, h := range strings.Fields(strings.ReplaceAll(string(out), "\\\n", " "))[2:] {
		for i, r := range roots {
			if rest, ok := strings.CutPrefix(h, r+"/"); ok {
				to := in(fmt.Sprintf("inc%d/%s", i, rest))
				if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), copyFile(h, to)); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// sign makes a store with a key, and signs what is executable with it.
func (b *bed) sign() error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := digsig.NewSigner(private)
	if err != nil {
		return err
	}
	key := digsig.Key{Public: signer.Public(), Comment: "bench", Purposes: digsig.AllPurposes, Roles: digsig.AllRoles}
	text, err := key.MarshalText()
	if err != nil {
		return err
	}
	etc := filepath.Join(b.dir, "etc")
	if err := errors.Join(os.MkdirAll(filepath.Join(etc, digsig.TrustDir), 0o755), os.WriteFile(filepath.Join(etc, digsig.TrustDir, "bench.pub"), text, 0o644)); err != nil {
		return err
	}
	b.signer = signer
	for _, f := range b.files {
		if err := b.signFile(f); err != nil {
			return err
		}
	}
	b.cfg = enforcer.Config{Dir: etc, StateDir: filepath.Join(b.dir, "var"), Socket: filepath.Join(b.dir, "s"), Mounts: []string{b.mnt},
		Audit: audit.Config{Path: filepath.Join(b.dir, "log")}, Owner: os.Getpid(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	return nil
}

func (b *bed) signFile(name string) error {
	_, err := digsig.SignFile(context.Background(), name, digsig.SignOptions{Busy: true, Template: digsig.Template{Name: filepath.Base(name), Version: 1,
		Roles: digsig.RoleExec | digsig.RoleLib | digsig.RoleInterp, Issued: time.Now().Add(-time.Hour)}}, b.signer)
	return err
}

func (b *bed) close() {
	for _, m := range []string{b.mnt, b.control} {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
	_ = os.RemoveAll(b.dir)
}

// helper measures one thing in turn on the control and on what is watched, in microseconds.
func (b *bed) helper(kind, state string, n int) (p pair, err error) {
	out, err := exec.Command(filepath.Join(b.dir, "helper"), b.control, b.mnt, kind, state, strconv.Itoa(n)).CombinedOutput()
	if err != nil {
		return p, fmt.Errorf("%s %s: %w: %s", kind, state, err, out)
	}
	_, err = fmt.Sscan(string(out), &p.control, &p.subject)
	p.control, p.subject = p.control/1000, p.subject/1000
	return p, err
}

// midplane starts the enforcer.
func (b *bed) midplane() (func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- enforcer.Run(ctx, b.cfg) }()
	client := enforcer.Dial(b.cfg.Socket)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		short, stop := context.WithTimeout(ctx, time.Second)
		_, err := client.Status(short)
		stop()
		if err == nil {
			return func() { cancel(); <-done }, nil
		}
		select {
		case err := <-done:
			cancel()
			return nil, err
		default:
		}
		if time.Now().After(deadline) {
			cancel()
			return nil, errors.New("it does not come up")
		}
	}
}

// fapolicyd starts Debian's fapolicyd with a trust list of the same files. It watches file systems by their type, and ours
// is the only one of its type in this mount namespace.
func (b *bed) fapolicyd() (func(), error) {
	etc, state, rundir := filepath.Join(b.dir, "fetc"), filepath.Join(b.dir, "fvar"), filepath.Join(b.dir, "frun")
	var trust strings.Builder
	for _, f := range append([]string{filepath.Join(b.mnt, "data")}, b.files...) {
		c, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&trust, "%s %d %x\n", f, len(c), sha256.Sum256(c))
	}
	conf := `permissive = 0
nice_val = 14
q_size = 800
uid = root
gid = root
do_stat_report = 0
detailed_report = 0
db_max_size = 50
subj_cache_size = 1549
obj_cache_size = 8191
watch_fs = xfs
trust = file
integrity = sha256
syslog_format = rule,dec,perm,auid,pid,exe,:,path,ftype,trust
rpm_sha256_only = 0
allow_filesystem_mark = 1
`
	// The shape of the rules that it is shipped with: what is executed or loaded must be trusted, the rest may be opened.
	rules := `%languages=application/x-bytecode.ocaml,application/x-bytecode.python,application/java-archive,text/x-java,application/x-java-applet,application/javascript,text/javascript,text/x-awk,text/x-gawk,text/x-lisp,application/x-elc,text/x-lua,text/x-m4,text/x-nftables,text/x-perl,text/x-php,text/x-python,text/x-R,text/x-ruby,text/x-script.guile,text/x-tcl,text/x-luatex,text/x-systemtap
deny_audit perm=any pattern=ld_so : all
allow perm=open all : ftype=application/x-sharedlib trust=1
deny_audit perm=open all : ftype=application/x-sharedlib
allow perm=execute all : trust=1
allow perm=open all : ftype=%languages trust=1
deny_audit perm=any all : ftype=%languages
allow perm=any all : ftype=text/x-shellscript
deny_audit perm=execute all : all
allow perm=open all : all
`
	err := errors.Join(os.MkdirAll(etc, 0o755), os.MkdirAll(state, 0o755), os.MkdirAll(rundir, 0o755), os.WriteFile(filepath.Join(etc, "fapolicyd.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(etc, "fapolicyd.trust"), []byte(trust.String()), 0o644), os.WriteFile(filepath.Join(etc, "compiled.rules"), []byte(rules), 0o644))
	if err != nil {
		return nil, err
	}
	var mounted []string
	undo := func() {
		for _, m := range mounted {
			_ = syscall.Unmount(m, syscall.MNT_DETACH)
		}
	}
	for from, to := range map[string]string{etc: "/etc/fapolicyd", state: "/var/lib/fapolicyd", rundir: "/run/fapolicyd"} {
		if err := errors.Join(os.MkdirAll(to, 0o755), syscall.Mount(from, to, "", syscall.MS_BIND, "")); err != nil {
			undo()
			return nil, err
		}
		mounted = append(mounted, to)
	}
	cmd := exec.Command("fapolicyd", "--debug-deny", "--no-details")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(b.dir, "fapolicyd.log"))
	if err != nil {
		undo()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		undo()
		return nil, err
	}
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		log.Close()
		undo()
	}
	// It decides when an untrusted program is denied.
	probe := filepath.Join(b.mnt, "untrusted")
	if err := copyFile("/bin/true", probe); err != nil {
		stop()
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := exec.Command(probe).Run(); errors.Is(err, syscall.EPERM) {
			return stop, nil
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			stop()
			return nil, fmt.Errorf("it does not deny: %s", text)
		}
	}
}
