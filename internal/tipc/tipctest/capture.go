// Package tipctest is what the tests of the cores share: captures of kernels, payloads that tell whether they arrived
// whole and in order, and a line that loses, repeats and delays packets.
package tipctest

import (
	"encoding/binary"
	"os"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Ethernet is the capture of two Linux 6.1 kernels that meet, talk and part, as seen from a package beside wire.
const Ethernet = "../wire/testdata/eth.pcap"

// Frame is a TIPC packet of a capture.
type Frame struct {
	At  mono.Time
	Src wire.MediaAddr
	Msg wire.Msg
}

// Capture returns the TIPC packets of an Ethernet capture, none of which shares memory with another.
func Capture(t testing.TB, name string) (out []Frame) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[24:]; len(b) >= 16; {
		at := mono.Time(binary.LittleEndian.Uint32(b))*1e9 + mono.Time(binary.LittleEndian.Uint32(b[4:]))*1e3
		n := int(binary.LittleEndian.Uint32(b[8:]))
		f := b[16 : 16+n : 16+n]
		b = b[16+n:]
		if binary.BigEndian.Uint16(f[12:]) != wire.EtherType {
			continue
		}
		m, err := wire.Validate(f[14:])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, Frame{at, wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte(f[6:12])}, m})
	}
	if len(out) < 20 {
		t.Fatalf("%s: only %d TIPC packets", name, len(out))
	}
	return out
}
