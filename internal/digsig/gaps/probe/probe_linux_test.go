package probe

import (
	"os"
	"slices"
	"testing"

	"midplane/internal/digsig/gaps"
)

func TestHost(t *testing.T) {
	h, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	if !h.Kernel.AtLeast(4, 0) || h.Release == "" {
		t.Errorf("kernel %v of %q", h.Kernel, h.Release)
	}
	if !slices.ContainsFunc(h.FileSystems, func(f gaps.FileSystem) bool { return f.Mount == "/" }) {
		t.Errorf("no root among %+v", h.FileSystems)
	}
	for _, f := range h.FileSystems {
		if !f.Verity && f.Lack == "" {
			t.Errorf("%+v does not say what lacks", f)
		}
	}
	if os.Geteuid() == 0 && h.Kernel.AtLeast(5, 19) && h.Fanotify.Permission &&
		!(h.Fanotify.FileSystem && h.Fanotify.Unlimited && h.Fanotify.Evictable && h.Fanotify.PIDFD) {
		t.Errorf("fanotify of Linux %v as root: %+v", h.Kernel, h.Fanotify)
	}
	if r := gaps.Decide(h, gaps.Settings{}); r.Tier != gaps.TierBPF && len(r.Why) == 0 {
		t.Errorf("tier %v and no reason", r.Tier)
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mount{
		`36 35 98:0 /mnt1 /mnt\0402 rw,noatime,noexec master:1 - ext3 /dev/root rw,errors=continue`: {"98:0", "/mnt 2", "ext3", "/dev/root", true},
		`1 0 0:1 / / rw - tmpfs none rw`: {"0:1", "/", "tmpfs", "none", false},
		`1 0 0:1 / / rw tmpfs none rw`:   {},
		`1 0 - tmpfs none`:               {},
		``:                               {},
		`1 0 0:1 / / rw - tmpfs`:         {},
	} {
		if m, ok := parseMount(line); m != want || ok != (want != mount{}) {
			t.Errorf("%q: %+v, %v", line, m, ok)
		}
	}
	for s, want := range map[string]string{`a\011b\\`: "a\tb\\\\", `\1`: `\1`, `\999`: `\999`, `\134`: `\`} {
		if got := unescape(s); got != want {
			t.Errorf("unescape(%q) = %q, want %q", s, got, want)
		}
	}
}
