//go:build linux && amd64

package xdp

import (
	"net"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// passProgram lets everything by. A veth takes redirected frames only if it has a native program.
func passProgram() *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "BSD", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	}
}

// attachTo attaches a program to a device of this namespace until the test ends.
func attachTo(t testing.TB, p *ebpf.Program, device string) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: i.Index, Flags: link.XDPDriverMode})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

// checksumsInSoftware makes a veth compute the checksums of what it sends: a frame that is redirected by XDP carries no
// note that somebody else is to do so (ethtool -K DEVICE tx off).
func checksumsInSoftware(device string) error {
	const siocEthtool, setTxChecksum = 0x8946, 0x17 // linux/sockios.h, linux/ethtool.h
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	value := struct{ cmd, data uint32 }{setTxChecksum, 0}
	var req struct {
		name [16]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:], device)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocEthtool, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
