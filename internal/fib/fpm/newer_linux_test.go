package fpm

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
	"midplane/internal/lab"
)

// newer returns an FRR that heeds answers: that of Debian 12, 8.4, throws them away, and that of Debian 13, 10.3, cannot
// find what they are about. It is that of Debian's testing, unpacked with its libraries into the lab's cache from the
// mirror that the machine uses; nothing is installed.
func newer(t *testing.T) lab.FRRPrograms {
	t.Helper()
	root, err := fetchNewer()
	if err != nil {
		t.Skipf("no FRR of 8.5 or later: %v; it comes from the suite testing of the mirror in /etc/apt/sources.list.d/debian.sources", err)
	}
	libs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return lab.FRRPrograms{
		Dir: filepath.Join(root, "usr/lib/frr"),
		// Its YANG modules are looked for at this path and no other: a mount that only it sees.
		With: []string{"unshare", "--mount", "sh", "-c", "mount --bind " + filepath.Join(root, "usr/share/yang") + ` /usr/share/yang && exec "$@"`, "sh",
			filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libs + ":" + filepath.Join(libs, "frr")},
		Args: []string{"--moduledir", filepath.Join(libs, "frr/modules")},
	}
}

func fetchNewer() (string, error) {
	dir := os.Getenv(lab.CacheVariable)
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "midplane-lab")
	}
	root := filepath.Join(dir, "frr-testing")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(root+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	work, err := os.MkdirTemp(dir, "frr-new")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	script := `set -eu
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
mkdir -p lists/partial cache/archives/partial etc root download
sed "s/$own-updates//g; s/$own/testing/g" /etc/apt/sources.list.d/debian.sources > etc/suite.sources
o="-qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/etc -o Dir::State::Lists=$PWD/lists -o Dir::Cache=$PWD/cache -o Dir::State::status=/dev/null"
apt-get $o update
cd download
# The libraries of frr, and theirs.
libs=$(apt-cache $o depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances frr | grep '^lib' | grep -v ':' | sort -u)
apt-get $o download frr $(apt-cache $o policy $libs | awk '/^[a-z]/ {sub(":$", ""); name = $0} /Candidate:/ && $2 != "(none)" {print name}')
for d in *.deb; do dpkg -x "$d" ../root; done`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	// zebra gives up root, and must still find its modules.
	if err := os.Chmod(filepath.Join(work, "root"), 0o755); err != nil {
		return "", err
	}
	return root, os.Rename(filepath.Join(work, "root"), root)
}

const (
	bgpMiddle = `hostname middle
router bgp 65001
 bgp router-id 10.255.0.1
 bgp suppress-fib-pending
 no bgp ebgp-requires-policy
 neighbor 10.255.0.11 remote-as 65003
 neighbor 10.255.0.11 update-source 10.255.0.1
 neighbor 10.255.0.11 ebgp-multihop 2
 neighbor 10.255.0.12 remote-as 65002
 neighbor 10.255.0.12 update-source 10.255.0.1
 neighbor 10.255.0.12 ebgp-multihop 2
 neighbor 10.255.0.12 advertisement-interval 0
`
	bgpFirst = `router bgp 65003
 bgp router-id 10.255.0.11
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.255.0.1 remote-as 65001
 neighbor 10.255.0.1 update-source 10.255.0.11
 neighbor 10.255.0.1 ebgp-multihop 2
 neighbor 10.255.0.1 timers connect 1
 address-family ipv4 unicast
  network 10.9.0.0/16
  network 10.10.0.0/16
  neighbor 10.255.0.1 route-map away out
 exit-address-family
route-map away permit 10
 set ip next-hop 10.255.0.2
`
	bgpLast = `router bgp 65002
 bgp router-id 10.255.0.12
 no bgp ebgp-requires-policy
 neighbor 10.255.0.1 remote-as 65001
 neighbor 10.255.0.1 update-source 10.255.0.12
 neighbor 10.255.0.1 ebgp-multihop 2
 neighbor 10.255.0.1 timers connect 1
`
)

// FRR's suppression: bgpd announces a route to its neighbours when the FIB has it, and not before; zebra hears that by
// the answers over FPM (bgp suppress-fib-pending, zebra --asic-offload=notify_on_offload).
func TestIntegrationSuppression(t *testing.T) {
	b := newBox(t)
	b.Programs = newer(t)
	b.IP("addr", "add", "10.255.0.11/32", "dev", "lo")
	b.IP("addr", "add", "10.255.0.12/32", "dev", "lo")
	set, err := fib.New(&fib.Config{Size: 16 << 20, MaxFIBs: 64, MaxNextHops: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	conf := Config{Silent: true}
	conf.Feed.Create = true
	s := b.serve(set, conf)
	b.zebra("--asic-offload=notify_on_offload")
	b.FRR.Start("bgpd", bgpMiddle, "-l", "10.255.0.1")
	b.StartAlone("first", "bgpd", bgpFirst, "-l", "10.255.0.11")
	b.StartAlone("last", "bgpd", bgpLast, "-l", "10.255.0.12")
	show := func(instance, prefix string) string {
		return b.VtyAlone(instance, "bgpd", "show bgp ipv4 unicast "+prefix+" json")
	}
	has := func(instance, prefix string) bool { return strings.Contains(show(instance, prefix), `"valid":true`) }

	// Without answers the route is in the FIB, the session with the neighbour is up, and it is not told.
	b.leads(set, "10.9.0.0/16", "10.255.0.2")
	if _, ok := lab.Until(lab.Patience, func() bool {
		return strings.Contains(b.VtyAlone("last", "bgpd", "show bgp ipv4 unicast summary json"), `"state":"Established"`)
	}); !ok {
		t.Fatal("no session with the last neighbour")
	}
	if _, ok := lab.Until(lab.Patience, func() bool {
		return strings.Contains(b.Vty("bgpd", "show bgp ipv4 unicast 10.9.0.0/16"), "fib") || has("", "10.9.0.0/16")
	}); !ok {
		t.Fatal("the middle has no route")
	}
	if has("last", "10.9.0.0/16") {
		t.Fatalf("announced before the FIB was known to have it:\n%s", b.Vty("bgpd", "show bgp ipv4 unicast 10.9.0.0/16"))
	}
	s.stop()

	// With answers it is told; one that the FIB refuses is not.
	conf.Silent = false
	tab, _ := set.Table(fib.ID(rtnl.TableMain))
	table := &refusing{tab, netip.MustParsePrefix("10.10.0.0/16")}
	conf.Feed.Open = func(uint32) (feed.Table, fib.ID, error) { return table, tab.ID(), nil }
	session := NewSession(set, conf)
	if err := session.Adopt(rtnl.TableMain); err != nil {
		t.Fatal(err)
	}
	s = b.serveSession(session)
	if _, ok := lab.Until(lab.Patience, func() bool { return has("last", "10.9.0.0/16") }); !ok {
		c, _ := s.Counters()
		t.Fatalf("not announced: %+v\n%s\n%s", c, b.Vty("bgpd", "show bgp ipv4 unicast 10.9.0.0/16"), b.vty("show ip route 10.9.0.0/16 json"))
	}
	// In zebra's words: * in the FIB, o offload failure.
	for _, want := range []string{"B>* 10.9.0.0/16", "B>o 10.10.0.0/16"} {
		if _, ok := lab.Until(lab.Patience, func() bool { return strings.Contains(b.vty("show ip route"), want) }); !ok {
			t.Errorf("zebra does not say %s:\n%s", want, b.vty("show ip route"))
		}
	}
	if has("last", "10.10.0.0/16") {
		t.Error("the route that the FIB refused is announced")
	}
	if c, _ := s.Counters(); c.Failed == 0 {
		t.Errorf("%+v", c)
	}
}

// refusing is a table that has no room for one prefix.
type refusing struct {
	*fib.Table
	not netip.Prefix
}

func (r *refusing) Insert(p netip.Prefix, id fib.NextHopID) (fib.NextHopID, bool, error) {
	if p == r.not {
		return 0, false, &fib.OpError{Op: "insert", What: p.String(), Err: fib.ErrFull}
	}
	return r.Table.Insert(p, id)
}
