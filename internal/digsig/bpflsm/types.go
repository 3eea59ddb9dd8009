package bpflsm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"midplane/internal/digsig/envelope"
)

// Mode says what the programs do.
type Mode uint8

// The modes.
const (
	Off        Mode = iota // nothing, as if they were not attached
	Permissive             // they count and report what Enforce would deny
	Enforce                // they deny
)

// String returns the name.
func (m Mode) String() string { return name([]string{"off", "permissive", "enforce"}, m) }

func name[T ~uint8](names []string, n T) string {
	if int(n) < len(names) {
		return names[n]
	}
	return strconv.Itoa(int(n))
}

// Policy is what an administrator chooses. The zero value is off.
type Policy struct {
	Mode      Mode
	Anonymous bool // memory that is no file's never becomes executable: no just-in-time compiler works
	Modules   bool // kernel modules, and kernels for kexec, must be files whose grant has the role module
	Guard     bool // the maps and pins are for managers only
	Ptrace    bool // no process attaches to another, or lets itself be attached to
}

// Kind says what vouches for a file's content.
type Kind uint8

// The kinds.
const (
	None    Kind = iota
	Verity       // fs-verity
	Content      // user space read it
	Pending      // user space is reading it
)

// String returns the name.
func (k Kind) String() string { return name([]string{"none", "fs-verity", "content", "pending"}, k) }

// Digest names a content: with Verity by the SHA-256 digest of fs-verity, with Content by what user space calls it, which
// is the SHA-256 of a signed statement.
type Digest struct {
	Kind Kind // Verity or Content
	Sum  [32]byte
}

// String returns the kind and the digest in hexadecimal.
func (d Digest) String() string { return d.Kind.String() + ":" + hex.EncodeToString(d.Sum[:]) }

// Grant allows a content for some roles.
type Grant struct {
	Digest
	Roles   envelope.Role
	Manager bool // processes that run it may change what is guarded
}

// managerRole is the bit of Grant.Manager.
const managerRole = 1 << 30

func (g Grant) bits() uint32 {
	bits := uint32(g.Roles)
	if g.Manager {
		bits |= managerRole
	}
	return bits
}

// Reason is why something is denied.
type Reason uint8

// The reasons. What else denied has one above them.
const (
	OK        Reason = iota
	NoVerdict        // the file has no fs-verity, and user space gave no verdict
	Undecided        // user space is reading it
	Unknown          // its digest is not granted anything
	Stale            // what it was granted is of a generation that counts no more
	RoleLacks        // it is granted other roles
	Algorithm        // its fs-verity is not by SHA-256
	Writers          // somebody has it open for writing
	Anonymous        // the memory is no file's
	NoFile           // a module or kernel that comes from memory
	Guarded          // for managers only, or forbidden to all
	Remote           // others than this kernel can change the file
	Left             // no denial: it is on an overlay whose layers fanotify watches, and that decides

	reasons = 16 // room in the counters for each hook
)

var reasonNames = []string{
	"allowed", "no verdict", "undecided", "unknown digest", "stale", "role lacks", "algorithm", "writers", "anonymous memory", "no file", "guarded", "remote", "left to fanotify",
}

// String returns the reason in words.
func (r Reason) String() string { return name(reasonNames, r) }

// Hook is where something is decided.
type Hook uint8

// The hooks.
const (
	Check    Hook = iota // AT_EXECVE_CHECK
	Exec                 // the file that is executed
	Interp               // the program that a #! line or binfmt_misc names
	Map                  // a mapping with PROT_EXEC
	Protect              // a mapping that becomes executable
	Module               // a kernel module
	Kexec                // a kernel to boot
	StateMap             // a descriptor of a map of the gate
	StatePin             // a pin of the gate
	Ptrace               // another process's memory

	hooks = 16
)

var hookNames = []string{"check", "exec", "interp", "mmap", "mprotect", "module", "kexec", "map", "pin", "ptrace"}

// String returns the name.
func (h Hook) String() string { return name(hookNames, h) }

// Denial is one thing that was denied or, with Permissive, would have been.
type Denial struct {
	Since   time.Duration // of CLOCK_MONOTONIC
	Hook    Hook
	Reason  Reason
	Mode    Mode
	Digest  Digest        // zero with NoVerdict, Undecided, Anonymous, NoFile, Guarded
	Roles   envelope.Role // granted
	Need    envelope.Role // one of these
	PID     int           // of the process, in the first PID namespace
	Parent  int
	UID     uint32
	Command string
	Cgroup  uint64 // inode number of the cgroup's directory
	Device  uint64 // as in stat(2); with Inode zero for what is no file's
	Inode   uint64
	Path    string // as the process sees it; empty when it is longer than 255 octets, or the hook cannot tell
}

// Counters say how often each reason was given at each hook since the gate was made.
type Counters [hooks][reasons]uint64

// Denied is the sum of all but OK and Left.
func (c *Counters) Denied() (n uint64) {
	for h := range c {
		for r, v := range c[h] {
			if Reason(r) != OK && Reason(r) != Left {
				n += v
			}
		}
	}
	return n
}

// Status is what a gate is doing.
type Status struct {
	Policy     Policy
	Generation uint64 // grants of a lower one count no more
	Grants     int
	Counters   Counters
	Lost       uint64 // denials that nobody fetched in time, and that are in the counters only
}

// Errors.
var (
	// ErrNotAttached says that there is no gate under the directory.
	ErrNotAttached = errors.New("bpflsm: no programs are attached")
	// ErrBusy says that somebody has a file open for writing, so that no verdict about it would hold.
	ErrBusy = errors.New("bpflsm: the file is open for writing")
	// ErrChanged says that a file was opened for writing while it was read.
	ErrChanged = errors.New("bpflsm: the file was opened for writing since it was read")
)

// LockoutError says that a policy would keep the program that sets it from running again.
type LockoutError struct {
	Program string
	Lack    string
}

// Error says what lacks.
func (e *LockoutError) Error() string {
	return fmt.Sprintf("bpflsm: with this policy %s could not run again to change it: %s", e.Program, e.Lack)
}
