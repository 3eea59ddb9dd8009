package wire_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"midplane/internal/tipc/wire"
)

// frames returns the TIPC packets of a capture in testdata (link type Ethernet): 0x88CA frames, and datagrams from or
// to UDP port 6118 after IPv4 reassembly.
func frames(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%s: not a little-endian pcap", name)
	}
	type key struct {
		src, dst [4]byte
		id       uint16
	}
	frags := map[key]map[int][]byte{}
	last := map[key]int{}
	var out [][]byte
	udp := func(d []byte) {
		sp, dp := binary.BigEndian.Uint16(d), binary.BigEndian.Uint16(d[2:])
		if sp == wire.UDPPort || dp == wire.UDPPort {
			out = append(out, d[8:binary.BigEndian.Uint16(d[4:])])
		}
	}
	for b = b[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		f := b[16 : 16+n]
		b = b[16+n:]
		switch binary.BigEndian.Uint16(f[12:]) {
		case wire.EtherType:
			out = append(out, f[14:])
		case 0x0800:
			ip := f[14:]
			ip = ip[:binary.BigEndian.Uint16(ip[2:])]
			if ip[9] != 17 {
				continue
			}
			h := int(ip[0]&15) * 4
			fl := binary.BigEndian.Uint16(ip[6:])
			off := int(fl&0x1fff) * 8
			if fl&0x2000 == 0 && off == 0 {
				udp(ip[h:])
				continue
			}
			k := key{[4]byte(ip[12:16]), [4]byte(ip[16:20]), binary.BigEndian.Uint16(ip[4:])}
			if frags[k] == nil {
				frags[k] = map[int][]byte{}
			}
			frags[k][off] = ip[h:]
			if fl&0x2000 == 0 {
				last[k] = off + len(ip) - h
			}
			var whole []byte
			for {
				p, ok := frags[k][len(whole)]
				if !ok {
					break
				}
				whole = append(whole, p...)
			}
			if len(whole) == last[k] && len(whole) > 0 {
				udp(whole)
				delete(frags, k)
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s: no TIPC frames", name)
	}
	return out
}

// reencode builds a second message from what the accessors say of m and returns it. Every bit that is not covered by a
// field must be copied here by an own rule, so that an unknown field shows as a difference.
func reencode(t *testing.T, m wire.Msg) wire.Msg {
	t.Helper()
	n := make(wire.Msg, len(m))
	n.SetVersion()
	n.SetUser(m.User())
	n.SetHdrsz(m.Hdrsz())
	n.SetNonSeq(m.NonSeq())
	n.SetDestDroppable(m.DestDroppable())
	n.SetSrcDroppable(m.SrcDroppable())
	n.SetSyn(m.IsSyn())
	n.SetSize(m.Size())
	n.SetType(m.Type())
	n.SetPrevNode(m.PrevNode())
	ack := func() {
		n.SetAck(m.Ack())
		n.SetSeqNo(m.SeqNo())
	}
	internal := func() {
		n.SetOrigNode(m.Word(6))
		n.SetDestNode(m.DestNode())
	}
	switch m.User() {
	case wire.UserLow, wire.UserMedium, wire.UserHigh, wire.UserCritical:
		n.SetErrCode(m.ErrCode())
		n.SetBcastAck(m.BcastAck())
		n.SetLookupScope(m.LookupScope())
		ack()
		n.SetOrigPort(m.OrigPort())
		n.SetDestPort(m.DestPort())
		if !m.IsShort() {
			internal()
		}
		if m.Hdrsz() >= wire.NamedHeaderSize {
			n.SetNameType(m.NameType())
			n.SetNameInst(m.NameInst())
		}
	case wire.UserConnManager:
		n.SetBcastAck(m.BcastAck())
		ack()
		n.SetOrigPort(m.OrigPort())
		n.SetDestPort(m.DestPort())
		internal()
		n.SetConnAck(m.ConnAck())
		n.SetAdvWin(m.AdvWin())
	case wire.UserLinkProtocol:
		switch m.Type() {
		case wire.TypeState:
			n.SetSeqGap(m.SeqGap())
			n.SetBcastAck(m.BcastAck())
		case wire.TypeActivate:
			n.SetDestSession(m.DestSession())
			n.SetDestSessionValid(m.DestSessionValid())
		}
		ack()
		n.SetLastBcast(m.LastBcast())
		n.SetNextSent(m.NextSent())
		n.SetSession(m.Session())
		n.SetBcAckInvalid(m.BcAckInvalid())
		n.SetPeerStopping(m.PeerStopping())
		n.SetRedundantLink(m.RedundantLink())
		n.SetBearerID(m.BearerID())
		n.SetLinkPrio(m.LinkPrio())
		n.SetNetPlane(m.NetPlane())
		n.SetProbe(m.Probe())
		internal()
		n.SetBcGap(m.BcGap())
		n.SetMaxPkt(m.MaxPkt())
		n.SetLinkTolerance(m.LinkTolerance())
	case wire.UserBcastProtocol:
		n.SetBcastAck(m.BcastAck())
		ack()
		n.SetLastBcast(m.LastBcast())
		n.SetNextSent(m.NextSent())
		n.SetMcNetID(m.McNetID())
		internal()
	case wire.UserNameDistr:
		n.SetBcastAck(m.BcastAck())
		if m.IsBulk() {
			n.SetBulk()
		}
		if m.IsLastBulk() {
			n.SetLastBulk()
		}
		if !m.IsLegacy() {
			n.SetNonLegacy()
		}
		ack()
		n.SetNamedSeqNo(m.NamedSeqNo())
		n.SetDestPort(m.DestPort())
		internal()
	case wire.UserFragmenter:
		n.SetBcastAck(m.BcastAck())
		ack()
		n.SetNofFragms(m.NofFragms())
		n.SetFragmNo(m.FragmNo())
		n.SetDestPort(m.DestPort())
		internal()
		n.SetImportance(m.Importance())
	case wire.UserBundler:
		n.SetBcastAck(m.BcastAck())
		ack()
		internal()
		n.SetMsgCnt(m.MsgCnt())
		n.SetImportance(m.Importance())
	case wire.UserLinkConfig:
		n.SetNodeSig(m.NodeSig())
		n.SetNodeCapabilities(m.NodeCapabilities())
		n.SetDestDomain(m.DestDomain())
		n.SetBcNetID(m.BcNetID())
		a, ok := wire.ParseMediaInfo(m.MediaInfo())
		if !ok {
			t.Errorf("media info %x", m.MediaInfo())
		}
		wire.PutMediaInfo(n.MediaInfo(), a)
		n.SetPeerNetHash(m.PeerNetHash())
		n.SetSuggNodeAddr(m.SuggNodeAddr())
		id, ok := m.NodeIdentity()
		if !ok {
			t.Error("no identity")
		}
		n.SetNodeIdentity(id)
	default:
		t.Errorf("unexpected user %v", m.User())
	}
	switch {
	case m.User() == wire.UserLinkConfig:
	case m.User() == wire.UserNameDistr:
		for i := m.Hdrsz(); i+wire.NameItemSize <= m.Size(); i += wire.NameItemSize {
			it, _ := wire.ParseNameItem(m[i:])
			wire.PutNameItem(n[i:], it)
		}
	case m.User() == wire.UserLinkProtocol && m.Type() == wire.TypeState:
		g, _, ok := wire.ParseGapAck(m.Data())
		if !ok {
			t.Errorf("gap-ack record %x", m.Data())
			break
		}
		var bc, uc []wire.GapAckBlock
		for i := range g.Broadcast() {
			bc = append(bc, g.BroadcastBlock(i))
		}
		for i := range g.Unicast() {
			uc = append(uc, g.UnicastBlock(i))
		}
		r := wire.AppendGapAck(nil, bc, uc)
		copy(n[m.Hdrsz():], r)
		copy(n[m.Hdrsz()+len(r):], m.Data()[len(r):]) // monitor record
	default:
		copy(n[m.Hdrsz():], m.Data())
	}
	return n
}

func TestCapturedFramesReencode(t *testing.T) {
	for _, name := range []string{"eth.pcap", "udp.pcap"} {
		t.Run(name, func(t *testing.T) {
			users := map[wire.User]int{}
			for i, f := range frames(t, name) {
				m, err := wire.Validate(f)
				if err != nil {
					t.Fatalf("frame %d: %v: %x", i, err, f)
				}
				users[m.User()]++
				if got := reencode(t, m); !bytes.Equal(got, m) {
					t.Errorf("frame %d (%v type %d) differs:\n got %x\nwant %x", i, m.User(), m.Type(), got[:min(len(got), 80)], m[:min(len(m), 80)])
				}
			}
			t.Log(users)
			for _, u := range []wire.User{wire.UserLow, wire.UserBcastProtocol, wire.UserLinkProtocol, wire.UserConnManager,
				wire.UserNameDistr, wire.UserFragmenter, wire.UserLinkConfig} {
				if users[u] == 0 {
					t.Errorf("no frame of user %v in the capture", u)
				}
			}
		})
	}
}

// Encrypted frames have version 7 and keep their octets: they are refused here, crypto comes later.
func TestEncryptedFramesAreNotVersion2(t *testing.T) {
	n := 0
	for i, f := range frames(t, "udp-aes-gcm.pcap") {
		if wire.Msg(f).Version() != 7 {
			t.Errorf("frame %d: version %d", i, wire.Msg(f).Version())
		}
		if _, err := wire.Validate(f); err == nil {
			t.Errorf("frame %d accepted as plain", i)
		}
		n++
	}
	if n != 99 {
		t.Errorf("%d frames, want 99", n)
	}
}
