package gate

import "container/list"

// lane is the files of one file system that wait to be verified: a slow one, or a file of many gigabytes, must not
// keep others waiting.
type lane struct {
	dev        uint64
	running    int
	small, big list.List // of *entry
	at         map[*entry]*list.Element
}

func (g *Gate) isBig(e *entry) bool { return e.size >= g.cfg.Big }

func (g *Gate) enqueue(e *entry) {
	l := g.lanes[e.key.Dev]
	if l == nil {
		l = &lane{dev: e.key.Dev, at: map[*entry]*list.Element{}}
		g.lanes[e.key.Dev] = l
		g.order = append(g.order, l)
	}
	e.state = queued
	if g.isBig(e) {
		l.at[e] = l.big.PushBack(e)
	} else {
		l.at[e] = l.small.PushBack(e)
	}
	g.start()
}

func (g *Gate) dequeue(e *entry) {
	l := g.lanes[e.key.Dev]
	if g.isBig(e) {
		l.big.Remove(l.at[e])
	} else {
		l.small.Remove(l.at[e])
	}
	delete(l.at, e)
	g.forget(l)
}

// leave ends a running verification's claim on its lane.
func (g *Gate) leave(e *entry) {
	l := g.lanes[e.key.Dev]
	l.running--
	g.running--
	if g.isBig(e) {
		g.big--
	}
	g.forget(l)
}

// forget drops a lane that has nothing to do.
func (g *Gate) forget(l *lane) {
	if l.running > 0 || len(l.at) > 0 {
		return
	}
	delete(g.lanes, l.dev)
	for i, o := range g.order {
		if o == l {
			g.order = append(g.order[:i], g.order[i+1:]...)
			break
		}
	}
}

// start begins as many verifications as the bounds allow, one file system after the other.
func (g *Gate) start() {
	for idle := 0; idle < len(g.order) && g.running < g.cfg.Jobs; {
		l := g.order[0]
		copy(g.order, g.order[1:])
		g.order[len(g.order)-1] = l
		e := g.next(l)
		if e == nil {
			idle++
			continue
		}
		idle = 0
		delete(l.at, e)
		l.running++
		g.running++
		if g.isBig(e) {
			g.big++
		}
		g.job++
		e.state, e.job = verifying, g.job
		g.do(Action{Kind: Verify, ID: e.waiters[0].ID, Key: e.key, Job: e.job})
	}
}

func (g *Gate) next(l *lane) *entry {
	if l.running >= g.cfg.PerDevice {
		return nil
	}
	if f := l.small.Front(); f != nil {
		return l.small.Remove(f).(*entry)
	}
	if f := l.big.Front(); f != nil && g.big < g.cfg.BigJobs {
		return l.big.Remove(f).(*entry)
	}
	return nil
}
