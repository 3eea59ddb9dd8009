// Package enter puts sockets into FIBs: what a binding says, done to one socket. Dialers and listeners of package fib use
// it, and the supervisor of programs that run in a FIB without privileges.
package enter

import (
	"fmt"

	"midplane/internal/fib/binding"
)

// PrivilegeError says that the kernel refused to put a socket or a process into a FIB for want of a privilege.
// errors.Is(err, fs.ErrPermission) is true for it when the kernel's error was one of permission.
type PrivilegeError struct {
	FIB  string // name or number
	Op   string // what was tried, such as "bind a socket to device eth1"
	Need string // the capability, and whatever else would do
	Why  string // what it is needed for
	Err  error  // the kernel's
}

// Error names the privilege and the reason.
func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("fib %s: %s: %v; this needs %s: %s", e.FIB, e.Op, e.Err, e.Need, e.Why)
}

// Unwrap returns the kernel's error.
func (e *PrivilegeError) Unwrap() error { return e.Err }

// PortError says that a FIB of back end rules has no port that a socket could be bound to.
type PortError struct {
	FIB  string
	Port string // the port that was asked for, "" for any
	Want string
}

// Error implements error.
func (e *PortError) Error() string {
	if e.Port == "" {
		return fmt.Sprintf("fib %s: no port: want %s", e.FIB, e.Want)
	}
	return fmt.Sprintf("fib %s: port %q: want %s", e.FIB, e.Port, e.Want)
}

// Title is how messages call a FIB: its name or, without one, its number.
func Title(b binding.Binding) string {
	if b.Name != "" {
		return b.Name
	}
	return fmt.Sprint(b.FIB)
}
