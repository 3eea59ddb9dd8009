//go:build linux

package lab

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// FRRPrograms is an FRR on this machine: how its daemons are started.
type FRRPrograms struct {
	Dir  string   // of the programs
	With []string // what is before the program: the dynamic loader of another Debian
	Args []string // what each daemon is told
}

func (f FRRPrograms) command(name string, args ...string) *exec.Cmd {
	argv := append(append(append([]string{}, f.With...), filepath.Join(f.Dir, name)), append(args, f.Args...)...)
	return exec.Command(argv[0], argv[1:]...)
}

// FRR runs daemons of FRR in a namespace. They end with the test.
type FRR struct {
	Programs FRRPrograms // Debian's package, unless changed
	Dir      string      // configuration and sockets

	t        testing.TB
	ns       *Namespace
	uid, gid int // what the daemons run as
}

// NewFRR makes ready for daemons of FRR in a namespace.
func NewFRR(t testing.TB, ns *Namespace) *FRR {
	t.Helper()
	f := &FRR{Programs: FRRPrograms{Dir: "/usr/lib/frr"}, t: t, ns: ns}
	RequireTool(t, filepath.Join(f.Programs.Dir, "zebra"), "frr")
	u, err := user.Lookup("frr")
	if err != nil {
		t.Fatal(err)
	}
	f.uid, _ = strconv.Atoi(u.Uid)
	f.gid, _ = strconv.Atoi(u.Gid)
	if f.Dir, err = os.MkdirTemp("", "frr"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(f.Dir) })
	f.own(f.Dir)
	return f
}

// own lets the daemons write into a directory: they give up root before they make their sockets.
func (f *FRR) own(dir string) {
	f.t.Helper()
	if err := os.Chown(dir, f.uid, f.gid); err != nil {
		f.t.Fatal(err)
	}
}

// Start starts a daemon with a configuration.
func (f *FRR) Start(name, conf string, extra ...string) *Proc {
	f.t.Helper()
	return f.start(f.Dir, name, conf, extra...)
}

// StartAlone is Start for one of several daemons of a name: without zebra, with a directory below Dir.
func (f *FRR) StartAlone(dir, name, conf string, extra ...string) *Proc {
	f.t.Helper()
	dir = filepath.Join(f.Dir, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.own(dir)
	return f.start(dir, name, conf, append([]string{"-Z"}, extra...)...)
}

func (f *FRR) start(dir, name, conf string, extra ...string) *Proc {
	f.t.Helper()
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return f.ns.StartCmd(f.Programs.command(name, append([]string{"-f", file, "-i", filepath.Join(dir, name+".pid"), "-z", filepath.Join(dir, "zserv.api"),
		"--vty_socket", dir, "-A", "127.0.0.1", "-P", "0", "-u", "frr", "-g", "frr", "--log", "stdout"}, extra...)...))
}

// Vty gives a daemon commands and returns what it says. It waits for the daemon; a command that fails fails the test.
func (f *FRR) Vty(daemon string, commands ...string) string {
	f.t.Helper()
	return f.VtyAlone("", daemon, commands...)
}

// VtyAlone is Vty for a daemon of StartAlone. As vtysh does it, each command ends with a zero, each answer with three
// zeros and the status.
func (f *FRR) VtyAlone(dir, daemon string, commands ...string) string {
	f.t.Helper()
	var c net.Conn
	var err error
	if _, ok := Until(Patience, func() bool {
		c, err = net.Dial("unix", filepath.Join(f.Dir, dir, daemon+".vty"))
		return err == nil
	}); !ok {
		f.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		f.t.Fatal(err)
	}
	var all, last []byte
	for _, command := range append([]string{"enable"}, commands...) {
		if _, err := c.Write(append([]byte(command), 0)); err != nil {
			f.t.Fatal(err)
		}
		last = last[:0]
		for buf := make([]byte, 4096); len(last) < 4 || !bytes.Equal(last[len(last)-4:len(last)-1], []byte{0, 0, 0}); {
			n, err := c.Read(buf)
			if err != nil {
				f.t.Fatalf("%s: %q: %v", daemon, command, err)
			}
			last = append(last, buf[:n]...)
		}
		if status := last[len(last)-1]; status != 0 {
			f.t.Fatalf("%s: %q: status %d: %s", daemon, command, status, last[:len(last)-4])
		}
		all = append(all, last[:len(last)-4]...)
	}
	return string(all)
}
