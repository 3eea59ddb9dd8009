package enforcer

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What systemd is told arrives: words, and descriptors with their names.
func TestNotify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("FDSTORE", "3")
	n := newNotifier()
	defer unix.Close(n.fd)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n.ready()
	if !n.store(map[string]int{"digsig-local": int(file.Fd())}) {
		t.Error("systemd took no descriptor")
	}
	b, oob := make([]byte, 256), make([]byte, 256)
	size, _, _, _, err := systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "READY=1\nSTATUS=enforcing" {
		t.Errorf("%q, %v", b[:size], err)
	}
	size, rights, _, _, err := systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "FDSTORE=1\nFDPOLL=0\nFDNAME=digsig-local" {
		t.Errorf("%q, %v", b[:size], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:rights])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	unix.Close(fds[0])

	// At the end systemd is asked to give them back, and is waited for.
	released := make(chan struct{})
	go func() { n.release("digsig-local"); close(released) }()
	size, _, _, _, err = systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "FDSTOREREMOVE=1\nFDNAME=digsig-local" {
		t.Errorf("%q, %v", b[:size], err)
	}
	size, rights, _, _, err = systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "BARRIER=1" {
		t.Errorf("%q, %v", b[:size], err)
	}
	if messages, err = unix.ParseSocketControlMessage(oob[:rights]); err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	if fds, err = unix.ParseUnixRights(&messages[0]); err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	select {
	case <-released:
		t.Error("it did not wait for systemd")
	default:
	}
	unix.Close(fds[0])
	<-released
	systemd.Close()
	if n.say("WATCHDOG=1") {
		t.Error("nobody took it")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if n := newNotifier(); n.say("READY=1") || n.store(map[string]int{"x": 0}) {
		t.Error("there is no systemd")
	}
}
