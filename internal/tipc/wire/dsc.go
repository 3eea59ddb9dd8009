package wire

// MediaInfo returns the 32-octet media address field of a discovery message, or nil when it is not there.
func (m Msg) MediaInfo() []byte {
	const o = 5 * 4 // TIPC_MEDIA_INFO_OFFSET
	if len(m) < o+MediaInfoSize {
		return nil
	}
	return m[o : o+MediaInfoSize : o+MediaInfoSize]
}

// NodeIdentity returns the 128-bit identity behind a discovery header; ok is false when the message is too short to
// hold one.
func (m Msg) NodeIdentity() (id NodeID, ok bool) {
	d := m.Data()
	if len(d) < NodeIDSize {
		return id, false
	}
	return NodeID(d[:NodeIDSize]), true
}

// SetNodeIdentity stores the identity behind the header, where room must be.
func (m Msg) SetNodeIdentity(id NodeID) { copy(m[m.Hdrsz():], id[:]) }
