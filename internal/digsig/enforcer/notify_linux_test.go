package enforcer

import (
	"net"
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
	n.ready()
	alive, ok := n.store()
	if !ok {
		t.Fatal("systemd took no descriptor")
	}
	defer unix.Close(alive)
	b, oob := make([]byte, 256), make([]byte, 256)
	size, _, _, _, err := systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "READY=1\nSTATUS=enforcing" {
		t.Errorf("%q, %v", b[:size], err)
	}
	size, _, _, _, err = systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "FDSTOREREMOVE=1\nFDNAME=digsig-unit" {
		t.Errorf("%q, %v", b[:size], err)
	}
	size, rights, _, _, err := systemd.ReadMsgUnix(b, oob)
	if err != nil || string(b[:size]) != "FDSTORE=1\nFDPOLL=0\nFDNAME=digsig-unit" {
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
	if hungUp(alive) {
		t.Error("the unit is stopped while systemd has the pipe")
	}
	unix.Close(fds[0])
	if !hungUp(alive) {
		t.Error("systemd let go of the pipe, and the unit is not stopped")
	}
	systemd.Close()
	if n.say("WATCHDOG=1") {
		t.Error("nobody took it")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if _, ok := newNotifier().store(); ok {
		t.Error("there is no systemd")
	}
}
