package lab

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// User-Mode Linux 6.1 moves the floating point state of its processes with PTRACE_GETREGSET and PTRACE_SETREGSET, by way
// of a buffer of 2,696 octets. With AMX the state of the host has 11 kB, and the host takes it as a whole only: the first
// process of a guest dies ("ptrace set fp regs failed"). When the first call fails, UML does with PTRACE_SETFPREGS, which
// is always of the same size. So on such machines guests run under a filter that has it fail.

// bigFPState reports whether guests need the filter.
func bigFPState() bool { return cpu.X86.HasAMXTile }

// smallFPEnv is for process 1 of a guest, by way of the kernel's command line, what the agent's environment is for the
// others: the upper halves of the vector registers are not kept apart for the threads of a process.
var smallFPEnv = []string{"GODEBUG=asyncpreemptoff=1,cpu.all=off"}

// refuseXState has the request for the extended state fail, for the calling thread and all that it starts. There is no
// way back: the thread ends with the calling goroutine.
func refuseXState() error {
	runtime.LockOSThread()
	const nrOff, archOff, arg0Off, arg2Off = 0, 4, 16, 32 // of struct seccomp_data
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	orAllow := func(k uint32, rest uint8) unix.SockFilter { // goes on if equal
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: rest, K: k}
	}
	prog := []unix.SockFilter{
		load(archOff), orAllow(unix.AUDIT_ARCH_X86_64, 7),
		load(nrOff), orAllow(unix.SYS_PTRACE, 5),
		load(arg0Off), orAllow(unix.PTRACE_GETREGSET, 3),
		load(arg2Off), orAllow(unix.NT_X86_XSTATE, 1),
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
