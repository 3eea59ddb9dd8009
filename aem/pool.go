package aem

import (
	"sync"
	"time"

	"midplane/internal/aem/ctl"
	"midplane/internal/aem/sched"
	"midplane/internal/aem/worker"
	"midplane/internal/mono"
)

// pool is the workers of one niceness and the queues that they serve. Every niceness has a lock of its own, so that a
// lowered thread that loses its processor while it holds the lock never keeps a more urgent one waiting.
type pool struct {
	ex     *Executor
	nice   int
	locked bool // on threads of their own: those that are lowered or bound

	mu       sync.Mutex
	core     sched.Sched
	pace     *pacemaker // of lowered workers, nil without
	ctl      *ctl.Controller
	workers  int // as many as the controller may allow
	classes  []*Class
	idle     []*runner // the one that went idle last is woken first: its caches are warm
	runners  []*runner
	closed   bool
	quit     bool
	settling int       // lists of tasks that are being told their fate
	nextAt   mono.Time // when the monitor will look at the queues again
	ended    sync.WaitGroup
}

// runner is one worker.
type runner struct {
	pool *pool
	park *worker.Parker
	ctx  Ctx
	idle bool
}

// add makes the queue of a class.
func (p *pool) add(c *Class) {
	running := c.cfg.Workers
	if most := p.ex.cfg.Workers; most > 0 && running >= most {
		running = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.classes = append(p.classes, c)
	c.core = p.core.Add(sched.Config{
		Level: sched.Level(c.cfg.Level), Weight: c.cfg.Weight, Queue: c.cfg.Queue, Policy: sched.Policy(c.cfg.Policy),
		Target: c.cfg.Target, Interval: max(interval*c.cfg.Target, leastInterval), Running: running,
	})
}

// How long the wait must stand above its target until newest first begins: long enough for a burst to pass, as RFC 8289
// section 4.2 has it for round trips.
const (
	interval      = 10
	leastInterval = 10 * time.Millisecond
)

// decided takes what the core has given up, for settle. The caller holds the lock.
func (p *pool) decided() *sched.Task {
	t := p.core.Decided()
	if t != nil {
		p.settling++
	}
	return t
}

// settle tells the fates of tasks that will not run. The caller does not hold the lock.
func (p *pool) settle(dropped *sched.Task) {
	if dropped == nil {
		return
	}
	for dropped != nil {
		t, f, rest := dropped.Owner.(*Task), Fate(dropped.Fate), dropped.Unlink()
		t.tell(f)
		dropped = rest
	}
	p.mu.Lock()
	p.settling--
	p.mu.Unlock()
}

// busy reports whether a task waits, runs or does not know its fate yet. The caller holds the lock.
func (p *pool) busy() bool {
	return p.settling > 0 || p.core.Busy()
}

// ensure starts the workers when the first task comes. The caller holds the lock.
func (p *pool) ensure() {
	if len(p.runners) > 0 {
		return
	}
	p.ex.growProcs(p.workers)
	for len(p.runners) < p.workers {
		p.start()
	}
}

// resize sets the number of workers. Those that there are stay: it is the queue that lets fewer begin. The caller holds the
// lock.
func (p *pool) resize(n int) {
	if len(p.runners) > 0 {
		p.ex.growProcs(n - p.workers)
	}
	p.workers = n
	p.ctl.Resize(n)
}

// start adds a worker. The caller holds the lock.
func (p *pool) start() {
	r := &runner{pool: p, park: worker.NewParker(p.locked)}
	p.runners = append(p.runners, r)
	if cap(p.idle) < len(p.runners) {
		p.idle = append(make([]*runner, 0, 2*len(p.runners)), p.idle...)
	}
	p.ended.Add(1)
	go r.main()
}

// idleWorker takes a worker that waits, when there is work for it. The caller holds the lock and unparks it afterwards.
func (p *pool) idleWorker() *runner {
	n := len(p.idle)
	if n == 0 || !p.core.Ready() {
		return nil
	}
	r := p.idle[n-1]
	p.idle = p.idle[:n-1]
	r.idle = false
	return r
}

func (r *runner) main() {
	p := r.pool
	alive := true
	defer func() {
		if !alive { // the handler left by runtime.Goexit and took the goroutine with it
			p.replace(r)
		}
		p.ended.Done()
	}()
	if p.locked {
		if err := worker.Dedicate(p.nice, p.ex.cfg.CPUs); err != nil {
			p.ex.warn("worker thread", err)
		}
	}
	var last *Task
	var lastClass *Class
	var at, start, end, deadline mono.Time
	var expected time.Duration
	var fate Fate
	for {
		p.mu.Lock()
		now := mono.Now()
		if lastClass != nil {
			p.core.End(lastClass.core, expected, end.Sub(start))
			lastClass.record(fate, at, start, end, deadline)
			last, lastClass = nil, nil
		}
		next := p.core.Next(now)
		dropped := p.decided()
		if next == nil {
			if p.quit {
				p.mu.Unlock()
				p.settle(dropped)
				return
			}
			r.idle = true
			p.idle = append(p.idle, r)
			p.mu.Unlock()
			p.settle(dropped)
			r.park.Park()
			continue
		}
		more := p.idleWorker()
		last = next.Owner.(*Task)
		lastClass = last.class
		at, start, deadline, expected = last.at, now, next.Deadline, lastClass.core.Mean()
		p.mu.Unlock()
		if more != nil {
			more.park.Unpark()
		}
		p.settle(dropped)
		r.ctx.begin(lastClass, last, now, deadline)
		alive = false
		if pace := p.pace; pace != nil {
			pace.begin()
		}
		fate = r.ctx.run(last.Run)
		if pace := p.pace; pace != nil {
			pace.end()
		}
		alive = true
		end = mono.Now()
		last.tell(fate)
	}
}

// replace does what main does after a handler, for a worker that is gone, and starts another.
func (p *pool) replace(r *runner) {
	if p.pace != nil {
		p.pace.end()
	}
	t, now := r.ctx.task, mono.Now()
	c := t.class
	p.mu.Lock()
	p.core.End(c.core, c.core.Mean(), now.Sub(r.ctx.start))
	c.record(Panicked, t.at, r.ctx.start, now, r.ctx.end)
	for i, o := range p.runners {
		if o == r {
			p.runners = append(p.runners[:i], p.runners[i+1:]...)
			break
		}
	}
	p.start()
	p.mu.Unlock()
	t.tell(Panicked)
}

// sooner reports whether the queues have something to do before the monitor comes. The caller holds the lock.
func (p *pool) sooner() bool {
	return p.core.Deadline() < p.nextAt
}
