//go:build linux && amd64

package xdp

import (
	"testing"

	"midplane/internal/bpftest"
)

func TestObjectIsOfTheSources(t *testing.T) {
	bpftest.ObjectsAreOfTheSources(t, "xdp", "forward_x86_bpfel.o", "forward_x86_bpfel.go")
}
