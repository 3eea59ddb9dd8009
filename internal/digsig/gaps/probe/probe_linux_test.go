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
