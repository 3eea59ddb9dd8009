package tipc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Addresses are small comparable values, like those of net/netip: use them as map keys, compare them with ==, and
// pass them by value. Their text forms never overlap:
//
//	4711:7            ServiceAddr   type:instance
//	4711:7@2c6f6465   ServiceAddr   looked up on that node only
//	4711:0:99         ServiceRange  type:lower:upper
//	17@2c6f6465       SocketAddr    port@node
//
// A node is written as eight hexadecimal digits or, when parsed, also as a legacy <Z.C.N> address.

// ReservedTypes is the first service type that applications may bind to; lower ones belong to the protocol.
const ReservedTypes = 64

// NodeAddr is the 32-bit address of a node, which the protocol derives from the node's 128-bit NodeID. The zero
// value is no node: as a lookup domain it means "anywhere in the cluster".
type NodeAddr uint32

// ParseNodeAddr parses one to eight hexadecimal digits, or a legacy Z.C.N address (8, 12 and 12 bits).
func ParseNodeAddr(s string) (NodeAddr, error) {
	if strings.Contains(s, ".") {
		parts := strings.Split(s, ".")
		if len(parts) != 3 {
			return 0, parseError("node address", s, "want Z.C.N or hexadecimal digits")
		}
		var v uint32
		for i, max := range [3]uint64{255, 4095, 4095} {
			n, err := strconv.ParseUint(parts[i], 10, 32)
			if err != nil || n > max {
				return 0, parseError("node address", s, "Z is 0 to 255, C and N are 0 to 4095")
			}
			if i > 0 {
				v <<= 12
			}
			v |= uint32(n)
		}
		return NodeAddr(v), nil
	}
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || strings.HasPrefix(s, "+") || strings.Contains(s, "_") {
		return 0, parseError("node address", s, "want Z.C.N or up to eight hexadecimal digits")
	}
	return NodeAddr(n), nil
}

// MustParseNodeAddr is ParseNodeAddr for constants: it panics on an error.
func MustParseNodeAddr(s string) NodeAddr { return must(ParseNodeAddr(s)) }

// AppendTo appends the text form, eight hexadecimal digits, to b.
func (a NodeAddr) AppendTo(b []byte) []byte {
	const hex = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hex[a>>shift&15])
	}
	return b
}

// String returns the address as eight hexadecimal digits.
func (a NodeAddr) String() string { return string(a.AppendTo(nil)) }

// Legacy returns the address in the old <Z.C.N> notation, without the brackets.
func (a NodeAddr) Legacy() string {
	return fmt.Sprintf("%d.%d.%d", a>>24, a>>12&0xfff, a&0xfff)
}

// MarshalText implements encoding.TextMarshaler.
func (a NodeAddr) MarshalText() ([]byte, error) { return a.AppendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *NodeAddr) UnmarshalText(b []byte) (err error) {
	*a, err = ParseNodeAddr(string(b))
	return err
}

// ServiceAddr names a service: a Type says what kind, an Instance which one. Dialing one, or sending to one, reaches
// one of the sockets bound to a range that holds it, in turn (anycast).
type ServiceAddr struct {
	Type     uint32
	Instance uint32
	Node     NodeAddr // look the service up on this node only; zero: anywhere
}

// ParseServiceAddr parses "type:instance" or "type:instance@node".
func ParseServiceAddr(s string) (ServiceAddr, error) {
	f, node, err := fields("service address", s, 2, "want TYPE:INSTANCE or TYPE:INSTANCE@NODE")
	if err != nil {
		return ServiceAddr{}, err
	}
	return ServiceAddr{Type: f[0], Instance: f[1], Node: node}, nil
}

// MustParseServiceAddr is ParseServiceAddr for constants: it panics on an error.
func MustParseServiceAddr(s string) ServiceAddr { return must(ParseServiceAddr(s)) }

// Network returns "tipc".
func (ServiceAddr) Network() string { return "tipc" }

// Range returns the range that holds this one instance.
func (a ServiceAddr) Range() ServiceRange { return ServiceRange{a.Type, a.Instance, a.Instance} }

// AppendTo appends the text form to b.
func (a ServiceAddr) AppendTo(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(a.Type), 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, uint64(a.Instance), 10)
	if a.Node != 0 {
		b = a.Node.AppendTo(append(b, '@'))
	}
	return b
}

// String returns "type:instance", with "@node" after it when the lookup is confined to a node.
func (a ServiceAddr) String() string { return string(a.AppendTo(nil)) }

// MarshalText implements encoding.TextMarshaler.
func (a ServiceAddr) MarshalText() ([]byte, error) { return a.AppendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *ServiceAddr) UnmarshalText(b []byte) (err error) {
	*a, err = ParseServiceAddr(string(b))
	return err
}

// ServiceRange names the instances Lower to Upper, both included, of one service type. Sockets bind to ranges;
// sending to one reaches every socket whose range overlaps it, once (multicast); subscriptions watch one.
type ServiceRange struct {
	Type  uint32
	Lower uint32
	Upper uint32
}

// ParseServiceRange parses "type:lower:upper"; "type:instance" is the range of one instance.
func ParseServiceRange(s string) (ServiceRange, error) {
	if strings.Count(s, ":") == 1 && !strings.Contains(s, "@") {
		a, err := ParseServiceAddr(s)
		if err != nil {
			return ServiceRange{}, parseError("service range", s, "want TYPE:LOWER:UPPER or TYPE:INSTANCE")
		}
		return a.Range(), nil
	}
	f, node, err := fields("service range", s, 3, "want TYPE:LOWER:UPPER or TYPE:INSTANCE")
	if err != nil {
		return ServiceRange{}, err
	}
	if node != 0 || strings.Contains(s, "@") {
		return ServiceRange{}, parseError("service range", s, "a range takes no node")
	}
	r := ServiceRange{f[0], f[1], f[2]}
	if !r.IsValid() {
		return ServiceRange{}, parseError("service range", s, "the lower bound is above the upper one")
	}
	return r, nil
}

// MustParseServiceRange is ParseServiceRange for constants: it panics on an error.
func MustParseServiceRange(s string) ServiceRange { return must(ParseServiceRange(s)) }

// Network returns "tipc".
func (ServiceRange) Network() string { return "tipc" }

// IsValid tells whether Lower is not above Upper.
func (r ServiceRange) IsValid() bool { return r.Lower <= r.Upper }

// Contains tells whether a is an instance in the range. The lookup domain of a plays no part.
func (r ServiceRange) Contains(a ServiceAddr) bool {
	return a.Type == r.Type && r.Lower <= a.Instance && a.Instance <= r.Upper
}

// Overlaps tells whether some instance is in both ranges.
func (r ServiceRange) Overlaps(o ServiceRange) bool {
	return r.Type == o.Type && r.Lower <= o.Upper && o.Lower <= r.Upper && r.IsValid() && o.IsValid()
}

// AppendTo appends the text form to b.
func (r ServiceRange) AppendTo(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(r.Type), 10)
	b = strconv.AppendUint(append(b, ':'), uint64(r.Lower), 10)
	return strconv.AppendUint(append(b, ':'), uint64(r.Upper), 10)
}

// String returns "type:lower:upper".
func (r ServiceRange) String() string { return string(r.AppendTo(nil)) }

// MarshalText implements encoding.TextMarshaler.
func (r ServiceRange) MarshalText() ([]byte, error) { return r.AppendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *ServiceRange) UnmarshalText(b []byte) (err error) {
	*r, err = ParseServiceRange(string(b))
	return err
}

// SocketAddr names one socket in the cluster. It is valid as long as the socket is open; ports are not reused soon.
type SocketAddr struct {
	Port uint32
	Node NodeAddr
}

// ParseSocketAddr parses "port@node".
func ParseSocketAddr(s string) (SocketAddr, error) {
	f, node, err := fields("socket address", s, 1, "want PORT@NODE")
	if err != nil {
		return SocketAddr{}, err
	}
	if !strings.Contains(s, "@") {
		return SocketAddr{}, parseError("socket address", s, "want PORT@NODE")
	}
	return SocketAddr{Port: f[0], Node: node}, nil
}

// MustParseSocketAddr is ParseSocketAddr for constants: it panics on an error.
func MustParseSocketAddr(s string) SocketAddr { return must(ParseSocketAddr(s)) }

// Network returns "tipc".
func (SocketAddr) Network() string { return "tipc" }

// IsZero tells whether the address is the zero value, which names no socket.
func (a SocketAddr) IsZero() bool { return a == SocketAddr{} }

// AppendTo appends the text form to b.
func (a SocketAddr) AppendTo(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(a.Port), 10)
	return a.Node.AppendTo(append(b, '@'))
}

// String returns "port@node".
func (a SocketAddr) String() string { return string(a.AppendTo(nil)) }

// MarshalText implements encoding.TextMarshaler.
func (a SocketAddr) MarshalText() ([]byte, error) { return a.AppendTo(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *SocketAddr) UnmarshalText(b []byte) (err error) {
	*a, err = ParseSocketAddr(string(b))
	return err
}

// fields splits "n:n:...[@node]" into exactly count decimal numbers of 32 bits and the node after the @, if any.
func fields(what, s string, count int, want string) (f [3]uint32, node NodeAddr, err error) {
	rest, at, hasNode := strings.Cut(s, "@")
	if hasNode {
		if node, err = ParseNodeAddr(at); err != nil {
			return f, 0, parseError(what, s, err.(*ParseError).Reason)
		}
		if node == 0 && what == "service address" {
			return f, 0, parseError(what, s, "node 0 is no node: leave it out to look everywhere")
		}
	}
	for i := 0; ; i++ {
		num, tail, more := strings.Cut(rest, ":")
		if i == count {
			return f, 0, parseError(what, s, want)
		}
		n, err := strconv.ParseUint(num, 10, 32)
		if err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return f, 0, parseError(what, s, num+" does not fit in 32 bits")
			}
			return f, 0, parseError(what, s, want)
		}
		f[i], rest = uint32(n), tail
		if !more {
			if i+1 != count {
				return f, 0, parseError(what, s, want)
			}
			return f, node, nil
		}
	}
}

// ParseError says why a text is no address of the wanted kind.
type ParseError struct {
	Kind   string // "service address", "node identity", ...
	Text   string // what was given
	Reason string // what would be right
}

// Error implements error.
func (e *ParseError) Error() string {
	return "invalid " + e.Kind + " " + strconv.Quote(e.Text) + ": " + e.Reason
}

func parseError(kind, text, reason string) error { return &ParseError{kind, text, reason} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
