package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/setfib"
)

// superviseVerb is the hidden word behind midplane fib by which exec calls this program again, for programs that are
// started without privileges.
const superviseVerb = "supervise"

// entering is the fibtool.Enterer of this host.
type entering struct{}

func (entering) Exec(_ context.Context, fib, port string, hostDNS bool, argv []string) error {
	b, err := binding.Find(binding.DefaultDir(), fib)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return setfib.Exec(b, argv, os.Environ(), setfib.Options{Port: port, HostDNS: hostDNS, Supervisor: []string{self, "fib", superviseVerb}})
}

func (entering) Identify(pid int) (string, error) {
	m, err := setfib.Identify(binding.DefaultDir(), pid)
	if errors.Is(err, setfib.ErrNone) {
		return "", nil
	}
	if err != nil || m.Name != "" {
		return m.Name, err
	}
	return fmt.Sprint(m.FIB), nil
}

func (entering) Pids(fib string) ([]int, error) {
	b, err := binding.Find(binding.DefaultDir(), fib)
	if err != nil {
		return nil, err
	}
	return setfib.Pids(binding.DefaultDir(), b)
}
