package node

import (
	"fmt"

	"midplane/internal/mono"
	"midplane/internal/tipc/monitor"
)

// BearerEnable puts a bearer into use (net/tipc/bearer.c tipc_enable_bearer). id is 0 to 2. The network plane is the
// letter of the id. Choosing a free id and resolving equal priorities is the caller's business.
func (t *Table) BearerEnable(now mono.Time, id int, b Bearer) error {
	if id < 0 || id >= MaxBearers {
		return ErrBearer
	}
	if t.bearers[id].enabled {
		return ErrInUse
	}
	dev, err := ifName(b.Name)
	if err != nil {
		return err
	}
	if b.MinMTU == 0 {
		b.MinMTU = minBearerMTU
	}
	switch {
	case b.MinMTU < minBearerMTU || b.MTU < b.MinMTU || b.MTU > maxBearerMTU:
		return fmt.Errorf("%w: MTU %d", ErrRange, b.MTU)
	case b.Priority < 0 || b.Priority > MaxPriority:
		return fmt.Errorf("%w: priority %d", ErrRange, b.Priority)
	case b.Tolerance < MinTolerance || b.Tolerance > MaxTolerance:
		return fmt.Errorf("%w: tolerance %d", ErrRange, b.Tolerance)
	case b.MinWin < 1 || b.MinWin > b.MaxWin || b.MaxWin < MinWindow || b.MaxWin > MaxWindow:
		return fmt.Errorf("%w: window %d to %d", ErrRange, b.MinWin, b.MaxWin)
	}
	mon := monitor.New(now, t.own, t.cfg.Random)
	mon.SetThreshold(t.monThreshold)
	t.bearers[id] = bearer{Bearer: b, enabled: true, up: true, plane: byte('A' + id), ifName: dev, mon: mon}
	return nil
}

// BearerDisable takes a bearer out of use and forgets its links; peers are told (net/tipc/bearer.c bearer_disable).
func (t *Table) BearerDisable(now mono.Time, id int) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	b.up = false
	t.deleteLinks(now, id)
	*b = bearer{}
	return nil
}

// BearerReset forgets the bearer's links (net/tipc/bearer.c tipc_reset_bearer); discovery makes them anew. It is for a
// changed address.
func (t *Table) BearerReset(now mono.Time, id int) error {
	if _, err := t.bearer(id); err != nil {
		return err
	}
	t.deleteLinks(now, id)
	return nil
}

// BearerSetUp follows the carrier of the bearer's device (net/tipc/bearer.c tipc_l2_device_event). Losing it forgets
// the links.
func (t *Table) BearerSetUp(now mono.Time, id int, up bool) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	b.up = up
	if !up {
		t.deleteLinks(now, id)
	}
	return nil
}

// Bearer returns the description of an enabled bearer.
func (t *Table) Bearer(id int) (Bearer, bool) {
	if id < 0 || id >= MaxBearers || !t.bearers[id].enabled {
		return Bearer{}, false
	}
	return t.bearers[id].Bearer, true
}

// BearerPlane is the bearer's network plane, 'A' to 'C'; 0 when it is not enabled.
func (t *Table) BearerPlane(id int) byte {
	if id < 0 || id >= MaxBearers {
		return 0
	}
	return t.bearers[id].plane
}

func (t *Table) bearer(id int) (*bearer, error) {
	if id < 0 || id >= MaxBearers || !t.bearers[id].enabled {
		return nil, ErrBearer
	}
	return &t.bearers[id], nil
}

// deleteLinks forgets all links over a bearer (net/tipc/node.c tipc_node_delete_links).
func (t *Table) deleteLinks(now mono.Time, id int) {
	t.enter()
	defer t.leave(now)
	for _, p := range t.sorted {
		t.linkDown(now, p, id, true)
	}
}

// BearerSetTolerance, BearerSetMTU, BearerSetPriority and BearerSetWindow change a property of the bearer. Tolerance
// (ms) and MTU (octets) apply to its links at once, priority and window to links made later
// (net/tipc/bearer.c __tipc_nl_bearer_set, node.c tipc_node_apply_property).
func (t *Table) BearerSetTolerance(now mono.Time, id, v int) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	if v < MinTolerance || v > MaxTolerance {
		return ErrRange
	}
	b.Tolerance = v
	for _, p := range t.sorted {
		if l := p.links[id].link; l != nil {
			l.SetTolerance(now, v, &p.links[id])
		}
	}
	return nil
}

func (t *Table) BearerSetMTU(id, v int) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	if v < b.MinMTU || v > maxBearerMTU {
		return ErrRange
	}
	b.MTU = v
	for _, p := range t.sorted {
		if le := &p.links[id]; le.link != nil {
			le.link.SetMTU(v)
			le.mtu = le.link.MSS()
		}
	}
	if t.bcl.BcPeers() > 0 {
		t.limitBcastMTU(v)
	}
	return nil
}

func (t *Table) BearerSetPriority(id, v int) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	if v < 0 || v > MaxPriority {
		return ErrRange
	}
	b.Priority = v
	return nil
}

func (t *Table) BearerSetWindow(id, v int) error {
	b, err := t.bearer(id)
	if err != nil {
		return err
	}
	if v < DefWindow || v > MaxWindow {
		return ErrRange
	}
	b.MaxWin = v
	return nil
}

// MonitorThreshold is the number of nodes above which links are supervised by ring monitoring, see package monitor.
func (t *Table) MonitorThreshold() int { return t.monThreshold }

// SetMonitorThreshold changes it for all bearers (net/tipc/monitor.c tipc_nl_monitor_set_threshold); n is at least 1.
func (t *Table) SetMonitorThreshold(n int) error {
	if n < 1 {
		return ErrRange
	}
	t.monThreshold = n
	for i := range t.bearers {
		if m := t.bearers[i].mon; m != nil {
			m.SetThreshold(n)
		}
	}
	return nil
}

// Monitor is the ring monitor of a bearer, for display; nil when the bearer is not enabled.
func (t *Table) Monitor(id int) *monitor.Monitor {
	if id < 0 || id >= MaxBearers {
		return nil
	}
	return t.bearers[id].mon
}
