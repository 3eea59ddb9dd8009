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

// store gives systemd descriptors to keep while this process is not there (FileDescriptorStoreMax= of the unit). It says
// whether systemd was there to take them.
func (n *notifier) store(fds map[string]int) bool {
	if n.to == nil || os.Getenv("FDSTORE") == "" { // systemd 254 and later tell how much room there is
		return false
	}
	ok := true
	for name, fd := range fds {
		ok = n.say("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd) && ok
	}
	return ok
}

// release has systemd give back what store gave it, and waits until it has: else the gate would stay shut with nobody to
// answer, and systemd would wait for itself when it starts the next program.
func (n *notifier) release(names ...string) {
	if n.to == nil {
		return
	}
	for _, name := range names {
		n.say("FDSTOREREMOVE=1\nFDNAME=" + name)
	}
	var pipe [2]int
	if unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
		return
	}
	defer unix.Close(pipe[0])
	n.say("BARRIER=1", pipe[1]) // closed by systemd when it has read all that came before (sd_notify_barrier(3))
	unix.Close(pipe[1])
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pipe[0])}}, int(barrierPatience/time.Millisecond))
}

// barrierPatience bounds the wait for systemd.
const barrierPatience = 5 * time.Second

// inherited returns the descriptors that systemd kept, by name (sd_listen_fds_with_names(3)).
func (n *notifier) inherited() map[string]int {
	found := map[string]int{}
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return found
	}
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range min(count, 64) {
		fd := 3 + i
		unix.CloseOnExec(fd)
		if i < len(names) && found[names[i]] == 0 {
			found[names[i]] = fd
		} else {
			unix.Close(fd)
		}
	}
	return found
}
