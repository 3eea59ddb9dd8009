// Package mrt reads routes from files: MRT dumps of BGP collectors (RFC 6396, RFC 8050) and text. It is pure: it reads
// an io.Reader, holds one record at a time, and leaves what to do with a route to its caller.
//
// The parser is the project's own rather than gobgp's pkg/packet/mrt, because that one builds every attribute of every
// path as an object of its own, where a FIB wants one address, and takes a record's length for the size of a buffer.
package mrt

import (
	"fmt"
	"net/netip"
)

// Kind is what an entry says.
type Kind uint8

// Kinds of entries.
const (
	Announce Kind = iota // there is a route
	Withdraw             // there is none any more, from this peer
	PeerDown             // the session with this peer ended: none of its routes is there any more; no prefix
)

// String returns the name.
func (k Kind) String() string {
	switch k {
	case Announce:
		return "announce"
	case Withdraw:
		return "withdraw"
	case PeerDown:
		return "peer down"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Hop is one next hop of an entry.
type Hop struct {
	Gateway netip.Addr // the zero Addr: not given
	Device  string     // by name, as text formats give it; "" when not given
	Weight  uint16     // of several, 1 to 256; 0 when not given
}

// Entry is one path of one prefix.
type Entry struct {
	Kind   Kind
	Prefix netip.Prefix // masked; the zero Prefix with PeerDown
	Type   string       // as ip-route(8) writes it: "" and "unicast", "local", "blackhole", "unreachable", "prohibit", "throw" or "lookup"
	Table  uint32       // with "lookup": the FIB that is looked in; else the kernel table that a line names, 0 for none
	Hops   []Hop        // one or more with unicast, but none when a line has a prefix only. Belongs to the Reader: valid until Next
	Metric uint32       // of a line of ip route
	Peer   netip.Addr   // who said so, the zero Addr in text without peers
	PeerAS uint32
	PathID uint32 // with ADD-PATH, else 0
	Time   uint32 // seconds since 1970, 0 when not known
}

// RecordError says what is wrong with a file, and where.
type RecordError struct {
	Record int64 // number of the record or line, from 1
	Offset int64 // octets before that record or line, after decompression
	Err    error // what is wrong
	Fatal  bool  // the end of the record is not known: there is no next one
}

// Error implements error.
func (e *RecordError) Error() string {
	return fmt.Sprintf("record %d at octet %d: %v", e.Record, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// Stats counts what a Reader did.
type Stats struct {
	Octets  int64 // of the file, before decompression
	Records int64 // records or lines read
	Entries int64 // that Next returned
	Skipped int64 // records of kinds that say nothing about unicast routes, and comments
	Peers   int   // of the last peer index table
	NoHop   int64 // paths without a next hop, which cannot be used
	Others  int64 // paths that the policy left out
}
