//go:build linux

package mirror

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"midplane/fib"
	"midplane/internal/lab"
)

// bird starts BIRD in the namespace with static routes, which it writes to tables 100 (IPv4) and 200 (IPv6). It scans
// them often, because it loses notifications itself when it writes fast, and corrects what it missed with a scan.
func (k *kernel) bird(dir string, first, n4, n6 int, persist bool) *lab.Proc {
	k.t.Helper()
	keep := ""
	if persist {
		keep = "persist;"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `router id 10.0.1.1;
log stderr { warning, error, fatal, bug };
protocol device { }
protocol kernel k4 { kernel table 100; %[1]s scan time 3; ipv4 { export all; import none; }; }
protocol kernel k6 { kernel table 200; %[1]s scan time 3; ipv6 { export all; import none; }; }
protocol static s4 { ipv4;
`, keep)
	for i := first; i < first+n4; i++ {
		fmt.Fprintf(&b, "route 172.%d.%d.%d/32 via 10.0.%d.2;\n", 16+i>>16, i>>8&255, i&255, 1+i&1)
	}
	b.WriteString("}\nprotocol static s6 { ipv6;\n")
	for i := first; i < first+n6; i++ {
		fmt.Fprintf(&b, "route 2001:db8:f:%x::/64 via 2001:db8:%d::2;\n", i, 1+i&1)
	}
	b.WriteString("}\n")
	conf := filepath.Join(dir, "bird.conf")
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		k.t.Fatal(err)
	}
	return k.StartCmd(exec.Command("bird", "-f", "-c", conf, "-s", filepath.Join(dir, "bird.ctl"), "-P", filepath.Join(dir, "bird.pid")))
}

// reaches waits until the two FIBs have so many routes.
func (k *kernel) reaches(n4, n6 int) time.Duration {
	k.t.Helper()
	start := time.Now()
	if _, ok := lab.Until(3*lab.Patience, func() bool { return k.routes(100) == n4 && k.routes(200) == n6 }); !ok {
		k.t.Fatalf("%d and %d routes, want %d and %d: %+v", k.routes(100), k.routes(200), n4, n6, k.m.Status())
	}
	return time.Since(start)
}

// TestIntegrationBIRD mirrors 100,000 routes of BIRD, which is then killed, started again with other routes, and ended
// with and without "persist".
func TestIntegrationBIRD(t *testing.T) {
	lab.RequireTool(t, "bird", "bird2")
	k := newKernel(t)
	dir := t.TempDir()
	const n4, n6 = 80000, 20000
	k.mirror(Config{})
	k.exact()
	p := k.bird(dir, 0, n4, n6, false)
	took := k.reaches(n4, n6)
	k.exact()
	t.Logf("BIRD's %d routes were in the FIBs after %v from its start: %.0f routes/s", n4+n6, took.Round(time.Millisecond), float64(n4+n6)/took.Seconds())

	// Killed, it leaves all in the kernel; the next one takes away what it does not have.
	_ = p.Signal(syscall.SIGKILL)
	<-p.Done()
	k.exact()
	k.reaches(n4, n6)
	p = k.bird(dir, n4/2, n4, n6, true)
	k.shifted(p, n4/2, n4, n6)
	k.exact()

	// With persist all stays when it ends in an orderly way, without nothing of it does.
	_ = p.Signal(syscall.SIGTERM)
	<-p.Done()
	k.exact()
	k.reaches(n4, n6)
	p = k.bird(dir, 0, n4, n6, false)
	k.shifted(p, 0, n4, n6)
	k.exact()
	_ = p.Signal(syscall.SIGTERM)
	<-p.Done()
	k.exact()
	t.Logf("without persist %d and %d routes stay", k.routes(100), k.routes(200))
	t.Logf("%+v", k.m.Status())
}

// has says whether a FIB has a route of this very prefix.
func (k *kernel) has(id fib.ID, prefix string) bool {
	t, _ := k.set.Table(id)
	_, ok := t.Get(netip.MustParsePrefix(prefix))
	return ok
}

// shifted waits until the routes of BIRD's new configuration are there and the old ones are not.
func (k *kernel) shifted(p *lab.Proc, first, n4, n6 int) {
	k.t.Helper()
	in := func(i int) bool {
		return k.has(100, fmt.Sprintf("172.%d.%d.%d/32", 16+i>>16, i>>8&255, i&255))
	}
	if _, ok := lab.Until(3*lab.Patience, func() bool {
		return k.routes(100) == n4 && k.routes(200) == n6 && in(first) && in(first+n4-1) && !(first > 0 && in(first-1)) && !in(first+n4)
	}); !ok {
		k.t.Fatalf("%d and %d routes: %+v\n%s", k.routes(100), k.routes(200), k.m.Status(), p.Stderr)
	}
}
