//go:build linux

package bpflsm

import (
	"testing"

	"midplane/internal/bpftest"
)

func TestObjectIsOfTheSources(t *testing.T) {
	bpftest.ObjectsAreOfTheSources(t, "bpflsm", "lsm_bpfel.o", "lsm_bpfel.go")
}
