//go:build unix

package aem_test

import (
	"os"
	"syscall"
	"testing"

	"midplane/aem"
)

func TestSignals(t *testing.T) {
	l := newLoop(t, "stdnet")
	e, sigs := watch(t, l, aem.Signals(syscall.SIGUSR1, syscall.SIGWINCH), aem.EventConfig{})
	self, err := os.FindProcess(os.Getpid())
	must(t, err)
	must(t, self.Signal(syscall.SIGUSR1))
	if s := recv(t, sigs); s != syscall.SIGUSR1 {
		t.Fatal(s)
	}
	must(t, self.Signal(syscall.SIGWINCH))
	if s := recv(t, sigs); s != syscall.SIGWINCH {
		t.Fatal(s)
	}
	must(t, e.Shutdown())
}
