package node

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Mode says how multicast messages travel to other nodes (TIPC_NLA_PROP_BROADCAST).
type Mode uint8

// Modes, with the kernel's numbers (BCLINK_MODE_xxx).
const (
	ModeBroadcast Mode = 1 // one datagram to all, always
	ModeReplicast Mode = 2 // one copy per destination node, always
	ModeSelect    Mode = 4 // by the number of destinations
)

// String returns the word that the tipc tool prints and takes.
func (m Mode) String() string {
	switch m {
	case ModeBroadcast:
		return "BROADCAST"
	case ModeReplicast:
		return "REPLICAST"
	case ModeSelect:
		return "AUTOSELECT"
	}
	return "UNKNOWN"
}

// defaultRatio is the destination count, in percent of the cluster's size, up to which replicast is used.
const defaultRatio = 10

// Method is a sender's memory of how its last multicast travelled (struct tipc_mc_method). Each sending socket has one;
// the zero value is the kernel's start: broadcast, free to change.
type Method struct {
	Rcast     bool // the last message went as replicast
	Mandatory bool // the user fixed the way, to replicast if Wish is set
	Wish      bool // not Rcast itself as in the kernel, which so overlooks the change and lets messages overtake each other
	Expires   mono.Time
}

// Dests are the nodes that a multicast goes to (struct tipc_nlist).
type Dests struct {
	Local  bool     // this node is one of them
	Remote []uint32 // the others, each once
}

// Add adds a node once. self is the own address.
func (d *Dests) Add(self, addr uint32) {
	if addr == self {
		d.Local = true
		return
	}
	for _, a := range d.Remote {
		if a == addr {
			return
		}
	}
	d.Remote = append(d.Remote, addr)
}

// Reset empties d and keeps its memory.
func (d *Dests) Reset() {
	d.Local = false
	d.Remote = d.Remote[:0]
}

// bcBase is what the broadcast layer knows about bearers and settings (struct tipc_bc_base).
type bcBase struct {
	dests     [MaxBearers]int // peers with a working link, per bearer
	primary   int             // a bearer that reaches all peers, or noBearer
	canBcast  bool            // the bearer or bearers used can broadcast
	canRcast  bool            // all peers understand replicast
	forced    Mode            // set by the user; ModeSelect: none
	ratio     int             // percent, see defaultRatio
	threshold int             // destinations up to which replicast is chosen
}

// mode is the current setting (bcast.c tipc_bcast_get_mode): 0 when there is no choice to make.
func (b *bcBase) mode() Mode {
	switch {
	case b.forced == ModeBroadcast || b.forced == ModeReplicast:
		return b.forced
	case b.canBcast && b.canRcast:
		return ModeSelect
	}
	return 0
}

// calcThreshold follows a change of cluster size or ratio (bcast.c tipc_bcbase_calc_bc_threshold).
func (b *bcBase) calcThreshold(clusterSize int) { b.threshold = 1 + clusterSize*b.ratio/100 }

// selectMethod decides how the next message travels (bcast.c tipc_bcast_select_xmit_method). What is possible comes
// first, then the sender's own wish, then for old clusters without the switching protocol a minimum time between
// changes, then the setting of the node, and last the number of destinations.
func (b *bcBase) selectMethod(now mono.Time, dests int, clusterCaps wire.Caps, m *Method) {
	expired := m.Expires
	m.Expires = now + methodExpires
	if !b.canBcast {
		m.Rcast = true
		return
	}
	if !b.canRcast {
		m.Rcast = false
		return
	}
	if m.Mandatory {
		m.Rcast = m.Wish
		return
	}
	if clusterCaps&wire.CapMcastRbctl == 0 && now < expired {
		return
	}
	switch b.forced {
	case ModeBroadcast:
		m.Rcast = false
	case ModeReplicast:
		m.Rcast = true
	default:
		m.Rcast = dests <= b.threshold
	}
}

// setMode changes the setting (bcast.c tipc_bc_link_set_broadcast_mode).
func (b *bcBase) setMode(m Mode) error {
	var ok bool
	switch m {
	case ModeBroadcast:
		ok = b.canBcast
	case ModeReplicast:
		ok = b.canRcast
	case ModeSelect:
		ok = b.canBcast && b.canRcast
	default:
		return ErrRange
	}
	if !ok {
		return ErrNoProto
	}
	b.forced = m
	return nil
}

// setRatio changes the ratio (bcast.c tipc_bc_link_set_broadcast_ratio); percent is 1 to 100.
func (b *bcBase) setRatio(percent, clusterSize int) error {
	if !b.canBcast || !b.canRcast {
		return ErrNoProto
	}
	if percent < 1 || percent > 100 {
		return ErrRange
	}
	b.ratio = percent
	b.calcThreshold(clusterSize)
	return nil
}
