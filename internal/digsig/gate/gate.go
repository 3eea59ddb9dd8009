package gate

import (
	"container/list"

	"midplane/internal/mono"
)

// Gate is the state machine. It is not safe for concurrent use. Make one with New.
type Gate struct {
	cfg  Config
	mode Mode
	gen  uint64

	entries map[Key]*entry
	code    list.List // of *entry, known and of executable content; least lately asked for first
	data    list.List // of *entry, held as data; likewise

	patience, yield, retired list.List // of *entry, each in the order of their times

	lanes   map[uint64]*lane
	order   []*lane // lanes with work, served in turn
	running int
	big     int
	job     uint64

	asked   map[ID]question
	tasks   tasks
	recent  []Key
	pending int

	out   []Action
	head  int
	stats Stats
}

// question is a request that waits.
type question struct {
	Request
	since mono.Time
	asked bool // the subject is known
	who   Subject
}

type state uint8

const (
	queued    state = iota // waits for a turn to be verified
	verifying              // a job runs
	judging                // the content is known, the judgement is not
	known                  // content, judgement and pin are known
	retiring               // not to be used; the lease is held until the grace is over
)

type entry struct {
	key       Key
	state     state
	job       uint64
	class     Class
	then      Key
	size      int64
	pin       Pin
	uses      Uses
	gen       uint64
	isData    bool
	kept      bool // the driver has a descriptor for it
	markExec  bool
	markOpen  bool
	broken    bool // a writer waits for the lease
	lastExec  mono.Time
	wasExec   bool
	due       mono.Time
	timer     *list.Element // in patience, yield or retired
	timerList *list.List
	use       *list.Element // in code or data
	waiters   []question
}

// New returns a gate in which nothing is known. The configuration must be valid.
func New(cfg Config, mode Mode, generation uint64) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gate{cfg: cfg, mode: mode, gen: generation, entries: map[Key]*entry{}, lanes: map[uint64]*lane{}, asked: map[ID]question{}}
	g.recent = make([]Key, cfg.Recent)
	g.tasks.init()
	return g, nil
}

// Poll gives the next thing to do, and false when there is none.
func (g *Gate) Poll() (Action, bool) {
	if g.head == len(g.out) {
		g.out, g.head = g.out[:0], 0
		return Action{}, false
	}
	a := g.out[g.head]
	g.head++
	return a, true
}

func (g *Gate) do(a Action) { g.out = append(g.out, a) }

// Stats returns the counters.
func (g *Gate) Stats() Stats {
	s := g.stats
	s.Entries, s.Pending, s.Running, s.Waiting = len(g.entries), g.pending, g.running, len(g.asked)
	return s
}

// Mode returns the mode in force.
func (g *Gate) Mode() Mode { return g.mode }

// Generation returns the generation in force.
func (g *Gate) Generation() uint64 { return g.gen }

// Pending says how many questions have no answer yet.
func (g *Gate) Pending() int { return g.pending }

// SetMode changes what becomes of verdicts from now on. Marks stay: only what is allowed in every mode has one.
func (g *Gate) SetMode(m Mode) { g.mode = m }

// SetGeneration says that keys, revocations or policy changed: every ignore mark is taken back, and what is known of
// content is judged again before it is used.
func (g *Gate) SetGeneration(now mono.Time, generation uint64) {
	g.gen = generation
	g.stats.Flushes++
	g.do(Action{Kind: Flush})
	for _, e := range g.entries {
		if e.markExec { // an execution may just have passed by it
			e.lastExec, e.wasExec = now, true
		}
		e.markExec, e.markOpen = false, false
	}
}

// Request takes a question. Its answer may come out of Poll at once or later; exactly one does.
func (g *Gate) Request(now mono.Time, r Request) {
	g.stats.Requests++
	g.pending++
	q := question{Request: r, since: now}
	if r.Op == OpOpen {
		if g.cfg.NoOpen {
			g.answer(now, nil, q, true, WhyData)
			return
		}
		switch {
		case r.Class.Loaded():
		case r.Guarded:
			g.ask(now, q)
			return
		default:
			g.openData(now, q)
			return
		}
	}
	g.need(now, q)
}

// need answers q from what is known of the content, or has it found out.
func (g *Gate) need(now mono.Time, q question) {
	e := g.entries[q.Key]
	if e == nil {
		g.begin(now, q)
		return
	}
	switch e.state {
	case known:
		if e.isData {
			g.requeue(now, e, q)
			return
		}
		g.touch(e)
		if e.gen == g.gen {
			g.stats.Hits++
			g.decide(now, e, q)
			return
		}
		e.waiters = append(e.waiters, q)
		g.judge(e)
	case retiring:
		if e.broken {
			g.refuse(now, e, q, WhyWriter)
			return
		}
		g.unschedule(e)
		e.state = known
		g.enlist(e)
		g.need(now, q)
	default:
		g.stats.Joined++
		e.waiters = append(e.waiters, q)
	}
}

// begin makes an entry for a file that nothing is known of.
func (g *Gate) begin(now mono.Time, q question) {
	if g.pending > g.cfg.MaxPending || !g.room(now) {
		g.refuse(now, nil, q, WhyBusy)
		return
	}
	e := &entry{key: q.Key, class: q.Class, size: q.Size, kept: true, waiters: []question{q}}
	g.entries[q.Key] = e
	g.schedule(e, &g.patience, now.Add(g.cfg.Patience))
	g.enqueue(e)
}

// requeue verifies a file that was held as data.
func (g *Gate) requeue(now mono.Time, e *entry, q question) {
	g.delist(e)
	e.isData, e.class, e.size = false, q.Class, q.Size
	e.waiters = append(e.waiters, q)
	g.schedule(e, &g.patience, now.Add(g.cfg.Patience))
	g.enqueue(e)
}

// judge has known content judged under the present generation.
func (g *Gate) judge(e *entry) {
	g.delist(e)
	e.state = judging
	g.job++
	e.job = g.job
	g.stats.Judged++
	g.do(Action{Kind: Judge, Key: e.key, Job: e.job})
}

// Result takes the end of a Verify, a Judge or a Hold. One that is no longer waited for is ignored; its descriptor has
// been given back with Release.
func (g *Gate) Result(now mono.Time, r Result) {
	e := g.entries[r.Key]
	if e == nil || e.job != r.Job || (e.state != verifying && e.state != judging) {
		return
	}
	if e.state == verifying && !e.isData {
		g.leave(e)
		g.stats.Verified++
		defer g.start()
	}
	if e.isData {
		g.heldData(now, e, r)
		return
	}
	if e.state == verifying {
		e.pin, e.class, e.then = r.Pin, r.Class, r.Then
	}
	switch {
	case r.Failed:
		g.drop(now, e, WhyForgotten)
		return
	case e.pin == PinWriter:
		g.drop(now, e, WhyWriter)
		return
	case r.Generation != g.gen:
		g.judge(e)
		return
	}
	g.unschedule(e)
	e.uses, e.gen, e.state = r.Uses, r.Generation, known
	waiters := e.waiters
	e.waiters = nil
	if e.pin == PinNone {
		if !g.cfg.Unpinned {
			e.waiters = waiters
			g.drop(now, e, WhyUnpinned)
			return
		}
		for _, q := range waiters {
			g.decide(now, e, q)
		}
		g.remove(e)
		return
	}
	g.enlist(e)
	if e.markExec || e.markOpen {
		g.mark(now, e)
	}
	for _, q := range waiters {
		g.decide(now, e, q)
	}
	if e.broken {
		g.retire(now, e)
	}
}

// drop ends an entry whose content cannot be used and refuses everyone who waits for it.
func (g *Gate) drop(now mono.Time, e *entry, why Why) {
	g.unschedule(e)
	waiters := e.waiters
	e.waiters = nil
	for _, q := range waiters {
		g.refuse(now, nil, q, why)
	}
	g.retire(now, e)
}

// refuse denies, unless who asks may read what may not be loaded.
func (g *Gate) refuse(now mono.Time, e *entry, q question, why Why) {
	if q.Op == OpOpen && !q.asked {
		g.ask(now, q)
		return
	}
	if q.Op == OpOpen && q.who.Exempt {
		g.answer(now, e, q, true, WhyExempt)
		return
	}
	switch why {
	case WhyBusy:
		g.stats.Busy++
	case WhyWriter:
		g.stats.Writers++
	case WhyUnpinned:
		g.stats.Unpinned++
	case WhyForgotten:
		g.stats.Unreadable++
	}
	g.answer(now, e, q, false, why)
}

func (g *Gate) ask(now mono.Time, q question) {
	if _, twice := g.asked[q.ID]; twice || len(g.asked) >= g.cfg.MaxPending {
		q.asked = true // nobody to ask: not exempt
		g.refuse(now, nil, q, WhyBusy)
		return
	}
	g.asked[q.ID] = q
	g.do(Action{Kind: Ask, ID: q.ID, Key: q.Key, Op: q.Op, Task: q.Task})
}

// Subject takes what was found out about who asks.
func (g *Gate) Subject(now mono.Time, s Subject) {
	q, ok := g.asked[s.ID]
	if !ok {
		return
	}
	delete(g.asked, s.ID)
	q.asked, q.who = true, s
	switch {
	case s.Exempt:
		g.answer(now, nil, q, true, WhyExempt)
	case !q.Class.Loaded() && s.Want == 0:
		g.stats.Data++
		g.answer(now, nil, q, true, WhyData)
	default:
		g.need(now, q)
	}
}

// decide answers q by what is known of e's content, under the present generation.
func (g *Gate) decide(now mono.Time, e *entry, q question) {
	want := g.wants(e, q)
	if e.uses&want == 0 {
		g.refuse(now, e, q, WhyVerdict)
		return
	}
	why := WhyVerdict
	if q.Op == OpExec {
		e.lastExec, e.wasExec = now, true
		g.tasks.executed(q.Task, e.then)
	}
	g.mark(now, e)
	g.answer(now, e, q, true, why)
}

// wants says which uses, of which one must be allowed, a question is about.
func (g *Gate) wants(e *entry, q question) Uses {
	if q.Op == OpOpen {
		if e.class.Loaded() {
			return MayLib
		}
		return q.who.Want
	}
	switch e.class {
	case ClassELF:
		if g.tasks.expects(q.Task, q.Key) {
			return MayExec | MayInterp
		}
		return MayExec
	case ClassLoader: // executed itself, it does nothing but open what it is to load, which is asked about
		return MayExec | MayInterp
	case ClassScript:
		return MayScript
	}
	return MayCheck
}

// mark gives the kernel as much of a verdict as holds whoever asks and however.
func (g *Gate) mark(now mono.Time, e *entry) {
	if e.broken || e.state != known || e.gen != g.gen || e.pin < PinLease {
		return
	}
	// A script's event tells that its interpreter comes next, so it is always wanted.
	exec := e.class.Loaded() && e.uses&MayExec != 0
	open := e.class.Loaded() && e.uses&MayLib != 0
	if exec == e.markExec && open == e.markOpen {
		return
	}
	if e.markExec && !exec { // an execution may just have passed by it
		e.lastExec, e.wasExec = now, true
	}
	e.markExec, e.markOpen = exec, open
	g.do(Action{Kind: Mark, Key: e.key, Exec: exec, Open: open})
}

func (g *Gate) answer(now mono.Time, e *entry, q question, judge bool, why Why) {
	a := Action{Kind: Answer, ID: q.ID, Key: q.Key, Op: q.Op, Task: q.Task, Allow: judge || g.mode != Enforce, Judge: judge, Why: why}
	if e != nil {
		a.Uses = g.wants(e, q)
	}
	switch {
	case judge:
		g.stats.Allowed++
	case a.Allow:
		g.stats.Allowed++
		g.stats.WouldDeny++
	default:
		g.stats.Denied++
	}
	g.pending--
	g.do(a)
}

// Break takes the kernel's word that a writer waits for the lease on a file.
func (g *Gate) Break(now mono.Time, k Key) {
	e := g.entries[k]
	if e == nil || e.broken {
		return
	}
	g.stats.Breaks++
	e.broken = true
	switch {
	case e.state == known:
		g.retire(now, e)
	case e.state == retiring, e.state == judging, e.isData: // its time is set, or its Result comes at once
	default:
		g.unschedule(e)
		g.schedule(e, &g.yield, now.Add(min(g.cfg.Yield, e.due.Sub(now))))
	}
}

// retire takes an entry out of use. Its lease goes when no execution can be on its way any more.
func (g *Gate) retire(now mono.Time, e *entry) {
	g.delist(e)
	g.unschedule(e)
	if e.markExec {
		e.lastExec, e.wasExec = now, true
	}
	if e.markExec || e.markOpen {
		e.markExec, e.markOpen = false, false
		g.do(Action{Kind: Unmark, Key: e.key})
	}
	due := e.lastExec.Add(g.cfg.Grace)
	if !e.wasExec || due <= now {
		g.remove(e)
		return
	}
	e.state = retiring
	g.schedule(e, &g.retired, due)
}

func (g *Gate) remove(e *entry) {
	g.delist(e)
	g.unschedule(e)
	delete(g.entries, e.key)
	if e.kept {
		g.do(Action{Kind: Release, Key: e.key})
	}
}

// Deadline says when Tick is due at the latest.
func (g *Gate) Deadline() mono.Time {
	at := mono.Never
	for _, l := range [...]*list.List{&g.patience, &g.yield, &g.retired} {
		if f := l.Front(); f != nil {
			at = at.Min(f.Value.(*entry).due)
		}
	}
	return at
}

// Tick does what is due.
func (g *Gate) Tick(now mono.Time) {
	for _, l := range [...]*list.List{&g.patience, &g.yield} {
		for f := l.Front(); f != nil && f.Value.(*entry).due <= now; f = l.Front() {
			e := f.Value.(*entry)
			g.stats.Timeouts++
			switch e.state {
			case verifying:
				g.do(Action{Kind: Cancel, Key: e.key, Job: e.job})
				g.leave(e)
			case queued:
				g.dequeue(e)
			}
			why := WhyPatience
			if e.broken {
				why = WhyWriter
			}
			g.drop(now, e, why)
		}
	}
	for f := g.retired.Front(); f != nil && f.Value.(*entry).due <= now; f = g.retired.Front() {
		g.remove(f.Value.(*entry))
	}
	g.start()
}

// schedule puts e on a list of times. All times of a list are the same length after they were set, so that the list is
// in order; a time that was cut short goes to where it belongs.
func (g *Gate) schedule(e *entry, l *list.List, due mono.Time) {
	e.due, e.timerList = due, l
	at := l.Back()
	for at != nil && at.Value.(*entry).due > due {
		at = at.Prev()
	}
	if at == nil {
		e.timer = l.PushFront(e)
	} else {
		e.timer = l.InsertAfter(e, at)
	}
}

func (g *Gate) unschedule(e *entry) {
	if e.timer != nil {
		e.timerList.Remove(e.timer)
		e.timer = nil
	}
}

// Known says what is known of a file's content, for drivers that explain.
func (g *Gate) Known(k Key) (uses Uses, generation uint64, ok bool) {
	e := g.entries[k]
	if e == nil || e.state != known || e.isData {
		return 0, 0, false
	}
	return e.uses, e.gen, true
}

// Sweep judges everything known again, so that what has expired by the clock on the wall loses its marks: the driver
// calls it now and then.
func (g *Gate) Sweep() {
	for el := g.code.Front(); el != nil; {
		e := el.Value.(*entry)
		el = el.Next()
		if e.state == known && (e.markExec || e.markOpen) {
			g.judge(e)
		}
	}
}
