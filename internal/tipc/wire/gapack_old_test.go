package wire_test

import (
	"testing"

	"midplane/internal/tipc/wire"
)

func TestParseOldGapAck(t *testing.T) {
	rec := []byte{0, 12, 2, 99, 0, 5, 0, 1, 0, 9, 0, 0}
	if _, _, ok := wire.ParseGapAck(rec); ok {
		t.Fatal("the present form was found")
	}
	g, ok := wire.ParseOldGapAck(rec)
	if !ok || g.Broadcast() != 0 || g.Unicast() != 2 || g.UnicastBlock(1) != (wire.GapAckBlock{Ack: 9}) {
		t.Errorf("%v %+v", ok, g)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": rec[:3], "cut off": rec[:11], "length": {0, 8, 2, 0, 0, 0, 0, 0},
	} {
		if _, ok := wire.ParseOldGapAck(bad); ok {
			t.Errorf("%s: taken", name)
		}
	}
}
