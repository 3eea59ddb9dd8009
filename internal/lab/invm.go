//go:build linux

package lab

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// inVMVariable marks the test binary that InVM runs in the guest.
const inVMVariable = "MIDPLANE_IN_VM"

// vmTestPatience bounds what InVM runs.
const vmTestPatience = 6 * time.Minute

// InVM runs f in a VM of its own: it boots the VM and runs this very test binary there, with this very test and no other.
// So f sees nothing that the test did before, only the guest: its kernel, /dev/vda and so on. The guest's output is
// the test's log, and a failure there is one here. What f leaves behind goes with the VM.
//
// disks is called on the host only, for the image files of the VM.
func InVM(t *testing.T, c VMConfig, disks func() []string, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inVMVariable) != "" {
		f(t)
		return
	}
	RequireVM(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	if disks != nil {
		c.Disks = append(c.Disks, disks()...)
	}
	v := NewVM(t, c)
	p := v.Start("env", "-C", wd, inVMVariable+"=1", exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	ctx, cancel := context.WithTimeout(t.Context(), vmTestPatience)
	defer cancel()
	for {
		line, err := p.Stdout.Line(ctx)
		if err != nil {
			break // Wait says why
		}
		if line != "PASS" && !strings.HasPrefix(line, "=== ") {
			t.Log(line)
		}
	}
	code, err := p.Wait(ctx)
	if s := p.Stderr.String(); s != "" {
		t.Log(tail(s))
	}
	switch {
	case err != nil:
		t.Fatalf("lab: in the VM: %v", err)
	case code != 0:
		t.Fatalf("lab: in the VM: exit %d", code)
	case !strings.Contains(p.Stdout.String(), "--- PASS: "+t.Name()):
		t.Fatal("lab: in the VM: the test did not run")
	}
}
