//go:build linux

package lab

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"fmt"
)

// Payload is message number i of a seed, size octets: what the programs of the kit send (tipckit.py, payload).
func Payload(seed string, i, size int) []byte {
	b := make([]byte, size)
	h := sha3.NewSHAKE128()
	fmt.Fprintf(h, "%s/%d", seed, i)
	_, _ = h.Read(b)
	return b
}

// Digest is the SHA-256, in hexadecimal, of the messages 0 to count-1 of a seed behind each other: the "sha256" of an
// event about all of them.
func Digest(seed string, count, size int) string {
	h := sha256.New()
	for i := range count {
		h.Write(Payload(seed, i, size))
	}
	return hex.EncodeToString(h.Sum(nil))
}
