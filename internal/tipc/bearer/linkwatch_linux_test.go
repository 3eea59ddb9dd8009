package bearer

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// linkMessage builds an RTM_NEWLINK or RTM_DELLINK.
func linkMessage(typ uint16, family byte, index int, flags uint32, attrs ...[]byte) []byte {
	ne := binary.NativeEndian
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	ne.PutUint16(m[4:], typ)
	m[16] = family
	ne.PutUint32(m[20:], uint32(index))
	ne.PutUint32(m[24:], flags)
	for _, a := range attrs {
		m = append(m, a...)
		for len(m)%4 != 0 {
			m = append(m, 0)
		}
	}
	ne.PutUint32(m, uint32(len(m)))
	return m
}

func attr(typ uint16, v ...byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	a = binary.NativeEndian.AppendUint16(a, typ)
	return append(a, v...)
}

func TestParseLink(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
	last := linkState{up: true, mtu: 1500, mac: [6]byte{2, 0, 0, 0, 0, 1}}
	change := func(f func(*linkState)) linkState { s := last; f(&s); return s }
	mtu := func(n int) []byte {
		return attr(unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(n))...)
	}
	for _, tc := range []struct {
		name string
		m    []byte
		want linkState
		ok   bool
	}{
		{"nothing new", linkMessage(unix.RTM_NEWLINK, 0, 7, up), last, true},
		{"no carrier", linkMessage(unix.RTM_NEWLINK, 0, 7, unix.IFF_UP), change(func(s *linkState) { s.up = false }), true},
		{"not running", linkMessage(unix.RTM_NEWLINK, 0, 7, up&^unix.IFF_RUNNING), change(func(s *linkState) { s.up = false }), true},
		{"set down", linkMessage(unix.RTM_NEWLINK, 0, 7, up&^unix.IFF_UP), change(func(s *linkState) { s.up = false }), true},
		{"mtu", linkMessage(unix.RTM_NEWLINK, 0, 7, up, mtu(9000)), change(func(s *linkState) { s.mtu = 9000 }), true},
		{"least mtu", linkMessage(unix.RTM_NEWLINK, 0, 7, up, mtu(100)), change(func(s *linkState) { s.mtu = 100 }), true},
		{"small mtu", linkMessage(unix.RTM_NEWLINK, 0, 7, up, mtu(99)), change(func(s *linkState) { s.mtu, s.gone = 99, true }), true},
		{"address", linkMessage(unix.RTM_NEWLINK, 0, 7, up, attr(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 9)), change(func(s *linkState) { s.mac[5] = 9 }), true},
		{"address of another kind", linkMessage(unix.RTM_NEWLINK, 0, 7, up, attr(unix.IFLA_ADDRESS, 1, 2, 3, 4)), last, true},
		{"same name", linkMessage(unix.RTM_NEWLINK, 0, 7, up, attr(unix.IFLA_IFNAME, []byte("eth0\x00")...)), last, true},
		{"renamed", linkMessage(unix.RTM_NEWLINK, 0, 7, up, attr(unix.IFLA_IFNAME, []byte("eth9\x00")...)), change(func(s *linkState) { s.gone = true }), true},
		{"removed", linkMessage(unix.RTM_DELLINK, 0, 7, up), change(func(s *linkState) { s.gone = true }), true},
		{"left a bridge", linkMessage(unix.RTM_DELLINK, unix.AF_BRIDGE, 7, up), linkState{}, false},
		{"another device", linkMessage(unix.RTM_NEWLINK, 0, 8, 0), linkState{}, false},
		{"another type", linkMessage(unix.RTM_NEWADDR, 0, 7, 0), linkState{}, false},
		{"short", linkMessage(unix.RTM_NEWLINK, 0, 7, up)[:20], linkState{}, false},
		{"attribute too long", linkMessage(unix.RTM_NEWLINK, 0, 7, up, []byte{99, 0, 4, 0, 1, 1, 1, 1}), last, true},
		{"attribute too short", linkMessage(unix.RTM_NEWLINK, 0, 7, up, []byte{3, 0, 4, 0}), last, true},
	} {
		if got, ok := parseLink(tc.m, 7, "eth0", last); ok != tc.ok || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(linkMessage(unix.RTM_NEWLINK, 0, 7, 1, attr(unix.IFLA_MTU, 1, 2, 3, 4), attr(unix.IFLA_IFNAME, 'x', 0)))
	f.Add(linkMessage(unix.RTM_DELLINK, 0, 7, 0))
	f.Fuzz(func(t *testing.T, m []byte) {
		s, ok := parseLink(m, 7, "eth0", linkState{mtu: 1500})
		if !ok && s != (linkState{}) {
			t.Errorf("state %+v of a message about something else", s)
		}
	})
}

func TestReport(t *testing.T) {
	up := linkState{up: true, mtu: 1500}
	for _, tc := range []struct {
		name string
		now  linkState
		want []EventKind
	}{
		{"same", up, nil},
		{"down", linkState{mtu: 1500}, []EventKind{LinkDown}},
		{"all at once", linkState{mtu: 1400, mac: [6]byte{2}}, []EventKind{MTUChanged, AddrChanged, LinkDown}},
		{"gone", linkState{gone: true, mtu: 10}, []EventKind{Gone}},
	} {
		e := &Eth{events: make(chan Event, 16), done: make(chan struct{})}
		w := &linkWatch{}
		if !w.report(e, up, tc.now) {
			t.Errorf("%s: reports a closed bearer", tc.name)
		}
		close(e.events)
		var got []EventKind
		for ev := range e.events {
			got = append(got, ev.Kind)
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			}
		}
	}
	// Nobody reads and the bearer is closed.
	e := &Eth{events: make(chan Event), done: make(chan struct{})}
	close(e.done)
	if (&linkWatch{}).report(e, up, linkState{mtu: 1500}) {
		t.Error("a closed bearer's event was reported")
	}
}
