package sched

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"midplane/internal/mono"

	"pgregory.net/rapid"
)

// slow is what the scheduler does, with lists that are searched through. Classes are one a level, so that weights have
// nothing to say; TestWeights is about those.
type slow struct {
	classes [Levels]*slowClass
	running int
	limit   int
	decided []*Task
}

type slowClass struct {
	cfg      Config
	waiting  []*item // in order of arrival
	held     []*item // in order of submission
	running  int
	above    mono.Time
	standing bool
	mean     time.Duration
}

type item struct {
	t       *Task
	arrived mono.Time
	due     mono.Time
}

func (s *slow) give(t *Task) { s.decided = append(s.decided, t) }

func (c *slowClass) take(i *item) {
	at := func(o *item) bool { return o == i }
	c.waiting, c.held = slices.DeleteFunc(c.waiting, at), slices.DeleteFunc(c.held, at)
	if len(c.waiting) == 0 {
		c.above, c.standing = 0, false
	}
}

func (c *slowClass) earliest() *item {
	return slices.MinFunc(c.waiting, func(a, b *item) int { return int(min(max(a.t.Deadline-b.t.Deadline, -1), 1)) })
}

func (s *slow) advance(now mono.Time) {
	for _, c := range s.classes {
		for len(c.held) > 0 {
			i := slices.MinFunc(c.held, func(a, b *item) int { return int(min(max(a.due-b.due, -1), 1)) })
			if i.due > now {
				break
			}
			c.held = slices.DeleteFunc(c.held, func(o *item) bool { return o == i })
			i.arrived = i.due
			c.waiting = append(c.waiting, i)
		}
		for len(c.waiting) > 0 {
			i := c.earliest()
			if i.t.Deadline > now {
				break
			}
			c.take(i)
			s.give(i.t)
		}
		for c.standing && len(c.waiting) > 0 && c.waiting[0].t.Deadline == mono.Never && now.Sub(c.waiting[0].arrived) > 2*c.cfg.Interval {
			i := c.waiting[0]
			c.take(i)
			s.give(i.t)
		}
	}
}

func (s *slow) submit(now mono.Time, c *slowClass, t *Task, src *mono.Time) bool {
	s.advanceOne(now, c)
	at := now
	if t.Source != nil && now < *src {
		at = *src
	}
	if at > now && (t.Source.Refuse || at >= t.Deadline) || t.Deadline <= now {
		return false
	}
	if len(c.waiting)+len(c.held) >= c.cfg.Queue {
		if c.cfg.Policy == Reject || len(c.waiting) == 0 {
			return false
		}
		i := c.waiting[0]
		c.take(i)
		s.give(i.t)
	}
	if t.Source != nil {
		*src = at.Add(t.Source.Interval)
	}
	if at > now {
		c.held = append(c.held, &item{t: t, due: at})
	} else {
		c.waiting = append(c.waiting, &item{t: t, arrived: now})
	}
	return true
}

// advanceOne is advance of one class.
func (s *slow) advanceOne(now mono.Time, c *slowClass) {
	only := &slow{}
	for l := range only.classes {
		only.classes[l] = &slowClass{}
	}
	only.classes[0] = c
	only.advance(now)
	s.decided = append(s.decided, only.decided...)
}

func (s *slow) next(now mono.Time) *Task {
	s.advance(now)
	for _, c := range s.classes {
		for len(c.waiting) > 0 && (s.limit == 0 || s.running < s.limit) && (c.cfg.Running == 0 || c.running < c.cfg.Running) {
			i := c.earliest()
			if c.cfg.Policy == NewestFirst {
				switch wait := now.Sub(c.waiting[0].arrived); {
				case wait <= c.cfg.Target:
					c.above, c.standing = 0, false
				case c.above == 0:
					c.above = now
				case now.Sub(c.above) >= c.cfg.Interval:
					c.standing = true
				}
				if c.standing {
					i = c.waiting[len(c.waiting)-1]
				}
			}
			c.take(i)
			if i.t.Deadline != mono.Never && now.Add(min(c.mean, i.t.Deadline.Sub(i.arrived)/2)) > i.t.Deadline {
				s.give(i.t)
				continue
			}
			c.running++
			s.running++
			return i.t
		}
	}
	return nil
}

func drawConfig(t *rapid.T, l Level) Config {
	return Config{
		Level: l, Weight: 100,
		Queue:    rapid.IntRange(1, 8).Draw(t, "queue"),
		Policy:   Policy(rapid.IntRange(0, 2).Draw(t, "policy")),
		Target:   time.Duration(rapid.IntRange(1, 20).Draw(t, "target")),
		Interval: time.Duration(rapid.IntRange(1, 60).Draw(t, "interval")),
		Running:  rapid.IntRange(0, 3).Draw(t, "most running"),
	}
}

func TestLikeReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sched
		ref := &slow{limit: rapid.IntRange(0, 4).Draw(t, "limit")}
		s.Limit(ref.limit)
		classes := [Levels]*Class{}
		for l := range Levels {
			cfg := drawConfig(t, l)
			classes[l] = s.Add(cfg)
			ref.classes[l] = &slowClass{cfg: cfg}
		}
		now := mono.Time(rapid.Int64Range(1, 1000).Draw(t, "now"))
		sources := make([]Source, 3)
		after := make([]mono.Time, 3)
		for i := range sources {
			sources[i] = Source{Interval: time.Duration(rapid.IntRange(1, 30).Draw(t, "interval")), Refuse: rapid.Bool().Draw(t, "refuse")}
		}
		tasks := make([]Task, 30)
		owner := map[*Task]Level{} // of those that wait
		type run struct {
			l        Level
			expected time.Duration
			began    mono.Time
		}
		var runs []run
		draw := func(t *rapid.T) *Task { return &tasks[rapid.IntRange(0, len(tasks)-1).Draw(t, "task")] }
		t.Repeat(map[string]func(*rapid.T){
			"submit": func(t *rapid.T) {
				x := draw(t)
				if x.Waits() {
					return
				}
				l := Level(rapid.IntRange(0, int(Levels)-1).Draw(t, "level"))
				x.Deadline, x.Source = mono.Never, nil
				if rapid.Bool().Draw(t, "has deadline") {
					x.Deadline = now.Add(time.Duration(rapid.IntRange(-1, 100).Draw(t, "deadline")))
				}
				src := rapid.IntRange(0, 3*len(sources)).Draw(t, "source")
				at := new(mono.Time)
				if src < len(sources) {
					x.Source, at = &sources[src], &after[src]
				}
				want := ref.submit(now, ref.classes[l], x, at)
				if got := s.Submit(now, classes[l], x); got != want {
					t.Fatalf("Submit says %v", got)
				}
				if want != x.Waits() || (!want && x.Fate != Rejected) {
					t.Fatalf("waits %v, fate %d", x.Waits(), x.Fate)
				}
				owner[x] = l
			},
			"next": func(t *rapid.T) {
				want := ref.next(now)
				got := s.Next(now)
				if got != want {
					t.Fatalf("Next is %p, want %p", got, want)
				}
				if got != nil {
					l := owner[got]
					runs = append(runs, run{l, classes[l].Mean(), now})
				}
			},
			"end": func(t *rapid.T) {
				if len(runs) == 0 {
					return
				}
				i := rapid.IntRange(0, len(runs)-1).Draw(t, "run")
				r := runs[i]
				runs = slices.Delete(runs, i, i+1)
				ran := now.Sub(r.began)
				s.End(classes[r.l], r.expected, ran)
				c := ref.classes[r.l]
				c.running--
				ref.running--
				if c.mean == 0 {
					c.mean = ran
				} else {
					c.mean += (ran - c.mean) / 8
				}
			},
			"cancel": func(t *rapid.T) {
				x := draw(t)
				want := false
				for _, c := range ref.classes {
					for _, i := range slices.Concat(c.waiting, c.held) {
						if i.t == x {
							c.take(i)
							ref.give(x)
							want = true
						}
					}
				}
				if got := s.Cancel(x); got != want {
					t.Fatalf("Cancel says %v", got)
				}
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "by")))
			},
			"advance to the deadline": func(t *rapid.T) {
				d := s.Deadline()
				if d == mono.Never {
					return
				}
				now = max(now, d)
				s.Advance(now)
				ref.advance(now)
			},
			"flush": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "seldom") > 0 {
					return
				}
				s.Flush()
				for _, c := range ref.classes {
					for _, i := range slices.Concat(c.waiting, c.held) {
						c.take(i)
						ref.give(i.t)
					}
				}
			},
			"": func(t *rapid.T) {
				var got []*Task
				for x := s.Decided(); x != nil; {
					if x.Fate == Open || x.Fate == Ran || x.Fate == Rejected || x.Waits() {
						t.Fatalf("decided with fate %d", x.Fate)
					}
					got = append(got, x)
					x = x.Unlink()
				}
				if !sameTasks(got, ref.decided) {
					t.Fatalf("%d decided, want %d", len(got), len(ref.decided))
				}
				ref.decided = nil
				waiting := 0
				for l, c := range classes {
					r := ref.classes[l]
					waiting += len(r.waiting)
					if c.Waiting() != len(r.waiting)+len(r.held) || c.InFlight() != r.running || c.Newest() != r.standing || c.Waiting() > c.Queue {
						t.Fatalf("class %d: waiting %d, running %d, newest first %v; want %d, %d, %v", l, c.Waiting(), c.InFlight(), c.Newest(),
							len(r.waiting)+len(r.held), r.running, r.standing)
					}
					if f := c.Fate; c.Accepted != c.Begun+f[Shed]+f[Expired]+f[Canceled]+f[Drained]+uint64(c.Waiting()) {
						t.Fatalf("class %d: accepted %d, begun %d, fates %v, waiting %d", l, c.Accepted, c.Begun, f, c.Waiting())
					}
				}
				if s.Waiting() != waiting || s.Running() != ref.running {
					t.Fatalf("waiting %d, running %d", s.Waiting(), s.Running())
				}
			},
		})
	})
}

func sameTasks(a, b []*Task) bool {
	key := func(t *Task) string { return fmt.Sprintf("%p", t) }
	as, bs := []string{}, []string{}
	for _, t := range a {
		as = append(as, key(t))
	}
	for _, t := range b {
		bs = append(bs, key(t))
	}
	slices.Sort(as)
	slices.Sort(bs)
	return slices.Equal(as, bs)
}

// Classes that always have work get time in proportion to their weights: what one got, by its weight, is never further
// from what another got than two of their longest tasks for each worker.
func TestWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sched
		workers := rapid.IntRange(1, 4).Draw(t, "workers")
		type share struct {
			c       *Class
			longest time.Duration
			got     time.Duration
		}
		shares := make([]*share, rapid.IntRange(2, 5).Draw(t, "classes"))
		for i := range shares {
			shares[i] = &share{longest: time.Duration(rapid.IntRange(2000, 100_000).Draw(t, "longest"))}
			shares[i].c = s.Add(Config{Level: Normal, Weight: rapid.IntRange(1, 1000).Draw(t, "weight"), Queue: 4})
		}
		by := map[*Class]*share{}
		now := mono.Time(0)
		fill := func() {
			for _, h := range shares {
				for h.c.Waiting() < h.c.Queue {
					s.Submit(now, h.c, &Task{Deadline: mono.Never})
				}
				by[h.c] = h
			}
		}
		type run struct {
			h        *share
			expected time.Duration
			cost     time.Duration
			end      mono.Time
		}
		var runs []run
		r := rapid.Int64Range(0, 1<<40)
		for range 400 {
			fill()
			for len(runs) < workers {
				x := s.Next(now)
				h := by[x.Class()]
				cost := min(h.longest, time.Duration(1000+r.Draw(t, "cost")%int64(h.longest)))
				runs = append(runs, run{h, h.c.Mean(), cost, now.Add(cost)})
			}
			slices.SortFunc(runs, func(a, b run) int { return int(a.end - b.end) })
			first := runs[0]
			runs = runs[1:]
			now = first.end
			s.End(first.h.c, first.expected, first.cost)
			first.h.got += first.cost
		}
		for _, a := range shares {
			for _, b := range shares {
				byWeight := func(h *share, d time.Duration) float64 { return float64(d) / float64(h.c.Weight) }
				gap := byWeight(a, a.got) - byWeight(b, b.got)
				bound := 2 * float64(workers) * (byWeight(a, a.longest) + byWeight(b, b.longest))
				if gap > bound {
					t.Fatalf("weights %d and %d got %v and %v: %v apart by weight, want %v at most", a.c.Weight, b.c.Weight, a.got, b.got, gap, bound)
				}
			}
		}
	})
}

// A class that had nothing to do for long does not make up for it.
func TestNoCreditForIdleTime(t *testing.T) {
	var s Sched
	busy := s.Add(Config{Level: Normal, Weight: 1, Queue: 100})
	idle := s.Add(Config{Level: Normal, Weight: 1, Queue: 100})
	now := mono.Time(0)
	one := func() *Class {
		for _, c := range []*Class{busy, idle} {
			if c == idle && now < 1000*mono.Time(time.Millisecond) {
				continue
			}
			for c.Waiting() < 2 {
				s.Submit(now, c, &Task{Deadline: mono.Never})
			}
		}
		x := s.Next(now)
		e := x.Class().Mean()
		now = now.Add(time.Millisecond)
		s.End(x.Class(), e, time.Millisecond)
		return x.Class()
	}
	for range 1000 {
		one()
	}
	n := 0
	for range 10 {
		if one() == idle {
			n++
		}
	}
	if n < 4 || n > 6 {
		t.Errorf("%d of 10 turns went to the class that was idle", n)
	}
}

func TestNoAllocation(t *testing.T) {
	var s Sched
	c := s.Add(Config{Level: Normal, Weight: 1, Queue: 4, Policy: NewestFirst, Target: 1, Interval: 1})
	tasks := make([]Task, 6)
	now := mono.Time(1)
	if n := testing.AllocsPerRun(1000, func() {
		for i := range tasks {
			tasks[i].Deadline = now + 5
			s.Submit(now, c, &tasks[i])
		}
		now++
		for t := s.Next(now); t != nil; t = s.Next(now) {
			s.End(c, 0, 1)
		}
		now += 10
		s.Advance(now)
		for t := s.Decided(); t != nil; {
			t = t.Unlink()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMisuse(t *testing.T) {
	panics := func(what string, f func()) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	var s Sched
	panics("a class without a queue", func() { s.Add(Config{Weight: 1}) })
	c := s.Add(Config{Weight: 1, Queue: 2})
	x := &Task{Deadline: mono.Never}
	s.Submit(0, c, x)
	panics("a task that waits", func() { s.Submit(0, c, x) })
	s.Close()
	if y := (&Task{Deadline: mono.Never}); s.Submit(0, c, y) || y.Fate != Rejected {
		t.Error("a closed scheduler takes tasks")
	}
	if s.Next(0) != x {
		t.Error("what waits does not go on after Close")
	}
}
