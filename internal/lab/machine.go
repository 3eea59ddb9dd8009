//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/internal/lab/proto"
)

// machine is what every guest has, whatever runs its kernel: a process, the agent in it, and a directory that it shares
// with the host.
type machine struct {
	t    testing.TB
	name string

	share   string // directory of the host, /run/lab in the guest
	cmd     *exec.Cmd
	console *console
	control *control
	gone    chan struct{} // closed when the kernel's process has ended
}

// await waits until the agent of a kernel whose process has been started says that the guest is up. near is the host's
// end of the agent's line.
func (g *machine) await(near *os.File, patience time.Duration) error {
	g.control = newControl(near)
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait()
		_ = near.Close()
		close(gone)
	}(g.cmd, g.gone)
	select {
	case report := <-g.control.hello:
		if report != "" {
			g.Kill()
			return fmt.Errorf("guest's own report:\n%s", report)
		}
	case <-g.gone:
		return fmt.Errorf("the kernel ended\n%s", tail(g.Console()))
	case <-time.After(patience):
		g.Kill()
		return fmt.Errorf("not up after %v\n%s", patience, tail(g.Console()))
	}
	return nil
}

// Kill switches the guest off as a power cut would, at once, and waits until it is gone. Killing what is not running
// does nothing.
func (g *machine) Kill() {
	if g.cmd == nil || g.cmd.Process == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	<-g.gone
}

// Shutdown lets the guest sync and switch itself off, and waits until it is gone. Nothing in it says good-bye to peers.
func (g *machine) Shutdown() {
	g.t.Helper()
	_ = g.control.send(proto.Frame{Kind: proto.Poweroff})
	select {
	case <-g.gone:
	case <-time.After(Patience):
		g.t.Errorf("lab: %s does not shut down", g.name)
		g.Kill()
	}
}

// Console returns what the kernel printed since its boot.
func (g *machine) Console() string { return g.console.String() }

// Share writes a file that the guest finds under the returned path, and the host under SharePath.
func (g *machine) Share(name string, data []byte) string {
	g.t.Helper()
	if err := os.WriteFile(g.SharePath(name), data, 0o755); err != nil {
		g.t.Fatalf("lab: %v", err)
	}
	return "/run/lab/" + name
}

// SharePath is where the host finds the guest's file /run/lab/name. A guest's file is complete when the program that
// wrote it has closed it.
func (g *machine) SharePath(name string) string { return filepath.Join(g.share, name) }

// Result is how a command ended. Code is the exit code, or 128 plus the signal.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a shell command (bash) in the guest to its end. The error is about the lab or ctx; when ctx ends first, the
// command is killed. Safe for concurrent use.
func (g *machine) Run(ctx context.Context, command string) (Result, error) {
	p, err := g.control.start(g.t, g.name+": "+firstLine(command), proto.Command{Argv: []string{"bash", "-c", command}})
	if err != nil {
		return Result{}, err
	}
	_ = p.Stdin.Close()
	code, err := p.Wait(ctx)
	if err != nil {
		_ = p.signal(syscall.SIGKILL)
	}
	return Result{p.Stdout.String(), p.Stderr.String(), code}, err
}

// Sh runs a shell command in the guest and fails the test when it fails. It returns the standard output.
func (g *machine) Sh(format string, args ...any) string {
	g.t.Helper()
	command := fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	r, err := g.Run(ctx, command)
	return g.succeeded(command, r, err)
}

// succeeded returns what command wrote, and fails the test when it did not end well.
func (g *machine) succeeded(command string, r Result, err error) string {
	g.t.Helper()
	if err != nil || r.Code != 0 {
		g.t.Fatalf("%s: %s: exit %d, %v\n%s%s", g.name, command, r.Code, err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Start starts a program in the guest and leaves it running until it ends or the guest does.
func (g *machine) Start(argv ...string) *Proc {
	g.t.Helper()
	p, err := g.control.start(g.t, g.name+": "+strings.Join(argv, " "), proto.Command{Argv: argv})
	if err != nil {
		g.t.Fatalf("lab: %s: %v", g.name, err)
	}
	return p
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// console keeps what a guest's kernel printed.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.b.Len() > maxOutput {
		return len(b), nil
	}
	return c.b.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
