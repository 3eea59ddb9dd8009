package fibtest

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// bart is the module that has a routing table of the Internet among its tests (MIT licence): 901,899 IPv4 and 160,147
// IPv6 prefixes, one a line. It is a requirement of this module, so go finds or downloads it; nothing is copied.
const bart = "github.com/gaissmai/bart"

// Prefixes returns the prefixes of a full routing table, IPv4 and IPv6, in their order. The slices are shared.
var Prefixes = sync.OnceValues(func() (ipv4and6 [2][]netip.Prefix, err error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", bart).Output()
	if err != nil {
		return ipv4and6, fmt.Errorf("go list -m %s: %w", bart, err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" { // it is known, but was not needed so far
		if out, err = exec.Command("go", "mod", "download", "-json", bart).CombinedOutput(); err != nil {
			return ipv4and6, fmt.Errorf("go mod download %s: %w\n%s", bart, err, out)
		}
		if out, err = exec.Command("go", "list", "-m", "-f", "{{.Dir}}", bart).Output(); err != nil {
			return ipv4and6, fmt.Errorf("go list -m %s: %w", bart, err)
		}
		dir = strings.TrimSpace(string(out))
	}
	f, err := os.Open(filepath.Join(dir, "internal", "tests", "testdata", "prefixes.txt.gz"))
	if err != nil {
		return ipv4and6, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return ipv4and6, err
	}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		p, err := netip.ParsePrefix(lines.Text())
		if err != nil {
			return ipv4and6, err
		}
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		ipv4and6[family] = append(ipv4and6[family], p.Masked())
	}
	return ipv4and6, lines.Err()
})

// Hops is how many next hops the tables of tests have. With so many, drawn for each route alone, routes side by side
// have the same one less often than in life, which is the worst case for memory.
const Hops = 500

// Hop draws a next hop, 1 to Hops.
func Hop(r *rand.Rand) uint32 { return 1 + r.Uint32N(Hops) }

// Rand returns a source of randomness that is the same in each run.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6d6964706c616e65)) }

// Within returns a random address of a prefix.
func Within(r *rand.Rand, p netip.Prefix) netip.Addr {
	keep := p.Bits()
	mix := func(b []byte) {
		for i := range b {
			if free := min(max(8*(i+1)-keep, 0), 8); free > 0 {
				b[i] |= byte(r.Uint32()) & (1<<free - 1)
			}
		}
	}
	if p.Addr().Is4() {
		b := p.Addr().As4()
		mix(b[:])
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	mix(b[:])
	return netip.AddrFrom16(b)
}

// Any returns a random address of a family: 0 IPv4, 1 IPv6.
func Any(r *rand.Rand, family int) netip.Addr {
	if family == 0 {
		return Within(r, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	return Within(r, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
}
