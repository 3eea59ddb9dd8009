package discover

import (
	"errors"
	"fmt"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Specification constants (net/tipc/core.h, discover.c).
const (
	MaxBearers   = 3
	DefaultNetID = 4711

	trialPeriod  = 1000 * time.Millisecond // addr_trial_end
	initInterval = 125 * time.Millisecond  // TIPC_DISC_INIT: between trials, and after a start
	fastInterval = 1000 * time.Millisecond // TIPC_DISC_FAST: the longest without peers
	slowInterval = 60 * time.Second        // TIPC_DISC_SLOW: the longest with peers
)

// Implementation constants. The kernel has no such bounds.
const (
	// MaxTrialRestarts is how often others can make a node try another address. Honest neighbours need one or two; after
	// this many, further refusals are ignored, so that nobody can keep a node from starting for ever.
	MaxTrialRestarts = 32

	// Answers (RESP and TRIAL_FAIL) per bearer: burst and lasting rate. A whole cluster of 1024 nodes that starts at once
	// is answered within the burst; a storm is not amplified beyond the rate.
	answerBurst = 1024
	answerEvery = time.Millisecond

	alertEvery = time.Second // between alerts of duplicate addresses, per bearer
)

// Errors of configuration.
var (
	ErrBearer     = errors.New("tipc/discover: no such bearer")
	ErrInUse      = errors.New("tipc/discover: bearer already enabled")
	ErrNoIdentity = errors.New("tipc/discover: the node has no identity")
	ErrIdentity   = errors.New("tipc/discover: the identity cannot change once a bearer was enabled")
)

// Config describes the node. Out and Up are mandatory.
type Config struct {
	ID      wire.NodeID // own identity; zero: [Discovery.SetID] comes before the first bearer, or taken from Addr
	Addr    uint32      // own address; 0: found by trial
	Legacy  bool        // addresses are <Z.C.N>, so a domain can be a cluster or a zone
	NetID   uint32      // cluster; others are not heard. 0: [DefaultNetID]
	Caps    wire.Caps   // told to peers; 0: wire.CapsAll
	Random  uint32      // this instance's random number (tn->random); its low 16 bits are the signature
	NetHash uint32      // header word 13. An own random value: a kernel that finds its own namespace's there takes us for it

	Out buf.Output // takes outgoing datagrams
	Up  Upcalls
}

// Bearer describes a carrier to its discoverer.
type Bearer struct {
	Addr      wire.MediaAddr // own address on it, as told to peers
	Broadcast wire.MediaAddr // where requests go
	Domain    uint32         // which nodes are searched and admitted; see [InScope]
	Learn     bool           // requests go to a list of peers: unknown senders are worth adding to it
}

// Dest is what a request or response said about its sender.
type Dest struct {
	Bearer    int            // that it arrived on
	Addr      uint32         // of the node: neither 0 nor the own
	ID        wire.NodeID    // of the node; [IDOfAddr] for nodes without wire.CapNodeID128
	Caps      wire.Caps      //
	Signature uint16         // of the node's instance
	NetHash   uint32         // header word 13
	Media     wire.MediaAddr // where it says it can be reached: one node's address on the bearer's media
}

// Upcalls is implemented by the peer table and the stack above. An upcall may send, and may call AddDest and
// RemoveDest.
type Upcalls interface {
	// CheckDest judges the sender of a request or response (net/tipc/node.c tipc_node_check_dest): whether it wants to be
	// answered, and whether it seems to use the address of another node.
	CheckDest(now mono.Time, d Dest) (respond, duplicate bool)

	// TryAddr returns 0 when the node id may use addr, or else the address to suggest to it (net/tipc/node.c
	// tipc_node_try_addr). trial is the address that this node uses or has on trial itself.
	TryAddr(id wire.NodeID, addr, trial uint32) uint32

	// Finalize says that the trial has ended and addr is this node's address from now on (net/tipc/net.c
	// tipc_net_finalize). It comes once, from Tick or Receive, before the first CheckDest; not at all with Config.Addr.
	Finalize(now mono.Time, addr uint32)

	// DuplicateAddr is for the log: addr, at this node or a known peer, is used by somebody at media too. At most one
	// call a second and bearer is made; Stats counts all.
	DuplicateAddr(now mono.Time, bearer int, addr uint32, media wire.MediaAddr)

	// LearnPeer names the source of a correct message on a bearer with Learn (net/tipc/udp_media.c tipc_udp_rcast_disc).
	// It is called for known sources too; the driver keeps the list and its bound.
	LearnPeer(now mono.Time, bearer int, src wire.MediaAddr)
}

// Stats counts messages since the start, all bearers together.
type Stats struct {
	Sent     [4]uint64 // by type: REQ, RESP, TRIAL, TRIAL_FAIL
	Received [4]uint64 // by type, of those that were correct, of this cluster and not this node's own

	Malformed  uint64 // not 60 octets of header, identity missing, media address not of one node on this media, type unknown
	Own        uint64 // sent by this node
	OtherNet   uint64 // another cluster's
	InTrial    uint64 // REQ or RESP while the own address is on trial
	OutOfScope uint64 // from or for another domain
	Duplicates uint64 // duplicate addresses seen
	Suppressed uint64 // answers not sent because of the rate limit
	Restarts   uint64 // trials started again
	Refused    uint64 // TRIAL_FAIL ignored: not for the address on trial, nothing suggested, or too many
}

func checkBearer(id int) error {
	if id < 0 || id >= MaxBearers {
		return fmt.Errorf("%w: %d", ErrBearer, id)
	}
	return nil
}
