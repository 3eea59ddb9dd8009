package gaps

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// debian13 is a stock Debian 13 whose root file system has fs-verity.
func debian13() Host {
	return Host{
		Release: "6.12.118+deb13-amd64", Kernel: Kernel{6, 12},
		LSMs:        []string{"lockdown", "capability", "landlock", "yama", "apparmor", "tomoyo", "bpf", "ipe", "ima", "evm"},
		Fanotify:    FanotifyFeatures{Permission: true, FileSystem: true, Unlimited: true, Evictable: true, PIDFD: true},
		BPF:         BPFFeatures{Active: true, BTF: true, Digest: true, Load: true},
		FileSystems: []FileSystem{{Mount: "/", Type: "ext4", Verity: true}, {Mount: "/dev/shm", Type: "tmpfs", NoExec: true}},
		MemfdNoexec: 0, UserNamespaces: 31000, Yama: 0, Lockdown: "none", Modules: true, Kexec: true,
	}
}

func TestDecide(t *testing.T) {
	strict := Settings{DenyAnonymous: true, Modules: true, GuardBPF: true, GuardPtrace: true}
	for _, c := range []struct {
		name     string
		change   func(*Host)
		settings Settings
		tier     Tier
		open     []int  // exactly these cases
		why      string // in the reasons for no higher tier
		cure     string // in the cure of one gap
	}{
		{"Debian 13, strict", nil, strict, TierBPF, []int{42, 43, 52, 53}, "", "lockdown=integrity"},
		{"and locked down", func(h *Host) { h.Lockdown = "integrity" }, strict, TierBPF, []int{42, 43, 53}, "", "Linux 6.14"},
		{"a newer kernel", func(h *Host) { h.Lockdown, h.Kernel = "confidentiality", Kernel{6, 18} }, strict, TierBPF, []int{42, 53}, "", "#!"},
		{"Debian 13, nothing set", nil, Settings{}, TierBPF, []int{39, 40, 42, 43, 46, 52, 53}, "", "anonymous"},
		{"a tmpfs with exec", func(h *Host) { h.FileSystems[1].NoExec = false }, strict, TierBPF, []int{35, 42, 43, 52, 53}, "", "noexec mounts"},
		{"an ext4 without the feature", func(h *Host) {
			h.FileSystems[0] = FileSystem{Mount: "/", Type: "ext4", Cure: "tune2fs -O verity /dev/sda1"}
		}, strict, TierBPF, []int{35, 42, 43, 52, 53}, "tune2fs", "tune2fs -O verity /dev/sda1"},
		{"no fanotify", func(h *Host) { h.Fanotify = FanotifyFeatures{Err: "EPERM"} }, strict, TierBPF, []int{1, 42, 43, 52, 53}, "EPERM", "enrol"},
		{"fs-verity wanted", nil, Settings{Highest: TierVerity, DenyAnonymous: true}, TierVerity,
			[]int{24, 26, 27, 36, 37, 38, 39, 40, 42, 43, 46, 52, 53}, "the policy does not want it", "vm.memfd_noexec=2"},
		{"settings close it", func(h *Host) {
			h.MemfdNoexec, h.UserNamespaces, h.Yama, h.ModuleSigs, h.Kexec = 2, 0, 3, true, false
		}, Settings{Highest: TierVerity}, TierVerity, []int{27, 36, 37, 38, 39, 42, 43, 52, 53}, "", "tier bpf-lsm"},
		{"no modules", func(h *Host) { h.Modules = false }, Settings{Highest: TierFanotify}, TierFanotify,
			[]int{24, 26, 27, 35, 36, 37, 38, 39, 40, 42, 43, 52, 53}, "", "enrol"},
		{"bpf is not active", func(h *Host) { h.BPF.Active = false }, strict, TierVerity,
			[]int{24, 26, 27, 36, 37, 38, 39, 40, 42, 43, 46, 52, 53}, "lsm=", "vm.memfd_noexec=2"},
		{"no BTF", func(h *Host) { h.BPF.BTF = false }, strict, TierVerity,
			[]int{24, 26, 27, 36, 37, 38, 39, 40, 42, 43, 46, 52, 53}, "BTF", ""},
		{"no kfunc", func(h *Host) { h.BPF.Digest = false }, strict, TierVerity,
			[]int{24, 26, 27, 36, 37, 38, 39, 40, 42, 43, 46, 52, 53}, "6.8", ""},
		{"an old kernel", func(h *Host) {
			h.Kernel, h.BPF, h.FileSystems, h.MemfdNoexec, h.Yama = Kernel{5, 10}, BPFFeatures{}, nil, Absent, Absent
		}, strict, TierFanotify, []int{24, 26, 27, 35, 36, 37, 38, 39, 40, 42, 43, 46, 52, 53}, "ext4, f2fs or btrfs", "Linux 6.3"},
		{"a queue with an end", func(h *Host) { h.Fanotify.Unlimited = false }, Settings{Highest: TierFanotify}, TierFanotify,
			[]int{24, 26, 27, 35, 36, 37, 38, 39, 40, 42, 43, 46, 47, 52, 53}, "", "FAN_UNLIMITED_QUEUE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := debian13()
			if c.change != nil {
				c.change(&h)
			}
			r := Decide(h, c.settings)
			if r.Tier != c.tier {
				t.Errorf("tier %v, want %v: %q", r.Tier, c.tier, r.Why)
			}
			var open, cures []string
			got := map[int]bool{}
			for _, g := range r.Gaps {
				for _, n := range g.Cases {
					got[n] = true
				}
				if g.Text == "" || g.Cure == "" || len(g.Cases) == 0 {
					t.Errorf("a gap without words: %+v", g)
				}
				open = append(open, g.Text)
				cures = append(cures, g.Cure)
			}
			for n := 1; n <= lastCase; n++ {
				if want := slices.Contains(c.open, n); got[n] != want || r.Open(n) != want {
					t.Errorf("case %d: open is %v, want %v: %q", n, got[n], want, open)
				}
			}
			if !strings.Contains(strings.Join(r.Why, "\n"), c.why) {
				t.Errorf("reasons %q do not say %q", r.Why, c.why)
			}
			if !strings.Contains(strings.Join(cures, "\n"), c.cure) {
				t.Errorf("cures %q do not say %q", cures, c.cure)
			}
			if (r.Tier == TierBPF && c.settings.Highest == TierNone) != (len(r.Why) == 0) && c.why == "" {
				t.Errorf("tier %v with reasons %q", r.Tier, r.Why)
			}
		})
	}
}

func TestNothingEnforced(t *testing.T) {
	r := Decide(Host{MemfdNoexec: Absent, UserNamespaces: Absent, Yama: Absent}, Settings{})
	if r.Tier != TierNone || len(r.Gaps) != 1 || len(r.Why) != 3 || !r.Open(2) || !r.Open(54) || r.Open(1) {
		t.Errorf("%+v", r)
	}
}

func TestTierText(t *testing.T) {
	for tier := TierNone; tier <= TierBPF; tier++ {
		b, err := json.Marshal(Report{Tier: tier})
		var back Report
		if err != nil || json.Unmarshal(b, &back) != nil || back.Tier != tier {
			t.Errorf("%v: %s, %v, %v", tier, b, back.Tier, err)
		}
	}
	var tier Tier
	if err := tier.UnmarshalText([]byte("bpf")); err == nil || !strings.Contains(err.Error(), "bpf-lsm") {
		t.Errorf("a tier that does not exist: %v", err)
	}
	if s := Tier(9).String(); s != "tier(9)" {
		t.Error(s)
	}
}

func TestParseKernel(t *testing.T) {
	for s, want := range map[string]Kernel{"6.12.118+deb13-amd64": {6, 12}, "5.0": {5, 0}, "6.18-rc1": {6, 18}, "": {}, "linux": {}, "6": {}, "-6.-1": {}} {
		k, err := ParseKernel(s)
		if k != want || (err == nil) != (want != Kernel{}) {
			t.Errorf("%q: %v, %v, want %v", s, k, err, want)
		}
	}
	if k := (Kernel{6, 12}); !k.AtLeast(6, 12) || !k.AtLeast(5, 19) || k.AtLeast(6, 13) || k.AtLeast(7, 0) || k.String() != "6.12" {
		t.Error("order of kernels")
	}
}
