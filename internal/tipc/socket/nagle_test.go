package socket

import (
	"strings"
	"testing"

	"midplane/internal/tipc/wire"
)

// nagling is a stream that has asked for an acknowledgement and gathers.
func nagling(t *testing.T) (w *world, c, s *Sock) {
	w = newWorld(t, 1, 2)
	c, s, _ = w.connect(Stream, w.nodes[1], w.nodes[2])
	for range 5 {
		w.send(c, "n", Dest{})
	}
	if !c.expectAck || c.Info().SendQ != 0 {
		t.Fatal("not gathering")
	}
	return w, c, s
}

// A reader that answers never makes Nagle's algorithm start.
func TestNagleNotInPingPong(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	w.tracing = true
	for range 30 {
		w.send(c, "ping", Dest{})
		w.settle()
		w.expect(s, "ping")
		w.send(s, "pong", Dest{})
		w.settle()
		w.expect(c, "pong")
	}
	if got := w.transcript(); strings.Contains(got, "ackreq") {
		t.Error(got)
	}
}

// Where gathering saves nothing it begins later and later, up to a limit, and at once again when it pays.
func TestNagleStartAdapts(t *testing.T) {
	w := newWorld(t, 1, 2)
	c, s, _ := w.connect(Stream, w.nodes[1], w.nodes[2])
	for want := uint32(8); ; want *= 2 {
		for range c.nagleStart + 1 {
			if c.expectAck {
				t.Fatal("asked too early")
			}
			w.send(c, "b", Dest{})
			if c.connCongested() {
				t.Fatal("congested")
			}
			if c.oneway%20 == 0 {
				// The reader keeps up without sending data.
				w.settle()
				w.recv(s)
			}
		}
		if !c.expectAck {
			t.Fatal("not asked")
		}
		w.settle()
		w.recv(s)
		w.settle()
		if c.expectAck || c.oneway != 0 {
			t.Fatal("still waits")
		}
		if c.nagleStart != min(want, 1024) {
			t.Fatalf("starts at %d, want %d", c.nagleStart, want)
		}
		if want > 1024 {
			break
		}
	}
	for range c.nagleStart + 10 {
		w.send(c, "g", Dest{})
		if c.oneway%20 == 0 && !c.expectAck {
			w.settle()
			w.recv(s)
		}
	}
	w.settle()
	if c.nagleStart != nagleStartInit {
		t.Error("saved nine packets of ten, but starts at", c.nagleStart)
	}
}

// The judgement at an acknowledgement: at least two messages for each packet.
func TestNagleJudgement(t *testing.T) {
	for _, k := range []struct {
		messages, size int
		good           bool
	}{
		{0, 0, false}, {1, 1, false}, {2, 1, true}, {9, 1, true}, // all in one packet
		{2, 1400, false}, {3, 1400, false}, {4, 600, true},
	} {
		w, c, _ := nagling(t)
		for range k.messages {
			w.send(c, strings.Repeat("j", k.size), Dest{})
		}
		w.run(2 * w.delay) // for the first acknowledgement only
		if good := c.nagleStart == nagleStartInit; good != k.good {
			t.Errorf("%d messages of %d: good %v", k.messages, k.size, good)
		}
	}
	// Packets that went out early, since 64 blocks had gathered, count too.
	w, c, _ := nagling(t)
	c.sndWin = 1000
	for range 50 {
		w.send(c, strings.Repeat("j", 1404), Dest{})
	}
	if c.pktCnt != 33 || c.msgAcc != 50 {
		t.Errorf("%d messages, %d packets", c.msgAcc, c.pktCnt)
	}
	w.settle()
	if c.nagleStart == nagleStartInit {
		t.Error("good, although nothing was saved")
	}
	// Between two acknowledgements it starts from zero.
	w, c, _ = nagling(t)
	w.send(c, "x", Dest{})
	w.send(c, "y", Dest{})
	w.run(2 * w.delay)
	if c.msgAcc != 0 || !c.expectAck {
		t.Error(c.msgAcc, c.expectAck)
	}
}

// Data from the peer push out what was gathered, and so does the end of a link's congestion, but not before.
func TestNaglePush(t *testing.T) {
	w, c, s := nagling(t)
	w.lose = func(from, to uint32, m wire.Msg) bool { return m.User() == wire.UserConnManager }
	w.send(c, "gathered", Dest{})
	w.settle()
	if c.Info().SendQ != 1 {
		t.Fatal("sent without reason")
	}
	w.send(s, "hello", Dest{})
	w.settle()
	w.expect(s, "nnnnngathered")

	w, c, s = nagling(t)
	w.send(c, "gathered", Dest{})
	c.congested(2)
	w.nodes[1].wakeups = []wakeup{{c.Port(), 2}}
	w.settle()
	if c.Info().SendQ != 1 || !c.Info().LinkCong {
		t.Fatal("sent into congestion")
	}
	w.nodes[1].uncongest()
	w.settle()
	w.expect(s, "nnnnngathered")
}
