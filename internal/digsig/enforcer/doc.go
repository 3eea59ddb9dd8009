// Package enforcer makes the kernel ask before anything is executed or loaded, and answers by signatures: tier F
// (fanotify).
//
// # Processes
//
// The supervisor makes the fanotify groups, starts the worker and holds the groups, the control socket, and every lease
// that a mark in the kernel relies on. It reads no events and opens no files. The worker reads the events, verifies and
// answers. When the worker dies, hangs or is stopped, the supervisor takes back every mark, denies what the worker had read
// and not answered (any holder of a group can, by descriptor number), lets the leases go and starts another worker;
// whatever is executed meanwhile waits.
//
// When the supervisor dies, the worker goes on: systemd executes programs and opens files itself, so it could start nothing
// while nobody answers. The guardian, in a unit of its own, holds the groups, the control socket and the supervisor's end
// of the link to the worker. From it the next supervisor, systemd's, takes them and the worker over. If the worker is of
// another program or configuration, it answers what it has taken and ends, and a new one takes what has come since: the
// group is the same all the time, so there is no moment at which anything runs unasked. Where both were killed, the guardian
// starts a supervisor itself, from a program that has a mark of its own, and systemd's replaces it later. Without a guardian
// the worker starts the next supervisor; then the kernel opens the gate when both are killed at once, and Status says so.
//
// SIGTERM does not tell a restart from the end. So the supervisor has systemd keep one end of a pipe (its descriptor store),
// which systemd does during a restart and not when the unit is stopped: the supervisor leaves the worker behind, and the
// guardian ends it when the pipe hangs up. Without systemd SIGTERM is the end, and the gate is open.
//
// # What never happens
//
// The worker's own opens, and the supervisor's, are allowed at once by the thread that reads events, and that thread opens
// nothing, reads nothing that is not in memory, and writes no log. The enforcer's own program has a mark of its own, so
// that a worker can be started while nobody answers: it must be linked statically, as it is without cgo. A verdict never
// waits for the log.
//
// # What it cannot see
//
// Real root can end all this; it is out of scope in this tier. The other gaps are in Status, each with its cure.
package enforcer
