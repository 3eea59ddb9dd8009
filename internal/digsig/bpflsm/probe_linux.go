package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// Probe says whether this kernel has what the programs need; the error, of type *sys.UnsupportedError, names what it has
// not.
func Probe() error {
	lack := func(feature, kernel string, err error) error {
		return &sys.UnsupportedError{Feature: feature, MinKernel: kernel, Err: err}
	}
	if b, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil {
		if !strings.Contains(","+strings.TrimSpace(string(b))+",", ",bpf,") {
			return lack("BPF LSM (boot with lsm="+strings.TrimSpace(string(b))+",bpf)", "", nil)
		}
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return lack("type information of the kernel (CONFIG_DEBUG_INFO_BTF=y)", "", err)
	}
	var digest *btf.Func
	if err := spec.TypeByName("bpf_get_fsverity_digest", &digest); err != nil {
		return lack("fs-verity digests for BPF programs (CONFIG_FS_VERITY=y)", "6.8", err)
	}
	if err := features.HaveProgramType(ebpf.LSM); err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) {
			return lack("BPF LSM programs (CONFIG_BPF_LSM=y)", "5.7", err)
		}
		return fmt.Errorf("probe BPF LSM: %w (needs CAP_BPF, CAP_PERFMON and CAP_MAC_ADMIN)", err)
	}
	return nil
}

// needBPFFS says whether dir lies in a bpffs.
func needBPFFS(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("bpflsm: %s: %w (mount -t bpf bpf /sys/fs/bpf)", dir, err)
	}
	if uint32(s.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("bpflsm: %s is not in a bpffs (mount -t bpf bpf /sys/fs/bpf)", dir)
	}
	return nil
}
