package setfib

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
)

// The test binary is the program that tests start in namespaces and guests: with one of these as first argument it is
// not a test.
//
//	fib-exec DIR FIB[:PORT] [host-dns] -- CMD…   Exec
//	fib-supervise ARGUMENT                       Supervise
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || !strings.HasPrefix(os.Args[1], "fib-") {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case "fib-exec":
		err = execMain(os.Args[2:])
	case "fib-supervise":
		err = Supervise(os.Args[2])
	default:
		err = toolMain(os.Args[1], os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
	os.Exit(0)
}

func execMain(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: fib-exec DIR FIB[:PORT] [host-dns] -- CMD…")
	}
	which, port, _ := strings.Cut(args[1], ":")
	b, err := binding.Find(args[0], which)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := Options{Dir: args[0], Port: port, HostDNS: args[2] == "host-dns", Supervisor: []string{self, "fib-supervise"}}
	for i, a := range args {
		if a == "--" {
			return Exec(b, args[i+1:], os.Environ(), o)
		}
	}
	return errors.New("no --")
}
