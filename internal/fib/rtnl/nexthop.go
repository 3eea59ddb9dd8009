package rtnl

import "net/netip"

// NextHop is what a message about a next-hop object says (Linux 5.3). Group is reused by the next message that is
// decoded into the same NextHop.
type NextHop struct {
	ID        uint32
	Family    uint8 // of Gateway; FamilyUnspec with groups
	Scope     uint8
	Protocol  uint8
	Flags     uint32 // PathDead, …
	Gateway   netip.Addr
	Device    uint32 // interface index, 0 not given
	Blackhole bool
	FDB       bool // for bridges: no route leads there
	GroupType uint16
	Group     []Member // not empty: a group
	EncapType uint16
	Encap     []byte // NHA_ENCAP, not looked into; a part of the input
}

// Member is one next hop of a group.
type Member struct {
	ID     uint32
	Weight uint32 // 1 to 65,536; above 256 since Linux 6.12
}

// DecodeNextHop decodes the payload of NewNextHop or DelNextHop (struct nhmsg and its attributes) into n, whose Group
// is reused. After an error n is not defined.
func DecodeNextHop(b []byte, n *NextHop) error {
	if len(b) < nextHopSize {
		return refuse(BadSize, "struct nhmsg", len(b), "8 octets")
	}
	*n = NextHop{Family: b[0], Scope: b[1], Protocol: b[2], Flags: order.Uint32(b[4:]), Group: n.Group[:0]}
	for b = b[nextHopSize:]; len(b) > 0; {
		t, v, rest, err := attr(b)
		if err != nil {
			return err
		}
		b = rest
		switch t {
		case nhaID:
			err = u32(v, "NHA_ID", &n.ID)
		case nhaGroup:
			err = n.group(v)
		case nhaGroupType:
			err = u16(v, "NHA_GROUP_TYPE", &n.GroupType)
		case nhaBlackhole:
			n.Blackhole = true
		case nhaOIF:
			err = u32(v, "NHA_OIF", &n.Device)
		case nhaGateway:
			err = address(v, n.Family, "NHA_GATEWAY", &n.Gateway)
		case nhaEncapType:
			err = u16(v, "NHA_ENCAP_TYPE", &n.EncapType)
		case nhaEncap:
			n.Encap = v
		case nhaFDB:
			n.FDB = true
		}
		if err != nil {
			return err
		}
	}
	if n.ID == 0 {
		return refuse(BadValue, "NHA_ID", 0, "1 to 4294967295")
	}
	return nil
}

// group reads the value of NHA_GROUP, struct nexthop_grp each.
func (n *NextHop) group(v []byte) error {
	if len(v) == 0 || len(v)%memberSize != 0 {
		return refuse(BadSize, "NHA_GROUP", len(v), "a multiple of 8 octets")
	}
	if len(v)/memberSize > MaxMembers {
		return refuse(TooMany, "members", len(v)/memberSize, "256 at most")
	}
	n.Group = n.Group[:0]
	for ; len(v) > 0; v = v[memberSize:] {
		m := Member{order.Uint32(v), uint32(v[5])<<8 + uint32(v[4]) + 1}
		if m.ID == 0 {
			return refuse(BadValue, "id in NHA_GROUP", 0, "1 to 4294967295")
		}
		n.Group = append(n.Group, m)
	}
	return nil
}

// AppendNextHop appends a message about a next hop: h.Type is NewNextHop or DelNextHop. On an error b is returned as
// it was. Errors: *Error for an id 0, weights out of range, too many members and a gateway of another family.
func AppendNextHop(b []byte, h Header, n *NextHop) ([]byte, error) {
	if n.ID == 0 {
		return b, refuse(BadValue, "ID", 0, "1 to 4294967295")
	}
	if len(n.Group) > MaxMembers {
		return b, refuse(TooMany, "members", len(n.Group), "256 at most")
	}
	if n.Gateway.IsValid() && n.Family != family(n.Gateway) {
		return b, refuse(BadFamily, "Family", int(n.Family), "that of the gateway")
	}
	old := b
	b, at := begin(b, h)
	b = append(b, n.Family, n.Scope, n.Protocol, 0)
	b = order.AppendUint32(b, n.Flags)
	b = appendU32(b, nhaID, n.ID)
	if len(n.Group) > 0 {
		var open int
		b, open = openAttr(b, nhaGroup)
		for _, m := range n.Group {
			if m.Weight > 1<<16 || m.ID == 0 {
				return old, refuse(BadValue, "weight of a member", int(m.Weight), "1 to 65536, with an id")
			}
			w := max(m.Weight, 1) - 1
			b = order.AppendUint32(b, m.ID)
			b = append(b, byte(w), byte(w>>8), 0, 0)
		}
		_ = closeAttr(b, open) // 256 members of 8 octets fit
	}
	if n.GroupType != 0 {
		b = appendU16(b, nhaGroupType, n.GroupType)
	}
	if n.Blackhole {
		b = appendAttr(b, nhaBlackhole, nil)
	}
	if n.Device != 0 {
		b = appendU32(b, nhaOIF, n.Device)
	}
	if n.Gateway.IsValid() {
		b = appendAddr(b, nhaGateway, n.Gateway)
	}
	if n.EncapType != 0 {
		b = appendU16(b, nhaEncapType, n.EncapType)
	}
	if len(n.Encap) > 0 {
		b = appendAttr(b, nhaEncap, n.Encap)
	}
	if n.FDB {
		b = appendAttr(b, nhaFDB, nil)
	}
	return end(b, at), nil
}

// AppendNextHopDump appends the request for all next-hop objects.
func AppendNextHopDump(b []byte, seq uint32) []byte {
	b, at := begin(b, Header{Type: GetNextHop, Flags: FlagRequest | FlagDump, Seq: seq})
	return end(append(b, 0, 0, 0, 0, 0, 0, 0, 0), at)
}
