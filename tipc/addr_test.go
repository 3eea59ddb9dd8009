package tipc

import (
	"encoding"
	"net"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	_ net.Addr                 = ServiceAddr{}
	_ net.Addr                 = ServiceRange{}
	_ net.Addr                 = SocketAddr{}
	_ encoding.TextMarshaler   = NodeAddr(0)
	_ encoding.TextUnmarshaler = (*NodeAddr)(nil)
	_ encoding.TextMarshaler   = NodeID{}
	_ encoding.TextUnmarshaler = (*NodeID)(nil)
	_                          = netip.Addr{} // the model
)

func TestParseAddr(t *testing.T) {
	tests := []struct {
		in   string
		want any // value, or nil when the text must be refused as its kind
		out  string
	}{
		{"4711:7", ServiceAddr{Type: 4711, Instance: 7}, ""},
		{"0:4294967295", ServiceAddr{Type: 0, Instance: 1<<32 - 1}, ""},
		{"4711:7@2c6f6465", ServiceAddr{4711, 7, 0x2c6f6465}, ""},
		{"4711:7@1.1.2", ServiceAddr{4711, 7, 0x01001002}, "4711:7@01001002"},
		{"4711:0:99", ServiceRange{4711, 0, 99}, ""},
		{"17@2c6f6465", SocketAddr{17, 0x2c6f6465}, ""},
		{"17@1", SocketAddr{17, 1}, "17@00000001"},
		{"0@0", SocketAddr{}, "0@00000000"},
	}
	for _, tt := range tests {
		out := tt.out
		if out == "" {
			out = tt.in
		}
		var got any
		var err error
		switch tt.want.(type) {
		case ServiceAddr:
			got, err = ParseServiceAddr(tt.in)
		case ServiceRange:
			got, err = ParseServiceRange(tt.in)
		case SocketAddr:
			got, err = ParseSocketAddr(tt.in)
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: %v, %v; want %v", tt.in, got, err, tt.want)
			continue
		}
		if s := got.(net.Addr).String(); s != out {
			t.Errorf("%q: String %q", tt.in, s)
		}
		if got.(net.Addr).Network() != "tipc" {
			t.Errorf("%q: network", tt.in)
		}
	}
	if r, err := ParseServiceRange("5:6"); err != nil || r != (ServiceRange{5, 6, 6}) {
		t.Errorf("one instance as a range: %v, %v", r, err)
	}
}

func TestParseRefuses(t *testing.T) {
	bad := map[string]func(string) error{}
	addr := func(s string) error { _, err := ParseServiceAddr(s); return err }
	rng := func(s string) error { _, err := ParseServiceRange(s); return err }
	sock := func(s string) error { _, err := ParseSocketAddr(s); return err }
	node := func(s string) error { _, err := ParseNodeAddr(s); return err }
	id := func(s string) error { _, err := ParseNodeID(s); return err }
	for _, s := range []string{"", "1", ":", "1:", ":1", "1:2:3", "1:2@", "1:2@0", "1:2@x", "1:-2", "1:+2", "1: 2", "1:4294967296", "1:2@1.2", "0x1:2", "1_0:2"} {
		bad["addr "+s] = addr
	}
	for _, s := range []string{"", "1", "1:2:", "1:3:2", "1:2:3:4", "1:2:3@5", "1:2:3@0", "1:2@5", "1:2:x"} {
		bad["rng "+s] = rng
	}
	for _, s := range []string{"", "1", "@", "1@", "@1", "1:2@1", "1@123456789", "1@-1"} {
		bad["sock "+s] = sock
	}
	for _, s := range []string{"", "g", "256.0.0", "1.4096.0", "1.1.4096", "1.1", "1.1.1.1", "1..1", "+1", "1_1", "-1", "0x1"} {
		bad["node "+s] = node
	}
	for _, s := range []string{"", "x!y", strings.Repeat("a", 33), strings.Repeat("g", 17), strings.Repeat("0", 32), "a b"} {
		bad["id "+s] = id
	}
	for what, parse := range bad {
		_, text, _ := strings.Cut(what, " ")
		err := parse(text)
		if err == nil {
			t.Errorf("%q accepted", what)
			continue
		}
		pe, ok := err.(*ParseError)
		if !ok || pe.Text != text || pe.Reason == "" {
			t.Errorf("%q: %#v is no ParseError with the text and a reason", what, err)
		}
	}
}

func TestNodeID(t *testing.T) {
	// The first two and their addresses are from two real kernels; the third is a MAC address as the kernel makes it.
	tests := []struct {
		in, out string
		addr    NodeAddr
	}{
		{"nodeA", "nodeA", 0x2f6f6465},
		{"node2", "node2", 0x5c6f6465},
		{"0x", "0x", 0x30780000},
		{"00163e5e6c00ffffffff", "00163e5e6c00ffffffff", 0x00163e5e ^ 0x6c00ffff ^ 0xffff0000},
		{"1234567812345678123456781234567", "123456781234567812345678" + "1234567", 0x12345678 ^ 0x12345670},
		{"00000001000000010000000000000000", "0000000100000001", 1},
	}
	for _, tt := range tests {
		id, err := ParseNodeID(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if id.String() != tt.out || id.Addr() != tt.addr {
			t.Errorf("%q: %q %v, want %q %v", tt.in, id, id.Addr(), tt.out, tt.addr)
		}
	}
	if (NodeID{}).String() != "0" {
		t.Error("zero identity")
	}
	if got := NodeAddr(0x2f6f6465).Legacy(); got != "47.1782.1125" {
		t.Errorf("legacy notation %q", got)
	}
}

func TestAddrRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := rapid.Uint32()
		a := ServiceAddr{u.Draw(t, "type"), u.Draw(t, "inst"), NodeAddr(u.Draw(t, "node"))}
		if got, err := ParseServiceAddr(a.String()); err != nil || got != a {
			t.Fatalf("%v: %v, %v", a, got, err)
		}
		r := ServiceRange{a.Type, min(a.Instance, uint32(a.Node)), max(a.Instance, uint32(a.Node))}
		if got, err := ParseServiceRange(r.String()); err != nil || got != r {
			t.Fatalf("%v: %v, %v", r, got, err)
		}
		s := SocketAddr{a.Type, a.Node}
		if got, err := ParseSocketAddr(s.String()); err != nil || got != s {
			t.Fatalf("%v: %v, %v", s, got, err)
		}
		if got, err := ParseNodeAddr(a.Node.Legacy()); err != nil || got != a.Node {
			t.Fatalf("%v: %v, %v", a.Node, got, err)
		}
		var id NodeID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "id"))
		if id.IsZero() {
			return
		}
		got, err := ParseNodeID(id.String())
		// A short hexadecimal text is read as a name, in the kernel's tool as well.
		if err != nil || got != id && len(id.String()) > 16 {
			t.Fatalf("%x: %x, %v", id, got, err)
		}
		text, _ := id.MarshalText()
		if err := got.UnmarshalText(text); err != nil || got != id {
			t.Fatalf("%x as text %q: %x, %v", id, text, got, err)
		}
	})
}

func TestRanges(t *testing.T) {
	r := ServiceRange{1000, 10, 20}
	for inst, want := range map[uint32]bool{9: false, 10: true, 20: true, 21: false} {
		if r.Contains(ServiceAddr{Type: 1000, Instance: inst}) != want {
			t.Errorf("Contains %d", inst)
		}
	}
	if r.Contains(ServiceAddr{Type: 1001, Instance: 15}) {
		t.Error("other type")
	}
	for o, want := range map[ServiceRange]bool{
		{1000, 0, 9}: false, {1000, 0, 10}: true, {1000, 20, 99}: true, {1000, 21, 99}: false, {999, 10, 20}: false,
		{1000, 20, 10}: false,
	} {
		if r.Overlaps(o) != want {
			t.Errorf("Overlaps %v", o)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1:2", "1:2:3", "1@2", "1:2@1.2.3", "nodeA", "ff", "::", "@@", "1:2:3:4@5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseServiceAddr(s); err == nil {
			if b, err := ParseServiceAddr(a.String()); err != nil || a != b {
				t.Fatal(s, a, b, err)
			}
		}
		if a, err := ParseServiceRange(s); err == nil {
			if b, err := ParseServiceRange(a.String()); err != nil || a != b {
				t.Fatal(s, a, b, err)
			}
		}
		if a, err := ParseSocketAddr(s); err == nil {
			if b, err := ParseSocketAddr(a.String()); err != nil || a != b {
				t.Fatal(s, a, b, err)
			}
		}
		ParseNodeAddr(s)
		if id, err := ParseNodeID(s); err == nil && id.IsZero() {
			t.Fatal("zero identity accepted")
		}
	})
}
