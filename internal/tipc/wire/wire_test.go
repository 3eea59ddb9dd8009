package wire_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"midplane/internal/tipc/wire"
)

func TestValidate(t *testing.T) {
	ok := make(wire.Msg, 100)
	wire.Init(ok, 0x1001001, wire.UserLow, wire.TypeNamed, wire.NamedHeaderSize, 0x1001002)
	ok.SetSize(90)
	change := func(f func(wire.Msg)) []byte {
		m := bytes.Clone(ok)
		f(m)
		return m
	}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"good with excess", ok, nil},
		{"empty", nil, wire.ErrShort},
		{"23 octets", ok[:23], wire.ErrShort},
		{"header cut", ok[:39], wire.ErrShort},
		{"data cut", ok[:89], wire.ErrShort},
		{"header 20", change(func(m wire.Msg) { m.SetHdrsz(20) }), wire.ErrHeader},
		{"size below header", change(func(m wire.Msg) { m.SetSize(39) }), wire.ErrHeader},
		{"size zero", change(func(m wire.Msg) { m.SetSize(0) }), wire.ErrHeader},
		{"too large", change(func(m wire.Msg) { m.SetSize(66041) }), wire.ErrSize},
		{"version 1", change(func(m wire.Msg) { m[0] = 1<<5 | m[0]&0x1f }), wire.ErrVersion},
		{"version 7", change(func(m wire.Msg) { m[0] |= 0xe0 }), wire.ErrVersion},
	} {
		m, err := wire.Validate(c.in)
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && (len(m) != 90 || cap(m) != 90) {
			t.Errorf("%s: len %d cap %d, want the 90 octets of the message alone", c.name, len(m), cap(m))
		}
	}
}

// Golden frames of the reference, section 0.
func TestGoldenFields(t *testing.T) {
	hex := func(w ...uint32) wire.Msg {
		var b []byte
		for _, x := range w {
			b = binary.BigEndian.AppendUint32(b, x)
		}
		return b
	}
	reset := hex(0x4f400038, 0x20000000, 0x00008000, 0x5d6f6465, 0x00000001, 0x29d34000, 0x5d6f6465, 0x5c6f6465, 0, 0x0dac0000)
	if reset.User() != wire.UserLinkProtocol || reset.Type() != wire.TypeReset || reset.Session() != 0x29d3 || !reset.BcAckInvalid() ||
		reset.MaxPkt() != 14000 || reset.SeqNo() != 0x8000 || !reset.IsReset() || reset.PeerLinkIsUp() {
		t.Errorf("reset: %x", reset)
	}
	ack := hex(0x51400028, 0, 0, 0, 0, 0, 0, 0, 0, 0x00290200)
	if ack.User() != wire.UserConnManager || ack.ConnAck() != 0x29 || ack.AdvWin() != 512 {
		t.Errorf("conn ack: %x", ack)
	}
	fin := hex(0x46c00018, 0x04000000)
	if fin.User() != wire.UserCritical || fin.ErrCode() != wire.CodeNoPort || fin.Hdrsz() != 24 || fin.Importance() != wire.SystemImportance {
		t.Errorf("close: %x", fin)
	}
	trial := hex(0x5bf0004c, 0x47fff273)
	if trial.User() != wire.UserLinkConfig || trial.Type() != wire.TypeDscTrial || trial.NodeCapabilities() != wire.CapsAll ||
		trial.NodeSig() != 0xf273 || !trial.NonSeq() || trial.SrcDroppable() {
		t.Errorf("trial: %x caps %x", trial, trial.NodeCapabilities())
	}
}

// Each setter must change what its getter reads and nothing that it does not own.
func TestSettersKeepNeighbours(t *testing.T) {
	type field struct {
		name string
		set  func(wire.Msg)
		get  func(wire.Msg) uint64
		want uint64
		word int
		mask uint32
	}
	fields := []field{
		{"user", func(m wire.Msg) { m.SetUser(9) }, func(m wire.Msg) uint64 { return uint64(m.User()) }, 9, 0, 0xf << 25},
		{"size", func(m wire.Msg) { m.SetSize(0x1abcd) }, func(m wire.Msg) uint64 { return uint64(m.Size()) }, 0x1abcd, 0, 0x1ffff},
		{"hdrsz", func(m wire.Msg) { m.SetHdrsz(44) }, func(m wire.Msg) uint64 { return uint64(m.Hdrsz()) }, 44, 0, 0xf << 21},
		{"type", func(m wire.Msg) { m.SetType(5) }, func(m wire.Msg) uint64 { return uint64(m.Type()) }, 5, 1, 7 << 29},
		{"err", func(m wire.Msg) { m.SetErrCode(5) }, func(m wire.Msg) uint64 { return uint64(m.ErrCode()) }, 5, 1, 0xf << 25},
		{"gap", func(m wire.Msg) { m.SetSeqGap(0x1234) }, func(m wire.Msg) uint64 { return uint64(m.SeqGap()) }, 0x1234, 1, 0x1fff << 16},
		{"bcast ack", func(m wire.Msg) { m.SetBcastAck(0x4321) }, func(m wire.Msg) uint64 { return uint64(m.BcastAck()) }, 0x4321, 1, 0xffff},
		{"ack", func(m wire.Msg) { m.SetAck(0xfedc) }, func(m wire.Msg) uint64 { return uint64(m.Ack()) }, 0xfedc, 2, 0xffff << 16},
		{"seqno", func(m wire.Msg) { m.SetSeqNo(0xfedc) }, func(m wire.Msg) uint64 { return uint64(m.SeqNo()) }, 0xfedc, 2, 0xffff},
		{"prio", func(m wire.Msg) { m.SetLinkPrio(31) }, func(m wire.Msg) uint64 { return uint64(m.LinkPrio()) }, 31, 5, 0x1f << 4},
		{"plane", func(m wire.Msg) { m.SetNetPlane('C') }, func(m wire.Msg) uint64 { return uint64(m.NetPlane()) }, 'C', 5, 7 << 1},
		{"bearer", func(m wire.Msg) { m.SetBearerID(2) }, func(m wire.Msg) uint64 { return uint64(m.BearerID()) }, 2, 5, 7 << 9},
		{"session", func(m wire.Msg) { m.SetSession(0xbeef) }, func(m wire.Msg) uint64 { return uint64(m.Session()) }, 0xbeef, 5, 0xffff << 16},
		{"bc gap", func(m wire.Msg) { m.SetBcGap(0x3ff) }, func(m wire.Msg) uint64 { return uint64(m.BcGap()) }, 0x3ff, 8, 0x3ff},
		{"max pkt", func(m wire.Msg) { m.SetMaxPkt(14001) }, func(m wire.Msg) uint64 { return uint64(m.MaxPkt()) }, 14000, 9, 0xffff << 16},
		{"tolerance", func(m wire.Msg) { m.SetLinkTolerance(30000) }, func(m wire.Msg) uint64 { return uint64(m.LinkTolerance()) }, 30000, 9, 0xffff},
		{"caps", func(m wire.Msg) { m.SetNodeCapabilities(wire.CapsAll) }, func(m wire.Msg) uint64 { return uint64(m.NodeCapabilities()) }, 0xfff, 1, 0x1fff << 15},
		{"grp seq", func(m wire.Msg) { m.SetGrpBcSeqno(7) }, func(m wire.Msg) uint64 { return uint64(m.GrpBcSeqno()) }, 7, 10, 0xffff << 16},
	}
	for _, f := range fields {
		for _, fill := range []byte{0, 0xff} {
			m := wire.Msg(bytes.Repeat([]byte{fill}, 60))
			f.set(m)
			if got := f.get(m); got != f.want {
				t.Errorf("%s on %x: got %#x, want %#x", f.name, fill, got, f.want)
			}
			for w := range 15 {
				keep := ^uint32(0)
				if w == f.word {
					keep = ^f.mask
				}
				if want := uint32(fill) * 0x01010101 & keep; m.Word(w)&keep != want {
					t.Errorf("%s on %x: word %d became %#x", f.name, fill, w, m.Word(w))
				}
			}
		}
	}
}

func TestMediaInfo(t *testing.T) {
	for _, a := range []wire.MediaAddr{
		{Media: wire.MediaEth, MAC: [6]byte{2, 1, 2, 3, 4, 5}},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("10.9.0.3:6118")},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("[fd00::7]:6200")},
	} {
		f := make([]byte, wire.MediaInfoSize)
		wire.PutMediaInfo(f, a)
		if got, ok := wire.ParseMediaInfo(f); !ok || got != a {
			t.Errorf("%v became %v, %v", a, got, ok)
		}
	}
	for _, a := range []wire.MediaAddr{
		{},
		{Media: wire.MediaEth, MAC: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("228.0.18.103:6118")},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("255.255.255.255:6118")},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("0.0.0.0:6118")},
		{Media: wire.MediaUDP, IP: netip.MustParseAddrPort("10.0.0.1:0")},
		{Media: 9},
	} {
		f := make([]byte, wire.MediaInfoSize)
		wire.PutMediaInfo(f, a)
		if got, ok := wire.ParseMediaInfo(f); ok {
			t.Errorf("%v accepted as %v", a, got)
		}
	}
	if _, ok := wire.ParseMediaInfo(make([]byte, 31)); ok {
		t.Error("31 octets accepted")
	}
}

func TestSubscrByteOrder(t *testing.T) {
	s := wire.Subscr{Range: wire.ServiceRange{Type: 4711, Lower: 1, Upper: 9}, Timeout: 500, Filter: wire.SubService, UserHandle: [8]byte{1, 2, 3}}
	for _, o := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
		b := make([]byte, wire.SubscrSize)
		wire.PutSubscr(b, s, o)
		got, order, ok := wire.ParseSubscr(b)
		if !ok || order != o || got != s {
			t.Errorf("%v: %+v %v %v", o, got, order, ok)
		}
		e := wire.Event{Kind: wire.EventPublished, Lower: 1, Upper: 2, Port: wire.SocketAddr{Port: 3, Node: 4}, Subscr: s}
		eb := make([]byte, wire.EventSize)
		wire.PutEvent(eb, e, o)
		if got, ok := wire.ParseEvent(eb, o); !ok || got != e {
			t.Errorf("%v: %+v", o, got)
		}
	}
	if _, _, ok := wire.ParseSubscr(make([]byte, 27)); ok {
		t.Error("27 octets accepted")
	}
}

func TestGapAckRejectsLies(t *testing.T) {
	good := wire.AppendGapAck(nil, []wire.GapAckBlock{{1, 2}}, []wire.GapAckBlock{{3, 4}, {5, 6}})
	g, n, ok := wire.ParseGapAck(good)
	if !ok || n != 16 || g.Broadcast() != 1 || g.Unicast() != 2 || g.BroadcastBlock(0) != (wire.GapAckBlock{1, 2}) || g.UnicastBlock(1) != (wire.GapAckBlock{5, 6}) {
		t.Fatalf("%v %d %v", g, n, ok)
	}
	for _, f := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:15] },
		func(b []byte) []byte { b[1]--; return b },
		func(b []byte) []byte { b[2]++; return b },
		func(b []byte) []byte { b[3] = 255; return b },
		func(b []byte) []byte { return b[:3] },
	} {
		if b := f(bytes.Clone(good)); true {
			if _, _, ok := wire.ParseGapAck(b); ok {
				t.Errorf("accepted %x", b)
			}
		}
	}
}

func TestSequenceNumbers(t *testing.T) {
	for _, c := range []struct {
		a, b               uint16
		less, lessEq, more bool
	}{
		{1, 2, true, true, false}, {2, 1, false, false, true}, {5, 5, false, true, false},
		{65535, 0, true, true, false}, {0, 65535, false, false, true}, {0, 32767, true, true, false}, {0, 32769, false, false, true},
	} {
		if wire.SeqLess(c.a, c.b) != c.less || wire.SeqLessEq(c.a, c.b) != c.lessEq || wire.SeqMore(c.a, c.b) != c.more {
			t.Errorf("%+v", c)
		}
	}
}

func FuzzValidate(f *testing.F) {
	for _, name := range []string{"eth.pcap", "udp.pcap"} {
		seen := map[[2]uint8]bool{}
		for _, b := range frames(f, name) {
			k := [2]uint8{uint8(wire.Msg(b).User()), wire.Msg(b).Type()}
			if !seen[k] && len(b) < 2000 {
				f.Add(b)
			}
			seen[k] = true
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Validate(b)
		if err != nil {
			return
		}
		if m.Hdrsz()+len(m.Data()) != m.Size() || len(m) != m.Size() {
			t.Fatalf("header %d + data %d, size %d, len %d", m.Hdrsz(), len(m.Data()), m.Size(), len(m))
		}
		m.OrigPort()
		m.MediaInfo()
		m.NodeIdentity()
		wire.ParseMediaInfo(m.MediaInfo())
		wire.ParseGapAck(m.Data())
		wire.ParseNameItem(m.Data())
		wire.ParseSubscr(m.Data())
	})
}
