package gate

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"midplane/internal/mono"
)

var seeds = flag.Int("gateseeds", 300, "seeds of the simulation")

// world is a model of what is around the gate: files with writers and leases, the kernel's marks, tasks that execute
// and open, a worker that dies and a supervisor that notices. Everything happens on one thread by a virtual clock.
type world struct {
	t   testing.TB
	rnd *rand.Rand
	cfg Config
	// passing bounds the time from the answer to an execution until it denies writing.
	passing time.Duration
	without *Kind // an action that the driver leaves out
	now     mono.Time
	plan    schedule
	seq     int

	g      *Gate
	life   int // of the worker; what an earlier one had begun is void
	gen    uint64
	files  map[Key]*simFile
	nextFD int32
	open   map[ID]*simEvent

	execs, ran, denied, answered, deaths, stores, waits int
	log                                                 []string
}

type simFile struct {
	key      Key
	class    Class
	content  int // whether it is good is a matter of the generation
	writers  int
	leases   map[int]int // of each life
	waiting  []func()
	markExec bool
	markOpen bool
}

type simEvent struct {
	r     Request
	life  int
	done  func(allow bool)
	f     *simFile
	since mono.Time
}

type step1 struct {
	at  mono.Time
	seq int
	f   func()
}
type schedule []step1

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	return s[i].at < s[j].at || s[i].at == s[j].at && s[i].seq < s[j].seq
}
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)   { *s = append(*s, x.(step1)) }
func (s *schedule) Pop() any     { o := *s; x := o[len(o)-1]; *s = o[:len(o)-1]; return x }

func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.plan, step1{w.now.Add(d), w.seq, f})
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rnd.Int64N(int64(d))) }

func (w *world) note(format string, a ...any) {
	if w.log = append(w.log, fmt.Sprintf("%v: "+format, append([]any{w.now}, a...)...)); len(w.log) > 60 {
		w.log = w.log[1:]
	}
}

func (w *world) fail(format string, a ...any) {
	w.t.Helper()
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Fatalf(format, a...)
}

// good says what the keys and lists of a generation make of some content.
func good(content int, gen uint64) bool { return (uint64(content)*2654435761+gen*40503)>>3%3 != 0 }

func (w *world) usesOf(f *simFile, gen uint64) Uses {
	if !good(f.content, gen) {
		return 0
	}
	return MayExec | MayLib | MayScript | MayCheck | MayRead
}

// drain does what the gate asks for.
func (w *world) drain() {
	g, life := w.g, w.life
	for {
		a, ok := g.Poll()
		if !ok {
			return
		}
		f := w.files[a.Key]
		if w.without != nil && *w.without == a.Kind {
			continue
		}
		switch a.Kind {
		case Answer:
			ev := w.open[a.ID]
			if ev == nil || ev.life != life {
				w.fail("answer to %v, which nobody asked or which has one", a.ID)
			}
			delete(w.open, a.ID)
			w.answered++
			if waited := w.now.Sub(ev.since); waited > w.cfg.Patience+time.Second {
				w.fail("an answer took %v", waited)
			}
			if a.Allow && a.Why == WhyVerdict && !good(ev.f.content, g.gen) {
				w.fail("allowed %v of %v: content %d is not good in generation %d", ev.r.Op, a.Key, ev.f.content, g.gen)
			}
			w.note("answer %v %v %v %v", a.Key, ev.r.Op, a.Allow, a.Why)
			ev.done(a.Allow)
		case Verify:
			w.verify(f, a.Job)
		case Judge:
			g.Result(w.now, Result{Key: a.Key, Job: a.Job, Uses: w.usesOf(f, w.gen), Generation: w.gen})
		case Hold:
			pin := PinWriter
			if f.writers == 0 && len(f.waiting) == 0 { // who waits for a lease counts as a writer already
				pin = PinLease
				f.leases[life]++
			}
			g.Result(w.now, Result{Key: a.Key, Job: a.Job, Class: f.class, Pin: pin})
		case Ask:
			id := a.ID
			w.after(w.upTo(time.Millisecond), func() {
				if w.life == life {
					g.Subject(w.now, Subject{ID: id, Want: MayScript})
					w.drain()
				}
			})
		case Mark:
			if f.leases[life] == 0 {
				w.fail("a mark on %v without a lease", a.Key)
			}
			f.markExec, f.markOpen = a.Exec, a.Open
		case Unmark:
			f.markExec, f.markOpen = false, false
		case Flush:
			w.flush()
		case Release:
			w.note("release %v", a.Key)
			delete(f.leases, life)
			w.letIn(f)
		}
	}
}

func (w *world) flush() {
	for _, f := range w.files {
		f.markExec, f.markOpen = false, false
	}
}

func (w *world) verify(f *simFile, job uint64) {
	g, life := w.g, w.life
	pin := PinWriter
	if f.writers == 0 && len(f.waiting) == 0 { // who waits for a lease counts as a writer already
		pin = PinLease
		f.leases[life]++
	}
	took := w.upTo(3 * time.Millisecond)
	if w.rnd.IntN(40) == 0 {
		took = w.upTo(3 * w.cfg.Patience)
	}
	gen := w.gen
	content := f.content
	fails := w.rnd.IntN(50) == 0
	w.after(took, func() {
		if w.life != life {
			return
		}
		uses := Uses(0)
		if good(content, gen) {
			uses = MayExec | MayLib | MayScript | MayCheck | MayRead
		}
		g.Result(w.now, Result{Key: f.key, Job: job, Class: f.class, Uses: uses, Generation: gen, Pin: pin, Failed: fails})
		w.drain()
	})
}

func (w *world) request(f *simFile, op Op, task int32, done func(bool)) {
	w.nextFD++
	id := ID{FD: w.nextFD}
	w.open[id] = &simEvent{r: Request{ID: id, Op: op}, life: w.life, done: done, f: f, since: w.now}
	class := f.class
	size := int64(100)
	if f.key.Ino%7 == 0 {
		size = 1 << 40
	}
	w.g.Request(w.now, Request{ID: id, Key: f.key, Op: op, Class: class, Task: task, Size: size, Guarded: f.key.Ino%5 == 0})
	w.drain()
}

// exec executes a file as the kernel does: the question or the mark first, the denial of writing a little later.
func (w *world) exec(f *simFile) {
	w.execs++
	gen := w.gen
	pass := func(allow bool) {
		if !allow {
			w.denied++
			return
		}
		gen = w.gen
		was := f.content
		w.after(w.upTo(w.passing), func() {
			if f.writers > 0 {
				w.denied++
				return
			}
			w.ran++
			if !good(f.content, gen) {
				w.fail("%v ran with content %d (asked: %d), which is not good in generation %d", f.key, f.content, was, gen)
			}
		})
	}
	if f.markExec {
		w.note("exec %v by its mark", f.key)
		pass(true)
		return
	}
	w.request(f, OpExec, int32(w.rnd.IntN(50)), pass)
}

func (w *world) load(f *simFile) {
	if f.markOpen {
		if f.class.Loaded() && !good(f.content, w.gen) {
			w.fail("%v opened by its mark with content %d, which is not good in generation %d", f.key, f.content, w.gen)
		}
		return
	}
	w.request(f, OpOpen, int32(w.rnd.IntN(50)), func(bool) {})
}

// write opens f for writing, which waits for the lease, changes it and closes it.
func (w *world) write(f *simFile) {
	since := w.now
	enter := func() {
		if waited := w.now.Sub(since); waited > w.cfg.Yield+w.cfg.Grace+2*time.Second {
			w.fail("a writer of %v waited %v", f.key, waited)
		}
		f.writers++
		stays := time.Microsecond + w.upTo(time.Millisecond)<<w.rnd.IntN(5)
		for range w.rnd.IntN(3) {
			w.after(w.upTo(stays), func() {
				w.stores++
				f.content = w.rnd.IntN(1000)
				if w.rnd.IntN(2) == 0 { // write(2); a store through a mapping tells nobody
					f.markExec, f.markOpen = false, false
				}
			})
		}
		w.after(stays, func() { f.writers-- })
	}
	if len(f.leases) == 0 {
		enter()
		return
	}
	w.waits++
	f.waiting = append(f.waiting, enter)
	life := w.life
	w.after(w.upTo(time.Millisecond), func() {
		if w.life == life {
			w.note("break %v", f.key)
			w.g.Break(w.now, f.key)
			w.drain()
		}
	})
}

func (w *world) letIn(f *simFile) {
	if len(f.leases) > 0 {
		return
	}
	waiting := f.waiting
	f.waiting = nil
	for _, enter := range waiting {
		enter()
	}
}

// die kills the worker. The supervisor, which holds the leases too, takes back the marks and denies what is pending, and
// only then lets the leases go.
func (w *world) die() {
	w.deaths++
	old := w.life
	w.life++
	w.start()
	w.after(w.upTo(5*time.Millisecond), func() {
		w.flush()
		for id, ev := range w.open {
			if ev.life == old {
				delete(w.open, id)
				w.answered++
				ev.done(false)
			}
		}
		w.after(w.cfg.Grace, func() {
			for _, k := range w.keys() {
				delete(w.files[k].leases, old)
				w.letIn(w.files[k])
			}
		})
	})
}

func (w *world) keys() []Key {
	var ks []Key
	for k := range w.files {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b Key) int { return int(a.Dev)*1000 + int(a.Ino) - int(b.Dev)*1000 - int(b.Ino) })
	return ks
}

func (w *world) start() {
	g, err := New(w.cfg, Enforce, w.gen)
	if err != nil {
		w.t.Fatal(err)
	}
	w.g = g
}

func simulate(t testing.TB, seed uint64) *world { return newWorld(t, seed).run() }

func simulateWithout(t testing.TB, seed uint64, k Kind) {
	w := newWorld(t, seed)
	w.without = &k
	w.run()
}

// simulateHasty lets writers in while an execution is on its way.
func simulateHasty(t testing.TB, seed uint64) {
	w := newWorld(t, seed)
	w.passing, w.cfg.Grace = w.cfg.Grace, 0
	w.run()
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), files: map[Key]*simFile{}, open: map[ID]*simEvent{}, gen: 1}
	w.cfg = Config{MaxEntries: 16 + w.rnd.IntN(20), MaxPending: 4 + w.rnd.IntN(60), Jobs: 1 + w.rnd.IntN(6), PerDevice: 1, Big: 1 << 30, BigJobs: 1,
		Patience: 20 * time.Millisecond, Yield: 4 * time.Millisecond, Grace: 2 * time.Millisecond, Recent: 16}
	w.cfg.PerDevice = 1 + w.rnd.IntN(w.cfg.Jobs)
	w.passing = w.cfg.Grace
	return w
}

func (w *world) run() *world {
	files := 5 + w.rnd.IntN(60)
	var all []*simFile
	for i := range files {
		f := &simFile{key: Key{uint64(i % 3), uint64(i)}, class: []Class{ClassELF, ClassELF, ClassScript, ClassData}[w.rnd.IntN(4)], content: w.rnd.IntN(1000), leases: map[int]int{}}
		w.files[f.key] = f
		all = append(all, f)
	}
	w.start()
	const length = 400 * time.Millisecond
	hot := 1 + w.rnd.IntN(len(all))
	for range 1500 {
		f := all[w.rnd.IntN(hot)]
		var do func()
		switch n := w.rnd.IntN(100); {
		case n < 60:
			do = func() { w.exec(f) }
		case n < 85:
			do = func() { w.load(f) }
		case n < 97:
			do = func() { w.write(f) }
		case n < 98:
			do = func() {
				w.gen++
				w.note("generation %d", w.gen)
				w.g.SetGeneration(w.now, w.gen)
				w.drain()
			}
		case n < 99:
			do = func() { w.g.Sweep(); w.drain() }
		default:
			if w.rnd.IntN(5) > 0 {
				continue
			}
			do = w.die
		}
		w.after(w.upTo(length), do)
	}
	for len(w.plan) > 0 || w.g.Deadline() != mono.Never {
		if d := w.g.Deadline(); len(w.plan) == 0 || d < w.plan[0].at {
			w.now = max(w.now, d)
			w.g.Tick(w.now)
			w.drain()
			continue
		}
		s := heap.Pop(&w.plan).(step1)
		w.now = s.at
		s.f()
		if n := w.g.Stats().Entries; n > w.cfg.MaxEntries {
			w.fail("%d entries, the bound is %d", n, w.cfg.MaxEntries)
		}
	}
	if len(w.open) > 0 {
		w.fail("%d questions have no answer", len(w.open))
	}
	if s := w.g.Stats(); s.Pending != 0 || s.Running != 0 || s.Waiting != 0 {
		w.fail("at the end: %+v", s)
	}
	for _, f := range all {
		if len(f.waiting) > 0 {
			w.fail("a writer of %v waits for ever", f.key)
		}
	}
	return w
}

// Whatever writers, lease breaks, deaths of the worker, new generations and overflow do: nothing runs whose content was
// not verified under the generation in force, and every question is answered once.
func TestSimulation(t *testing.T) {
	var sum world
	n := *seeds
	if testing.Short() {
		n = 50
	}
	for seed := range uint64(n) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			w := simulate(t, seed)
			sum.ran += w.ran
			sum.denied += w.denied
			sum.deaths += w.deaths
			sum.stores += w.stores
			sum.waits += w.waits
		})
	}
	t.Logf("ran %d, denied %d, deaths %d, stores %d, writers that waited %d", sum.ran, sum.denied, sum.deaths, sum.stores, sum.waits)
	if sum.ran < 50*n || sum.denied < 50*n || sum.deaths < n/4 || sum.stores < 10*n || sum.waits < 5*n {
		t.Errorf("the worlds are too quiet to show anything: %+v", sum)
	}
}

// The simulation notices a driver that leaves out any of the things that make a kept verdict safe.
func TestSimulationBites(t *testing.T) {
	for _, kind := range []Kind{Flush, Unmark, Release} {
		t.Run(fmt.Sprint("without action ", kind), func(t *testing.T) {
			for seed := range uint64(100) {
				if fails(func(tb testing.TB) { simulateWithout(tb, seed, kind) }) {
					return
				}
			}
			t.Error("nothing noticed")
		})
	}
	t.Run("no grace", func(t *testing.T) {
		for seed := range uint64(200) {
			if fails(func(tb testing.TB) { simulateHasty(tb, seed) }) {
				return
			}
		}
		t.Error("nothing noticed")
	})
}

// verdict is a test that only remembers whether it failed.
type verdict struct {
	testing.TB
	failed bool
}

type stopped struct{}

func (v *verdict) Helper()               {}
func (v *verdict) Log(...any)            {}
func (v *verdict) Fatal(...any)          { v.failed = true; panic(stopped{}) }
func (v *verdict) Fatalf(string, ...any) { v.failed = true; panic(stopped{}) }

func fails(f func(testing.TB)) bool {
	v := &verdict{}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(stopped{}) {
				panic(r)
			}
		}()
		f(v)
	}()
	return v.failed
}
