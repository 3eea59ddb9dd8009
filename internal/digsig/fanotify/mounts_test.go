package fanotify

import "testing"

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
