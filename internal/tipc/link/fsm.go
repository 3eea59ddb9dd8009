package link

// State of a link's state machine (net/tipc/link.c LINK_xxx).
type State uint8

// States.
const (
	Resetting    State = iota // down at this end, which the node has yet to notice
	Reset                     // down at both ends, as far as is known
	PeerReset                 // down at the peer's end, which the node has yet to notice
	FailingOver               // down, and its traffic is on the way over another link
	Establishing              // reset at both ends, ready to come up
	Established               // up
	Synching                  // up, but waiting for older traffic that travels on another link
	numStates
)

var stateNames = [numStates]string{
	"RESETTING", "RESET", "PEER_RESET", "FAILINGOVER", "ESTABLISHING", "ESTABLISHED", "SYNCHING",
}

// String is the kernel's name, without LINK_.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "UNKNOWN"
}

// Event is what drives the state machine (net/tipc/link.h LINK_xxx_EVT).
type Event uint8

// Events.
const (
	EstablishEvt     Event = iota // the node takes the link into use
	PeerResetEvt                  // RESET, or ACTIVATE while down, came from the peer
	FailureEvt                    // silence, a fatal protocol error, or a change that needs a reset
	ResetEvt                      // the node has cleaned up
	FailoverBeginEvt              // the link's traffic starts to move to another link
	FailoverEndEvt                // all of it has arrived
	SynchBeginEvt                 // the peer says what has to arrive on the other link first
	SynchEndEvt                   // it has arrived
	numEvents
)

var eventNames = [numEvents]string{
	"ESTABLISH", "PEER_RESET", "FAILURE", "RESET", "FAILOVER_BEGIN", "FAILOVER_END", "SYNCH_BEGIN", "SYNCH_END",
}

// String is the kernel's name, without LINK_ and _EVT.
func (e Event) String() string {
	if e < numEvents {
		return eventNames[e]
	}
	return "UNKNOWN"
}

// Events is what a link wants its node to do (net/tipc/link.h TIPC_LINK_xxx).
type Events uint8

// Bits of Events.
const (
	UpEvent   Events = 1 << iota // the handshake is complete: take the link into use
	DownEvent                    // the link has failed
	SendState                    // send a STATE message on a unicast link to the same peer
)

const illegal = numStates // cell of an event that cannot happen; the state stays

// transitions is the state machine. Rows are states, columns are events in the order of their constants.
var transitions = [numStates][numEvents]State{
	Resetting:    {illegal, PeerReset, illegal, Reset, illegal, illegal, illegal, illegal},
	Reset:        {Reset, Establishing, Reset, Reset, FailingOver, Reset, illegal, illegal},
	PeerReset:    {PeerReset, PeerReset, PeerReset, Establishing, illegal, illegal, illegal, illegal},
	FailingOver:  {FailingOver, FailingOver, FailingOver, FailingOver, illegal, Reset, illegal, illegal},
	Establishing: {Established, Establishing, Establishing, Reset, FailingOver, Establishing, Establishing, illegal},
	Established:  {Established, PeerReset, Resetting, Reset, illegal, illegal, Synching, Established},
	Synching:     {Synching, PeerReset, Resetting, Reset, illegal, illegal, Synching, Established},
}

// Next returns the state that e leads to. ok is false when e is illegal in s. down says that the link went down on its
// own, so that the node has to be told.
func (s State) Next(e Event) (next State, down, ok bool) {
	if s >= numStates || e >= numEvents {
		return s, false, false
	}
	next = transitions[s][e]
	if next == illegal {
		return s, false, false
	}
	return next, s.up() && (e == PeerResetEvt || e == FailureEvt), true
}

func (s State) up() bool { return s == Established || s == Synching }

// Event runs the state machine (net/tipc/link.c tipc_link_fsm_evt). An illegal event is counted and changes nothing.
// The result is [DownEvent] or 0.
func (l *Link) Event(e Event) Events {
	next, down, ok := l.state.Next(e)
	if !ok {
		l.illegalEvents++
		return 0
	}
	l.state = next
	if down {
		return DownEvent
	}
	return 0
}
