package tipctest

import (
	"encoding/binary"
	"testing"

	"midplane/internal/tipc/wire"
)

// Fill makes p, of 4 octets at least, the payload of message n.
func Fill(p []byte, n uint32) {
	binary.BigEndian.PutUint32(p, n)
	for i := range p[4:] {
		p[4+i] = byte(n) + byte(i)
	}
}

// Number is the n that the message's payload was filled with; one of the last two numbers says that it was not.
func Number(m wire.Msg) uint32 {
	d := m.Data()
	if len(d) < 4 {
		return 1<<32 - 1
	}
	n := binary.BigEndian.Uint32(d)
	for i, x := range d[4:] {
		if x != byte(n)+byte(i) {
			return 1<<32 - 2
		}
	}
	return n
}

// InOrder wants exactly 1 to n, in order.
func InOrder(t testing.TB, what string, got []uint32, n uint32) {
	t.Helper()
	for i, x := range got {
		if x != uint32(i)+1 {
			t.Fatalf("%s: message %d arrived in place of %d of %d", what, int32(x), i+1, n)
		}
	}
	if len(got) != int(n) {
		t.Fatalf("%s: %d of %d messages arrived", what, len(got), n)
	}
}
