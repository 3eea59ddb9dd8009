package aem

import (
	"net/netip"
	"reflect"
	"testing"

	"midplane/internal/aem/loop"
)

// Datagrams come out of a record as they went in, whatever octets a path has; anything else is refused or means the same again.
func FuzzGrams(f *testing.F) {
	all := []loop.Datagram{
		{Data: []byte("x"), Addr: loop.Addr{AddrPort: netip.MustParseAddrPort("192.0.2.1:9")}},
		{Data: []byte{}, Addr: loop.Addr{AddrPort: netip.MustParseAddrPort("[fe80::1%3]:65535")}},
		{Data: make([]byte, 65535), Addr: loop.Addr{Path: "@\x00\xff/\xc3"}},
		{Data: []byte("from a socket without a name")},
	}
	b := appendGrams(nil, all)
	if got, err := parseGrams(b); err != nil || !reflect.DeepEqual(got, all) {
		f.Fatalf("%v, %v", got, err)
	}
	f.Add(b[:200])
	f.Add(b[:len(b)-1])
	f.Add([]byte{2, 0, 0, 0, 0x80, 0x80, 0x10})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseGrams(b)
		if err != nil {
			return
		}
		again, err := parseGrams(appendGrams(nil, all))
		if err != nil || !reflect.DeepEqual(again, all) {
			t.Fatalf("%v became %v, %v", all, again, err)
		}
	})
}
