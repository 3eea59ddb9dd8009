// Package envelope is the canonical codec of what DigSig signs: the envelope with its signatures, the message that each
// signature covers, and the statement about a file. The layouts are in docs/digsig.md. Every value has one encoding, and
// the decoders refuse all others, so that no octet of a signed file is free.
package envelope
