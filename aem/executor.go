package aem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"midplane/internal/aem/ctl"
	"midplane/internal/aem/loop"
	"midplane/internal/aem/worker"
	"midplane/internal/mono"
)

// Config is how an executor works. The zero value is good for trying out; a program that wants the bound sets TakeProcs.
type Config struct {
	// Workers is how many tasks of one niceness run at once, 1 to 1024. Default: as many as the process has processors by its
	// affinity and the quota of its cgroups, rounded down; the executor looks at these once a second while there is something
	// to do, and the number follows. Fewer than before means that fewer begin: what runs goes on.
	Workers int
	// TakeProcs lets the executor set GOMAXPROCS, which is one value for the whole process: to the number of workers of all
	// nicenesses that are in use, plus Loops, plus two, so that the runtime always has a spare processor for urgent handlers
	// while workers compute and the collector marks. Shutdown gives it back. New refuses when it was set already, by the environment or the program.
	// Without it there is no bound on how long an urgent handler waits while as many others compute as there are processors.
	TakeProcs bool
	// Loops is how many goroutines run inline classes at once under load (event loops, or processors that serve connections),
	// default 1. It counts with TakeProcs only. While lowered workers run, so many Loops on epoll or io_uring keep their
	// processor of the runtime as they wait for the kernel.
	Loops int
	// HeapBudget lets the heap grow to so many octets before the garbage collector runs, 16 Mi to 1 Ti, or to twice what lives if that is
	// more; 0 leaves the collector alone. While it marks, urgent handlers wait for up to some milliseconds, and a budget makes that
	// rare: with 16 MB alive and 60 MB/s of garbage, a budget of 512 MB makes a collection each 8 s out of three a second.
	// It sets GOGC, which is one value for the whole process, anew when what lives changes, and gives it back in Shutdown. New
	// refuses when it was set already, by the environment or the program. GOMEMLIMIT goes before it.
	HeapBudget int64
	// HeapPrefault makes New get all of HeapBudget from the kernel, in huge pages where the kernel allows a program to ask for them, so that
	// neither urgent handlers nor what runs beside them wait for new memory later. The process then takes that much from the
	// beginning, and New takes 0.1 to 4 s for each GB. New refuses it without HeapBudget, and when there is less memory available.
	// The runtime keeps it as long as collections come when the budget is used up.
	HeapPrefault bool
	// CPUs binds lowered workers to these processors, nil for all that the process may use.
	CPUs []int
	// LoopCPUs keeps these processors for the executor's loops (epoll, io_uring) and lowered workers, nil for none: loops are bound to them,
	// and all other threads of the process are moved away, such as those of the garbage collector and of other goroutines, with which
	// loops otherwise compete. It takes no privilege. At least one processor of the process must be left, and everything of niceness 0
	// has no more than what is left. Processes that are started run where the thread may that starts them. Shutdown
	// gives the processors back. New refuses it while another executor of the process keeps some.
	LoopCPUs []int
	// OnStall is told of handlers that run for longer than the budget of their class, one a second at most; nil logs them.
	// It runs on the executor's own goroutine and must not block.
	OnStall func(Stall)
	// OnPanic is told of handlers that panic, in the handler's goroutine; nil logs them.
	OnPanic func(Panic)
	// Logger is where the executor logs, nil for nowhere.
	Logger *slog.Logger
}

const (
	maxWorkers = 1024
	maxHeap    = 1 << 40
)

// spareProcs is how many Ps there are beside those of workers and loops. One is for urgent goroutines. The other is for the
// collector: when the world starts again, the first P that schedules is given to a mark worker that does not yield
// (runtime/proc.go:procresize, findRunnable), together with the goroutine that waits on it, for 10 ms. A P that is idle at
// that moment goes first.
const spareProcs = 2

// Executor runs tasks by class. Its methods are safe for concurrent use.
type Executor struct {
	cfg      Config
	log      *slog.Logger
	contexts contexts
	monitor  monitor
	closing  atomic.Bool
	base     [Background + 1]*Class
	stalls   atomic.Uint64
	panics   atomic.Uint64

	mu      sync.Mutex
	pools   []*pool // replaced, never changed
	classes []*Class
	byName  map[string]*Class
	closed  bool

	workers    atomic.Int64  // of one niceness
	pace       *pacemaker    // nil when nobody promised a bound
	procs      *worker.Procs // nil when GOMAXPROCS is not ours
	procsMu    sync.Mutex
	procsWant  int               // guarded by procsMu
	heap       *worker.Heap      // nil when the collector's pace is not ours
	isolation  *worker.Isolation // nil without LoopCPUs
	scheduling atomic.Int64      // the last 99th percentile, in nanoseconds

	latency    schedulingLatency // the monitor's own, like the next
	nextSample mono.Time
	nextLook   mono.Time
	nextStack  mono.Time
	scratch    []*runner
}

// New starts an executor. It has the classes of Critical, Normal and Background, and those that Class makes.
func New(cfg *Config) (*Executor, error) {
	ex := &Executor{byName: map[string]*Class{}}
	if cfg != nil {
		ex.cfg = *cfg
	}
	if ex.cfg.Workers < 0 || ex.cfg.Workers > maxWorkers {
		return nil, &ConfigError{"Workers", ex.cfg.Workers, fmt.Sprintf("1 to %d, or 0 for the number of processors", maxWorkers)}
	}
	if ex.cfg.Loops < 0 || ex.cfg.Loops > maxWorkers {
		return nil, &ConfigError{"Loops", ex.cfg.Loops, fmt.Sprintf("1 to %d, or 0 for 1", maxWorkers)}
	}
	if err := worker.CheckCPUs(ex.cfg.CPUs); err != nil {
		return nil, fmt.Errorf("aem: CPUs: %w", err)
	}
	if b := ex.cfg.HeapBudget; b != 0 && (b < worker.LeastHeap || b > maxHeap) {
		return nil, &ConfigError{"HeapBudget", b, fmt.Sprintf("%d to %d octets, or 0 to leave the collector alone", worker.LeastHeap, maxHeap)}
	}
	if ex.cfg.HeapPrefault && ex.cfg.HeapBudget == 0 {
		return nil, &ConfigError{"HeapPrefault", true, "false, or HeapBudget set: that is the memory to get"}
	}
	if ex.workers.Store(int64(ex.cfg.Workers)); ex.cfg.Workers == 0 {
		ex.workers.Store(int64(min(processors(), maxWorkers)))
	}
	if ex.cfg.Loops == 0 {
		ex.cfg.Loops = 1
	}
	if err := ex.take(); err != nil {
		ex.giveBack()
		return nil, err
	}
	if ex.log = ex.cfg.Logger; ex.log == nil {
		ex.log = slog.New(slog.DiscardHandler)
	}
	if ex.cfg.TakeProcs && worker.CanSleep {
		ex.pace = newPacemaker()
		go ex.pace.main()
		go ex.pace.poked()
	}
	for l := Critical; l <= Background; l++ {
		c, err := ex.Class(l.String(), ClassConfig{Level: l})
		if err != nil {
			return nil, err
		}
		ex.base[l] = c
	}
	ex.monitor = monitor{ex: ex, kick: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	go ex.monitor.main()
	return ex, nil
}

// take takes what belongs to the whole process.
func (ex *Executor) take() (err error) {
	if ex.cfg.TakeProcs {
		if ex.procs, err = worker.TakeProcs(); err != nil {
			return fmt.Errorf("aem: TakeProcs: %w", err)
		}
		ex.growProcs(ex.cfg.Loops + spareProcs)
	}
	if len(ex.cfg.LoopCPUs) > 0 {
		if ex.isolation, err = worker.Isolate(ex.cfg.LoopCPUs); err != nil {
			return fmt.Errorf("aem: LoopCPUs is %v: %w", ex.cfg.LoopCPUs, err)
		}
		if len(ex.cfg.CPUs) == 0 {
			ex.cfg.CPUs = ex.isolation.All
		}
	}
	if ex.cfg.HeapBudget != 0 {
		if ex.heap, err = worker.TakeHeap(uint64(ex.cfg.HeapBudget), ex.cfg.HeapPrefault); err != nil {
			return fmt.Errorf("aem: HeapBudget: %w", err)
		}
	}
	return nil
}

// giveBack undoes take.
func (ex *Executor) giveBack() {
	if ex.procs != nil {
		ex.procs.Release()
	}
	if ex.isolation != nil {
		ex.isolation.Release()
	}
	if ex.heap != nil {
		ex.heap.Release()
	}
}

func (ex *Executor) poolList() []*pool {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	return ex.pools
}

// growProcs asks the runtime for n more processors, or fewer, when they are the executor's to ask for.
func (ex *Executor) growProcs(n int) {
	if ex.procs == nil {
		return
	}
	ex.procsMu.Lock()
	defer ex.procsMu.Unlock()
	ex.procsWant += n
	ex.procs.Set(ex.procsWant)
}

// holder returns what tells a loop whether its waits keep their P: while lowered workers run. It is nil for more loops than
// GOMAXPROCS has room for. A loop that was given one takes itself from pace.loops when it ends.
func (ex *Executor) holder() func(mono.Time) bool {
	if ex.pace == nil || !loop.CanHold() {
		return nil
	}
	if ex.pace.loops.Add(1) > int64(ex.cfg.Loops) {
		ex.pace.leave()
		return nil
	}
	return ex.pace.hold
}

func (ex *Executor) warn(what string, err error) {
	ex.log.Warn(what, slog.Any("error", err))
}

// Class makes a class. Names are unique in an executor.
func (ex *Executor) Class(name string, cfg ClassConfig) (*Class, error) {
	if name == "" {
		return nil, &ConfigError{"the name of a class", `""`, "a name"}
	}
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("class %s: %w", name, err)
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.closed {
		return nil, ErrClosed
	}
	if ex.byName[name] != nil {
		return nil, &ConfigError{"the name of a class", name, "one that is not in use"}
	}
	c := &Class{name: name, cfg: cfg, ex: ex}
	for f := range c.refused {
		c.refused[f] = &FateError{name, Fate(f)}
	}
	if !cfg.Inline {
		c.pool = ex.poolFor(cfg.Nice)
		c.pool.add(c)
	}
	ex.byName[name] = c
	ex.classes = append(ex.classes, c)
	return c, nil
}

// poolFor returns the pool of a niceness. The caller holds the lock.
func (ex *Executor) poolFor(nice int) *pool {
	for _, p := range ex.pools {
		if p.nice == nice {
			return p
		}
	}
	p := &pool{ex: ex, nice: nice, locked: nice > 0, workers: int(ex.workers.Load())}
	p.ctl = ctl.New(ctl.Config{Workers: p.workers, Goal: schedulingGoal, Patience: patience})
	p.core.Limit(p.workers)
	if nice > 0 {
		p.pace = ex.pace
	}
	ex.pools = append(ex.pools[:len(ex.pools):len(ex.pools)], p)
	return p
}

// Lookup returns a class by its name, nil when there is none.
func (ex *Executor) Lookup(name string) *Class {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	return ex.byName[name]
}

// Critical returns the built-in class of that level.
func (ex *Executor) Critical() *Class { return ex.base[Critical] }

// Normal returns the built-in class of that level.
func (ex *Executor) Normal() *Class { return ex.base[Normal] }

// Background returns the built-in class of that level, whose threads are lowered: the place for processor-bound work.
func (ex *Executor) Background() *Class { return ex.base[Background] }

// Shutdown lets in nothing more, waits until what was accepted has its fate, and ends the workers. When ctx ends first,
// what still waits is drained (fate Drained) and the error of ctx is returned; handlers that run are not waited for
// then, and their workers end with them. A second call does the same again, and may wait longer.
func (ex *Executor) Shutdown(ctx context.Context) error {
	ex.closing.Store(true)
	ex.mu.Lock()
	first := !ex.closed
	ex.closed = true
	classes, pools := ex.classes, ex.pools
	ex.mu.Unlock()
	for _, c := range classes {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
	}
	for _, p := range pools {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
	}
	err := ex.drained(ctx, pools)
	for _, p := range pools {
		p.mu.Lock()
		p.core.Flush()
		dropped := p.decided()
		p.quit = true
		idle := p.idle
		p.idle = nil
		p.mu.Unlock()
		p.settle(dropped)
		for _, r := range idle {
			r.park.Unpark()
		}
	}
	if first {
		close(ex.monitor.quit)
	}
	<-ex.monitor.ended
	if ex.pace != nil {
		ex.pace.stop()
	}
	ex.giveBack()
	if err != nil {
		return err
	}
	for _, p := range pools {
		p.ended.Wait()
	}
	return nil
}

// Close is Shutdown without grace: what waits is drained at once. It does not wait for handlers.
func (ex *Executor) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ex.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// drained waits until nothing waits and nothing runs.
func (ex *Executor) drained(ctx context.Context, pools []*pool) error {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		busy := false
		for _, p := range pools {
			p.mu.Lock()
			busy = busy || p.busy()
			p.mu.Unlock()
		}
		for _, x := range ex.contexts.list() {
			busy = busy || x.since.Load() != 0
		}
		if !busy {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
