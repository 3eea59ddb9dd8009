package enforcer

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/gate"
)

func TestClassOf(t *testing.T) {
	elf := func(kind byte, order byte) []byte {
		b := append([]byte("\x7fELF\x02"), order)
		b = append(b, make([]byte, 58)...)
		if order == 2 {
			b[17] = kind
		} else {
			b[16] = kind
		}
		return b
	}
	for name, c := range map[string]struct {
		head []byte
		want gate.Class
	}{
		"empty": {nil, gate.ClassData}, "text": {[]byte("hello"), gate.ClassData}, "script": {[]byte("#!/bin/sh\n"), gate.ClassScript},
		"two octets": {[]byte("#!"), gate.ClassScript}, "three": {[]byte("\x7fEL"), gate.ClassData}, "magic alone": {[]byte("\x7fELF"), gate.ClassELF},
		"program": {elf(2, 1), gate.ClassELF}, "shared": {elf(3, 1), gate.ClassELF}, "object": {elf(1, 1), gate.ClassData}, "core": {elf(4, 1), gate.ClassData},
		"big-endian program": {elf(2, 2), gate.ClassELF}, "big-endian object": {elf(1, 2), gate.ClassData},
		"object of no order": {elf(1, 9), gate.ClassELF}, "unknown type": {elf(99, 1), gate.ClassELF},
	} {
		if got := classOf(c.head); got != c.want {
			t.Errorf("%s is %d, want %d", name, got, c.want)
		}
	}
}

func TestInterpreterOf(t *testing.T) {
	for head, want := range map[string]string{
		"#!/bin/sh\n": "/bin/sh", "#! /bin/sh -e\n": "/bin/sh", "#!\t/bin/sh\t-e": "/bin/sh", "#!": "", "#!\n/bin/sh": "", "#!/a\x00b\n": "/a",
	} {
		if got := interpreterOf([]byte(head)); got != want {
			t.Errorf("%q names %q, want %q", head, got, want)
		}
	}
}

func TestIsLoader(t *testing.T) {
	for path, want := range map[string]bool{"/lib64/ld-linux-x86-64.so.2": true, "/lib/ld-linux-aarch64.so.1": true, "/bin/sh": false, "/proc/self/exe": false} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if got := isLoader(bytes.NewReader(b), b[:headSize]); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func FuzzLoader(f *testing.F) {
	if b, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2"); err == nil {
		f.Add(b[:4096])
	}
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		isLoader(bytes.NewReader(b), b[:min(len(b), headSize)])
		_ = interpreterOf(b[:min(len(b), headSize)])
		classOf(b)
	})
}

func TestBreakGlass(t *testing.T) {
	for line, want := range map[string]string{
		"": "", "quiet ro": "", "midplane.digsig=off": "off", "a midplane.digsig=permissive b": "permissive",
		"midplane.digsig=off midplane.digsig=enforce": "", "xmidplane.digsig=off": "",
	} {
		if got, err := BreakGlass(line); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
	if got, err := BreakGlass("midplane.digsig=of"); got != "" || err == nil {
		t.Errorf("a misspelt word gives %q, %v", got, err)
	}
}

func TestConfig(t *testing.T) {
	c, err := (Config{}).withDefaults()
	if err != nil || c.Watchdog != DefaultWatchdog || c.Socket != DefaultSocket || c.Gate.MaxEntries == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for name, c := range map[string]Config{
		"Watchdog": {Watchdog: time.Minute}, "mode": {Mode: "enforced"}, "Socket": {Socket: "/" + strings.Repeat("x", 200)}, "Jobs": {Gate: gate.Config{Jobs: -1}},
		"Grace": {Gate: gate.Config{Grace: time.Hour}},
	} {
		if _, err := c.withDefaults(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
