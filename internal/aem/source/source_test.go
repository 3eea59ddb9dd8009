package source

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func message(typ uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, make([]byte, 10)...)
	return append(b, payload...)
}

func attribute(typ uint16, v []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func linkPayload() []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[4:], 7)
	binary.NativeEndian.PutUint32(b[8:], 0x41)
	b = append(b, attribute(ifName, []byte("eth7\x00"))...)
	b = append(b, attribute(ifMTU, binary.NativeEndian.AppendUint32(nil, 1400))...)
	return append(b, attribute(ifOper, []byte{6})...)
}

func addrPayload(bits uint8, address, local string) []byte {
	b := make([]byte, 8)
	b[1], b[2] = bits, 0x80
	binary.NativeEndian.PutUint32(b[4:], 7)
	b = append(b, attribute(addrAddress, netip.MustParseAddr(address).AsSlice())...)
	if local != "" {
		b = append(b, attribute(addrLocal, netip.MustParseAddr(local).AsSlice())...)
	}
	return append(b, attribute(addrLabel, []byte("eth7\x00"))...)
}

func fileEvent(wd int32, mask uint32, name string) []byte {
	padded := append([]byte(name), make([]byte, 16-len(name)%16)...)
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 99)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(padded)))
	return append(b, padded...)
}

func accessEvent(mask uint64, fd, pid int32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 24)
	b = append(b, 3, 0)
	b = binary.NativeEndian.AppendUint16(b, 24)
	b = binary.NativeEndian.AppendUint64(b, mask)
	b = binary.NativeEndian.AppendUint32(b, uint32(fd))
	return binary.NativeEndian.AppendUint32(b, uint32(pid))
}

func TestNetlink(t *testing.T) {
	b := append(message(rtmNewLink, linkPayload()), message(rtmDelAddr, addrPayload(24, "192.0.2.1", "192.0.2.1"))...)
	m, rest, err := NextMessage(b)
	if err != nil || m.Kind != NewLink {
		t.Fatal(m.Kind, err)
	}
	if l, err := DecodeLink(m.Payload); err != nil || l != (Link{7, "eth7", 0x41, 1400, 6}) {
		t.Fatal(l, err)
	}
	m, rest, err = NextMessage(rest)
	if err != nil || m.Kind != DelAddr || len(rest) != 0 {
		t.Fatal(m.Kind, len(rest), err)
	}
	if a, err := DecodeAddr(m.Payload); err != nil || a != (Addr{Index: 7, Prefix: netip.MustParsePrefix("192.0.2.1/24"), Label: "eth7", Flags: 0x80}) {
		t.Fatal(a, err)
	}
	a, err := DecodeAddr(addrPayload(32, "192.0.2.9", "192.0.2.1")) // point to point
	if err != nil || a.Prefix.Addr().String() != "192.0.2.1" || a.Peer.String() != "192.0.2.9" {
		t.Fatal(a, err)
	}
	if a, err = DecodeAddr(addrPayload(64, "2001:db8::1", "")); err != nil || a.Prefix.String() != "2001:db8::1/64" {
		t.Fatal(a, err)
	}
	for name, b := range map[string][]byte{"bits": addrPayload(33, "192.0.2.1", ""), "no address": make([]byte, 8), "cut": addrPayload(24, "192.0.2.1", "")[:11]} {
		if a, err := DecodeAddr(b); err == nil {
			t.Errorf("%s: %v", name, a)
		}
	}
}

func TestFileAndAccessEvents(t *testing.T) {
	b := append(fileEvent(1, 0x100, "new"), fileEvent(2, 0x8, "a name of more than sixteen octets")...)
	e, rest, err := NextFileEvent(b)
	if err != nil || e != (FileEvent{1, 0x100, 99, "new"}) {
		t.Fatal(e, err)
	}
	if e, rest, err = NextFileEvent(rest); err != nil || e.Name != "a name of more than sixteen octets" || len(rest) != 0 {
		t.Fatal(e, err)
	}
	if _, _, err := NextFileEvent(b[:20]); err == nil {
		t.Fatal("a cut event was read")
	}
	a, rest, err := NextAccessEvent(accessEvent(0x20, 9, 77))
	if err != nil || a != (AccessEvent{0x20, 9, 77}) || len(rest) != 0 {
		t.Fatal(a, err)
	}
	wrong := accessEvent(1, 1, 1)
	wrong[4] = 2
	if _, _, err := NextAccessEvent(wrong); err == nil {
		t.Fatal("another version was read")
	}
}

// Whatever the octets are, every reader ends, and takes something off.
func FuzzParse(f *testing.F) {
	f.Add(message(rtmNewLink, linkPayload()))
	f.Add(message(rtmNewAddr, addrPayload(24, "192.0.2.1", "192.0.2.2")))
	f.Add(fileEvent(1, 2, "name"))
	f.Add(accessEvent(1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			m, next, err := NextMessage(rest)
			if err != nil {
				break
			}
			if l, err := DecodeLink(m.Payload); err == nil && len(l.Name) > len(m.Payload) {
				t.Fatal("a name from nowhere")
			}
			if a, err := DecodeAddr(m.Payload); err == nil && !a.Prefix.IsValid() {
				t.Fatal("an invalid prefix")
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = next
		}
		for rest := b; len(rest) > 0; {
			_, next, err := NextFileEvent(rest)
			if err != nil {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = next
		}
		for rest := b; len(rest) > 0; {
			_, next, err := NextAccessEvent(rest)
			if err != nil {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = next
		}
	})
}
