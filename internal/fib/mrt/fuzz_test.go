package mrt

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzReader feeds anything. Whatever comes out is fit for a FIB, and the end is reached.
func FuzzReader(f *testing.F) {
	f.Add(dump(), true)
	f.Add(bgp4mp(messageAS4, "192.0.2.1", 64500, update(nlri(pfx("10.0.0.0/8")), attrs("192.0.2.7"), nlri(pfx("198.51.100.0/24")))), false)
	f.Add(bgp4mp(messageAS4AP, "2001:db8::1", 64500, update(nil, mpReach(2, addr("2001:db8::9").AsSlice(), []byte{0, 0, 0, 1, 0}), nil)), false)
	f.Add([]byte("10.0.0.0/8 via 192.0.2.1 dev eth0 metric 5\nblackhole ::/0\n198.51.100.0/24\n\tnexthop dev a weight 2\n"), true)
	f.Add([]byte("TABLE_DUMP2|1|B|192.0.2.1|64500|198.51.100.0/24|1|IGP|192.0.2.7|0|0||NAG||\nBGP4MP|1|STATE|192.0.2.1|1|6|1\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, every bool) {
		o := Options{}
		if every {
			o.Paths = All
		}
		r, err := NewReader(bytes.NewReader(b), o)
		if err != nil {
			return
		}
		var entries int64
		for steps := 0; ; steps++ {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				var re *RecordError
				if !errors.As(err, &re) {
					t.Fatalf("%T: %v", err, err)
				}
				if re.Fatal {
					break
				}
				if steps > 2*len(b)+2 && len(b) > 0 && b[0] != 0x1f && b[0] != 'B' {
					t.Fatal("no end")
				}
				continue
			}
			entries++
			if e.Kind == PeerDown {
				continue
			}
			if !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6() || e.Prefix.Addr().Zone() != "" {
				t.Fatalf("prefix %v", e.Prefix)
			}
			if len(e.Hops) > maxHops {
				t.Fatalf("%d next hops", len(e.Hops))
			}
			for _, h := range e.Hops {
				if a := h.Gateway; a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6()) {
					t.Fatalf("gateway %v", a)
				}
			}
		}
		if r.Stats().Entries != entries {
			t.Fatalf("%d entries, counted %d", entries, r.Stats().Entries)
		}
	})
}
