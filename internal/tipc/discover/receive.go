package discover

import (
	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// Receive takes a LINK_CONFIG message that passed wire.Validate (net/tipc/discover.c tipc_disc_rcv). src is where the
// datagram came from; peers are addressed by what the message says, as in the kernel. m is not kept.
func (d *Discovery) Receive(now mono.Time, bearer int, src wire.MediaAddr, m wire.Msg) {
	if checkBearer(bearer) != nil || !d.bearers[bearer].enabled || !d.bearers[bearer].up {
		return
	}
	e := &d.bearers[bearer]
	p, ok := parse(m, e.Addr.Media)
	if !ok {
		d.stats.Malformed++
		return
	}
	p.Bearer = bearer
	if p.Media == e.Addr {
		d.stats.Own++
		return
	}
	if m.BcNetID() != d.cfg.NetID {
		d.stats.OtherNet++
		return
	}
	d.stats.Received[m.Type()]++
	if e.Learn && src.Media == e.Addr.Media && src != e.Addr && !src.IsZero() {
		d.cfg.Up.LearnPeer(now, bearer, src)
	}
	if d.own == 0 && now >= d.trialEnd && m.Type() != wire.TypeDscTrialFail {
		d.finalize(now)
	}

	switch m.Type() {
	case wire.TypeDscTrial:
		if sugg := d.cfg.Up.TryAddr(p.ID, p.Addr, d.trial); sugg != 0 {
			d.answer(now, bearer, wire.TypeDscTrialFail, p.Addr, sugg, p.Media)
		}
	case wire.TypeDscTrialFail:
		d.trialFail(now, m.DestDomain(), m.SuggNodeAddr())
	default:
		d.receiveDest(now, p, m)
	}
}

// parse reads a message; ok is false for what the kernel would call corrupt, or would read beyond its end.
func parse(m wire.Msg, media wire.MediaType) (p Dest, ok bool) {
	if m.Hdrsz() != wire.MaxHeaderSize || len(m) < wire.MaxHeaderSize || m.Type() > wire.TypeDscTrialFail || m.PrevNode() == 0 {
		return p, false
	}
	p.Addr = m.PrevNode()
	p.Caps = m.NodeCapabilities()
	p.Signature = m.NodeSig()
	p.NetHash = m.PeerNetHash()
	if p.Media, ok = wire.ParseMediaInfo(m.MediaInfo()); !ok || p.Media.Media != media {
		return p, false
	}
	if p.Caps&wire.CapNodeID128 == 0 {
		p.ID = IDOfAddr(p.Addr)
		return p, true
	}
	p.ID, ok = m.NodeIdentity()
	return p, ok && p.ID != (wire.NodeID{})
}

// trialFail is a neighbour's word that the address on trial is taken (tipc_disc_addr_trial_msg). The first suggestion
// counts: those of further neighbours are for an address that is no longer on trial.
func (d *Discovery) trialFail(now mono.Time, tried, sugg uint32) {
	if d.own != 0 || now >= d.trialEnd || tried != d.trial || sugg == 0 || sugg == tried || d.restarts >= MaxTrialRestarts {
		d.stats.Refused++
		return
	}
	d.restarts++
	d.stats.Restarts++
	d.trial = sugg
	d.trialEnd = now.Add(trialPeriod)
}

// receiveDest takes a request or response.
func (d *Discovery) receiveDest(now mono.Time, p Dest, m wire.Msg) {
	switch {
	case d.own == 0:
		d.stats.InTrial++
		return
	case p.Addr == d.own:
		d.duplicate(now, p.Bearer, d.own, p.Media)
		return
	case !InScope(d.cfg.Legacy, m.DestDomain(), d.own), !InScope(d.cfg.Legacy, d.bearers[p.Bearer].Domain, p.Addr):
		d.stats.OutOfScope++
		return
	}
	respond, duplicate := d.cfg.Up.CheckDest(now, p)
	if duplicate {
		d.duplicate(now, p.Bearer, p.Addr, p.Media)
	}
	if respond && m.Type() == wire.TypeDscRequest {
		d.answer(now, p.Bearer, wire.TypeDscResponse, p.Addr, 0, p.Media)
	}
}
