package setfib

import (
	"fmt"
	"runtime"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// abi is what the filter knows of a system call interface (linux/audit.h, arch/*/entry/syscalls).
type abi struct {
	arch, socket, uring uint32
	x32                 uint32   // from here on numbers are of x32, 0 where there is none
	compatArch          uint32   // of 32-bit programs
	compatDenied        []uint32 // socketcall, socket, io_uring_setup of these
}

var abis = map[string]abi{
	"amd64": {unix.AUDIT_ARCH_X86_64, 41, 425, 0x40000000, unix.AUDIT_ARCH_I386, []uint32{102, 359, 425}},
	"arm64": {unix.AUDIT_ARCH_AARCH64, 198, 425, 0, unix.AUDIT_ARCH_ARM, []uint32{102, 281, 425}},
}

// Offsets in struct seccomp_data (linux/seccomp.h); the lower halves of arguments come first on these machines.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
)

// local are the address families that carry nothing over the network by themselves, or only to neighbours: they are let be.
// Others that do over IP (SMC, RDS, RxRPC, KCM) are refused with EAFNOSUPPORT.
var local = []uint32{unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_TIPC, unix.AF_ALG, unix.AF_VSOCK}

// socketFilter is the filter of a supervised program: socket(2) of IPv4 and IPv6 is asked of the supervisor. io_uring is
// refused, as it opens sockets without system calls (Linux 5.19), and so are sockets of 32-bit programs.
func socketFilter() ([]unix.SockFilter, error) {
	m, ok := abis[runtime.GOARCH]
	if !ok {
		return nil, &sys.UnsupportedError{Feature: "a program in a FIB without privileges, on " + runtime.GOARCH}
	}
	code, err := bpf.Assemble(filterCode(m))
	if err != nil {
		return nil, fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	var l []unix.SockFilter
	for _, i := range code {
		l = append(l, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return l, nil
}

func filterCode(m abi) []bpf.Instruction {
	when := func(test bpf.JumpTest, value, then uint32) []bpf.Instruction {
		return []bpf.Instruction{bpf.JumpIf{Cond: test, Val: value, SkipFalse: 1}, bpf.RetConstant{Val: then}}
	}
	refuse := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}

	var compat []bpf.Instruction
	compat = append(compat, when(bpf.JumpNotEqual, m.compatArch, refuse(unix.ENOSYS))...)
	compat = append(compat, bpf.LoadAbsolute{Off: dataNumber, Size: 4})
	for _, nr := range m.compatDenied {
		compat = append(compat, when(bpf.JumpEqual, nr, refuse(unix.EPERM))...)
	}
	compat = append(compat, allow)

	c := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: m.arch, SkipTrue: uint8(len(compat))},
	}
	c = append(c, compat...)
	c = append(c, bpf.LoadAbsolute{Off: dataNumber, Size: 4})
	if m.x32 != 0 {
		c = append(c, when(bpf.JumpGreaterOrEqual, m.x32, refuse(unix.ENOSYS))...)
	}
	c = append(c, when(bpf.JumpEqual, m.uring, refuse(unix.ENOSYS))...)
	c = append(c, when(bpf.JumpNotEqual, m.socket, unix.SECCOMP_RET_ALLOW)...)
	c = append(c, bpf.LoadAbsolute{Off: dataArg0, Size: 4})
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		c = append(c, when(bpf.JumpEqual, family, unix.SECCOMP_RET_USER_NOTIF)...)
	}
	for _, family := range local {
		c = append(c, when(bpf.JumpEqual, family, unix.SECCOMP_RET_ALLOW)...)
	}
	return append(c, bpf.RetConstant{Val: refuse(unix.EAFNOSUPPORT)})
}
