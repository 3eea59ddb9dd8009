package gate

import (
	"container/list"

	"midplane/internal/mono"
)

// room makes sure that one more file can be kept, retiring the one that was least lately asked for.
func (g *Gate) room(now mono.Time) bool {
	// A retired file goes after the grace only, so the last sixteenth is for those on their way out.
	if len(g.entries) >= g.cfg.MaxEntries-g.cfg.MaxEntries/16 {
		from := &g.code
		if g.data.Len() > g.cfg.MaxEntries/4 || g.code.Len() == 0 {
			from = &g.data
		}
		if f := from.Front(); f != nil {
			g.stats.Evicted++
			g.retire(now, f.Value.(*entry))
		}
	}
	return len(g.entries) < g.cfg.MaxEntries
}

func (g *Gate) enlist(e *entry) {
	if e.use != nil {
		return
	}
	if e.isData {
		e.use = g.data.PushBack(e)
	} else {
		e.use = g.code.PushBack(e)
	}
}

func (g *Gate) delist(e *entry) {
	if e.use == nil {
		return
	}
	g.listOf(e).Remove(e.use)
	e.use = nil
}

func (g *Gate) touch(e *entry) {
	if e.use != nil {
		g.listOf(e).MoveToBack(e.use)
	}
}

func (g *Gate) listOf(e *entry) *list.List {
	if e.isData {
		return &g.data
	}
	return &g.code
}

// openData answers an open of what nothing executes. The second time round the file gets a mark: most files of a
// system are opened once in a long time, and a lease for each would throw out those that are worth it.
func (g *Gate) openData(now mono.Time, q question) {
	g.stats.Data++
	e := g.entries[q.Key]
	switch {
	case e != nil && e.isData && e.state == known:
		g.touch(e)
		if !e.markOpen && !e.broken && !q.Aliased {
			e.markOpen = true
			g.do(Action{Kind: Mark, Key: e.key, Open: true})
		}
	case e == nil && !q.Aliased && g.second(q.Key) && g.room(now):
		e = &entry{key: q.Key, state: verifying, isData: true, class: ClassData, size: q.Size, kept: true, waiters: []question{q}}
		g.job++
		e.job = g.job
		g.entries[q.Key] = e
		g.do(Action{Kind: Hold, ID: q.ID, Key: q.Key, Job: e.job})
		return
	}
	g.answer(now, nil, q, true, WhyData)
}

// heldData takes the end of a Hold.
func (g *Gate) heldData(now mono.Time, e *entry, r Result) {
	waiters := e.waiters
	e.waiters = nil
	if !r.Failed && !r.Class.Loaded() && r.Pin >= PinLease && !e.broken {
		e.state, e.pin, e.markOpen = known, r.Pin, true
		g.enlist(e)
		g.stats.Held++
		g.do(Action{Kind: Mark, Key: e.key, Open: true})
	} else {
		g.remove(e)
	}
	for _, q := range waiters {
		if q.Op == OpOpen && !q.Guarded && !r.Class.Loaded() {
			g.answer(now, nil, q, true, WhyData)
			continue
		}
		q.Class = r.Class // it became something else before the lease was had
		g.need(now, q)
	}
}

// second says whether a file was opened not long ago.
func (g *Gate) second(k Key) bool {
	h := (k.Ino*0x9e3779b97f4a7c15 ^ k.Dev*0xc2b2ae3d27d4eb4f) >> 20
	slot := &g.recent[h&uint64(len(g.recent)-1)]
	if *slot == k {
		return true
	}
	*slot = k
	return false
}
