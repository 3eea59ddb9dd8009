package node

// sendMTU is the largest broadcast packet before a bearer asks for less: what fits a memory page in Linux on x86-64
// (net/tipc/msg.c one_page_mtu).
const sendMTU = 3520

const (
	bcastWindow    = 50 // BCLINK_WIN_DEFAULT
	bcastMinWindow = 32 // BCLINK_WIN_MIN

	// minLinkMTU is the smallest MTU, octets, that one peer can impose on the multicasts to all.
	minLinkMTU = 1000
)

// selectPrimary looks for a bearer that reaches all peers, on which a broadcast needs to be sent once only, and lets
// the bearers limit the MTU (net/tipc/bcast.c tipc_bcbase_select_primary).
func (t *Table) selectPrimary() {
	bc, all := &t.bc, t.bcl.BcPeers()
	bc.primary, bc.canBcast = noBearer, true
	if all == 0 {
		return
	}
	// All bearers limit the MTU at once, not only those looked at below as in the kernel: what is queued when the primary
	// changes must fit the new one.
	for i := range t.bearers {
		if b := &t.bearers[i]; b.enabled {
			t.limitBcastMTU(b.MTU)
		}
	}
	for i := range t.bearers {
		if bc.dests[i] == 0 {
			continue
		}
		b := &t.bearers[i]
		bc.canBcast = bc.canBcast && b.canBroadcast()
		if bc.dests[i] < all {
			continue
		}
		bc.primary = i
		if (uint32(i)^t.own)&1 != 0 {
			break // odd and even nodes prefer different bearers
		}
	}
	if bc.primary != noBearer {
		bc.canBcast = t.bearers[bc.primary].canBroadcast()
	}
}

// limitBcastMTU has broadcasts fit into mtu octets from now on. Every bearer and every link has a say: what was cut for
// a broadcast may go as replicast, over links whose peers take less than the bearer does. In Linux links have none, and
// such multicasts are lost; nor does a bearer whose MTU is changed. A link whose peer wants less than minLinkMTU
// carries no multicast that is larger.
func (t *Table) limitBcastMTU(mtu int) {
	if mtu < t.bcl.MTU() {
		minWin, maxWin := t.bcl.MinWin(), t.bcl.MaxWin()
		t.bcl.SetMTU(mtu)
		t.bcl.SetQueueLimits(minWin, maxWin)
	}
}

func (b *bearer) canBroadcast() bool { return b.enabled && !b.Replicast }

// BcastMTU is the largest message in octets, header included, that goes out as one broadcast packet and fits a link as
// well, should it be sent as replicast (tipc_bcast_get_mtu).
func (t *Table) BcastMTU() int { return t.bcl.MSS() }

// BcastMode is how multicasts travel, 0 when bearers or peers leave no choice. BcastRatio is the number of
// destinations, in percent of the cluster, up to which replicast is used.
func (t *Table) BcastMode() Mode { return t.bc.mode() }
func (t *Table) BcastRatio() int { return t.bc.ratio }

// BcastWindow is the broadcast link's window in packets.
func (t *Table) BcastWindow() int { return t.bcl.MaxWin() }

// SetBcastMode sets how multicasts travel. It fails with [ErrNoProto] when a bearer or a peer does not support it.
func (t *Table) SetBcastMode(m Mode) error { return t.bc.setMode(m) }

// SetBcastRatio sets the ratio, 1 to 100 percent.
func (t *Table) SetBcastRatio(percent int) error { return t.bc.setRatio(percent, t.bcl.BcPeers()) }

// SetBcastWindow sets the broadcast link's window, up to 8191 packets; less than 32 means 32
// (net/tipc/bcast.c tipc_bc_link_set_queue_limits).
func (t *Table) SetBcastWindow(n int) error {
	if n > MaxWindow || n < 0 {
		return ErrRange
	}
	t.bcl.SetQueueLimits(t.bcl.MinWin(), max(n, bcastMinWindow))
	return nil
}
