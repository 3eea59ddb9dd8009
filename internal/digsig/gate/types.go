package gate

import (
	"errors"
	"fmt"
	"time"
)

// Key names a file for as long as a descriptor of it is open: only then is an inode number not given to another.
type Key struct{ Dev, Ino uint64 }

// ID names one question: a descriptor number of one fanotify group. It is unique until the answer is given and the
// descriptor closed.
type ID struct {
	Group uint8
	FD    int32
}

// Op is what a task is about to do with a file.
type Op uint8

// The operations that the kernel asks about.
const (
	OpExec Op = iota // FAN_OPEN_EXEC_PERM: execve(2) of the file, of its interpreter or loader, or AT_EXECVE_CHECK
	OpOpen           // FAN_OPEN_PERM: any open(2), and the second event of an execve(2)
)

// Class is what the first octets of a file say that it is.
type Class uint8

// The classes that differ for a verdict. The first two are read, the others are loaded.
const (
	ClassData   Class = iota // nothing that the kernel or a loader runs
	ClassScript              // begins with #!
	ClassELF                 // an ELF program or shared object
	ClassLoader              // an ELF loader: a shared object with an entry and a name, and no interpreter of its own
)

// Loaded says whether opening a file of the class is the first step of loading it.
func (c Class) Loaded() bool { return c >= ClassELF }

// Uses is a set of what a file may be used for.
type Uses uint8

// The uses.
const (
	MayExec   Uses = 1 << iota // be executed
	MayInterp                  // be the loader or interpreter of what is executed
	MayLib                     // be opened by who could map it
	MayScript                  // be run through #!, or read by an interpreter
	MayCheck                   // pass AT_EXECVE_CHECK
	MayRead                    // be read, though it is protected
)

// Pin says what keeps the content of a file as it was verified.
type Pin uint8

// The pins.
const (
	PinNone      Pin = iota // nothing: a network or user-space file system, or one without leases
	PinWriter               // nothing: it is open for writing
	PinLease                // a read lease is held
	PinImmutable            // it cannot be written: fs-verity, or a file system that has no writing
)

// Mode is what becomes of a verdict.
type Mode uint8

// The modes.
const (
	Enforce    Mode = iota // what is not allowed is denied
	Permissive             // everything is allowed; what would be denied is reported
	Learn                  // as Permissive, and reported for signing
)

// String names the mode as the command line does.
func (m Mode) String() string {
	switch m {
	case Enforce:
		return "enforce"
	case Permissive:
		return "permissive"
	case Learn:
		return "learn"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Why is the reason for an answer, as far as the gate knows it; what is wrong with the content the driver knows.
type Why uint8

// The reasons.
const (
	WhyVerdict   Why = iota // what the verdict on the content says
	WhyData                 // nothing to verify
	WhyExempt               // the subject may read what others may not load
	WhyWriter               // the content has a writer
	WhyUnpinned             // the content cannot be pinned
	WhyPatience             // verification took too long
	WhyBusy                 // too many questions at once
	WhyForgotten            // the driver could not read the file
)

// String says it in words.
func (w Why) String() string {
	switch w {
	case WhyVerdict:
		return "verdict"
	case WhyData:
		return "not executable content"
	case WhyExempt:
		return "exempt subject"
	case WhyWriter:
		return "open for writing"
	case WhyUnpinned:
		return "content on this file system can change unseen"
	case WhyPatience:
		return "verification took too long"
	case WhyBusy:
		return "too many verifications at once"
	case WhyForgotten:
		return "unreadable"
	}
	return fmt.Sprintf("reason %d", uint8(w))
}

// Request is one permission event.
type Request struct {
	ID    ID
	Key   Key
	Op    Op
	Class Class
	Task  int32 // process that waits
	Size  int64

	Guarded bool // of an open: a rule of the policy may want more than the content's class does; the subject decides
	Aliased bool // the file may have names to which other rules apply, so no mark can stand for them all
}

// Result is the end of a verification, of a judgement on content that is known, or of a Hold.
type Result struct {
	Key        Key
	Job        uint64 // that of the action
	Class      Class  // as read under the pin
	Then       Key    // of a script: its interpreter, zero when unknown
	Uses       Uses   // what it may be used for
	Generation uint64 // under which this was judged
	Pin        Pin
	Failed     bool // nothing could be read; Uses is void
}

// Subject is what the driver found out about who asks.
type Subject struct {
	ID     ID
	Exempt bool // may read what it may not load: an archiver, a compiler, a debugger
	Want   Uses // of a guarded open: the uses of which one must be allowed; none: nothing is wanted
}

// Kind is what an Action asks of the driver.
type Kind uint8

// The actions. Each that names a key is about the descriptor that the driver keeps for it.
const (
	Answer  Kind = iota // answer ID with Allow; its descriptor goes, unless it is the one kept for a key
	Verify              // keep ID's descriptor for Key, pin it, read it, and Handle a Result; Cancel may follow
	Judge               // judge Key's known content again, without reading, and Handle a Result
	Cancel              // stop verifying Key: its Result is no longer waited for
	Ask                 // find out about ID's subject and Handle it with Subject
	Mark                // set Key's ignore mark for Exec and Open as given
	Unmark              // remove Key's ignore mark
	Flush               // remove every ignore mark
	Release             // release Key's lease and close its descriptor
	Hold                // keep ID's descriptor for Key and pin it as data; Handle the Result at once
)

// Action is one thing that the driver must do, in the order in which Poll gives them.
type Action struct {
	Kind  Kind
	ID    ID
	Key   Key
	Job   uint64 // of a Verify, Judge, Cancel or Hold
	Op    Op     // of an Answer
	Task  int32
	Allow bool // of an Answer, after the mode was applied
	Judge bool // of an Answer: what the verdict was
	Why   Why  // of an Answer
	Uses  Uses // of an Answer: what was asked for
	Exec  bool // of a Mark
	Open  bool // of a Mark
}

// Config bounds the gate. Every field must be set; Default gives values for a server.
type Config struct {
	MaxEntries int           // files under a pin, each with a descriptor and a lease: 16 to 1,000,000
	MaxPending int           // questions without an answer: 1 to 1,000,000
	Jobs       int           // verifications at once: 1 to 1,000
	PerDevice  int           // of those, on one file system, so that a slow one leaves room for others: 1 to Jobs
	Big        int64         // octets from which a file is big
	BigJobs    int           // of Jobs, on big files: 1 to Jobs
	Patience   time.Duration // for one verification, from the first question on
	Yield      time.Duration // for one verification once a writer waits; well under the kernel's 45 s
	Grace      time.Duration // from the last allowed execution to the release of its lease
	Recent     int           // files remembered as opened once, before one is worth a lease: a power of two
	NoOpen     bool          // no library control: opens are not looked at
	Unpinned   bool          // allow what was verified though nothing pins it; it can change before it is executed
}

// Default gives the documented values.
func Default() Config {
	return Config{
		MaxEntries: 16384, MaxPending: 16384, Jobs: 16, PerDevice: 8, Big: 64 << 20, BigJobs: 2,
		Patience: 2 * time.Minute, Yield: 5 * time.Second, Grace: 20 * time.Millisecond, Recent: 8192,
	}
}

// Validate names the first field that is out of its range.
func (c *Config) Validate() error {
	in := func(name string, v, low, high int64) error {
		if v < low || v > high {
			return fmt.Errorf("gate: %s is %d, want %d to %d", name, v, low, high)
		}
		return nil
	}
	err := errors.Join(
		in("MaxEntries", int64(c.MaxEntries), 16, 1e6), in("MaxPending", int64(c.MaxPending), 1, 1e6),
		in("Jobs", int64(c.Jobs), 1, 1000), in("PerDevice", int64(c.PerDevice), 1, int64(c.Jobs)),
		in("BigJobs", int64(c.BigJobs), 1, int64(c.Jobs)), in("Big", c.Big, 1, 1<<62),
		in("Patience", int64(c.Patience), 1, int64(time.Hour)), in("Yield", int64(c.Yield), 1, int64(30*time.Second)),
		in("Grace", int64(c.Grace), 0, int64(10*time.Second)), in("Recent", int64(c.Recent), 1, 1<<20),
	)
	if err == nil && c.Recent&(c.Recent-1) != 0 {
		err = fmt.Errorf("gate: Recent is %d, want a power of two", c.Recent)
	}
	return err
}

// Stats counts what the gate did.
type Stats struct {
	Requests, Allowed, Denied           uint64
	WouldDeny                           uint64 // allowed by the mode alone
	Hits, Verified, Judged, Joined      uint64 // of questions: answered from what is known, after reading, after judging, together with another
	Data, Held                          uint64 // opens of what is not executable; those of them that got a mark
	Breaks, Evicted, Flushes, Timeouts  uint64
	Busy, Writers, Unpinned, Unreadable uint64 // denials
	Entries, Pending, Running, Waiting  int    // now
}
