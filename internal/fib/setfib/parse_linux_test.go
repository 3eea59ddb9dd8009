package setfib

import (
	"os"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
)

func TestFindMount(t *testing.T) {
	const hybrid = `24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
26 24 0:24 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
`
	for text, want := range map[string]string{
		hybrid: "/sys/fs/cgroup/unified",
		"":     "",
		"30 1 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n":                                              "/sys/fs/cgroup",
		"30 1 0:26 / /a ro - cgroup2 cgroup rw\n31 1 0:26 / /b rw - cgroup2 cgroup rw\n":                          "/b",
		"30 1 0:26 / /a rw - cgroup2 cgroup rw\n31 1 0:26 / /b ro - cgroup2 cgroup rw\n":                          "/a",
		"30 1 0:26 /system.slice /sys/fs/cgroup rw - cgroup2 cgroup rw\n":                                         "",
		`30 1 0:26 / /with\040space rw - cgroup2 cgroup rw` + "\n":                                                "/with space",
		"30 1 0:26 / /x rw - cgroup2":                                                                             "",
		"30 - cgroup2 x\n - cgroup2 \n26 24 0:24 / rw - cgroup2 x\n":                                              "",
		"30 1 0:26 / /sys/fs/cgroup rw - tmpfs cgroup2 rw\n40 1 0:26 / /cgroup2 rw master:1 - overlay cgroup2 rw": "",
	} {
		if got := findMount(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestGroupNames(t *testing.T) {
	for path, want := range map[string][2]string{
		"/": {"/", ""}, "/a/b": {"/a/b", ""}, "/midplane-fib/10@7": {"/", "10@7"}, "/a/midplane-fib/10@7:eth0.5": {"/a", "10@7:eth0.5"},
		"/a/midplane-fib/10@7/b/c": {"/a", "10@7"}, "/a/midplane-fib": {"/a", ""}, "/midplane-fibs/10": {"/midplane-fibs/10", ""},
		"/a/midplane-fib/10@7/midplane-fib/20@7": {"/a", "10@7"},
	} {
		if base, name := splitGroup(path); base != want[0] || name != want[1] {
			t.Errorf("%s: %q, %q; want %q", path, base, name, want)
		}
	}
	for name, want := range map[string]group{"10@7": {10, 7, ""}, "4294967295@4026531840:eth0.100": {4294967295, 4026531840, "eth0.100"}} {
		if g, ok := parseGroup(name); !ok || g != want || g.String() != name {
			t.Errorf("%s: %+v, %v", name, g, ok)
		}
	}
	for _, name := range []string{"", "0@1", "10", "x@1", "10@", "4294967296@1", "-1@1", "@", ":"} {
		if g, ok := parseGroup(name); ok {
			t.Errorf("%q is taken for %+v", name, g)
		}
	}
	for path, want := range map[string]string{"/vrf/blue": "blue", "/user.slice/vrf/blue": "blue", "/user.slice/ns1/vrf/red/x": "red", "/": "", "/vrf": "", "/vrfs/blue": ""} {
		if got := vrfGroup(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	own, _ := os.ReadFile("/proc/self/mountinfo")
	status, _ := os.ReadFile("/proc/self/status")
	for _, s := range []string{string(own), string(status), "/a/midplane-fib/10@7:e", "0::/x\n", "MIDPLANE_FIB=10\x00A=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		findMount(s)
		if _, name := splitGroup(s); name != "" && !strings.Contains(s, name) {
			t.Errorf("group %q of %q", name, s)
		}
		if g, ok := parseGroup(s); ok {
			if again, ok := parseGroup(g.String()); !ok || again != g {
				t.Errorf("%q: %+v is not itself again", s, g)
			}
		}
		vrfGroup(s)
		filtered([]byte(s))
		ended([]byte(s))
		if id, ok := environmentFIB([]byte(s)); ok && id == 0 {
			t.Errorf("FIB 0 in %q", s)
		}
	})
}

func TestProcessStatus(t *testing.T) {
	for text, want := range map[string][2]bool{ // ended, filtered
		"Name:\tx\nState:\tS (sleeping)\nSeccomp:\t2\n": {false, true}, "State:\tZ (zombie)\nSeccomp:\t0\n": {true, false},
		"State:\tX (dead)\n": {true, false}, "": {true, false}, "State:\tR (running)\nSeccomp_filters:\t2\n": {false, false},
	} {
		if e, f := ended([]byte(text)), filtered([]byte(text)); e != want[0] || f != want[1] {
			t.Errorf("%q: ended %v, filtered %v", text, e, f)
		}
	}
	for env, want := range map[string]uint32{"A=b\x00MIDPLANE_FIB=10\x00": 10, "MIDPLANE_FIB=4294967296": 0, "XMIDPLANE_FIB=3": 0, "MIDPLANE_FIB=": 0, "MIDPLANE_FIB=0": 0} {
		if id, ok := environmentFIB([]byte(env)); id != want && ok || ok != (want != 0) {
			t.Errorf("%q: %d, %v", env, id, ok)
		}
	}
}

func TestResolvText(t *testing.T) {
	got := string(resolvText(binding.Binding{FIB: 10, DNS: []string{"192.0.2.1", "2001:db8::1"}}))
	if !strings.HasSuffix(got, "nameserver 192.0.2.1\nnameserver 2001:db8::1\n") || strings.Count(got, "nameserver") != 2 {
		t.Errorf("%q", got)
	}
}
