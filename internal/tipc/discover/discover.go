package discover

import (
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Discovery is the discovery of one node on all its bearers. See the package comment; use [New].
type Discovery struct {
	cfg      Config
	own      uint32    // address; 0 until the trial is over
	trial    uint32    // address on trial (tn->trial_addr); equals own afterwards
	trialEnd mono.Time // end of the trial (tn->addr_trial_end)
	restarts int
	bearers  [MaxBearers]discoverer
	stats    Stats
	frame    [frameSize]byte
}

// discoverer is the part of one bearer (struct tipc_discoverer).
type discoverer struct {
	Bearer
	enabled, up bool
	peers       int // nodes with a link up over the bearer (num_nodes)
	interval    time.Duration
	timer       mono.Time

	answers   int       // that may still be sent at once
	refill    mono.Time // up to when answers was filled
	nextAlert mono.Time
}

const frameSize = wire.MaxHeaderSize + wire.NodeIDSize

// New returns the discovery of a node without bearers. With neither identity nor address the node must get an identity
// by SetID before its first bearer.
func New(c Config) *Discovery {
	if c.NetID == 0 {
		c.NetID = DefaultNetID
	}
	if c.Caps == 0 {
		c.Caps = wire.CapsAll
	}
	if c.Addr != 0 && c.ID == (wire.NodeID{}) {
		c.ID = IDOfAddr(c.Addr)
	}
	d := &Discovery{cfg: c, own: c.Addr, trial: c.Addr}
	if d.own == 0 {
		d.trial = AddrOf(c.ID)
	}
	return d
}

// SetID gives the node its identity, before the first bearer is enabled.
func (d *Discovery) SetID(id wire.NodeID) error {
	for i := range d.bearers {
		if d.bearers[i].enabled {
			return ErrIdentity
		}
	}
	if d.own != 0 {
		return ErrIdentity
	}
	if id == (wire.NodeID{}) {
		return ErrNoIdentity
	}
	d.cfg.ID, d.trial = id, AddrOf(id)
	return nil
}

// ID is the node's identity.
func (d *Discovery) ID() wire.NodeID { return d.cfg.ID }

// NetID is the cluster.
func (d *Discovery) NetID() uint32 { return d.cfg.NetID }

// Own is the node's address, 0 until the trial is over.
func (d *Discovery) Own() uint32 { return d.own }

// Trial is the address on trial, or the node's address after it.
func (d *Discovery) Trial() uint32 { return d.trial }

// Stats returns the counters.
func (d *Discovery) Stats() Stats { return d.stats }

// BearerEnable starts discovery on bearer id (0 to 2) and sends the first request, or trial (net/tipc/discover.c
// tipc_disc_create). A bearer enabled during a trial starts its second anew, so that its nodes are asked as well.
func (d *Discovery) BearerEnable(now mono.Time, id int, b Bearer) error {
	if err := checkBearer(id); err != nil {
		return err
	}
	e := &d.bearers[id]
	if e.enabled {
		return ErrInUse
	}
	if d.cfg.ID == (wire.NodeID{}) {
		return ErrNoIdentity
	}
	if d.own == 0 {
		d.trialEnd = now.Add(trialPeriod)
	}
	*e = discoverer{Bearer: b, enabled: true, up: true, answers: answerBurst, refill: now, nextAlert: now}
	d.start(now, id)
	return nil
}

// BearerDisable ends discovery on the bearer (tipc_disc_delete). It is harmless when there is none.
func (d *Discovery) BearerDisable(id int) {
	if checkBearer(id) == nil {
		d.bearers[id] = discoverer{}
	}
}

// BearerSetUp follows the carrier: a bearer that is down is silent and deaf; when it comes up it starts afresh, as with
// BearerReset.
func (d *Discovery) BearerSetUp(now mono.Time, id int, up bool) {
	if checkBearer(id) != nil || !d.bearers[id].enabled {
		return
	}
	d.bearers[id].up = up
	if up {
		d.BearerReset(now, id)
	}
}

// BearerReset forgets how many peers the bearer has and asks for them again at once (tipc_disc_reset). It comes after
// the bearer's links were deleted.
func (d *Discovery) BearerReset(now mono.Time, id int) {
	if checkBearer(id) != nil || !d.bearers[id].enabled || !d.bearers[id].up {
		return
	}
	d.bearers[id].peers = 0
	d.start(now, id)
}

// BearerSetAddr changes the own address on the bearer. BearerReset should follow, to tell the peers.
func (d *Discovery) BearerSetAddr(id int, a wire.MediaAddr) {
	if checkBearer(id) == nil {
		d.bearers[id].Addr = a
	}
}

func (d *Discovery) start(now mono.Time, id int) {
	e := &d.bearers[id]
	e.interval = initInterval
	e.timer = now.Add(initInterval)
	d.request(id)
}

// AddDest says that a link over the bearer came up (tipc_disc_add_dest): polling may slow down.
func (d *Discovery) AddDest(id int) {
	if checkBearer(id) == nil && d.bearers[id].enabled {
		d.bearers[id].peers++
	}
}

// RemoveDest says that a link over the bearer went down (tipc_disc_remove_dest). Without any peer left, the search
// starts again quickly.
func (d *Discovery) RemoveDest(now mono.Time, id int) {
	if checkBearer(id) != nil {
		return
	}
	e := &d.bearers[id]
	if !e.enabled || e.peers == 0 {
		return
	}
	e.peers--
	if e.peers == 0 && (e.interval > fastInterval || e.timer == mono.Never) {
		e.interval = initInterval
		e.timer = now.Add(initInterval)
	}
}

// Deadline is when Tick wants to be called: mono.Never without bearers.
func (d *Discovery) Deadline() mono.Time {
	t := mono.Never
	for i := range d.bearers {
		if e := &d.bearers[i]; e.enabled && e.up {
			t = t.Min(e.timer)
		}
	}
	return t
}

// Tick sends what is due (tipc_disc_timeout). However late it comes, each bearer sends at most one request.
func (d *Discovery) Tick(now mono.Time) {
	for i := range d.bearers {
		if e := &d.bearers[i]; e.enabled && e.up && e.timer <= now {
			d.timeout(now, i)
		}
	}
}

func (d *Discovery) timeout(now mono.Time, id int) {
	e := &d.bearers[id]
	// The only node that was searched is found.
	if e.Domain&nodeMask != 0 && e.peers > 0 {
		e.timer = mono.Never
		return
	}
	if d.own == 0 && now >= d.trialEnd {
		e.timer = now.Add(initInterval)
		d.finalize(now)
		return
	}
	if d.own == 0 {
		e.interval = initInterval
	} else {
		limit := fastInterval
		if e.peers > 0 {
			limit = slowInterval
		}
		e.interval = min(2*e.interval, limit)
	}
	e.timer = now.Add(e.interval)
	d.request(id)
}

// finalize makes the address on trial the node's own (net/tipc/net.c tipc_net_finalize).
func (d *Discovery) finalize(now mono.Time) {
	d.own = d.trial
	d.cfg.Up.Finalize(now, d.own)
}
