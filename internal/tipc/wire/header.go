package wire

import "encoding/binary"

// Msg is a TIPC message: header, then data. See the package comment for the rules.
type Msg []byte

// Word returns header word w (0 to 14), or 0 when the slice does not hold it.
func (m Msg) Word(w int) uint32 {
	if o := w * 4; o+4 <= len(m) {
		return binary.BigEndian.Uint32(m[o:])
	}
	return 0
}

// SetWord stores header word w.
func (m Msg) SetWord(w int, v uint32) {
	if o := w * 4; o+4 <= len(m) {
		binary.BigEndian.PutUint32(m[o:], v)
	}
}

func (m Msg) bits(w int, pos uint, mask uint32) uint32 { return m.Word(w) >> pos & mask }

func (m Msg) setBits(w int, pos uint, mask, v uint32) {
	m.SetWord(w, m.Word(w)&^(mask<<pos)|(v&mask)<<pos)
}

func (m Msg) bit(w int, pos uint) bool { return m.Word(w)>>pos&1 != 0 }

func (m Msg) setBit(w int, pos uint, v bool) {
	var n uint32
	if v {
		n = 1
	}
	m.setBits(w, pos, 1, n)
}

// Init clears the first hdrsz octets of m and writes what each header has: version, user, type, header size, total
// size (= hdrsz), previous node and, when the header has room for them, origin and destination node
// (net/tipc/msg.c tipc_msg_init). m must hold hdrsz octets.
func Init(m Msg, ownNode uint32, user User, typ uint8, hdrsz int, destNode uint32) {
	clear(m[:hdrsz])
	m.SetVersion()
	m.SetUser(user)
	m.SetHdrsz(hdrsz)
	m.SetSize(hdrsz)
	m.SetPrevNode(ownNode)
	m.SetType(typ)
	if hdrsz > ShortHeaderSize {
		m.SetOrigNode(ownNode)
		m.SetDestNode(destNode)
	}
}

// Word 0.

func (m Msg) Version() uint32         { return m.bits(0, 29, 7) }
func (m Msg) SetVersion()             { m.setBits(0, 29, 7, Version) }
func (m Msg) User() User              { return User(m.bits(0, 25, 0xf)) }
func (m Msg) SetUser(u User)          { m.setBits(0, 25, 0xf, uint32(u)) }
func (m Msg) IsData() bool            { return m.User() <= UserCritical }
func (m Msg) Hdrsz() int              { return int(m.bits(0, 21, 0xf)) << 2 }
func (m Msg) SetHdrsz(n int)          { m.setBits(0, 21, 0xf, uint32(n)>>2) }
func (m Msg) Size() int               { return int(m.bits(0, 0, 0x1ffff)) }
func (m Msg) SetSize(n int)           { m.setBits(0, 0, 0x1ffff, uint32(n)) }
func (m Msg) DataSize() int           { return m.Size() - m.Hdrsz() }
func (m Msg) NonSeq() bool            { return m.bit(0, 20) }
func (m Msg) SetNonSeq(v bool)        { m.setBit(0, 20, v) }
func (m Msg) IsSyn() bool             { return m.bit(0, 17) }
func (m Msg) SetSyn(v bool)           { m.setBit(0, 17, v) }
func (m Msg) DestDroppable() bool     { return m.bit(0, 19) }
func (m Msg) SetDestDroppable(v bool) { m.setBit(0, 19, v) }
func (m Msg) IsKeepalive() bool       { return m.bit(0, 19) }
func (m Msg) SetIsKeepalive(v bool)   { m.setBit(0, 19, v) }
func (m Msg) SrcDroppable() bool      { return m.bit(0, 18) }
func (m Msg) SetSrcDroppable(v bool)  { m.setBit(0, 18, v) }
func (m Msg) AckRequired() bool       { return m.bit(0, 18) }
func (m Msg) SetAckRequired()         { m.setBit(0, 18, true) }
func (m Msg) NagleAck() bool          { return m.bit(0, 18) }
func (m Msg) SetNagleAck()            { m.setBit(0, 18, true) }
func (m Msg) IsRcast() bool           { return m.bit(0, 18) }
func (m Msg) SetIsRcast(v bool)       { m.setBit(0, 18, v) }

// Blocks is the message's weight in block flow control: size/1024 + 1, header included (net/tipc/msg.h msg_blocks).
func (m Msg) Blocks() uint32 { return uint32(m.Size())/FlowBlockSize + 1 }

// Data is what follows the header, up to the size that the header gives or the end of the slice.
func (m Msg) Data() []byte {
	h, n := m.Hdrsz(), m.Size()
	if n > len(m) {
		n = len(m)
	}
	if h > n {
		return nil
	}
	return m[h:n]
}

// InnerHdr is the message inside a tunnel, fragment or bundle packet; it is not validated.
func (m Msg) InnerHdr() Msg { return Msg(m.Data()) }

// Word 1.

func (m Msg) Type() uint8                { return uint8(m.bits(1, 29, 7)) }
func (m Msg) SetType(t uint8)            { m.setBits(1, 29, 7, uint32(t)) }
func (m Msg) ErrCode() ErrCode           { return ErrCode(m.bits(1, 25, 0xf)) }
func (m Msg) SetErrCode(e ErrCode)       { m.setBits(1, 25, 0xf, uint32(e)) }
func (m Msg) IsBulk() bool               { return m.bit(1, 28) }
func (m Msg) SetBulk()                   { m.setBit(1, 28, true) }
func (m Msg) IsLastBulk() bool           { return m.bit(1, 27) }
func (m Msg) SetLastBulk()               { m.setBit(1, 27, true) }
func (m Msg) SetNonLegacy()              { m.setBit(1, 26, true) }
func (m Msg) IsLegacy() bool             { return !m.bit(1, 26) }
func (m Msg) RerouteCnt() uint32         { return m.bits(1, 21, 0xf) }
func (m Msg) IncrRerouteCnt()            { m.setBits(1, 21, 0xf, m.RerouteCnt()+1) }
func (m Msg) LookupScope() Scope         { return Scope(m.bits(1, 19, 3)) }
func (m Msg) SetLookupScope(s Scope)     { m.setBits(1, 19, 3, uint32(s)) }
func (m Msg) BcastAck() uint16           { return uint16(m.bits(1, 0, 0xffff)) }
func (m Msg) SetBcastAck(n uint16)       { m.setBits(1, 0, 0xffff, uint32(n)) }
func (m Msg) DestSessionValid() bool     { return m.bit(1, 16) }
func (m Msg) SetDestSessionValid(v bool) { m.setBit(1, 16, v) }
func (m Msg) DestSession() uint16        { return uint16(m.bits(1, 0, 0xffff)) }
func (m Msg) SetDestSession(n uint16)    { m.setBits(1, 0, 0xffff, uint32(n)) }
func (m Msg) SeqGap() uint16             { return uint16(m.bits(1, 16, 0x1fff)) }
func (m Msg) SetSeqGap(n uint16)         { m.setBits(1, 16, 0x1fff, uint32(n)) }

// NodeSig and NodeCapabilities of discovery messages overlap at bit 15: the kernel writes the capabilities last.
func (m Msg) NodeSig() uint16            { return uint16(m.bits(1, 0, 0xffff)) }
func (m Msg) SetNodeSig(n uint16)        { m.setBits(1, 0, 0xffff, uint32(n)) }
func (m Msg) NodeCapabilities() Caps     { return Caps(m.bits(1, 15, 0x1fff)) }
func (m Msg) SetNodeCapabilities(c Caps) { m.setBits(1, 15, 0x1fff, uint32(c)) }

// IsGroup, IsNamed, IsMcast, IsConnected and IsDirect sort data messages by type (msg_in_group, msg_named, ...).
func (m Msg) IsGroup() bool {
	t := m.Type()
	return t >= TypeGroupMemberEvt && t <= TypeGroupUcast
}
func (m Msg) IsGroupEvt() bool { return m.Type() == TypeGroupMemberEvt }
func (m Msg) IsNamed() bool    { return m.Type() == TypeNamed }
func (m Msg) IsMcast() bool {
	t := m.Type()
	return t == TypeMcast || t == TypeGroupBcast || t == TypeGroupMcast
}
func (m Msg) IsConnected() bool { return m.Type() == TypeConn }
func (m Msg) IsDirect() bool    { return m.Type() == TypeDirect }

// Word 2.

func (m Msg) Ack() uint16            { return uint16(m.bits(2, 16, 0xffff)) }
func (m Msg) SetAck(n uint16)        { m.setBits(2, 16, 0xffff, uint32(n)) }
func (m Msg) SeqNo() uint16          { return uint16(m.bits(2, 0, 0xffff)) }
func (m Msg) SetSeqNo(n uint16)      { m.setBits(2, 0, 0xffff, uint32(n)) }
func (m Msg) DestDomain() uint32     { return m.Word(2) }
func (m Msg) SetDestDomain(a uint32) { m.SetWord(2, a) }
func (m Msg) BcgapAfter() uint16     { return uint16(m.bits(2, 16, 0xffff)) }
func (m Msg) SetBcgapAfter(n uint16) { m.setBits(2, 16, 0xffff, uint32(n)) }
func (m Msg) BcgapTo() uint16        { return uint16(m.bits(2, 0, 0xffff)) }
func (m Msg) SetBcgapTo(n uint16)    { m.setBits(2, 0, 0xffff, uint32(n)) }

// Word 3.

func (m Msg) PrevNode() uint32     { return m.Word(3) }
func (m Msg) SetPrevNode(a uint32) { m.SetWord(3, a) }

// Word 4.

// OrigPort is the sending socket's port; for a fragment-carrying user it is that of the inner message
// (net/tipc/msg.h msg_origport).
func (m Msg) OrigPort() uint32 {
	if m.User() == UserFragmenter {
		m = m.InnerHdr()
	}
	return m.Word(4)
}
func (m Msg) SetOrigPort(p uint32)   { m.SetWord(4, p) }
func (m Msg) NamedSeqNo() uint16     { return uint16(m.bits(4, 0, 0xffff)) }
func (m Msg) SetNamedSeqNo(n uint16) { m.setBits(4, 0, 0xffff, uint32(n)) }
func (m Msg) LastBcast() uint16      { return uint16(m.bits(4, 16, 0xffff)) }
func (m Msg) SetLastBcast(n uint16)  { m.setBits(4, 16, 0xffff, uint32(n)) }
func (m Msg) BcSndNxt() uint16       { return m.LastBcast() + 1 }
func (m Msg) NofFragms() uint16      { return uint16(m.bits(4, 0, 0xffff)) }
func (m Msg) SetNofFragms(n uint16)  { m.setBits(4, 0, 0xffff, uint32(n)) }
func (m Msg) FragmNo() uint16        { return uint16(m.bits(4, 16, 0xffff)) }
func (m Msg) SetFragmNo(n uint16)    { m.setBits(4, 16, 0xffff, uint32(n)) }
func (m Msg) NextSent() uint16       { return uint16(m.bits(4, 0, 0xffff)) }
func (m Msg) SetNextSent(n uint16)   { m.setBits(4, 0, 0xffff, uint32(n)) }
func (m Msg) BcNetID() uint32        { return m.Word(4) }
func (m Msg) SetBcNetID(n uint32)    { m.SetWord(4, n) }

// LinkSelector chooses between two active links: the parity of the sending port, for a fragment that of the message
// inside (msg_link_selector).
func (m Msg) LinkSelector() uint32 { return m.OrigPort() & 1 }

// Word 5.

func (m Msg) DestPort() uint32     { return m.Word(5) }
func (m Msg) SetDestPort(p uint32) { m.SetWord(5, p) }
func (m Msg) McNetID() uint32      { return m.Word(5) }
func (m Msg) SetMcNetID(n uint32)  { m.SetWord(5, n) }
func (m Msg) Session() uint16      { return uint16(m.bits(5, 16, 0xffff)) }
func (m Msg) SetSession(n uint16)  { m.setBits(5, 16, 0xffff, uint32(n)) }
func (m Msg) Probe() bool          { return m.bit(5, 0) }
func (m Msg) SetProbe(v bool)      { m.setBit(5, 0, v) }

// NetPlane is the link's network plane letter, 'A' to 'H'.
func (m Msg) NetPlane() byte          { return byte(m.bits(5, 1, 7)) + 'A' }
func (m Msg) SetNetPlane(p byte)      { m.setBits(5, 1, 7, uint32(p-'A')) }
func (m Msg) LinkPrio() uint32        { return m.bits(5, 4, 0x1f) }
func (m Msg) SetLinkPrio(n uint32)    { m.setBits(5, 4, 0x1f, n) }
func (m Msg) BearerID() uint32        { return m.bits(5, 9, 7) }
func (m Msg) SetBearerID(n uint32)    { m.setBits(5, 9, 7, n) }
func (m Msg) RedundantLink() bool     { return m.bit(5, 12) }
func (m Msg) SetRedundantLink(v bool) { m.setBit(5, 12, v) }
func (m Msg) PeerStopping() bool      { return m.bit(5, 13) }
func (m Msg) SetPeerStopping(v bool)  { m.setBit(5, 13, v) }
func (m Msg) SetBcAckInvalid(v bool)  { m.setBit(5, 14, v) }

// BcAckInvalid says that BcastAck means nothing yet, because the sender has not been told where to start. Only internal
// users have the bit; in data messages it is part of the port (msg_bc_ack_invalid).
func (m Msg) BcAckInvalid() bool {
	switch m.User() {
	case UserBcastProtocol, UserNameDistr, UserLinkProtocol:
		return m.bit(5, 14)
	}
	return false
}

// Words 6 and 7.

// IsShort says whether the header ends after word 5, so that origin and destination node are those of the hop.
func (m Msg) IsShort() bool { return m.Hdrsz() == ShortHeaderSize }

// OrigNode is the node that created the message.
func (m Msg) OrigNode() uint32 {
	if m.IsShort() {
		return m.PrevNode()
	}
	return m.Word(6)
}
func (m Msg) SetOrigNode(a uint32) { m.SetWord(6, a) }
func (m Msg) DestNode() uint32     { return m.Word(7) }
func (m Msg) SetDestNode(a uint32) { m.SetWord(7, a) }

// Word 8.

func (m Msg) NameType() uint32     { return m.Word(8) }
func (m Msg) SetNameType(t uint32) { m.SetWord(8, t) }
func (m Msg) BcGap() uint16        { return uint16(m.bits(8, 0, 0x3ff)) }
func (m Msg) SetBcGap(n uint16)    { m.setBits(8, 0, 0x3ff, uint32(n)) }

// Word 9.

func (m Msg) NameInst() uint32      { return m.Word(9) }
func (m Msg) SetNameInst(n uint32)  { m.SetWord(9, n) }
func (m Msg) NameLower() uint32     { return m.Word(9) }
func (m Msg) SetNameLower(n uint32) { m.SetWord(9, n) }
func (m Msg) MsgCnt() uint16        { return uint16(m.bits(9, 16, 0xffff)) }
func (m Msg) SetMsgCnt(n uint16)    { m.setBits(9, 16, 0xffff, uint32(n)) }
func (m Msg) SyncPt() uint16        { return uint16(m.bits(9, 16, 0xffff)) }
func (m Msg) SetSyncPt(n uint16)    { m.setBits(9, 16, 0xffff, uint32(n)) }
func (m Msg) ConnAck() uint32       { return m.bits(9, 16, 0xffff) }
func (m Msg) SetConnAck(n uint32)   { m.setBits(9, 16, 0xffff, n) }
func (m Msg) AdvWin() uint16        { return uint16(m.bits(9, 0, 0xffff)) }
func (m Msg) SetAdvWin(n uint16)    { m.setBits(9, 0, 0xffff, uint32(n)) }

// MaxPkt is the sender's MTU in octets, a multiple of 4.
func (m Msg) MaxPkt() int     { return int(m.bits(9, 16, 0xffff)) * 4 }
func (m Msg) SetMaxPkt(n int) { m.setBits(9, 16, 0xffff, uint32(n/4)) }

// LinkTolerance is in milliseconds.
func (m Msg) LinkTolerance() uint32     { return m.bits(9, 0, 0xffff) }
func (m Msg) SetLinkTolerance(n uint32) { m.setBits(9, 0, 0xffff, n) }
func (m Msg) GrpBcSyncpt() uint16       { return uint16(m.bits(9, 16, 0xffff)) }
func (m Msg) SetGrpBcSyncpt(n uint16)   { m.setBits(9, 16, 0xffff, uint32(n)) }
func (m Msg) GrpBcAcked() uint16        { return uint16(m.bits(9, 16, 0xffff)) }
func (m Msg) SetGrpBcAcked(n uint16)    { m.setBits(9, 16, 0xffff, uint32(n)) }
func (m Msg) GrpRemitted() uint16       { return uint16(m.bits(9, 16, 0xffff)) }
func (m Msg) SetGrpRemitted(n uint16)   { m.setBits(9, 16, 0xffff, uint32(n)) }

// Importance is the level 0 to 3 of a data message, that of the carried message for bundles and fragments, and
// [SystemImportance] for other users (net/tipc/msg.h msg_importance).
func (m Msg) Importance() int {
	u := m.User()
	switch {
	case u <= UserCritical && m.ErrCode() == CodeOK:
		return int(u)
	case u == UserBundler || u == UserFragmenter:
		return int(m.bits(9, 0, 7))
	}
	return SystemImportance
}

// SetImportance stores the level; for data messages it is the user field itself.
func (m Msg) SetImportance(i int) {
	switch u := m.User(); {
	case u == UserBundler || u == UserFragmenter:
		m.setBits(9, 0, 7, uint32(i))
	case i < SystemImportance:
		m.SetUser(User(i))
	}
}

// Word 10.

func (m Msg) NameUpper() uint32      { return m.Word(10) }
func (m Msg) SetNameUpper(n uint32)  { m.SetWord(10, n) }
func (m Msg) GrpEvt() uint32         { return m.bits(10, 0, 3) }
func (m Msg) SetGrpEvt(n uint32)     { m.setBits(10, 0, 3, n) }
func (m Msg) GrpBcAckReq() bool      { return m.bit(10, 0) }
func (m Msg) SetGrpBcAckReq(v bool)  { m.setBit(10, 0, v) }
func (m Msg) GrpBcSeqno() uint16     { return uint16(m.bits(10, 16, 0xffff)) }
func (m Msg) SetGrpBcSeqno(n uint16) { m.setBits(10, 16, 0xffff, uint32(n)) }

// Words 13 and 14, discovery only.

func (m Msg) PeerNetHash() uint32      { return m.Word(13) }
func (m Msg) SetPeerNetHash(n uint32)  { m.SetWord(13, n) }
func (m Msg) SuggNodeAddr() uint32     { return m.Word(14) }
func (m Msg) SetSuggNodeAddr(n uint32) { m.SetWord(14, n) }

// PeerLinkIsUp says whether the sender's link was up when it sent this (msg_peer_link_is_up).
func (m Msg) PeerLinkIsUp() bool {
	return m.User() != UserLinkProtocol || m.Type() == TypeState
}

// PeerNodeIsUp says whether the sender had any link up to us when it sent this (msg_peer_node_is_up).
func (m Msg) PeerNodeIsUp() bool { return m.PeerLinkIsUp() || m.RedundantLink() }

// IsReset says whether this is a RESET of the link protocol.
func (m Msg) IsReset() bool { return m.User() == UserLinkProtocol && m.Type() == TypeReset }
