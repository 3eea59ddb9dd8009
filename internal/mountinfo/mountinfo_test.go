package mountinfo

import "testing"

const sample = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw - proc proc rw
45 22 0:40 /sub/dir /mnt/a\040b rw,noexec master:3 propagate_from:2 - tmpfs none rw,size=4k
46 22 0:41 / /m rw - fuse.sshfs me@host:/x rw,user_id=0
`

func TestParse(t *testing.T) {
	m, err := Parse(sample)
	if err != nil || len(m) != 4 {
		t.Fatalf("%+v, %v", m, err)
	}
	if m[0].Type != "ext4" || m[0].Dev != "254:0" || m[0].ID != 22 || m[0].Super != "rw,discard" {
		t.Errorf("%+v", m[0])
	}
	if m[2].Point != "/mnt/a b" || m[2].Root != "/sub/dir" || m[2].Options != "rw,noexec" || m[2].Type != "tmpfs" {
		t.Errorf("%+v", m[2])
	}
	for _, bad := range []string{"x\n", "22 1 254:0 / / rw ext4 /dev/vda rw\n", "a 1 254:0 / / rw - ext4 /dev/vda rw\n", "22 1 254:0 / / rw - ext4\n", "\n"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseLine(t *testing.T) {
	type short struct {
		dev, point, kind, source string
		noexec                   bool
	}
	for line, want := range map[string]short{
		`36 35 98:0 /mnt1 /mnt\0402 rw,noatime,noexec master:1 - ext3 /dev/root rw,errors=continue`: {"98:0", "/mnt 2", "ext3", "/dev/root", true},
		`1 0 0:1 / / rw - tmpfs none rw`: {"0:1", "/", "tmpfs", "none", false},
		`1 0 0:1 / / rw tmpfs none rw`:   {},
		`1 0 - tmpfs none`:               {},
		``:                               {},
		`1 0 0:1 / / rw - tmpfs`:         {},
	} {
		m, err := ParseLine(line)
		if got := (short{m.Dev, m.Point, m.Type, m.Source, m.Has("noexec")}); got != want || (err == nil) != (want != short{}) {
			t.Errorf("%q: %+v, %v", line, m, err)
		}
	}
	for s, want := range map[string]string{`a\011b\\`: "a\tb\\\\", `\1`: `\1`, `\999`: `\999`, `\134`: `\`} {
		if got := Unescape(s); got != want {
			t.Errorf("Unescape(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestLayers(t *testing.T) {
	m := Mount{Type: "overlay", Super: `rw,lowerdir=/a\040b:/c,upperdir=/u,workdir=/w,redirect_dir=on`}
	if got := m.Layers(); len(got) != 3 || got[0] != "/a b" || got[1] != "/c" || got[2] != "/u" {
		t.Errorf("%q", got)
	}
	if m.Type = "ext4"; m.Layers() != nil {
		t.Error("layers of ext4")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add(`1 1 0:0 \0400 \777 - - - -`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Parse(s)
		if err == nil && len(m) > len(s) {
			t.Fatal("more mounts than octets")
		}
	})
}
