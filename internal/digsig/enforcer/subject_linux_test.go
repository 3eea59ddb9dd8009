package enforcer

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteOnly(t *testing.T) {
	open := func(flags int) call {
		return call{known: true, number: unix.SYS_OPENAT, args: [6]uint64{0, 0, uint64(flags)}}
	}
	for name, c := range map[string]struct {
		c    call
		want bool
	}{
		"unknown":    {call{}, false},
		"read":       {open(unix.O_RDONLY), false},
		"write":      {open(unix.O_WRONLY | unix.O_TRUNC), true},
		"both":       {open(unix.O_RDWR), false},
		"access 3":   {open(3), false},
		"execve":     {call{known: true, number: unix.SYS_EXECVE}, false},
		"openat2":    {call{known: true, number: unix.SYS_OPENAT2, args: [6]uint64{0, 0, 1}}, false},
		"io_uring":   {call{known: true, number: unix.SYS_IO_URING_ENTER, args: [6]uint64{0, 1, 1}}, false},
		"not a call": {call{number: unix.SYS_OPENAT, args: [6]uint64{0, 0, 1}}, false},
	} {
		if got := c.c.writeOnly(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseMaps(t *testing.T) {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(self)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, a := range parseMaps(string(b)) {
		if a.from >= a.to {
			t.Errorf("%+v", a)
		}
		found = found || a.exec && a.path == exe && a.inode != 0
	}
	if !found {
		t.Error("this program's code is not in its own maps")
	}
	if got := parseMaps("7f00-7f10 r-xp 00000000 fe:00 12                 /a b (deleted)\nx\n"); len(got) != 1 || got[0].path != "/a b (deleted)" || got[0].inode != 12 || got[0].to != 0x7f10 {
		t.Errorf("%+v", got)
	}
}

func TestCgroupOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/user.slice/x\n":                      "/user.slice/x",
		"4:cpu:/\n1:name=systemd:/a.service\n":    "/a.service",
		"4:cpu:/docker/1\n1:name=systemd:/\n0::/": "/docker/1",
		"":     "",
		"x\n":  "",
		"0::/": "/",
	} {
		if got := cgroupOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCallOf(t *testing.T) {
	if _, err := callOf(1 << 30); err == nil {
		t.Error("a thread that is not there")
	}
	b, err := os.ReadFile("/proc/self/auxv")
	if err != nil || len(b) == 0 {
		t.Fatal(err)
	}
	if base, ok := loaderBase("/proc/self"); !ok || base != 0 && strings.Contains(os.Getenv("CGO_ENABLED"), "0") {
		t.Errorf("%x, %v", base, ok)
	}
}

func TestPatterns(t *testing.T) {
	if !matches([]string{"*.py", "/etc/x"}, "/a/b.py") || matches([]string{"*.py"}, "/a/b.pyc") || matches(nil, "/a") {
		t.Error("patterns")
	}
}
