package node

import (
	"strings"
	"testing"
)

// The machine as a list of edges, written down a second time from net/tipc/node.c tipc_node_fsm_evt: what is not listed
// is either "stay" or "illegal".
const fsmEdges = `
SELF_DOWN_PEER_DOWN    SELF_ESTABL_CONTACT  SELF_UP_PEER_COMING
SELF_DOWN_PEER_DOWN    PEER_ESTABL_CONTACT  SELF_COMING_PEER_UP
SELF_UP_PEER_UP        SELF_LOST_CONTACT    SELF_DOWN_PEER_LEAVING
SELF_UP_PEER_UP        PEER_LOST_CONTACT    SELF_LEAVING_PEER_DOWN
SELF_UP_PEER_UP        NODE_SYNCH_BEGIN     NODE_SYNCHING
SELF_UP_PEER_UP        NODE_FAILOVER_BEGIN  NODE_FAILINGOVER
SELF_DOWN_PEER_LEAVING PEER_LOST_CONTACT    SELF_DOWN_PEER_DOWN
SELF_UP_PEER_COMING    PEER_ESTABL_CONTACT  SELF_UP_PEER_UP
SELF_UP_PEER_COMING    SELF_LOST_CONTACT    SELF_DOWN_PEER_DOWN
SELF_COMING_PEER_UP    SELF_ESTABL_CONTACT  SELF_UP_PEER_UP
SELF_COMING_PEER_UP    PEER_LOST_CONTACT    SELF_DOWN_PEER_DOWN
SELF_LEAVING_PEER_DOWN SELF_LOST_CONTACT    SELF_DOWN_PEER_DOWN
NODE_FAILINGOVER       SELF_LOST_CONTACT    SELF_DOWN_PEER_LEAVING
NODE_FAILINGOVER       PEER_LOST_CONTACT    SELF_LEAVING_PEER_DOWN
NODE_FAILINGOVER       NODE_FAILOVER_END    SELF_UP_PEER_UP
NODE_SYNCHING          SELF_LOST_CONTACT    SELF_DOWN_PEER_LEAVING
NODE_SYNCHING          PEER_LOST_CONTACT    SELF_LEAVING_PEER_DOWN
NODE_SYNCHING          NODE_SYNCH_END       SELF_UP_PEER_UP
NODE_SYNCHING          NODE_FAILOVER_BEGIN  NODE_FAILINGOVER
`

const fsmIllegal = `
SELF_DOWN_PEER_DOWN    NODE_SYNCH_END NODE_SYNCH_BEGIN NODE_FAILOVER_BEGIN NODE_FAILOVER_END
SELF_DOWN_PEER_LEAVING NODE_SYNCH_END NODE_SYNCH_BEGIN NODE_FAILOVER_BEGIN NODE_FAILOVER_END
SELF_UP_PEER_COMING    NODE_SYNCH_BEGIN NODE_FAILOVER_END
SELF_COMING_PEER_UP    NODE_SYNCH_END NODE_SYNCH_BEGIN NODE_FAILOVER_BEGIN NODE_FAILOVER_END
SELF_LEAVING_PEER_DOWN NODE_SYNCH_END NODE_SYNCH_BEGIN NODE_FAILOVER_BEGIN NODE_FAILOVER_END
NODE_FAILINGOVER       NODE_SYNCH_BEGIN NODE_SYNCH_END
NODE_SYNCHING          NODE_FAILOVER_END
`

func TestFSMEveryCell(t *testing.T) {
	next := map[[2]string]string{}
	for line := range strings.Lines(fsmEdges) {
		if f := strings.Fields(line); len(f) == 3 {
			next[[2]string{f[0], f[1]}] = f[2]
		}
	}
	bad := map[[2]string]bool{}
	for line := range strings.Lines(fsmIllegal) {
		if f := strings.Fields(line); len(f) > 1 {
			for _, e := range f[1:] {
				bad[[2]string{f[0], e}] = true
			}
		}
	}
	edges, wrong := 0, 0
	for s := range numStates {
		for e := range numEvents {
			cell := [2]string{s.String(), e.String()}
			want, ok := next[cell]
			if ok {
				edges++
			} else {
				want = s.String()
			}
			if bad[cell] {
				wrong++
			}
			got, legal := s.Next(e)
			if got.String() != want || legal == bad[cell] {
				t.Errorf("%v + %v = %v, legal %v; want %v, legal %v", s, e, got, legal, want, !bad[cell])
			}
		}
	}
	if edges != len(next) || wrong != len(bad) {
		t.Errorf("%d edges and %d illegal cells were looked at, %d and %d are listed", edges, wrong, len(next), len(bad))
	}
}

func TestFSMOutOfRange(t *testing.T) {
	for _, c := range []struct {
		s State
		e Event
	}{{numStates, SelfEstablContact}, {255, 0}, {SelfUpPeerUp, numEvents}, {0, 255}} {
		if got, ok := c.s.Next(c.e); ok || got != c.s {
			t.Errorf("%v + %v = %v, %v", c.s, c.e, got, ok)
		}
	}
	if State(200).String() != "State(200)" || Event(200).String() != "Event(200)" {
		t.Error("unknown values have no name")
	}
}
