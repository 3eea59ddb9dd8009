package rtnl

import (
	"bytes"
	"testing"
)

// FuzzNext decodes any octets: it ends, each message is decoded or counted as refused, and what was decoded comes back
// the same when it is encoded and decoded again.
func FuzzNext(f *testing.F) {
	for _, r := range routes {
		b, _ := AppendRoute(nil, Header{Type: NewRoute}, &r)
		f.Add(b)
	}
	for _, h := range hops {
		b, _ := AppendNextHop(nil, Header{Type: NewNextHop}, &h)
		f.Add(b)
	}
	kernel, frr := captured(f)
	f.Add(kernel)
	for _, b := range frr {
		f.Add(b)
	}
	f.Add(AppendAck(AppendDone(nil, 1, 2, 3), Header{Len: 20}, 17, "text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again Decoder
		var count, refused uint64
		for len(b) > 0 {
			m, rest, err := d.Next(b)
			count++
			if err != nil {
				refused++
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
			switch {
			case m.Route != nil:
				enc, err := AppendRoute(nil, m.Header, m.Route)
				if err != nil {
					t.Fatalf("%+v: %v", m.Route, err)
				}
				m2, _, err := again.Next(enc)
				if err != nil {
					t.Fatalf("%+v: %v", m.Route, err)
				}
				m2.Len = m.Len
				equal(t, m2.Header, m.Header)
				equal(t, *m2.Route, *m.Route)
			case m.NextHop != nil:
				if m.NextHop.Family != FamilyIPv4 && m.NextHop.Gateway.Is4() {
					t.Fatalf("%+v", m.NextHop)
				}
				enc, err := AppendNextHop(nil, m.Header, m.NextHop)
				if err != nil {
					t.Fatalf("%+v: %v", m.NextHop, err)
				}
				m2, _, err := again.Next(enc)
				if err != nil {
					t.Fatalf("%+v: %v", m.NextHop, err)
				}
				equal(t, *m2.NextHop, *m.NextHop)
			case m.Ack != nil:
				if bytes.HasSuffix(m.Ack.Message, []byte{0}) || m.Ack.Errno > 4095 {
					t.Fatalf("%+v", m.Ack)
				}
			}
		}
		c := d.Counters
		sum := c.Routes + c.NextHops + c.Acks + c.Other
		for _, n := range c.Refused {
			sum += n
			refused -= n
		}
		if sum != count || refused != 0 {
			t.Fatalf("%d messages, counters %+v", count, c)
		}
	})
}
