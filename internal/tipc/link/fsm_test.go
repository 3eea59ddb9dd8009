package link

import (
	"strings"
	"testing"
)

// The state machine as net/tipc/link.c tipc_link_fsm_evt has it: "." stays, "!" is illegal, "*" marks that the link went
// down. Every cell is walked.
const fsmTable = `
state         ESTABLISH    PEER_RESET    FAILURE    RESET         FAILOVER_BEGIN  FAILOVER_END  SYNCH_BEGIN  SYNCH_END
RESETTING     !            PEER_RESET    !          RESET         !               !             !            !
RESET         .            ESTABLISHING  .          .             FAILINGOVER     .             !            !
PEER_RESET    .            .             .          ESTABLISHING  !               !             !            !
FAILINGOVER   .            .             .          .             !               RESET         !            !
ESTABLISHING  ESTABLISHED  .             .          RESET         FAILINGOVER     .             .            !
ESTABLISHED   .            *PEER_RESET   *RESETTING RESET         !               !             SYNCHING     .
SYNCHING      .            *PEER_RESET   *RESETTING RESET         !               !             .            ESTABLISHED
`

func TestFSMEveryCell(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(fsmTable), "\n")
	events := strings.Fields(lines[0])[1:]
	if len(events) != int(numEvents) || len(lines)-1 != int(numStates) {
		t.Fatal("table is not complete")
	}
	walked := 0
	for i, line := range lines[1:] {
		f := strings.Fields(line)
		s := State(i)
		if s.String() != f[0] {
			t.Fatalf("state %d is %v, not %s", i, s, f[0])
		}
		for j, cell := range f[1:] {
			e := Event(j)
			if e.String() != events[j] {
				t.Fatalf("event %d is %v, not %s", j, e, events[j])
			}
			want, down := strings.CutPrefix(cell, "*")
			legal := want != "!"
			if want == "." || want == "!" {
				want = s.String()
			}
			l := &Link{state: s}
			rc := l.Event(e)
			if l.state.String() != want || (rc == DownEvent) != down || rc&^DownEvent != 0 || (l.IllegalEvents() == 0) != legal {
				t.Errorf("%v in %v: %v, result %d, illegal %d; want %s", e, s, l.state, rc, l.IllegalEvents(), cell)
			}
			walked++
		}
	}
	if walked != int(numStates)*int(numEvents) {
		t.Errorf("%d cells walked", walked)
	}
	for _, l := range []*Link{{state: numStates}, {state: 200}} {
		if l.Event(EstablishEvt); l.IllegalEvents() != 1 || l.state.String() != "UNKNOWN" {
			t.Error("impossible state")
		}
	}
	if l := (&Link{state: Reset}); l.Event(numEvents) != 0 || l.IllegalEvents() != 1 || Event(99).String() != "UNKNOWN" {
		t.Error("impossible event")
	}
}

func TestStatePredicates(t *testing.T) {
	for s := range numStates {
		l := &Link{state: s}
		for name, c := range map[string]struct {
			got  bool
			want string
		}{
			"up":           {l.IsUp(), "ESTABLISHED SYNCHING"},
			"reset":        {l.IsReset(), "RESET FAILINGOVER ESTABLISHING"},
			"blocked":      {l.IsBlocked(), "RESETTING PEER_RESET FAILINGOVER"},
			"peer down":    {l.PeerIsDown(), "PEER_RESET"},
			"synching":     {l.IsSynching(), "SYNCHING"},
			"establishing": {l.IsEstablishing(), "ESTABLISHING"},
			"failing over": {l.IsFailingOver(), "FAILINGOVER"},
		} {
			want := false
			for _, n := range strings.Fields(c.want) {
				want = want || n == s.String()
			}
			if c.got != want {
				t.Errorf("%v: %s is %v", s, name, c.got)
			}
		}
	}
}
