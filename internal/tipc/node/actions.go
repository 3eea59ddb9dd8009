package node

import "midplane/internal/mono"

// action is one upcall that waits for the outermost call to end.
type action struct {
	kind   uint8
	bearer int8
	id     uint32
	p      *peer
}

const (
	actInput    = iota // links[bearer].inputq
	actNames           // namedq
	actMcast           // bcq
	actBcWakeup        // Table.bcq
	actLocal           // Table.localq
	actLocalMc         // Table.localm
	actNodeUp          //
	actNodeDown        //
	actLinkUp          // id: link id
	actLinkDown        //
)

// actions is a first-in first-out ring of waiting upcalls. It grows with the number of distinct things that one call
// can cause, which is small: a few per link.
type actions struct {
	ring []action
	head int
	n    int
}

func (a *actions) push(x action) {
	if a.n == len(a.ring) {
		bigger := make([]action, max(16, 2*len(a.ring)))
		for i := range a.n {
			bigger[i] = a.ring[(a.head+i)%len(a.ring)]
		}
		a.ring, a.head = bigger, 0
	}
	a.ring[(a.head+a.n)%len(a.ring)] = x
	a.n++
}

func (a *actions) pop() (action, bool) {
	if a.n == 0 {
		return action{}, false
	}
	x := a.ring[a.head]
	a.ring[a.head] = action{}
	a.head = (a.head + 1) % len(a.ring)
	a.n--
	return x, true
}

// enter and leave bracket every entry point that can cause upcalls. The outermost leave makes them.
func (t *Table) enter() { t.depth++ }

func (t *Table) leave(now mono.Time) {
	if t.depth > 1 {
		t.depth--
		return
	}
	for {
		x, ok := t.acts.pop()
		if !ok {
			break
		}
		t.run(now, x)
	}
	t.depth--
}

func (t *Table) run(now mono.Time, x action) {
	up, p := t.cfg.Up, x.p
	switch x.kind {
	case actInput:
		if q := &p.links[x.bearer].inputq; !q.Empty() {
			up.Deliver(now, q)
			q.Purge()
		}
	case actNames:
		if !p.namedq.Empty() {
			up.DeliverNames(now, &p.namedq, p.addr)
			p.namedq.Purge()
		}
	case actMcast:
		if !p.bcq.Empty() {
			up.DeliverMulticast(now, &p.bcq)
			p.bcq.Purge()
		}
	case actBcWakeup:
		if !t.bcq.Empty() {
			up.Deliver(now, &t.bcq)
			t.bcq.Purge()
		}
	case actLocal:
		if !t.localq.Empty() {
			up.Deliver(now, &t.localq)
			t.localq.Purge()
		}
	case actLocalMc:
		if !t.localm.Empty() {
			up.DeliverMulticast(now, &t.localm)
			t.localm.Purge()
		}
	case actNodeUp:
		up.NodeUp(now, p.addr, p.caps)
	case actNodeDown:
		up.NodeDown(now, p.addr, p.caps)
	case actLinkUp:
		up.LinkUp(now, p.addr, x.id, int(x.bearer))
	case actLinkDown:
		up.LinkDown(now, p.addr, x.id, int(x.bearer))
	}
}
