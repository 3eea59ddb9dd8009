// Package gate is the enforcer's state machine: what has been asked, what is being verified, what is trusted and for how
// long, and what must be answered. It is a core: Handle takes what happened, Poll gives what to do, Deadline says when
// Tick is due. The driver owns descriptors, leases, marks and the clock.
//
// # Rules
//
// A verdict is about content, and content is only known while it cannot change. So a verdict is kept only under a pin: a
// read lease (fcntl(2), F_SETLEASE), which no writer gets past while it is held, or a file system that cannot be written.
// Modification times, sizes and change counters are never looked at.
//
// A kept verdict may be given to the kernel as an ignore mark, and then no more events come. The kernel drops an ignore
// mark at write(2), but not at stores through a shared mapping; the lease does stop those, because it breaks when the
// file is opened for writing. When a lease breaks, the mark goes first, then the verdict, then, after Grace, the lease.
//
// Grace is there because an execution that has passed its event (or its mark) has not yet denied writing: the kernel
// does so a few instructions later (fs/exec.c, do_open_execat). A writer let in between would change what was verified.
//
// What cannot be verified is denied: content with a writer, content nobody can pin, content that took longer than
// Patience, what came when there were more questions than MaxPending. Nothing is allowed for want of a resource.
//
// A new generation (other keys, revocations or policy) takes every mark back at once; what is known of content stays,
// and is judged anew when it is next asked for.
package gate
