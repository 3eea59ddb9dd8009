package enter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/sys"
)

// Socket puts a socket that is neither bound nor connected into a FIB. port is one of the binding's ports when the
// socket shall be bound to this one, which back end rules needs of sockets that listen; else "". to is where the socket
// is going to be connected to, the zero Addr if that is not known.
//
// What each back end does: vrf binds to the VRF device (SO_BINDTODEVICE; unprivileged since Linux 5.7, net/core/sock.c
// sock_bindtoindex_locked); rules sets the mark and binds to the port if the FIB has one only or port says so, and a
// socket that is bound needs no mark, as the rule by device routes it; netns puts a new socket of the namespace, with
// the options that package net sets, in the place of fd.
func Socket(b binding.Binding, port string, fd int, to netip.Addr) error {
	switch b.Backend {
	case binding.VRF:
		return bindTo(b, fd, b.Device)
	case binding.Rules:
		return byRules(b, port, fd, to)
	case binding.Netns:
		return replace(b, fd)
	}
	return &sys.UnsupportedError{Feature: fmt.Sprintf("back end %q of FIB %s", b.Backend, Title(b))}
}

func byRules(b binding.Binding, port string, fd int, to netip.Addr) error {
	switch {
	case len(b.Ports) == 0:
		return &PortError{Title(b), port, "a FIB with a port; give it one with: midplane fib port add"}
	case port == "" && len(b.Ports) == 1:
		port = b.Ports[0]
	case port != "" && !slices.Contains(b.Ports, port):
		return &PortError{Title(b), port, fmt.Sprintf("one of %q", b.Ports)}
	}
	marked := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(b.Mark))
	if port != "" {
		return bindTo(b, fd, port)
	}
	if marked == nil {
		return nil
	}
	if to.IsValid() {
		// Without the mark the socket is bound to the port that the FIB's route leads to now.
		device, err := RoutePort(b, to)
		if err != nil {
			return err
		}
		return bindTo(b, fd, device)
	}
	return &PrivilegeError{Title(b), fmt.Sprintf("mark a socket with %d", b.Mark), "CAP_NET_RAW (Linux 5.17; before, CAP_NET_ADMIN)",
		"the FIB has several ports, and ip rules tell its sockets by their mark", marked}
}

func bindTo(b binding.Binding, fd int, device string) error {
	err := unix.BindToDevice(fd, device)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return &PrivilegeError{Title(b), "bind a socket to device " + device, "CAP_NET_RAW, or Linux 5.7 for a socket that is not bound yet",
			"back end " + string(b.Backend) + " keeps the sockets of FIBs apart by device", err}
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("fib %s: its device %s is not in this network namespace: %w", Title(b), device, err)
	}
	return fmt.Errorf("fib %s: bind a socket to device %s: %w", Title(b), device, err)
}

// InNetns runs f on a thread that is in the network namespace of a FIB of back end netns. Sockets that f opens stay in
// it. f must not start goroutines that open others.
func InNetns(b binding.Binding, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer own.Close()
		if err := EnterNetns(b); err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err = f()
		// A thread that cannot go back ends with its goroutine, as it is not unlocked.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// EnterNetns moves the calling thread, which the caller has locked, into the FIB's network namespace.
func EnterNetns(b binding.Binding) error {
	f, err := os.Open(b.Netns)
	if err != nil {
		return fmt.Errorf("fib %s: its network namespace: %w", Title(b), err)
	}
	defer f.Close()
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return &PrivilegeError{Title(b), "enter network namespace " + b.Netns, "CAP_SYS_ADMIN, here and in the user namespace that owns the network namespace",
			"back end netns keeps FIBs apart by network namespaces (setns(2))", err}
	}
	return fmt.Errorf("fib %s: enter network namespace %s: %w", Title(b), b.Netns, err)
}

// carried are the options that package net sets on a socket before its Control functions see it (net/sockopt_linux.go,
// net/sockopt_posix.go).
var carried = [][2]int{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_BROADCAST}, {unix.SOL_IPV6, unix.IPV6_V6ONLY},
	{unix.SOL_SOCKET, unix.SO_MARK}, {unix.SOL_SOCKET, unix.SO_REUSEPORT},
}

// replace makes fd a socket of the same kind in the FIB's namespace.
func replace(b binding.Binding, fd int) error {
	var kind [3]int
	for i, o := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o)
		if err != nil {
			return fmt.Errorf("fib %s: what kind of socket: %w", Title(b), err)
		}
		kind[i] = v
	}
	other := -1
	err := InNetns(b, func() (err error) {
		other, err = unix.Socket(kind[0], kind[1]|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, kind[2])
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(other)
	for _, o := range carried {
		v, err := unix.GetsockoptInt(fd, o[0], o[1])
		if err != nil {
			continue // not an option of this kind of socket
		}
		if w, err := unix.GetsockoptInt(other, o[0], o[1]); err == nil && w == v {
			continue
		}
		if err := unix.SetsockoptInt(other, o[0], o[1], v); err != nil {
			return fmt.Errorf("fib %s: carry option %d over: %w", Title(b), o[1], err)
		}
	}
	if err := unix.Dup3(other, fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("fib %s: put the namespace's socket in place: %w", Title(b), err)
	}
	return nil
}
