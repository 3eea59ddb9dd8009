package cli_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"midplane/internal/cli"
)

func TestMain(m *testing.M) {
	run := func() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
	testscript.Main(m, map[string]func(){"midplane": run, "tipc": run})
}

// Scripts run the program itself, as separate processes, against daemons on loopback.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// Two UDP ports that are free now; each script gets its own.
			for _, name := range []string{"PORT1", "PORT2"} {
				c, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				defer c.Close()
				e.Setenv(name, fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port))
			}
			// Unix sockets have short names: not below $WORK.
			dir, err := os.MkdirTemp("", "mp")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("S", dir)
			bsign, err := filepath.Abs("../digsig/bsign/testdata")
			if err != nil {
				return err
			}
			e.Setenv("BSIGN", bsign)
			e.Setenv("MIDPLANE_CONTROL", dir+"/a")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitCode,
			"waitfor":  waitFor,
			"damage":   damage,
			"appendto": appendTo,
		},
	})
}

// waitFor waits until something answers at a Unix socket, or a file has a text: waitfor SOCKET, or waitfor FILE TEXT.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: waitfor SOCKET, or waitfor FILE TEXT")
	}
	there := func() error {
		if len(args) == 2 {
			b, err := os.ReadFile(ts.MkAbs(args[0]))
			if err == nil && !strings.Contains(string(b), args[1]) {
				err = fmt.Errorf("%s has %q, want %q", args[0], b, args[1])
			}
			return err
		}
		c, err := net.Dial("unix", args[0])
		if err == nil {
			c.Close()
		}
		return err
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := there()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%v", err)
		}
	}
}

// exitCode runs a command and compares its exit code: exitcode N COMMAND...
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N COMMAND ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		ee, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = ee.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// damage copies a file and flips a bit in the middle of the copy: damage FROM TO.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FROM TO")
	}
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o755))
}

// appendTo adds a line to a file: appendto FILE TEXT.
func appendTo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: appendto FILE TEXT")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(args[1] + "\n")
	ts.Check(errors.Join(err, f.Close()))
}
