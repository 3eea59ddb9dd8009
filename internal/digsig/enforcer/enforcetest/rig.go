//go:build linux

// Package enforcetest runs an enforcer for tests: a process of its own, that watches file systems of the test and no
// others, with a store, keys and signed programs.
package enforcetest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/enforcer"
)

// Patience bounds every wait.
const Patience = 60 * time.Second

// Variables of the processes that tests start.
const (
	runVariable  = "MIDPLANE_ENFORCETEST_RUN"
	nestVariable = "MIDPLANE_ENFORCETEST_INSIDE"
)

// Main is for TestMain: the enforcer's processes begin here, and the tests run in a mount namespace of their own, which
// ends with them whatever happens. Without root they run where they are.
func Main(m *testing.M) {
	enforcer.Main()
	if c := os.Getenv(runVariable); c != "" {
		os.Exit(run(c))
	}
	if os.Geteuid() != 0 || os.Getenv(nestVariable) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), nestVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "enforcetest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is the process of a supervisor.
func run(config string) int {
	var cfg enforcer.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := enforcer.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "enforcetest:", err)
		return 1
	}
	return 0
}

// Rig is a store with keys, and an enforcer once it is started.
type Rig struct {
	T       testing.TB
	Dir     string
	Config  enforcer.Config
	Key     *digsig.Signer // trusted for everything
	Rogue   *digsig.Signer // not trusted
	Policy  digsig.Policy  // signed by Key at Sign
	Serial  uint64         // of revocations
	Client  *enforcer.Client
	Process *os.Process // of the supervisor
	Issued  time.Time
	Program string // of the enforcer; empty: this one

	done chan error
	log  *tail
}

// New makes a rig without an enforcer. The enforcer will watch the file systems of the given mounts.
func New(t testing.TB, mounts ...string) *Rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig") // short: the path of a socket is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &Rig{T: t, Dir: dir, Key: key(t, 1), Rogue: key(t, 2), Issued: time.Now().Add(-time.Hour).Truncate(time.Second)}
	r.Config = enforcer.Config{
		Dir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "var"), Socket: filepath.Join(dir, "s"), Guardian: filepath.Join(dir, "g"), Mounts: mounts,
		Audit: audit.Config{Path: filepath.Join(dir, "log", "digsig.log"), Sync: 50 * time.Millisecond}, Owner: os.Getpid(),
	}
	r.Policy = digsig.Policy{Version: 1, Issued: r.Issued, Exempt: map[[32]byte]string{}, Interpreters: map[[32]byte]digsig.Interpreter{}}
	r.Write("trust/test.pub", r.must(json2(KeyFile(r.Key, digsig.AllPurposes))))
	r.SignPolicy()
	return r
}

func json2(b []byte, err error) ([]byte, error) { return b, err }

func key(t testing.TB, seed byte) *digsig.Signer {
	t.Helper()
	s, err := digsig.NewSigner(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), 32))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// NewKey makes a key that nobody trusts yet.
func NewKey(t testing.TB, seed byte) *digsig.Signer { return key(t, seed) }

// KeyFile is the file that makes a store trust a signer.
func KeyFile(s *digsig.Signer, p digsig.Purpose) ([]byte, error) {
	k := digsig.Key{Public: s.Public(), Comment: "test", Purposes: p, Roles: digsig.AllRoles}
	return k.MarshalText()
}

func (r *Rig) must(b []byte, err error) []byte {
	r.T.Helper()
	if err != nil {
		r.T.Fatal(err)
	}
	return b
}

// Write writes a file of the store.
func (r *Rig) Write(name string, b []byte) {
	r.T.Helper()
	path := filepath.Join(r.Config.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.T.Fatal(err)
	}
	if err := digsig.WriteFile(path, b, 0o644); err != nil {
		r.T.Fatal(err)
	}
}

// SignPolicy signs Policy and writes it to the store.
func (r *Rig) SignPolicy() {
	r.T.Helper()
	r.Write(digsig.PolicyFile, r.must(digsig.SignPolicy(&r.Policy, r.Key)))
}

// Revoke writes a revocation list with the next serial; change fills it in.
func (r *Rig) Revoke(change func(*digsig.Revocations)) {
	r.T.Helper()
	r.Serial++
	l := digsig.Revocations{Serial: r.Serial, Issued: r.Issued, Digests: map[[32]byte]string{}, Keys: map[digsig.KeyID]string{}, Below: map[string]digsig.Minimum{}}
	change(&l)
	r.Write(digsig.RevocationsFile, r.must(digsig.SignRevocations(&l, r.Key)))
}

// Sign embeds a signature in an ELF file.
func (r *Rig) Sign(path string, roles digsig.Role, change ...func(*digsig.SignOptions)) *digsig.Statement {
	r.T.Helper()
	return r.SignBy(r.Key, path, roles, change...)
}

// SignBy is Sign with another key.
func (r *Rig) SignBy(by *digsig.Signer, path string, roles digsig.Role, change ...func(*digsig.SignOptions)) *digsig.Statement {
	r.T.Helper()
	o := digsig.SignOptions{Template: digsig.Template{Name: filepath.Base(path), Version: 5, Roles: roles, Issued: r.Issued}, Busy: true}
	for _, c := range change {
		c(&o)
	}
	st, err := digsig.SignFile(context.Background(), path, o, by)
	if err != nil {
		r.T.Fatal(err)
	}
	return st
}

// Manifest writes a manifest that lists files with a role.
func (r *Rig) Manifest(name string, roles digsig.Role, paths ...string) {
	r.T.Helper()
	var entries []digsig.ManifestEntry
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			r.T.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			r.T.Fatal(err)
		}
		st, err := digsig.StatementOf(context.Background(), f, info.Size(), digsig.Template{Name: filepath.Base(p), Version: 5, Roles: roles, Issued: r.Issued})
		f.Close()
		if err != nil {
			r.T.Fatal(err)
		}
		entries = append(entries, digsig.EntryOf(st))
	}
	b, err := digsig.SignManifest(digsig.ManifestHeader{Name: name, Version: 1, Issued: r.Issued}, entries, r.Key)
	r.Write("manifests/"+name+".mdm", r.must(b, err))
}

// Start starts the enforcer and waits until it enforces.
func (r *Rig) Start() {
	r.T.Helper()
	if err := r.TryStart(); err != nil {
		r.T.Fatalf("start: %v\n%s", err, r.log)
	}
}

// TryStart is Start that may fail.
func (r *Rig) TryStart() error {
	r.T.Helper()
	config, err := json.Marshal(r.Config)
	if err != nil {
		return err
	}
	r.log = &tail{}
	program := r.Program
	if program == "" {
		program = "/proc/self/exe"
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), runVariable+"="+string(config))
	cmd.Stderr, cmd.Stdout = r.log, r.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	r.Process, r.done, r.Client = cmd.Process, make(chan error, 1), enforcer.Dial(r.Config.Socket)
	done := r.done
	go func() { done <- cmd.Wait() }()
	r.T.Cleanup(r.Stop)
	for deadline := time.Now().Add(Patience); ; {
		select {
		case err := <-done:
			done <- err
			return fmt.Errorf("the enforcer ended: %v: %s", err, r.log)
		default:
		}
		if _, err := r.TryStatus(); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the enforcer does not come up")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Stop ends the enforcer and waits until it is gone, with its worker.
func (r *Rig) Stop() {
	if r.Process == nil {
		return
	}
	s, _ := r.TryStatus()
	_ = r.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(Patience):
		r.T.Errorf("the enforcer does not end\n%s", r.log)
		_ = r.Process.Kill()
	}
	if s != nil { // a supervisor that another worker began, and that worker
		for _, pid := range []int{s.Supervisor.PID, s.Worker} {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	r.Process = nil
}

// TryStatus returns the status if the enforcer answers within a second.
func (r *Rig) TryStatus() (*enforcer.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return r.Client.Status(ctx)
}

// Status returns the status, waiting for it.
func (r *Rig) Status() *enforcer.Status {
	r.T.Helper()
	var s *enforcer.Status
	Eventually(r.T, "status", func() (err error) { s, err = r.TryStatus(); return err })
	return s
}

// Reload takes what is in the store now.
func (r *Rig) Reload(force bool) (*enforcer.Reload, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return r.Client.Reload(ctx, force)
}

// Log is what the enforcer's processes wrote.
func (r *Rig) Log() string { return r.log.String() }

// Eventually waits until f gives no error.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// tail collects output.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, b...); len(t.b) > 1<<20 {
		t.b = t.b[len(t.b)-1<<20:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// Signed returns a signed copy of a program, outside of what is watched.
func (r *Rig) Signed(from string, roles digsig.Role, change ...func(*digsig.SignOptions)) string {
	r.T.Helper()
	to := Put(r.T, from, filepath.Join(r.T.TempDir(), filepath.Base(from)))
	r.Sign(to, roles, change...)
	return to
}

// Tmpfs mounts a tmpfs for the test.
func Tmpfs(t testing.TB) string {
	t.Helper()
	return Mount(t, "tmpfs", "test", "size=1g,mode=755")
}

// Mount mounts something for the test and returns where.
func Mount(t testing.TB, kind, source, options string) string {
	t.Helper()
	if os.Getenv(nestVariable) == "" {
		t.Fatal("the package's TestMain must call enforcetest.Main")
	}
	dir, err := os.MkdirTemp("", "mnt")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, dir, kind, 0, options); err != nil {
		os.Remove(dir)
		t.Fatalf("mount -t %s -o %s: %v", kind, options, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		os.Remove(dir)
	})
	return dir
}
