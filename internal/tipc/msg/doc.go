// Package msg builds and takes apart TIPC messages that are more than a header: messages with their fragments, bundles,
// returned messages, tunnelled fragments (Linux net/tipc/msg.c).
//
// All functions are pure and work on [buf.Buf]; what they keep of received octets they copy. Received contents may be
// hostile: nothing here panics on them, reads past their end or keeps more than one message of at most
// [wire.MaxMsgSize] octets per [Reassembler].
package msg
