package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"midplane/internal/sys"
)

// Probe says whether this kernel has what the program needs; the error, of type *sys.UnsupportedError, names what it has
// not. Whether a device's driver has XDP shows when it is attached.
func Probe() error {
	for _, p := range []struct {
		feature, kernel string
		probe           func() error
	}{
		{"XDP (CONFIG_BPF_SYSCALL, CONFIG_NET)", "5.9", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"BPF arrays that can be mapped (BPF_F_MMAPABLE)", "5.5", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
		{"BPF maps of devices (BPF_MAP_TYPE_DEVMAP)", "4.14", func() error { return features.HaveMapType(ebpf.DevMap) }},
		{"BPF ring buffers (BPF_MAP_TYPE_RINGBUF)", "5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"BPF hash tables that forget (BPF_MAP_TYPE_LRU_HASH)", "4.10", func() error { return features.HaveMapType(ebpf.LRUHash) }},
	} {
		err := p.probe()
		switch {
		case err == nil:
		case errors.Is(err, ebpf.ErrNotSupported):
			return &sys.UnsupportedError{Feature: p.feature, MinKernel: p.kernel, Err: err}
		default:
			return fmt.Errorf("probe %s: %w (needs CAP_BPF and CAP_NET_ADMIN)", p.feature, err)
		}
	}
	return nil
}
