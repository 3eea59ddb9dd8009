// Package enforcer makes the kernel ask before anything is executed or loaded, and answers by signatures: tier F
// (fanotify).
//
// # Processes
//
// The supervisor makes the fanotify groups, starts the worker and holds the groups, the control socket, and every lease
// that a mark in the kernel relies on. It reads no events and opens no files. The worker reads the events, verifies and
// answers. When the worker dies, hangs or is stopped, the supervisor takes back every mark, denies what the worker had read
// and not answered (any holder of a group can, by descriptor number), lets the leases go and starts another worker;
// whatever is executed meanwhile waits. When the supervisor dies, systemd starts another, which finds the groups in
// systemd's descriptor store; without systemd the worker starts one. Only when both are killed in the same moment, and
// there is no systemd, does the kernel open the gate; Status says so.
//
// An orderly end opens the gate, and so does systemctl restart, from the end of the one until the next is ready: systemd
// could start no program while nobody answers. Who upgrades and must not have that window reboots.
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
