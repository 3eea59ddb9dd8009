package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"midplane/internal/tipc/wire"
)

// FuzzRecords reads octets as each of the records that messages carry. What is accepted must come back as the same
// octets, and what is not in b must not be read.
func FuzzRecords(f *testing.F) {
	for _, p := range frames(f, "eth.pcap")[:40] {
		if m, err := wire.Validate(p); err == nil {
			f.Add([]byte(m.Data()))
			f.Add(append([]byte(nil), m.MediaInfo()...))
		}
	}
	f.Add(wire.AppendGapAck(nil, []wire.GapAckBlock{{Ack: 1, Gap: 2}}, []wire.GapAckBlock{{Ack: 3, Gap: 4}, {Ack: 9}}))
	f.Add([]byte{0, 12, 2, 99, 0, 5, 0, 1, 0, 9, 0, 0})
	s := make([]byte, wire.SubscrSize)
	wire.PutSubscr(s, wire.Subscr{Range: wire.ServiceRange{Type: 1, Lower: 2, Upper: 3}, Filter: wire.SubPorts}, binary.BigEndian)
	f.Add(s)
	e := make([]byte, wire.EventSize)
	wire.PutEvent(e, wire.Event{Kind: wire.EventTimeout, Lower: 1, Upper: 2}, binary.LittleEndian)
	f.Add(e)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:len(b):len(b)]
		if g, n, ok := wire.ParseGapAck(b); ok {
			var bc, uc []wire.GapAckBlock
			for i := range g.Broadcast() {
				bc = append(bc, g.BroadcastBlock(i))
			}
			for i := range g.Unicast() {
				uc = append(uc, g.UnicastBlock(i))
			}
			if got := wire.AppendGapAck(nil, bc, uc); !bytes.Equal(got, b[:n]) {
				t.Errorf("gap-ack record %x became %x", b[:n], got)
			}
		}
		if g, ok := wire.ParseOldGapAck(b); ok {
			if g.Broadcast() != 0 || g.Unicast() != int(b[2]) {
				t.Errorf("old gap-ack record %x: %d, %d blocks", b, g.Broadcast(), g.Unicast())
			}
			for i := range g.Unicast() {
				g.UnicastBlock(i)
			}
		}
		if a, ok := wire.ParseMediaInfo(b); ok {
			var out [wire.MediaInfoSize]byte
			wire.PutMediaInfo(out[:], a)
			if again, ok := wire.ParseMediaInfo(out[:]); !ok || again != a && again.IP.Addr() != a.IP.Addr().Unmap() {
				t.Errorf("media address %v became %v", a, again)
			}
		}
		if it, ok := wire.ParseNameItem(b); ok {
			var out [wire.NameItemSize]byte
			wire.PutNameItem(out[:], it)
			if !bytes.Equal(out[:], b[:wire.NameItemSize]) {
				t.Errorf("name item %x became %x", b[:wire.NameItemSize], out)
			}
		}
		if s, order, ok := wire.ParseSubscr(b); ok {
			var out [wire.SubscrSize]byte
			wire.PutSubscr(out[:], s, order)
			if !bytes.Equal(out[:], b[:wire.SubscrSize]) {
				t.Errorf("subscription %x became %x", b[:wire.SubscrSize], out)
			}
			if _, again, ok := wire.ParseSubscr(out[:]); !ok || again != order {
				t.Errorf("byte order %v became %v", order, again)
			}
		}
		for _, order := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
			if e, ok := wire.ParseEvent(b, order); ok {
				var out [wire.EventSize]byte
				wire.PutEvent(out[:], e, order)
				if !bytes.Equal(out[:], b[:wire.EventSize]) {
					t.Errorf("event %x became %x", b[:wire.EventSize], out)
				}
			}
		}
	})
}
