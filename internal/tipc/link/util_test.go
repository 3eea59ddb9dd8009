package link

import (
	"encoding/binary"
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// dataBuf is one packet with a numbered payload.
func dataBuf(e *end, user wire.User, typ uint8, h int, n uint32, size int) *buf.Buf {
	b := msg.Create(user, typ, h, max(4, size), e.peer, e.own, 0, 500, wire.CodeOK)
	d := b.Msg.Data()
	binary.BigEndian.PutUint32(d, n)
	for i := range d[4:] {
		d[4+i] = byte(n) + byte(i)
	}
	return b
}

func xmit(t testing.TB, l *Link, b *buf.Buf, out Output, now mono.Time) {
	t.Helper()
	var q buf.Queue
	q.PushBack(b)
	if err := l.Xmit(now, &q, out); err != nil {
		t.Fatal(err)
	}
}

func msTime(us int64) mono.Time { return mono.Time(us * 1000) }
