package gate

import (
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
)

// driver does for a gate what the real one does, at once.
type driver struct {
	t       testing.TB
	g       *Gate
	now     mono.Time
	files   map[Key]Result // what verifying gives
	subject Subject
	hang    bool // verifications do not end
	next    int32

	answers  map[ID]Action
	pending  []Action // verifications under way
	marks    map[Key]Action
	verified int
	released map[Key]int
}

func newDriver(t testing.TB, change ...func(*Config)) *driver {
	cfg := Default()
	for _, c := range change {
		c(&cfg)
	}
	g, err := New(cfg, Enforce, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &driver{t: t, g: g, files: map[Key]Result{}, answers: map[ID]Action{}, marks: map[Key]Action{}, released: map[Key]int{}}
}

func (d *driver) drain() {
	for {
		a, ok := d.g.Poll()
		if !ok {
			return
		}
		switch a.Kind {
		case Answer:
			if _, twice := d.answers[a.ID]; twice {
				d.t.Fatalf("%v is answered twice", a.ID)
			}
			d.answers[a.ID] = a
		case Verify:
			d.verified++
			if d.hang {
				d.pending = append(d.pending, a)
				continue
			}
			d.result(a)
		case Judge, Hold:
			d.result(a)
		case Ask:
			s := d.subject
			s.ID = a.ID
			d.g.Subject(d.now, s)
		case Mark:
			d.marks[a.Key] = a
		case Unmark:
			delete(d.marks, a.Key)
		case Flush:
			clear(d.marks)
		case Release:
			d.released[a.Key]++
		}
	}
}

func (d *driver) result(a Action) {
	r := d.files[a.Key]
	r.Key, r.Job = a.Key, a.Job
	if r.Generation == 0 {
		r.Generation = d.g.Generation()
	}
	d.g.Result(d.now, r)
}

// ask asks one question and returns the answer.
func (d *driver) ask(r Request) Action {
	d.t.Helper()
	d.next++
	r.ID = ID{FD: d.next}
	d.g.Request(d.now, r)
	d.drain()
	return d.answers[r.ID]
}

func (d *driver) want(what string, a Action, allow bool, why Why) {
	d.t.Helper()
	if a.Kind != Answer || a.ID == (ID{}) {
		d.t.Errorf("%s: no answer", what)
	} else if a.Allow != allow || a.Why != why {
		d.t.Errorf("%s: %v (%v), want %v (%v)", what, a.Allow, a.Why, allow, why)
	}
}

var (
	prog   = Key{1, 1}
	lib    = Key{1, 2}
	script = Key{1, 3}
	interp = Key{1, 4}
	data   = Key{1, 5}
	ld     = Key{1, 6}
)

func (d *driver) usual() *driver {
	d.files[prog] = Result{Class: ClassELF, Uses: MayExec | MayLib | MayCheck, Pin: PinLease}
	d.files[lib] = Result{Class: ClassELF, Uses: MayLib, Pin: PinLease}
	d.files[script] = Result{Class: ClassScript, Uses: MayScript, Pin: PinLease, Then: interp}
	d.files[interp] = Result{Class: ClassELF, Uses: MayInterp | MayLib, Pin: PinLease}
	d.files[ld] = Result{Class: ClassLoader, Uses: MayInterp | MayLib, Pin: PinLease}
	d.files[data] = Result{Class: ClassData, Pin: PinLease}
	return d
}

func TestUses(t *testing.T) {
	d := newDriver(t).usual()
	d.want("a program", d.ask(Request{Key: prog, Op: OpExec}), true, WhyVerdict)
	if m := d.marks[prog]; !m.Exec || !m.Open {
		t.Errorf("its mark is %+v", m)
	}
	d.want("opened", d.ask(Request{Key: prog, Op: OpOpen, Class: ClassELF}), true, WhyVerdict)
	d.want("a library that is executed", d.ask(Request{Key: lib, Op: OpExec}), false, WhyVerdict)
	d.want("a library", d.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF}), true, WhyVerdict)
	if m := d.marks[lib]; m.Exec || !m.Open {
		t.Errorf("its mark is %+v", m)
	}
	d.want("a loader", d.ask(Request{Key: ld, Op: OpExec}), true, WhyVerdict)
	if m := d.marks[ld]; m.Exec {
		t.Errorf("its mark is %+v", m)
	}
	if d.verified != 3 {
		t.Errorf("%d verifications, want 3", d.verified)
	}
}

// An interpreter that may be run through #! only runs for the script that names it, and once.
func TestIndirect(t *testing.T) {
	d := newDriver(t).usual()
	d.want("directly", d.ask(Request{Key: interp, Op: OpExec, Task: 7}), false, WhyVerdict)
	d.want("the script", d.ask(Request{Key: script, Op: OpExec, Task: 7}), true, WhyVerdict)
	if _, marked := d.marks[script]; marked && d.marks[script].Exec {
		t.Error("a script has a mark: then nothing tells that its interpreter comes next")
	}
	d.want("for another task", d.ask(Request{Key: interp, Op: OpExec, Task: 8}), false, WhyVerdict)
	d.want("the script's open", d.ask(Request{Key: script, Op: OpOpen, Class: ClassScript, Task: 7}), true, WhyData)
	d.want("for the script", d.ask(Request{Key: interp, Op: OpExec, Task: 7}), true, WhyVerdict)
	d.want("again", d.ask(Request{Key: interp, Op: OpExec, Task: 7}), false, WhyVerdict)
	d.want("a script", d.ask(Request{Key: script, Op: OpExec, Task: 9}), true, WhyVerdict)
	d.want("another program in between", d.ask(Request{Key: prog, Op: OpExec, Task: 9}), true, WhyVerdict)
	d.want("after it", d.ask(Request{Key: interp, Op: OpExec, Task: 9}), false, WhyVerdict)
}

// Those that only read may read what is unsigned; to others opening it is loading it.
func TestSubjects(t *testing.T) {
	d := newDriver(t).usual()
	d.files[lib] = Result{Class: ClassELF, Pin: PinLease}
	d.want("anybody", d.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF}), false, WhyVerdict)
	d.subject.Exempt = true
	d.want("exempt", d.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF}), true, WhyExempt)
	d.want("exempt, executing", d.ask(Request{Key: lib, Op: OpExec}), false, WhyVerdict)
	d.files[prog] = Result{Class: ClassELF, Uses: MayExec, Pin: PinWriter}
	d.want("exempt, with a writer", d.ask(Request{Key: prog, Op: OpOpen, Class: ClassELF}), true, WhyExempt)
	d.subject.Exempt = false
	d.want("with a writer", d.ask(Request{Key: prog, Op: OpOpen, Class: ClassELF}), false, WhyWriter)
	d.want("executed with a writer", d.ask(Request{Key: prog, Op: OpExec}), false, WhyWriter)
	if len(d.marks) != 0 {
		t.Errorf("marks %v", d.marks)
	}
}

func TestGuarded(t *testing.T) {
	d := newDriver(t).usual()
	q := Request{Key: script, Op: OpOpen, Class: ClassScript, Guarded: true, Aliased: true}
	d.want("nothing is wanted", d.ask(q), true, WhyData)
	d.subject.Want = MayScript
	d.want("an interpreter, signed", d.ask(q), true, WhyVerdict)
	d.files[data] = Result{Class: ClassData, Pin: PinLease}
	q.Key, q.Class, d.subject.Want = data, ClassData, MayRead
	d.want("protected and not signed", d.ask(q), false, WhyVerdict)
	for k, m := range d.marks {
		if m.Open {
			t.Errorf("%v has a mark for opens, though they are guarded", k)
		}
	}
}

// A data file gets its mark the second time, and becomes a program by being verified as one.
func TestData(t *testing.T) {
	d := newDriver(t).usual()
	q := Request{Key: data, Op: OpOpen}
	d.want("first", d.ask(q), true, WhyData)
	if len(d.marks) != 0 {
		t.Error("a mark after one open")
	}
	d.want("second", d.ask(q), true, WhyData)
	if m := d.marks[data]; !m.Open || m.Exec {
		t.Errorf("mark %+v", m)
	}
	d.want("executed", d.ask(Request{Key: data, Op: OpExec}), false, WhyVerdict)
	alias := Request{Key: Key{1, 50}, Op: OpOpen, Aliased: true}
	d.files[alias.Key] = Result{Class: ClassData, Pin: PinLease}
	for range 3 {
		d.want("with other names", d.ask(alias), true, WhyData)
	}
	if _, ok := d.marks[alias.Key]; ok {
		t.Error("a file with other names has a mark")
	}
	turned := Request{Key: Key{1, 51}, Op: OpOpen}
	d.files[turned.Key] = Result{Class: ClassELF, Pin: PinLease}
	d.ask(turned)
	d.want("became a program before it was held", d.ask(turned), false, WhyVerdict)
	if g := newDriver(t, func(c *Config) { c.NoOpen = true }); true {
		g.want("no library control", g.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF}), true, WhyData)
	}
}

func TestGeneration(t *testing.T) {
	d := newDriver(t).usual()
	d.ask(Request{Key: prog, Op: OpExec})
	d.files[prog] = Result{Class: ClassELF, Pin: PinLease} // revoked
	d.g.SetGeneration(d.now, 2)
	d.drain()
	if len(d.marks) != 0 {
		t.Error("marks outlive their generation")
	}
	d.want("revoked", d.ask(Request{Key: prog, Op: OpExec}), false, WhyVerdict)
	if d.verified != 1 {
		t.Errorf("read %d times", d.verified)
	}
	// A verification that began under the old lists is judged again.
	d.hang = true
	d.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF})
	d.g.SetGeneration(d.now, 3)
	job := d.pending[0]
	d.files[lib] = Result{Class: ClassELF, Pin: PinLease}
	d.g.Result(d.now, Result{Key: lib, Job: job.Job, Class: ClassELF, Uses: MayLib, Generation: 2, Pin: PinLease})
	d.drain()
	for id, a := range d.answers {
		if a.Key == lib && a.Allow {
			t.Errorf("%v: allowed by lists that are no more", id)
		}
	}
}

// What was allowed a moment ago is not let go of at once.
func TestGrace(t *testing.T) {
	d := newDriver(t).usual()
	d.ask(Request{Key: prog, Op: OpExec})
	d.now = d.now.Add(time.Second)
	d.g.Break(d.now, prog)
	d.drain()
	if len(d.marks) != 0 || d.released[prog] != 0 {
		t.Fatalf("marks %v, released %v", d.marks, d.released)
	}
	d.want("executed meanwhile", d.ask(Request{Key: prog, Op: OpExec}), false, WhyWriter)
	if got, want := d.g.Deadline(), d.now.Add(Default().Grace); got != want {
		t.Errorf("deadline %v, want %v", got, want)
	}
	d.now = d.g.Deadline()
	d.g.Tick(d.now)
	d.drain()
	if d.released[prog] != 1 || d.g.Stats().Entries != 0 {
		t.Errorf("released %v", d.released)
	}
	d.ask(Request{Key: lib, Op: OpOpen, Class: ClassELF}) // nobody executes it
	d.g.Break(d.now, lib)
	d.drain()
	if d.released[lib] != 1 {
		t.Error("a library waits for nothing")
	}
}

func TestPatience(t *testing.T) {
	d := newDriver(t).usual()
	d.hang = true
	d.ask(Request{Key: prog, Op: OpExec})
	d.now = d.now.Add(time.Second)
	d.g.Break(d.now, prog)
	if got, want := d.g.Deadline(), d.now.Add(Default().Yield); got != want {
		t.Errorf("with a writer waiting the deadline is %v, want %v", got, want)
	}
	d.now = d.g.Deadline()
	d.g.Tick(d.now)
	d.drain()
	d.want("given up for a writer", d.answers[ID{FD: 1}], false, WhyWriter)
	d.ask(Request{Key: lib, Op: OpExec})
	d.now = d.g.Deadline()
	d.g.Tick(d.now)
	d.drain()
	d.want("given up", d.answers[ID{FD: 2}], false, WhyPatience)
	if s := d.g.Stats(); s.Timeouts != 2 || s.Running != 0 || s.Pending != 0 || d.released[prog] != 1 || d.released[lib] != 1 {
		t.Errorf("%+v, released %v", s, d.released)
	}
}

// One slow file system does not keep others waiting, nor do big files small ones.
func TestLanes(t *testing.T) {
	d := newDriver(t, func(c *Config) { c.Jobs, c.PerDevice, c.BigJobs, c.Big = 8, 4, 2, 1000 })
	d.hang = true
	for i := range 100 {
		d.ask(Request{Key: Key{1, uint64(i)}, Op: OpExec, Size: 10})
	}
	if len(d.pending) != 4 {
		t.Errorf("%d on one file system, want 4", len(d.pending))
	}
	for i := range 10 {
		d.ask(Request{Key: Key{2, uint64(i)}, Op: OpExec, Size: 1000})
	}
	if len(d.pending) != 6 {
		t.Errorf("%d with big ones, want 6", len(d.pending))
	}
	d.ask(Request{Key: Key{2, 1000}, Op: OpExec, Size: 10})
	if len(d.pending) != 7 || d.pending[6].Key.Ino != 1000 {
		t.Errorf("a small one waits for big ones: %+v", d.pending)
	}
	for range 111 {
		if len(d.pending) == 0 {
			t.Fatal("nothing runs, though some wait")
		}
		a := d.pending[0]
		d.pending = d.pending[1:]
		d.result(a)
		d.drain()
	}
	if s := d.g.Stats(); s.Pending != 0 || s.Running != 0 || len(d.g.lanes) != 0 || len(d.g.order) != 0 {
		t.Errorf("at the end %+v, %d lanes", s, len(d.g.lanes))
	}
}

func TestBusy(t *testing.T) {
	d := newDriver(t, func(c *Config) { c.MaxPending = 3 })
	d.hang = true
	for i := range 5 {
		d.ask(Request{Key: Key{1, uint64(i)}, Op: OpExec})
	}
	if s := d.g.Stats(); s.Busy != 2 || s.Pending != 3 {
		t.Errorf("%+v", s)
	}
	d.want("data when busy", d.ask(Request{Key: data, Op: OpOpen}), true, WhyData)
}

func TestModes(t *testing.T) {
	d := newDriver(t).usual()
	d.files[lib] = Result{Class: ClassELF, Pin: PinLease}
	for _, m := range []Mode{Permissive, Learn} {
		d.g.SetMode(m)
		a := d.ask(Request{Key: lib, Op: OpExec})
		if !a.Allow || a.Judge || len(d.marks) != 0 {
			t.Errorf("%v: %+v, marks %v", m, a, d.marks)
		}
	}
	d.g.SetMode(Enforce)
	d.want("enforce", d.ask(Request{Key: lib, Op: OpExec}), false, WhyVerdict)
	if s := d.g.Stats(); s.WouldDeny != 2 || s.Denied != 1 {
		t.Errorf("%+v", s)
	}
}

func TestUnpinned(t *testing.T) {
	d := newDriver(t).usual()
	d.files[prog] = Result{Class: ClassELF, Uses: MayExec, Pin: PinNone}
	d.want("denied", d.ask(Request{Key: prog, Op: OpExec}), false, WhyUnpinned)
	d = newDriver(t, func(c *Config) { c.Unpinned = true }).usual()
	d.files[prog] = Result{Class: ClassELF, Uses: MayExec, Pin: PinNone}
	for range 2 {
		d.want("allowed", d.ask(Request{Key: prog, Op: OpExec}), true, WhyVerdict)
	}
	if d.verified != 2 || len(d.marks) != 0 {
		t.Errorf("it was kept: %d verifications, marks %v", d.verified, d.marks)
	}
}

func TestEvict(t *testing.T) {
	d := newDriver(t, func(c *Config) { c.MaxEntries = 32 })
	for i := range 200 {
		k := Key{1, uint64(i)}
		d.files[k] = Result{Class: ClassELF, Uses: MayExec, Pin: PinLease}
		d.want("each of many", d.ask(Request{Key: k, Op: OpExec}), true, WhyVerdict)
		if n := d.g.Stats().Entries; n > 32 {
			t.Fatalf("%d entries", n)
		}
		d.now = d.now.Add(20 * time.Millisecond)
		d.g.Tick(d.now)
		d.drain()
	}
	if len(d.marks) > 32 {
		t.Errorf("%d marks", len(d.marks))
	}
}

// A verdict that time has changed loses its mark with the next sweep.
func TestSweep(t *testing.T) {
	d := newDriver(t).usual()
	d.ask(Request{Key: prog, Op: OpExec})
	d.g.Sweep()
	d.drain()
	if m := d.marks[prog]; !m.Exec {
		t.Error("a sweep took a good mark")
	}
	d.files[prog] = Result{Class: ClassELF, Pin: PinLease}
	d.g.Sweep()
	d.drain()
	if m := d.marks[prog]; m.Exec || m.Open {
		t.Error("an expired verdict keeps its mark")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	d := newDriver(t).usual()
	d.ask(Request{Key: prog, Op: OpExec})
	id := int32(1000)
	poll := func() {
		for {
			if _, ok := d.g.Poll(); !ok {
				return
			}
		}
	}
	for name, q := range map[string]Request{"a hit": {Key: prog, Op: OpExec, Task: 5}, "data": {Key: Key{9, 9}, Op: OpOpen, Aliased: true}} {
		if n := testing.AllocsPerRun(100, func() {
			id++
			q.ID.FD = id
			d.g.Request(d.now, q)
			poll()
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Default()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"MaxEntries": func(c *Config) { c.MaxEntries = 1 }, "Jobs": func(c *Config) { c.Jobs = 0 }, "PerDevice": func(c *Config) { c.PerDevice = c.Jobs + 1 },
		"Recent": func(c *Config) { c.Recent = 3 }, "Yield": func(c *Config) { c.Yield = time.Minute }, "Grace": func(c *Config) { c.Grace = -1 },
	} {
		c := Default()
		change(&c)
		if _, err := New(c, Enforce, 1); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
