// Package setfib runs unmodified programs in FIBs, as setfib(1) of FreeBSD and ip-vrf(8) do, and tells which processes
// are in which.
//
// How a program is put into a FIB depends on the FIB's back end, and on what the caller may do:
//
//	back end  means                                                            needs
//	vrf       a cgroup whose BPF program binds each socket to the VRF device   CAP_BPF, CAP_NET_ADMIN, a writable cgroup
//	rules     the same with mark and port, and filters of what comes and goes  the same
//	netns     the FIB's network namespace                                      CAP_SYS_ADMIN
//	vrf,      without privileges: a supervisor opens the program's sockets     Linux 5.19
//	rules     (seccomp user notification)
//
// Children inherit it in each case, whatever they execute. A program that has the privileges to leave (root, mostly)
// can; this is for keeping well-meaning programs apart, not for prisons.
package setfib

import (
	"fmt"
	"strconv"
	"strings"
)

// Options say how Exec works. The zero value is good.
type Options struct {
	// Dir is where the record of FIBs is, and where resolv.conf files are kept; default binding.DefaultDir().
	Dir string
	// Port binds the program's sockets to one port of a FIB of back end rules that has several. Without it, programs in
	// such a FIB can bind sockets to the addresses of its ports, but not to all addresses at once.
	Port string
	// HostDNS lets the program use the host's name servers, through the FIB, when the FIB has others.
	HostDNS bool
	// Supervisor is the command that calls Supervise, to which Exec adds arguments. It runs beside programs that are started without
	// privileges. Without it these are not started.
	Supervisor []string
}

// MissingError says what the caller lacks to run a program in a FIB.
type MissingError struct {
	FIB     string   // name or number
	Missing []string // what is missing, and why it is needed
	Err     error    // the first refusal of the kernel
}

// Error lists what is missing.
func (e *MissingError) Error() string {
	return fmt.Sprintf("fib %s: cannot run a program in it: %v; missing: %s", e.FIB, e.Err, strings.Join(e.Missing, "; "))
}

// Unwrap returns the kernel's error.
func (e *MissingError) Unwrap() error { return e.Err }

// How says by what a process is known to be in a FIB.
type How string

// Means of identification.
const (
	ByCgroup     How = "cgroup"     // it is in the FIB's cgroup
	ByNetns      How = "netns"      // it is in the FIB's network namespace
	ByVRFCgroup  How = "ip-vrf"     // ip vrf exec put it there
	BySupervisor How = "supervisor" // it was started without privileges; known by its environment and its filter
)

// Membership is the FIB that a process is in.
type Membership struct {
	FIB  uint32
	Name string // "" if the FIB has none, or is not set up any more
	How  How
}

// Variable is set in the environment of programs that run without privileges, to the FIB's number.
const Variable = "MIDPLANE_FIB"

// groupDir is the directory below the caller's cgroup that has the cgroups of FIBs.
const groupDir = "midplane-fib"

// group is the cgroup of the programs in a FIB, or at one port of it. FIBs are set up in a network namespace, and another
// one may have a FIB of the same number.
type group struct {
	fib   uint32
	netns uint64 // inode of the network namespace
	port  string
}

// String is the name of the cgroup: 10@4026531840, or 10@4026531840:eth1. No device has a colon in its name
// (net/core/dev.c, dev_valid_name).
func (g group) String() string {
	name := fmt.Sprintf("%d@%d", g.fib, g.netns)
	if g.port != "" {
		name += ":" + g.port
	}
	return name
}

// parseGroup is the inverse of String.
func parseGroup(name string) (group, bool) {
	numbers, port, _ := strings.Cut(name, ":")
	id, ns, _ := strings.Cut(numbers, "@")
	fib, err1 := strconv.ParseUint(id, 10, 32)
	netns, err2 := strconv.ParseUint(ns, 10, 64)
	return group{uint32(fib), netns, port}, err1 == nil && err2 == nil && fib > 0
}

// splitGroup takes a path of the cgroup hierarchy apart: what it is below of, and the name of the FIB's cgroup that it
// is, or is in; "" if it is in none.
func splitGroup(path string) (base, name string) {
	before, after, found := strings.Cut(path+"/", "/"+groupDir+"/")
	if !found {
		return path, ""
	}
	name, _, _ = strings.Cut(after, "/")
	if before == "" {
		before = "/"
	}
	return before, name
}

// vrfGroup returns the device whose cgroup of ip-vrf(8) (…/vrf/NAME) a path is in.
func vrfGroup(path string) string {
	path += "/"
	if i := strings.LastIndex(path, "/vrf/"); i >= 0 {
		device, _, _ := strings.Cut(path[i+len("/vrf/"):], "/")
		return device
	}
	return ""
}

// BusyError says that a FIB cannot be removed because processes are in it.
type BusyError struct {
	FIB  uint32
	Pids []int
}

// Error lists the processes.
func (e *BusyError) Error() string {
	return fmt.Sprintf("fib %d: processes %v are in it", e.FIB, e.Pids)
}
