// Package wire is the octet format of TIPC version 2 as Linux speaks it: header views, field values and the codecs of
// the records that messages carry.
//
// A message is a [Msg], a byte slice that starts with the header. Accessors are named after the kernel's msg_xxx
// inline functions (net/tipc/msg.h) and read or write single fields in place, so that code can be compared with the
// kernel line by line. Many fields share bits: which of them is valid depends on the user and type of the message.
//
// Length is checked once at the edge by [Validate]. Accessors are safe on any input all the same: reading a word that
// the slice does not hold gives 0, and writing one does nothing. All integers are big-endian on the wire.
//
// The package has no state. A Msg is not safe for concurrent use when one side writes.
package wire
