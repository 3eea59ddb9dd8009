// Package fanotify is the driver of the kernel's permission events: groups, marks on file systems, ignore marks on files,
// events and answers. See fanotify(7), fanotify_init(2), fanotify_mark(2) and fs/notify/fanotify in the kernel.
//
// # Facts that it is built on
//
//   - A group ends when its last descriptor is closed, and then the kernel allows what waits. So more than one process
//     holds it. Any of them can answer an event by its descriptor number, whoever read it.
//   - With FAN_UNLIMITED_QUEUE there is no overflow, which would let pass what does not fit.
//   - The kernel opens the file for the reader of an event. On a file system that is served by a process (FUSE) or a
//     network this can wait for ever, and on overlayfs it makes the reader wait for an event of the layer below, which
//     nobody else reads. So overlayfs is not marked: its layers are, and they raise the same events, with the inode that
//     the content is in. And file systems that can keep a reader waiting have a group of their own ([Foreign]).
//   - Descriptors of events raise no events themselves.
package fanotify

import "fmt"

// Event is one permission event. FD belongs to who read it and is to be closed after the answer.
type Event struct {
	Exec bool // FAN_OPEN_EXEC_PERM, else FAN_OPEN_PERM
	FD   int32
	TID  int32 // thread that waits
}

// Place is how a file system is watched.
type Place uint8

// The places.
const (
	Skip     Place = iota // it cannot have programs in it, or it is stacked on others that are watched
	Local                 // opens and executions, by the first group
	ExecOnly              // executions only: opening its files has effects
	Foreign               // opens and executions, by the second group, whose reader may be kept waiting
)

// String names the place.
func (p Place) String() string {
	switch p {
	case Skip:
		return "skipped"
	case Local:
		return "local"
	case ExecOnly:
		return "executions only"
	case Foreign:
		return "foreign"
	}
	return fmt.Sprintf("place %d", uint8(p))
}
