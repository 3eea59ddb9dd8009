package discover

import (
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// request broadcasts what the bearer repeats: TRIAL during the trial, then REQ.
func (d *Discovery) request(id int) {
	typ := uint8(wire.TypeDscRequest)
	if d.own == 0 {
		typ = wire.TypeDscTrial
	}
	e := &d.bearers[id]
	d.send(id, typ, e.Domain, 0, e.Broadcast)
}

// send builds a message and sends it (net/tipc/discover.c tipc_disc_init_msg, tipc_disc_msg_xmit). domain is the
// address or domain that it is for, sugg the suggested address of a TRIAL_FAIL.
func (d *Discovery) send(id int, typ uint8, domain, sugg uint32, to wire.MediaAddr) {
	e := &d.bearers[id]
	m := wire.Msg(d.frame[:])
	wire.Init(m, d.trial, wire.UserLinkConfig, typ, wire.MaxHeaderSize, 0)
	m.SetSize(frameSize)
	m.SetNonSeq(true)
	m.SetNodeSig(uint16(d.cfg.Random))
	m.SetNodeCapabilities(d.cfg.Caps) // after the signature: the fields overlap in bit 15, and the kernel's order counts
	m.SetDestDomain(domain)
	m.SetBcNetID(d.cfg.NetID)
	wire.PutMediaInfo(m.MediaInfo(), e.Addr)
	m.SetPeerNetHash(d.cfg.NetHash)
	m.SetSuggNodeAddr(sugg)
	m.SetNodeIdentity(d.cfg.ID)
	d.stats.Sent[typ]++
	d.cfg.Out.Send(id, to, m, nil)
}

// answer sends a RESP or TRIAL_FAIL within the rate limit.
func (d *Discovery) answer(now mono.Time, id int, typ uint8, domain, sugg uint32, to wire.MediaAddr) {
	e := &d.bearers[id]
	if n := int64(now.Sub(e.refill) / answerEvery); n > 0 {
		e.answers = int(min(int64(e.answers)+n, answerBurst))
		e.refill = e.refill.Add(time.Duration(n) * answerEvery)
	}
	if e.answers == 0 {
		d.stats.Suppressed++
		return
	}
	e.answers--
	d.send(id, typ, domain, sugg, to)
}

func (d *Discovery) duplicate(now mono.Time, id int, addr uint32, media wire.MediaAddr) {
	d.stats.Duplicates++
	if e := &d.bearers[id]; now >= e.nextAlert {
		e.nextAlert = now.Add(alertEvery)
		d.cfg.Up.DuplicateAddr(now, id, addr, media)
	}
}
