package node

import (
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// What follows was found by internal/sim.

// A receiver whose binding the sender does not know sees both SYN messages of each change all the same, so that it
// waits for none.
func TestSwitchReachesUnknownReceivers(t *testing.T) {
	w := newWorld(t, 1)
	var hosts []*host
	for a := uint32(1); a <= 4; a++ {
		hosts = append(hosts, w.add(a, 0))
	}
	w.run(4 * sec)
	f := &mflow{h: hosts[0], port: 5}
	for _, dests := range [][]uint32{{2, 3, 4}, {2}, {2, 3, 4}, {3}, {2, 3, 4}} {
		f.dests = all(dests...)
		f.pump(3)
		w.run(sec)
	}
	if f.sw != 4 {
		t.Errorf("%d switches", f.sw)
	}
	f.check(hosts[1:]...)
	for _, h := range hosts {
		if !h.defq.Empty() {
			t.Errorf("node %d: %d messages wait for a twin", h.addr, h.defq.Len())
		}
	}
}

// Of two empty twins none is delivered, but what waited is.
func TestFilterTwoDummies(t *testing.T) {
	mc := func(syn, rcast, dummy bool, n byte) *buf.Buf {
		b := buf.Get(wire.McastHeaderSize + 1)
		wire.Init(b.Msg, 7, wire.UserLow, wire.TypeMcast, wire.McastHeaderSize, 0)
		b.Msg.SetOrigPort(3)
		b.Msg.SetSyn(syn)
		b.Msg.SetIsRcast(rcast)
		if dummy {
			b.Msg.SetErrCode(wire.CodeNoPort)
			b.Resize(wire.McastHeaderSize)
		} else {
			b.Msg.SetSize(wire.McastHeaderSize + 1)
			b.Msg[wire.McastHeaderSize] = n
		}
		return b
	}
	var defq buf.Queue
	var got []byte
	for _, b := range []*buf.Buf{mc(true, false, true, 0), mc(false, false, false, 1), mc(true, true, true, 0), mc(false, true, false, 2)} {
		var q buf.Queue
		q.PushBack(b)
		FilterMcast(1, &defq, &q)
		for b := q.PopFront(); b != nil; b = q.PopFront() {
			got = append(got, b.Msg.Data()...)
		}
	}
	if string(got) != "\x01\x02" || !defq.Empty() {
		t.Errorf("delivered %v, %d wait", got, defq.Len())
	}
}

// A peer that was restarted while one of the links to it seems to be up does not come back on the other link before the
// first one is lost, so that contact is lost in between.
func TestRestartIsNotOverlooked(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0, 1), w.add(2, 0, 1)
	w.run(4 * sec)
	if !a.IsUp(2) {
		t.Fatal("no contact")
	}
	p := a.find(2)
	other := p.links[1].addr
	a.CheckDest(w.now, Dest{Bearer: 0, Addr: 2, ID: p.id, Caps: p.caps, Signature: uint16(p.signature) + 1, Media: p.links[0].addr})
	if !p.suspect {
		t.Fatal("no suspicion after another signature")
	}
	a.linkDown(w.now, p, 0, false)
	w.run(2 * sec)
	if p.suspect || !a.IsUp(2) || !b.IsUp(1) || p.links[1].addr != other {
		t.Errorf("a link that is heard is not trusted: %+v", p.info())
	}
	li, err := a.LinkName(2, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := a.Link(li); !l.Up {
		t.Error("the other link did not come back")
	}
	p.suspect = true
	a.linkDown(w.now, p, 0, false)
	a.linkDown(w.now, p, 1, false)
	if p.suspect {
		t.Error("suspicion outlives the contact")
	}
}
