package tipc

import (
	"encoding/hex"
	"strings"

	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/wire"
)

// NodeID is the 128-bit identity of a node. The zero value is no identity.
type NodeID [16]byte

// ParseNodeID parses what `tipc node set identity` takes: up to 16 characters out of A-Z a-z 0-9 - _ . : @ are the
// identity themselves, padded with zero octets; otherwise up to 32 hexadecimal digits, padded with zeros on the right.
func ParseNodeID(s string) (id NodeID, err error) {
	if s == "" {
		return id, parseError("node identity", s, "it is empty")
	}
	if len(s) <= len(id) && strings.IndexFunc(s, notNameChar) < 0 {
		copy(id[:], s)
		return id, nil
	}
	if len(s) <= 32 {
		if b, e := hex.DecodeString(s + "0"[:len(s)&1]); e == nil {
			copy(id[:], b)
			if id.IsZero() {
				return id, parseError("node identity", s, "all octets are zero")
			}
			return id, nil
		}
	}
	return id, parseError("node identity", s, "want up to 16 of A-Z a-z 0-9 - _ . : @, or up to 32 hexadecimal digits")
}

// MustParseNodeID is ParseNodeID for constants: it panics on an error.
func MustParseNodeID(s string) NodeID { return must(ParseNodeID(s)) }

// IsZero tells whether the identity is the zero value.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Addr returns the 32-bit address that a node with this identity tries first: the exclusive or of its four 32-bit
// words, or, should that be 0, their inclusive or (net/tipc/addr.c:tipc_set_node_id, nodeid2hash). A node whose
// address is taken by another gets a different one from its neighbours.
func (id NodeID) Addr() NodeAddr {
	return NodeAddr(discover.AddrOf(wire.NodeID(id)))
}

// AppendTo appends the text form to b: the characters if all of them may stand in a name, else hexadecimal digits
// without trailing zeros, as the kernel and its tool print an identity.
func (id NodeID) AppendTo(b []byte) []byte {
	n := len(id)
	for n > 0 && id[n-1] == 0 {
		n--
	}
	if n == 0 {
		return append(b, '0')
	}
	for _, c := range id[:n] {
		if notNameChar(rune(c)) {
			b = hex.AppendEncode(b, id[:n])
			if b[len(b)-1] == '0' {
				b = b[:len(b)-1]
			}
			return b
		}
	}
	return append(b, id[:n]...)
}

// String returns the text form, see AppendTo. The zero value is "0".
func (id NodeID) String() string { return string(id.AppendTo(nil)) }

// MarshalText implements encoding.TextMarshaler. Unlike String it writes all 32 digits of a hexadecimal form, since
// a short one would be read back as a name.
func (id NodeID) MarshalText() ([]byte, error) {
	b := id.AppendTo(nil)
	if got, err := ParseNodeID(string(b)); err != nil || got != id {
		b = hex.AppendEncode(b[:0], id[:])
	}
	return b, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *NodeID) UnmarshalText(b []byte) (err error) { *id, err = ParseNodeID(string(b)); return err }

// notNameChar tells whether c may not stand in the character form of an identity (iproute2 tipc/misc.c:is_name).
func notNameChar(c rune) bool {
	switch {
	case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z',
		c == '-', c == '_', c == '.', c == ':', c == '@':
		return false
	}
	return true
}
