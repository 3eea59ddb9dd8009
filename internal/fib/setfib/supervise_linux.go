package setfib

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
	"midplane/internal/sys"
)

// A program that is started without privileges has a seccomp filter, which its children inherit: socket(2) of IPv4 and
// IPv6 is not done by the kernel but asked of the holder of the filter's file (seccomp(2), SECCOMP_RET_USER_NOTIF). This
// is a supervisor beside the program, which opens the socket, puts it into the FIB and hands it over. When it is
// killed, socket(2) fails with ENOSYS: nothing gets out of the FIB.

// Files that a supervisor inherits.
const (
	listenerFile = 3 // of the filter
	readyFile    = 4 // a pipe: an octet in it says that the supervisor is at work
)

// assignment is what a supervisor is told, as its last argument.
type assignment struct {
	Stage    bool            `json:"stage,omitempty"`    // run a job (see runStaged) instead
	Detached bool            `json:"detached,omitempty"` // it is no child of the program any more
	Binding  binding.Binding `json:"binding"`
	Port     string          `json:"port,omitempty"`
}

// supervise filters the calling thread, starts a supervisor, and returns the environment for the program.
func supervise(b binding.Binding, env []string, r rule, o Options) ([]string, error) {
	filter, err := socketFilter()
	if err != nil {
		return nil, err
	}
	port := o.Port
	if b.Backend == binding.Rules && port == "" {
		port = b.Ports[0] // there is one only
	}
	// Opened now for an error that says what is wrong with the FIB; later ones are seen by the program.
	if err := probe(b, port); err != nil {
		return nil, err
	}
	listener, err := installFilter(filter)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	started := make(chan error, 1)
	go func() { started <- startSupervisor(o.Supervisor, assignment{Binding: b, Port: port}, listener) }() // on a thread without the filter
	if err := <-started; err != nil {
		return nil, fmt.Errorf("fib %s: start the supervisor %s: %w", enter.Title(b), strings.Join(o.Supervisor, " "), err)
	}
	return append(withoutVariable(env), fmt.Sprintf("%s=%d", Variable, b.FIB)), nil
}

func withoutVariable(env []string) []string {
	var l []string
	for _, v := range env {
		if !strings.HasPrefix(v, Variable+"=") {
			l = append(l, v)
		}
	}
	return l
}

func probe(b binding.Binding, port string) error {
	fd, errno := openIn(b, port, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errno != nil {
		return errno
	}
	return unix.Close(fd)
}

func installFilter(filter []unix.SockFilter) (*os.File, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Once the supervisor has a question, only the end of the program ends its wait: it neither asks again nor loses the answer.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	switch errno {
	case 0:
		unix.CloseOnExec(int(fd))
		return os.NewFile(fd, "seccomp listener"), nil
	case unix.EBUSY:
		return nil, errors.New("this process has a seccomp supervisor already (it is in a FIB without privileges, or in a container that uses one), and the kernel allows one")
	case unix.EINVAL, unix.ENOSYS:
		return nil, &sys.UnsupportedError{Feature: "seccomp user notification with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", MinKernel: "5.19", Err: errno}
	}
	return nil, fmt.Errorf("seccomp: %w", errno)
}

// startSupervisor starts the supervisor, which starts itself once more so as not to be a child of the program, and
// waits until it is at work.
func startSupervisor(command []string, a assignment, listener *os.File) error {
	ready, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	err = runSupervisor(command, a, listener, report, true)
	_ = report.Close()
	if err != nil {
		return err
	}
	if n, err := ready.Read(make([]byte, 1)); n == 0 {
		return fmt.Errorf("it ended: %w", err)
	}
	return nil
}

func runSupervisor(command []string, a assignment, listener, report *os.File, wait bool) error {
	j, err := json.Marshal(a)
	if err != nil {
		return err
	}
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], string(j))...)
	cmd.ExtraFiles = []*os.File{listener, report} // listenerFile, readyFile
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if wait {
		return cmd.Run()
	}
	return cmd.Start()
}

// Supervise is what the command Options.Supervisor does, given the argument that Exec adds. It returns when the last
// process that it is there for has ended, or does not return because it has become the program.
func Supervise(argument string) error {
	var a assignment
	if err := json.Unmarshal([]byte(argument), &a); err != nil {
		return fmt.Errorf("the argument of a supervisor, which fib exec gives it: %w", err)
	}
	if a.Stage {
		return stage()
	}
	listener, report := os.NewFile(listenerFile, "seccomp listener"), os.NewFile(readyFile, "pipe")
	defer listener.Close()
	defer report.Close()
	if !a.Detached {
		a.Detached = true
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return runSupervisor(append([]string{self}, os.Args[1:len(os.Args)-1]...), a, listener, report, false)
	}
	unix.CloseOnExec(listenerFile)
	unix.CloseOnExec(readyFile)
	if _, err := report.Write([]byte{1}); err != nil {
		return err
	}
	_ = report.Close()
	return serve(int(listener.Fd()), a)
}

// Structures of linux/seccomp.h.
type (
	notification struct {
		id    uint64
		pid   uint32
		flags uint32
		nr    int32
		arch  uint32
		ip    uint64
		args  [6]uint64
	}
	answer struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}
	handOver struct {
		id       uint64
		flags    uint32
		fd       uint32
		newFD    uint32
		newFlags uint32
	}
)

// ioctlAddFD is SECCOMP_IOCTL_NOTIF_ADDFD.
const ioctlAddFD = 0x40182103

func serve(listener int, a assignment) error {
	for {
		p := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return err
		}
		if p[0].Revents&unix.POLLIN == 0 {
			if p[0].Revents&unix.POLLHUP != 0 {
				return nil // nobody has the filter any more
			}
			continue // POLLERR: a signal came while it waited for the filter's lock (kernel/seccomp.c:seccomp_notify_poll)
		}
		var n notification
		switch errno := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errno {
		case 0:
			reply(listener, n, a)
		case unix.EINTR, unix.ENOENT: // who asked was killed
		default:
			return errno
		}
	}
}

// reply opens a socket, puts it into the program, and then tells the program its number. These are two steps, because
// SECCOMP_ADDFD_FLAG_SEND, which does both in one, counts as answered when a signal interrupts the supervisor in it,
// though nothing was put: socket(2) would return 0 (kernel/seccomp.c, seccomp_notify_addfd and
// seccomp_do_user_notification). Without it, what is interrupted is done again.
func reply(listener int, n notification, a assignment) {
	r := answer{id: n.id}
	number, err := handOverSocket(listener, n, a)
	if err == nil {
		r.val = int64(number)
	} else {
		errno := unix.EACCES
		_ = errors.As(err, &errno)
		r.err = -int32(errno)
	}
	for ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) == unix.EINTR { // of the lock; else who asked may be gone
	}
}

// handOverSocket returns the number that the socket has in the program.
func handOverSocket(listener int, n notification, a assignment) (number int, err error) {
	kind := int(n.args[1])
	fd, err := openIn(a.Binding, a.Port, int(n.args[0]), kind|unix.SOCK_CLOEXEC, int(n.args[2]))
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	h := handOver{id: n.id, fd: uint32(fd)}
	if kind&unix.SOCK_CLOEXEC != 0 {
		h.newFlags = unix.O_CLOEXEC
	}
	for {
		got, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlAddFD, uintptr(unsafe.Pointer(&h)))
		if errno == 0 {
			return int(got), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func ioctl(fd int, request uintptr, p unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p))
	return errno
}

// openIn opens a socket in a FIB for a program. Raw sockets are refused: the supervisor might be allowed to open them
// (file capabilities) where the program is not.
func openIn(b binding.Binding, port string, domain, kind, protocol int) (int, error) {
	switch base := kind &^ (unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK); {
	case base != unix.SOCK_STREAM && base != unix.SOCK_DGRAM && base != unix.SOCK_SEQPACKET:
		return -1, unix.EPERM
	case protocol == ipprotoMPTCP: // its further subflows would not be in the FIB
		return -1, unix.EPROTONOSUPPORT
	}
	fd, err := unix.Socket(domain, kind, protocol)
	if err != nil {
		return -1, err
	}
	if err := enter.Socket(b, port, fd, netip.Addr{}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
