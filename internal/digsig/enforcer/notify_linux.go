package enforcer

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifier talks to systemd (sd_notify(3)), when it started this process.
type notifier struct {
	fd       int // socket
	to       *unix.SockaddrUnix
	watchdog time.Duration // half of what systemd waits
	last     time.Time
}

func newNotifier() *notifier {
	n := &notifier{}
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return n
	}
	// Package net sends no descriptors from a connected datagram socket.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return n
	}
	n.fd, n.to = fd, &unix.SockaddrUnix{Name: name}
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
		n.watchdog = time.Duration(us) * time.Microsecond / 2
	}
	return n
}

func (n *notifier) say(text string, fds ...int) bool {
	if n.to == nil {
		return false
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(n.fd, []byte(text), oob, n.to, unix.MSG_NOSIGNAL) == nil
}

func (n *notifier) ready()    { n.say("READY=1\nSTATUS=enforcing") }
func (n *notifier) stopping() { n.say("STOPPING=1") }

// alive feeds systemd's watchdog.
func (n *notifier) alive() {
	if n.watchdog > 0 && time.Since(n.last) >= n.watchdog {
		n.last = time.Now()
		n.say("WATCHDOG=1")
	}
}

// unitName is what systemd calls the end of a pipe that it keeps for the unit (FileDescriptorStoreMax=).
const unitName = "digsig-unit"

// store gives systemd the writing end of a pipe to keep for as long as the unit is not stopped for good: it does so while a
// restart is under way, whether somebody asked for it or the process was killed, and closes it when the unit is stopped
// (FileDescriptorStorePreserve=restart, sd_pid_notify_with_fds(3)). So who holds the reading end learns the difference,
// which SIGTERM does not tell. It returns the reading end, or false when systemd keeps nothing.
func (n *notifier) store() (alive int, ok bool) {
	if n.to == nil || os.Getenv("FDSTORE") == "" { // systemd 254 and later tell how much room there is
		return -1, false
	}
	var pipe [2]int
	if unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
		return -1, false
	}
	defer unix.Close(pipe[1])
	n.say("FDSTOREREMOVE=1\nFDNAME=" + unitName)
	if !n.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+unitName, pipe[1]) {
		unix.Close(pipe[0])
		return -1, false
	}
	return pipe[0], true
}

// stored says whether systemd keeps a pipe for the unit already, and closes the copy that this process was given
// (sd_listen_fds_with_names(3)).
func (n *notifier) stored() (is bool) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return false
	}
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range min(count, 64) {
		is = is || i < len(names) && names[i] == unitName
		unix.Close(3 + i)
	}
	return is
}
