package bearer_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/bearer/bearertest"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

func openMem(h *bearer.Hub) bearertest.Open {
	return func(t *testing.T, n int) (bs []bearer.Bearer) {
		for i := range n {
			b := h.Open(fmt.Sprintf("eth:mem%d", i))
			t.Cleanup(func() { b.Close() })
			bs = append(bs, b)
		}
		return bs
	}
}

func TestMem(t *testing.T) {
	bearertest.Run(t, openMem(&bearer.Hub{}))
}

func TestMemFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &bearer.Hub{}
		h.Filter = func(from, to wire.MediaAddr, pkt []byte) bearer.Fate {
			switch pkt[0] {
			case 'x':
				return bearer.Fate{Drop: true}
			case 'd':
				return bearer.Fate{Delay: time.Second}
			case '2':
				return bearer.Fate{Duplicate: true, Delay: 2 * time.Second}
			}
			return bearer.Fate{}
		}
		a, b := h.Open("eth:a"), h.Open("eth:b")
		defer a.Close()
		defer b.Close()
		var batch buf.Batch
		for _, s := range []string{"x1", "d1", "21", "n1"} {
			batch.Send(0, a.BroadcastAddr(), []byte(s))
		}
		start := mono.Now()
		if err := a.WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
		var pkts [8]bearer.Packet
		for _, want := range []struct {
			data string
			at   time.Duration
		}{{"n1", 0}, {"d1", time.Second}, {"21", 2 * time.Second}, {"21", 2 * time.Second}} {
			n, err := b.ReadBatch(pkts[:1])
			if n != 1 || err != nil || string(pkts[0].Data) != want.data || mono.Now().Sub(start) != want.at {
				t.Errorf("got %d, %v, %q after %v; want %q after %v", n, err, pkts[0].Data, mono.Now().Sub(start), want.data, want.at)
			}
			if !pkts[0].Broadcast || pkts[0].Src != a.Addr() {
				t.Errorf("%q: source %v, broadcast %v", want.data, pkts[0].Src, pkts[0].Broadcast)
			}
		}
	})
}

// A reader that waits does not keep a bubble's clock from moving, and Close
// ends it.
func TestMemBlocksDurably(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := (&bearer.Hub{}).Open("eth:b")
		done := make(chan error)
		go func() {
			_, err := b.ReadBatch(make([]bearer.Packet, 1))
			done <- err
		}()
		time.Sleep(time.Hour)
		b.Close()
		if err := <-done; err != bearer.ErrClosed {
			t.Error(err)
		}
	})
}

func TestMemQueueIsBounded(t *testing.T) {
	h := &bearer.Hub{Queue: 10}
	a, b := h.Open("eth:a"), h.Open("eth:b")
	var batch buf.Batch
	for k := range 25 {
		batch.Send(0, b.Addr(), []byte(bearertest.Payload(k, 64)))
	}
	a.WriteBatch(&batch, 0)
	var pkts [30]bearer.Packet
	if n, err := b.TryReadBatch(pkts[:]); n != 10 || err != nil {
		t.Errorf("%d datagrams waited, %v; want 10", n, err)
	}
	if n := b.Stats().RxOverflow; n != 15 {
		t.Errorf("%d counted as dropped, want 15", n)
	}
}

func TestMemEvents(t *testing.T) {
	b := (&bearer.Hub{}).Open("eth:b")
	want := bearer.Event{Kind: bearer.MTUChanged, MTU: 9000}
	if !b.Notify(want) {
		t.Error("the event was not taken")
	}
	if got := <-b.Events(); got != want {
		t.Errorf("got %v", got)
	}
	for range 16 {
		b.Notify(want)
	}
	if b.Notify(want) {
		t.Error("the seventeenth event waiting was taken")
	}
	b.Close()
	if b.Notify(want) {
		t.Error("a closed port took an event")
	}
	for range b.Events() {
	}
}
