package fanotify

import "testing"

const sample = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw - proc proc rw
45 22 0:40 /sub/dir /mnt/a\040b rw,noexec master:3 propagate_from:2 - tmpfs none rw,size=4k
46 22 0:41 / /m rw - fuse.sshfs me@host:/x rw,user_id=0
`

func TestParseMounts(t *testing.T) {
	m, err := ParseMounts(sample)
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
		if _, err := ParseMounts(bad); err == nil {
			t.Errorf("%q was taken", bad)
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

func TestPlaceOf(t *testing.T) {
	for kind, want := range map[string]Place{
		"ext4": Local, "tmpfs": Local, "squashfs": Local, "btrfs": Local, "something new": Local, "overlay": Skip, "proc": Skip, "devtmpfs": ExecOnly,
		"fuse": Foreign, "fuse.sshfs": Foreign, "nfs4": Foreign,
	} {
		if got := PlaceOf(kind); got != want {
			t.Errorf("%s is %v, want %v", kind, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(sample)
	f.Add(`1 1 0:0 \0400 \777 - - - -`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMounts(s)
		if err == nil && len(m) > len(s) {
			t.Fatal("more mounts than octets")
		}
	})
}
