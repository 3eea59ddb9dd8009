package node

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

func mcast(node, port, n uint32, rcast, syn, empty bool) *buf.Buf {
	b := buf.Get(wire.McastHeaderSize + 4)
	wire.Init(b.Msg, node, wire.UserLow, wire.TypeMcast, wire.McastHeaderSize, 0)
	b.Msg.SetSize(wire.McastHeaderSize + 4)
	if empty {
		b.Resize(wire.McastHeaderSize)
		b.Msg.SetSize(wire.McastHeaderSize)
		b.Msg.SetErrCode(wire.CodeNoPort)
	} else {
		b.Msg.SetWord(11, n)
	}
	b.Msg.SetOrigPort(port)
	b.Msg.SetIsRcast(rcast)
	b.Msg.SetSyn(syn)
	return b
}

// mcastSender produces what tipc_mcast_xmit puts on the two ways.
type mcastSender struct {
	node, port uint32
	rcast      bool
	n          uint32
	way        [2][]*buf.Buf // broadcast, replicast
}

func (s *mcastSender) send(rcast bool) {
	syn := rcast != s.rcast
	s.rcast = rcast
	s.n++
	if syn {
		s.put(mcast(s.node, s.port, 0, !rcast, true, true))
	}
	s.put(mcast(s.node, s.port, s.n, rcast, syn, false))
}

func (s *mcastSender) put(b *buf.Buf) {
	w := 0
	if b.Msg.IsRcast() {
		w = 1
	}
	s.way[w] = append(s.way[w], b)
}

// Whatever the two ways deliver first, and however often the sender switches, the receiver gets each sender's messages in
// the order of sending, exactly once.
func TestFilterKeepsOrder(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		senders := []*mcastSender{{node: 1, port: 7}, {node: 1, port: 8}, {node: 2, port: 7}}
		var defq buf.Queue
		got := map[string]uint32{}
		receive := func(b *buf.Buf) {
			var q buf.Queue
			q.PushBack(b)
			FilterMcast(99, &defq, &q)
			for b := q.PopFront(); b != nil; b = q.PopFront() {
				if b.Msg.DataSize() == 0 {
					continue // a twin: the socket drops it for its error code
				}
				k := fmt.Sprint(b.Msg.OrigNode(), ":", b.Msg.OrigPort())
				if got[k]++; b.Msg.Word(11) != got[k] {
					t.Fatalf("seed %d: sender %s: message %d delivered as number %d", seed, k, b.Msg.Word(11), got[k])
				}
			}
		}
		arrive := func(s *mcastSender, w int) {
			if len(s.way[w]) > 0 {
				b := s.way[w][0]
				s.way[w] = s.way[w][1:]
				receive(b)
			}
		}
		for range 60 {
			s := senders[r.IntN(len(senders))]
			switch r.IntN(4) {
			case 0:
				s.send(!s.rcast)
			case 1:
				s.send(s.rcast)
			default:
				arrive(s, r.IntN(2))
			}
		}
		for _, s := range senders {
			for len(s.way[0])+len(s.way[1]) > 0 {
				arrive(s, r.IntN(2))
			}
			if k := fmt.Sprint(s.node, ":", s.port); got[k] != s.n {
				t.Fatalf("seed %d: sender %s: %d of %d messages", seed, k, got[k], s.n)
			}
		}
		if !defq.Empty() {
			t.Fatalf("seed %d: %d messages are left waiting", seed, defq.Len())
		}
	}
}

func TestFilterLeavesOwnAndPlainAlone(t *testing.T) {
	var defq, q buf.Queue
	FilterMcast(1, &defq, &q) // empty
	q.PushBack(mcast(1, 7, 1, false, true, false))
	if FilterMcast(1, &defq, &q); q.Len() != 1 || !defq.Empty() {
		t.Error("own SYN message was held back")
	}
	q.Purge()
	q.PushBack(mcast(2, 7, 1, false, false, false))
	if FilterMcast(1, &defq, &q); q.Len() != 1 {
		t.Error("plain message was held back")
	}
	q.Purge()
	q.PushBack(mcast(2, 7, 1, false, true, false))
	if FilterMcast(1, &defq, &q); q.Len() != 0 || defq.Len() != 1 {
		t.Error("first SYN message was not held back")
	}
}
