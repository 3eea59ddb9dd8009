package wire

import "errors"

// Reasons for which [Validate] refuses a datagram.
var (
	ErrShort   = errors.New("tipc/wire: datagram shorter than the header or message size it claims")
	ErrHeader  = errors.New("tipc/wire: header size outside 24 to 60 octets or larger than the message")
	ErrVersion = errors.New("tipc/wire: protocol version is not 2")
	ErrSize    = errors.New("tipc/wire: more than 66000 octets of data")
)

// Validate checks the rules that every received message must meet before any field is used (net/tipc/msg.c
// tipc_msg_validate): at least 24 octets, header of 24 to 60 octets present, version 2, size at least the header's,
// at most 66000 octets of data, all of it present. Octets behind the message are allowed and cut off. The result
// aliases b.
func Validate(b []byte) (Msg, error) {
	if len(b) < MinHeaderSize {
		return nil, ErrShort
	}
	m := Msg(b)
	h := m.Hdrsz()
	if h < MinHeaderSize || h > MaxHeaderSize {
		return nil, ErrHeader
	}
	if len(b) < h {
		return nil, ErrShort
	}
	if m.Version() != Version {
		return nil, ErrVersion
	}
	n := m.Size()
	if n < h {
		return nil, ErrHeader
	}
	if n-h > MaxUserMsgSize {
		return nil, ErrSize
	}
	if len(b) < n {
		return nil, ErrShort
	}
	return m[:n:n], nil
}
