package aemsim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"midplane/internal/aem/sched"
	"midplane/internal/aem/wheel"
	"midplane/internal/mono"
)

// world is one run: submitters, workers with faults, and what must hold after each event.
type world struct {
	*rand.Rand
	now     mono.Time
	s       sched.Sched
	w       *wheel.Wheel
	timed   map[*task]mono.Time // those whose timer is set
	classes []*class
	sources []*source
	queue   events
	order   uint64
	workers int
	events  int
	trace   uint64 // digest of everything that happened
	failed  error

	patient bool // tasks have no deadline, weights are close and stalls short: starvation would show

	open     int // accepted tasks whose fate is open
	begun    int
	timeouts int
	fates    [sched.Fates]int
}

// class is a class and the shadow of its queue.
type class struct {
	*sched.Class
	waiting map[*task]bool
	served  time.Duration // of others of its level, since it last began a task or got something to do
	longest time.Duration // of its level
}

type source struct {
	sched.Source
	last mono.Time
	any  bool
}

type task struct {
	core     sched.Task
	timer    wheel.ID // takes the task back
	class    *class
	source   *source
	cost     time.Duration
	accepted bool
	fates    int
	runs     bool
	began    mono.Time
	expected time.Duration
}

type event struct {
	at    mono.Time
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	l := *e
	x := l[len(l)-1]
	*e = l[:len(l)-1]
	return x
}

func (w *world) at(t mono.Time, do func()) {
	w.order++
	heap.Push(&w.queue, event{t, w.order, do})
}

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.Int64N(int64(b-a)))
}

func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf("event %d at %v: %s", w.events, w.now, fmt.Sprintf(format, args...))
	}
}

// note makes an occurrence part of the digest.
func (w *world) note(what byte, n ...int64) {
	h := fnv.New64a()
	b := binary.LittleEndian.AppendUint64([]byte{what}, w.trace)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.now))
	for _, v := range n {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	h.Write(b)
	w.trace = h.Sum64()
}

const longest = 3 * time.Millisecond // that a task runs, faults excepted

func newWorld(seed uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 7)), w: wheel.New(0), timed: map[*task]mono.Time{}, workers: 4}
	w.now, w.patient = 1, seed%2 == 1
	heaviest := 1000
	if w.patient {
		heaviest = 3
	}
	for level := range sched.Levels {
		for range 1 + w.IntN(3) {
			w.classes = append(w.classes, &class{waiting: map[*task]bool{}, Class: w.s.Add(sched.Config{
				Level: level, Weight: 1 + w.IntN(heaviest), Queue: 1 + w.IntN(60), Policy: sched.Policy(w.IntN(3)),
				Target: w.between(time.Millisecond, 10*time.Millisecond), Interval: w.between(10*time.Millisecond, 100*time.Millisecond),
				Running: w.IntN(w.workers),
			})})
		}
	}
	for range 10 {
		w.sources = append(w.sources, &source{Source: sched.Source{Interval: w.between(1, 10*time.Millisecond), Refuse: w.IntN(3) == 0}})
	}
	w.at(w.now, w.arrive)
	w.at(w.now, w.fault)
	return w
}

// arrive submits a task and plans the next arrival: calm and storms take turns.
func (w *world) arrive() {
	c := w.classes[w.IntN(len(w.classes))]
	t := &task{class: c, cost: w.between(1000, longest)}
	t.core.Owner = t
	t.core.Deadline = mono.Never
	if w.IntN(4) > 0 && !w.patient {
		t.core.Deadline = w.now.Add(w.between(0, 60*time.Millisecond))
	}
	if w.IntN(5) == 0 {
		t.source = w.sources[w.IntN(len(w.sources))]
		t.core.Source = &t.source.Source
	}
	t.accepted = w.s.Submit(w.now, c.Class, &t.core)
	w.note('s', int64(c.Level), int64(t.core.Deadline), int64(t.cost))
	if t.accepted {
		w.open++
		if len(c.waiting) == 0 {
			c.served = 0
		}
		c.waiting[t] = true
		if w.IntN(8) == 0 {
			w.timed[t] = w.now.Add(w.between(0, 40*time.Millisecond))
			t.timer = w.w.Set(w.timed[t], t)
			if w.IntN(3) == 0 {
				w.timed[t] = w.now.Add(w.between(0, 40*time.Millisecond))
				w.w.Reset(t.timer, w.timed[t])
			}
		}
	} else {
		w.fates[sched.Rejected]++
		if t.core.Fate != sched.Rejected {
			w.fail("not accepted, and its fate is %d", t.core.Fate)
		}
	}
	load := 0.3
	if w.now/mono.Time(time.Second)%3 > 0 {
		load = 3
	}
	mean := float64(longest) / 2 / float64(w.workers) / load
	w.at(w.now.Add(time.Duration(w.ExpFloat64()*mean)+1), w.arrive)
}

// fault makes workers disappear for a while, and time jump.
func (w *world) fault() {
	switch w.IntN(3) {
	case 0:
		n := 1 + w.IntN(4)
		w.s.Limit(n) // some workers are gone, or the controller wants fewer
	case 1:
		w.s.Limit(0)
	case 2:
		if w.patient {
			break
		}
		// nothing happens for a while: the machine was suspended
		jump := w.between(0, 30*time.Millisecond)
		w.now = w.now.Add(jump)
	}
	w.at(w.now.Add(w.between(0, 300*time.Millisecond)), w.fault)
}

// serve gives work to free workers.
func (w *world) serve() {
	for running := w.s.Running(); running < w.workers; running++ {
		x := w.s.Next(w.now)
		w.settle()
		if x == nil {
			return
		}
		w.begin(x.Owner.(*task))
	}
}

func (w *world) begin(t *task) {
	c := t.class
	w.note('b', int64(c.Level), int64(t.cost))
	switch {
	case !c.waiting[t]:
		w.fail("a task begins that does not wait")
	case t.core.Deadline < w.now:
		w.fail("a task begins %v after its deadline", w.now.Sub(t.core.Deadline))
	}
	for _, o := range w.classes {
		mayBegin := o.Running == 0 || o.InFlight() < o.Running
		if o.Level < c.Level && mayBegin && o.joined(w.now) > 0 {
			w.fail("level %d begins a task while level %d has %d that may begin", c.Level, o.Level, o.joined(w.now))
		}
	}
	if !c.Newest() {
		for o := range c.waiting {
			if o.core.Deadline < t.core.Deadline && o.core.Waits() && o.core.Arrived() != 0 && o.core.Arrived() <= w.now {
				w.fail("deadline %v begins before %v", t.core.Deadline, o.core.Deadline)
			}
		}
	}
	if s := t.source; s != nil {
		if s.any && t.core.Arrived().Sub(s.last) < s.Interval && t.core.Arrived() >= s.last {
			w.fail("two tasks of a source within %v, with %v to be kept", t.core.Arrived().Sub(s.last), s.Interval)
		}
		s.last, s.any = max(s.last, t.core.Arrived()), true
	}
	delete(c.waiting, t)
	w.stop(t)
	w.open--
	w.begun++
	t.fates++
	t.runs, t.began, t.expected = true, w.now, c.Mean()
	c.served = 0
	if !w.patient && w.IntN(50) == 0 {
		t.cost += w.between(0, 50*time.Millisecond) // a handler stalls
	}
	w.at(w.now.Add(t.cost), func() { w.end(t) })
}

// stop stops the timer of a task.
func (w *world) stop(t *task) {
	_, want := w.timed[t]
	if got := w.w.Stop(t.timer); got != want {
		w.fail("the timer of a task is set: %v, by the shadow %v", got, want)
	}
	delete(w.timed, t)
}

// joined returns how many tasks of the class could begin at now, going by the shadow.
func (c *class) joined(now mono.Time) (n int) {
	for t := range c.waiting {
		if t.core.Waits() && t.core.Arrived() != 0 && t.core.Arrived() <= now {
			n++
		}
	}
	return n
}

func (w *world) end(t *task) {
	c := t.class
	ran := w.now.Sub(t.began)
	w.s.End(c.Class, t.expected, ran)
	w.note('e', int64(ran))
	for _, o := range w.classes {
		o.longest = max(o.longest, ran)
		if o == c || o.Level != c.Level || o.joined(w.now) == 0 {
			continue
		}
		if o.Running > 0 && o.InFlight() >= o.Running {
			o.served = 0
			continue
		}
		o.served += ran
		if bound := w.starvation(o); o.served > bound {
			w.fail("a class of weight %d waits while others of its level ran for %v; the bound is %v", o.Weight, o.served, bound)
		}
	}
}

// starvation is how much time others of its level get at most while a class waits to begin a task: to each its weight
// for one longest task of the class, and what the workers have begun already.
func (w *world) starvation(c *class) (d time.Duration) {
	for _, o := range w.classes {
		if o != c && o.Level == c.Level {
			d += time.Duration(float64(c.longest)*float64(o.Weight)/float64(c.Weight)) + 2*c.longest
		}
	}
	return time.Duration(w.workers+1) * d
}

// settle takes what was decided about tasks that wait.
func (w *world) settle() {
	for x := w.s.Decided(); x != nil; {
		t := x.Owner.(*task)
		w.note('d', int64(x.Fate))
		w.fates[x.Fate]++
		if t.fates++; t.fates > 1 || !t.class.waiting[t] {
			w.fail("a task has a second fate, %d", x.Fate)
		}
		if x.Fate == sched.Expired && t.core.Deadline == mono.Never {
			w.fail("a task without deadline expired")
		}
		delete(t.class.waiting, t)
		w.stop(t)
		w.open--
		x = x.Unlink()
	}
}

// run goes on until n events have happened, then flushes.
func (w *world) run(n int) error {
	for w.events < n && w.failed == nil {
		next := w.queue[0].at.Min(w.s.Deadline()).Min(w.w.Deadline())
		w.now = max(w.now, next)
		w.events++
		w.s.Advance(w.now)
		w.settle()
		w.w.Advance(w.now)
		for _, x, ok := w.w.Expired(); ok; _, x, ok = w.w.Expired() {
			t := x.(*task)
			if at, set := w.timed[t]; !set || at > w.now {
				w.fail("a timer for %v, set %v, expired", at, set)
			}
			delete(w.timed, t)
			if !w.s.Cancel(&t.core) {
				w.fail("the timer of a task that does not wait expired")
			}
			w.timeouts++
			w.settle()
		}
		for _, at := range w.timed {
			if w.now.Sub(at) >= 1<<wheel.TickShift {
				w.fail("a timer for %v has not expired", at)
			}
		}
		if w.queue[0].at <= w.now {
			heap.Pop(&w.queue).(event).do()
			w.s.Advance(w.now) // time may have jumped
			w.settle()
		}
		w.serve()
		w.check()
	}
	w.s.Close()
	w.s.Flush()
	w.settle()
	w.check()
	if w.open != 0 {
		w.fail("%d tasks have no fate", w.open)
	}
	return w.failed
}

func (w *world) check() {
	waiting := 0
	for _, c := range w.classes {
		waiting += len(c.waiting)
		if len(c.waiting) != c.Waiting() || c.Waiting() > c.Queue {
			w.fail("%d wait, by the shadow %d, of %d at most", c.Waiting(), len(c.waiting), c.Queue)
		}
	}
	if waiting != w.open {
		w.fail("%d wait, and the fate of %d is open", waiting, w.open)
	}
	if w.s.Deadline() <= w.now {
		w.fail("a task is still there after its deadline")
	}
}
