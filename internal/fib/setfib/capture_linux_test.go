package setfib

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"testing"
)

// frames reads a capture of package lab (pcap, Ethernet, times in nanoseconds).
func frames(t testing.TB, pcap string) (l [][]byte) {
	t.Helper()
	b, err := os.ReadFile(pcap)
	if err != nil || len(b) < 24 {
		t.Fatalf("%s: %d octets, %v", pcap, len(b), err)
	}
	for b = b[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if len(b) < 16+n {
			t.Fatalf("%s is cut short", pcap)
		}
		l = append(l, b[16:16+n])
		b = b[16+n:]
	}
	return l
}

// foreign returns the frames that have an Ethernet address of another port than those given, or a text.
func foreign(all [][]byte, macs []string, texts ...string) (bad [][]byte) {
	var known [][]byte
	for _, m := range macs {
		a, _ := net.ParseMAC(m)
		known = append(known, a)
	}
	own := func(mac []byte) bool {
		if mac[0]&1 == 1 { // broadcast and multicast
			return true
		}
		for _, k := range known {
			if bytes.Equal(k, mac) {
				return true
			}
		}
		return false
	}
	for _, f := range all {
		if len(f) < 14 || !own(f[:6]) || !own(f[6:12]) {
			bad = append(bad, f)
			continue
		}
		for _, text := range texts {
			if bytes.Contains(f, []byte(text)) {
				bad = append(bad, f)
			}
		}
	}
	return bad
}
