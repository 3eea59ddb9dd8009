package node

import "fmt"

// State is the contact state with one peer node. Each name says what holds for this node ("self") and for the peer:
// up, down, coming (the other end has seen contact already) or leaving (the other end has not noticed the loss yet).
//
// The two transitional "leaving" states are what makes both ends see exactly one clean loss of contact: nothing is taken
// from the peer until it has admitted that the contact was lost. Linux: net/tipc/node.c, tipc_node_fsm_evt().
type State uint8

// The node states. The order is the row order of fsmTable.
const (
	SelfDownPeerDown State = iota
	SelfUpPeerUp
	SelfDownPeerLeaving
	SelfUpPeerComing
	SelfComingPeerUp
	SelfLeavingPeerDown
	FailingOver
	Synching
	numStates
)

var stateNames = [numStates]string{
	"SELF_DOWN_PEER_DOWN", "SELF_UP_PEER_UP", "SELF_DOWN_PEER_LEAVING", "SELF_UP_PEER_COMING",
	"SELF_COMING_PEER_UP", "SELF_LEAVING_PEER_DOWN", "NODE_FAILINGOVER", "NODE_SYNCHING",
}

// String returns the kernel's name of the state.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Event is an input of the node state machine.
type Event uint8

// The events. The order is the column order of fsmTable.
const (
	SelfEstablContact Event = iota
	SelfLostContact
	PeerEstablContact
	PeerLostContact
	FailoverBegin
	FailoverEnd
	SynchBegin
	SynchEnd
	numEvents
)

var eventNames = [numEvents]string{
	"SELF_ESTABL_CONTACT", "SELF_LOST_CONTACT", "PEER_ESTABL_CONTACT", "PEER_LOST_CONTACT",
	"NODE_FAILOVER_BEGIN", "NODE_FAILOVER_END", "NODE_SYNCH_BEGIN", "NODE_SYNCH_END",
}

// String returns the kernel's name of the event.
func (e Event) String() string {
	if e < numEvents {
		return eventNames[e]
	}
	return fmt.Sprintf("Event(%d)", uint8(e))
}

// illegal marks a cell of fsmTable that no correct caller reaches; the state is kept and the event is counted.
const illegal = numStates

// fsmTable is the whole machine: fsmTable[state][event] is the next state. In words, with what is not named being "no
// change":
//
//	SELF_DOWN_PEER_DOWN     self up -> SELF_UP_PEER_COMING; peer up -> SELF_COMING_PEER_UP
//	SELF_UP_PEER_COMING     peer up -> SELF_UP_PEER_UP; self lost -> SELF_DOWN_PEER_DOWN
//	SELF_COMING_PEER_UP     self up -> SELF_UP_PEER_UP; peer lost -> SELF_DOWN_PEER_DOWN
//	SELF_UP_PEER_UP         self lost -> SELF_DOWN_PEER_LEAVING; peer lost -> SELF_LEAVING_PEER_DOWN;
//	                        begin -> NODE_SYNCHING or NODE_FAILINGOVER
//	SELF_DOWN_PEER_LEAVING  peer lost -> SELF_DOWN_PEER_DOWN
//	SELF_LEAVING_PEER_DOWN  self lost -> SELF_DOWN_PEER_DOWN
//	NODE_SYNCHING           end -> SELF_UP_PEER_UP; failover begin -> NODE_FAILINGOVER; losses as in SELF_UP_PEER_UP
//	NODE_FAILINGOVER        end -> SELF_UP_PEER_UP; losses as in SELF_UP_PEER_UP
var fsmTable = [numStates][numEvents]State{
	SelfDownPeerDown: {
		SelfEstablContact: SelfUpPeerComing, SelfLostContact: SelfDownPeerDown,
		PeerEstablContact: SelfComingPeerUp, PeerLostContact: SelfDownPeerDown,
		FailoverBegin: illegal, FailoverEnd: illegal, SynchBegin: illegal, SynchEnd: illegal,
	},
	SelfUpPeerUp: {
		SelfEstablContact: SelfUpPeerUp, SelfLostContact: SelfDownPeerLeaving,
		PeerEstablContact: SelfUpPeerUp, PeerLostContact: SelfLeavingPeerDown,
		FailoverBegin: FailingOver, FailoverEnd: SelfUpPeerUp, SynchBegin: Synching, SynchEnd: SelfUpPeerUp,
	},
	SelfDownPeerLeaving: {
		SelfEstablContact: SelfDownPeerLeaving, SelfLostContact: SelfDownPeerLeaving,
		PeerEstablContact: SelfDownPeerLeaving, PeerLostContact: SelfDownPeerDown,
		FailoverBegin: illegal, FailoverEnd: illegal, SynchBegin: illegal, SynchEnd: illegal,
	},
	SelfUpPeerComing: {
		SelfEstablContact: SelfUpPeerComing, SelfLostContact: SelfDownPeerDown,
		PeerEstablContact: SelfUpPeerUp, PeerLostContact: SelfUpPeerComing,
		FailoverBegin: SelfUpPeerComing, FailoverEnd: illegal, SynchBegin: illegal, SynchEnd: SelfUpPeerComing,
	},
	SelfComingPeerUp: {
		SelfEstablContact: SelfUpPeerUp, SelfLostContact: SelfComingPeerUp,
		PeerEstablContact: SelfComingPeerUp, PeerLostContact: SelfDownPeerDown,
		FailoverBegin: illegal, FailoverEnd: illegal, SynchBegin: illegal, SynchEnd: illegal,
	},
	SelfLeavingPeerDown: {
		SelfEstablContact: SelfLeavingPeerDown, SelfLostContact: SelfDownPeerDown,
		PeerEstablContact: SelfLeavingPeerDown, PeerLostContact: SelfLeavingPeerDown,
		FailoverBegin: illegal, FailoverEnd: illegal, SynchBegin: illegal, SynchEnd: illegal,
	},
	FailingOver: {
		SelfEstablContact: FailingOver, SelfLostContact: SelfDownPeerLeaving,
		PeerEstablContact: FailingOver, PeerLostContact: SelfLeavingPeerDown,
		FailoverBegin: FailingOver, FailoverEnd: SelfUpPeerUp, SynchBegin: illegal, SynchEnd: illegal,
	},
	Synching: {
		SelfEstablContact: Synching, SelfLostContact: SelfDownPeerLeaving,
		PeerEstablContact: Synching, PeerLostContact: SelfLeavingPeerDown,
		FailoverBegin: FailingOver, FailoverEnd: illegal, SynchBegin: Synching, SynchEnd: SelfUpPeerUp,
	},
}

// Next returns the state that follows s when e happens, and whether e is legal in s. An illegal event keeps the state.
// Values outside the defined ones are illegal.
func (s State) Next(e Event) (State, bool) {
	if s >= numStates || e >= numEvents {
		return s, false
	}
	if n := fsmTable[s][e]; n != illegal {
		return n, true
	}
	return s, false
}
