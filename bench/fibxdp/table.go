//go:build linux && amd64

package main

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// prefixes reads the real prefixes that bart tests with.
func prefixes() (v4, v6 []netip.Prefix, err error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gaissmai/bart").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("where bart is: %w", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "internal/tests/testdata/prefixes.txt.gz"))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, nil, err
	}
	seen := map[netip.Prefix]bool{}
	for s := bufio.NewScanner(z); s.Scan(); {
		p, err := netip.ParsePrefix(s.Text())
		if err != nil {
			return nil, nil, err
		}
		p = p.Masked()
		if seen[p] || p.Bits() == 0 {
			continue
		}
		seen[p] = true
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return v4, v6, nil
}

// within draws an address of a prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if r.Uint32()&1 != 0 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

const nKeys = 1 << 20

// checksum is that of the IPv4 header of frame4 with a destination.
func checksum(header []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func frame4(mac []byte) []byte {
	f := make([]byte, 64)
	copy(f, mac)
	copy(f[6:], []byte{2, 0, 0, 0, 0, 1})
	f[12] = 8
	copy(f[14:], []byte{0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 19, 0, 2})
	copy(f[34:], []byte{0x10, 0, 0x20, 0, 0, 30})
	return f
}

func frame6(mac []byte) []byte {
	f := make([]byte, 78)
	copy(f, mac)
	copy(f[6:], []byte{2, 0, 0, 0, 0, 1})
	f[12], f[13] = 0x86, 0xdd
	copy(f[14:], []byte{0x60, 0, 0, 0, 0, 24, 17, 64})
	src := netip.MustParseAddr("fd00:19::2").As16()
	copy(f[22:], src[:])
	copy(f[54:], []byte{0x10, 0, 0x20, 0, 0, 24})
	return f
}
