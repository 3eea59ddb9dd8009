package link

import (
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// What a holding link receives is acknowledged and kept, and comes out in order when the hold ends.
func TestHold(t *testing.T) {
	var inq, bcq, namedq buf.Queue
	snd := NewBcastSender(BcastConfig{Own: 1, Name: "s", MTU: 1500, MinWin: 50, MaxWin: 50, Inputq: &bcq})
	rcv := NewBcastReceiver(BcastConfig{Own: 1, Peer: 2, Name: "r", MTU: 1500, MinWin: 50, MaxWin: 50, BcSnd: snd, Inputq: &bcq, Namedq: &namedq})
	l := New(Config{Own: 1, Peer: 2, MTU: 1500, MinWin: 50, MaxWin: 50, BcSnd: snd, BcRcv: rcv, Inputq: &inq, Namedq: &namedq})
	l.Reset(0)
	l.state = Established
	packet := func(seqno uint16, user wire.User) wire.Msg {
		m := make(wire.Msg, wire.IntHeaderSize)
		wire.Init(m, 2, user, wire.TypeDirect, wire.IntHeaderSize, 1)
		m.SetSeqNo(seqno)
		return m
	}
	l.SetHold()
	l.Receive(0, packet(2, wire.UserLow), nil) // out of sequence
	l.Receive(0, packet(1, wire.UserLow), nil)
	l.Receive(0, packet(3, wire.UserNameDistr), nil)
	if l.Held() != 3 || inq.Len() != 0 || namedq.Len() != 0 || l.RcvNxt() != 4 {
		t.Fatalf("held %d, delivered %d and %d, next %d", l.Held(), inq.Len(), namedq.Len(), l.RcvNxt())
	}
	if rc := l.ReleaseHold(); rc != 0 || l.Held() != 0 || inq.Len() != 2 || namedq.Len() != 1 || inq.Front().Msg.SeqNo() != 1 {
		t.Fatalf("after the hold: events %v, held %d, delivered %d and %d", rc, l.Held(), inq.Len(), namedq.Len())
	}
	if l.Receive(0, packet(4, wire.UserLow), nil); inq.Len() != 3 {
		t.Fatal("still holding")
	}
	l.SetHold()
	l.Receive(0, packet(5, wire.UserLow), nil)
	if l.Reset(0); l.Held() != 0 || l.holding {
		t.Fatal("the hold survived a reset")
	}
}
