package setfib

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestSocketFilter(t *testing.T) {
	const allow, notify = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF
	refuse := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
	for machine, m := range abis {
		vm, err := bpf.NewVM(filterCode(m))
		if err != nil {
			t.Fatal(machine, err)
		}
		type call struct {
			arch, nr, arg0 uint32
			want           uint32
		}
		calls := []call{
			{m.arch, m.socket, unix.AF_INET, notify}, {m.arch, m.socket, unix.AF_INET6, notify},
			{m.arch, m.socket, unix.AF_UNIX, allow}, {m.arch, m.socket, unix.AF_NETLINK, allow}, {m.arch, m.socket, unix.AF_PACKET, allow}, {m.arch, m.socket, unix.AF_TIPC, allow},
			{m.arch, m.socket, unix.AF_SMC, refuse(unix.EAFNOSUPPORT)}, {m.arch, m.socket, unix.AF_RDS, refuse(unix.EAFNOSUPPORT)}, {m.arch, m.socket, 0, refuse(unix.EAFNOSUPPORT)},
			{m.arch, m.uring, 8, refuse(unix.ENOSYS)},
			{m.arch, 0, unix.AF_INET, allow}, {m.arch, m.socket + 1, unix.AF_INET, allow}, {m.arch, 500, 0, allow},
			{m.compatArch, 1, 0, allow},
			{unix.AUDIT_ARCH_PPC64, m.socket, unix.AF_UNIX, refuse(unix.ENOSYS)},
		}
		for _, nr := range m.compatDenied {
			calls = append(calls, call{m.compatArch, nr, unix.AF_INET, refuse(unix.EPERM)})
		}
		if m.x32 != 0 {
			calls = append(calls, call{m.arch, m.x32 + m.socket, unix.AF_INET, refuse(unix.ENOSYS)}, call{m.arch, 0xffffffff, 0, refuse(unix.ENOSYS)})
		}
		for _, c := range calls {
			data := make([]byte, 64) // as the VM loads it, in network order
			binary.BigEndian.PutUint32(data[dataNumber:], c.nr)
			binary.BigEndian.PutUint32(data[dataArch:], c.arch)
			binary.BigEndian.PutUint32(data[dataArg0:], c.arg0)
			got, err := vm.Run(data)
			if err != nil || uint32(got) != c.want {
				t.Errorf("%s: system call %d of %#x, first argument %d: %#x, %v; want %#x", machine, c.nr, c.arch, c.arg0, got, err, c.want)
			}
		}
	}
}
