// Command aemwake measures how long a handler waits for the processor while other goroutines compute. A separate process sends a
// stamp about every 2 ms; a handler reads it and says how old it is. Busy goroutines are plain ones of the same process, or run in
// the executor's class Background. All set-ups run in each round, one after the other; what is printed are medians of the rounds. Set-ups
// with a budget for the heap run once, for five times as long, so that there are collections in it. Runs before or after which the
// host took processors away are done again.
// Below it, what the executor itself costs: from Submit to the handler, and one Await. See docs/performance.md.
//
//	cd bench && go run ./aemwake [-rounds 5] [-quick]
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"midplane/aem"
	"midplane/bench/internal/garbage"
	"midplane/bench/internal/quiet"
	"midplane/bench/internal/stat"
	"midplane/internal/aem/hist"
	"midplane/internal/sys"

	"golang.org/x/sys/unix"
)

var (
	rounds = flag.Int("rounds", 5, "rounds; medians are reported")
	run    = flag.Duration("run", 4*time.Second, "time of one run")
	live   = flag.Int("live", 16, "MB that the garbage keeps alive, 1 or more")
	quick  = flag.Bool("quick", false, "short: to see that it runs, not for numbers")

	role = flag.String("role", "", "run as this set-up, or as the stamper (internal)")
	addr = flag.String("addr", "", "where the stamper sends to; empty: standard output (internal)")
)

// setup is who computes beside the handler.
type setup struct {
	Name    string
	Busy    int
	Own     bool   // in the executor, whose handler is an inline class
	Loop    string // back end of an aem loop that the handler runs on; "": it is a goroutine that reads
	Garbage bool
	Heap    int64 // the executor's HeapBudget, with HeapPrefault
	Goal    bool
	Real    bool // the loop's thread has a real-time priority, which takes privilege
	Apart   bool // the loop has the first processor, beside lowered workers (LoopCPUs)
}

const budget = 512 << 20

var setups = []setup{
	{Name: "plain, idle"},
	{Name: "plain, busy", Busy: 2},
	{Name: "plain, busy, garbage", Busy: 2, Garbage: true},
	{Name: "plain, 8 busy", Busy: 8},
	{Name: "aem, idle", Own: true},
	{Name: "aem, busy", Own: true, Busy: 2, Goal: true},
	{Name: "aem, busy, garbage", Own: true, Busy: 2, Garbage: true, Goal: true},
	{Name: "aem, busy, garbage, 512 MB of heap", Own: true, Busy: 2, Garbage: true, Heap: budget, Goal: true},
	{Name: "aem, 8 busy", Own: true, Busy: 8, Goal: true},
	{Name: "aem on epoll, busy", Own: true, Loop: "epoll", Busy: 2, Goal: true},
	{Name: "aem on epoll, busy, garbage", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Goal: true},
	{Name: "aem on epoll, busy, garbage, 512 MB of heap", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Heap: budget, Goal: true},
	{Name: "aem on io_uring, busy", Own: true, Loop: "io_uring", Busy: 2, Goal: true},
	{Name: "aem on io_uring, busy, garbage", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Goal: true},
	{Name: "aem on io_uring, busy, garbage, 512 MB of heap", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Heap: budget, Goal: true},
	{Name: "aem on epoll, LoopCPUs, busy, garbage", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Goal: true, Apart: true},
	{Name: "aem on epoll, LoopCPUs, busy, garbage, 512 MB of heap", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Heap: budget, Goal: true, Apart: true},
	{Name: "aem on io_uring, LoopCPUs, busy, garbage", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Goal: true, Apart: true},
	{Name: "aem on io_uring, LoopCPUs, busy, garbage, 512 MB of heap", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Heap: budget, Goal: true, Apart: true},
	{Name: "aem on epoll, real-time, busy, garbage", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Goal: true, Real: true},
	{Name: "aem on epoll, real-time, busy, garbage, 512 MB of heap", Own: true, Loop: "epoll", Busy: 2, Garbage: true, Heap: budget, Goal: true, Real: true},
	{Name: "aem on io_uring, real-time, busy, garbage", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Goal: true, Real: true},
	{Name: "aem on io_uring, real-time, busy, garbage, 512 MB of heap", Own: true, Loop: "io_uring", Busy: 2, Garbage: true, Heap: budget, Goal: true, Real: true},
}

type result struct {
	N                    int
	Collections          int
	Away                 float64
	P50, P99, P999, Most time.Duration
}

const goal = 200 * time.Microsecond

func main() {
	flag.Parse()
	var err error
	switch *role {
	case "":
		garbage.Keep(*live)
		err = all()
	case "stamper":
		var w io.Writer = os.Stdout
		if *addr != "" {
			w, err = net.Dial("tcp", *addr)
		}
		if err == nil {
			err = stamp(w)
		}
	default:
		for _, s := range setups {
			if s.Name == *role {
				err = s.measure()
			}
		}
		if errors.Is(err, unix.EPERM) {
			err = json.NewEncoder(os.Stdout).Encode(result{})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "aemwake:", err)
		os.Exit(1)
	}
}

func all() error {
	if *quick {
		*rounds, *run = min(*rounds, 2), min(*run, time.Second)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	results := map[string][]result{}
	for round := range *rounds {
		for i := range setups {
			s := setups[(i+round)%len(setups)]
			d := *run
			if s.Heap > 0 {
				if round > 0 {
					continue
				}
				d *= 5 // or no collection would come
			}
			r, err := s.run(self, d)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: p99 %s us, away %.1f %%\n", round+1, *rounds, s.Name, us(r.P99), 100*r.Away)
			results[s.Name] = append(results[s.Name], r)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %d processors, load average %.4s; %d rounds of %v; garbage keeps %d MB alive\n\n", runtime.Version(), runtime.NumCPU(), load, *rounds, *run, *live)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "wake-up, us\tp50\tp99\tp99.9\tmost\tcollections\taway %\tgoal")
	for _, s := range setups {
		l := results[s.Name]
		if l[0].N == 0 {
			fmt.Fprintf(w, "%s\t\t\t\t\t\t\tMISS it takes a privilege that this process does not have\n", s.Name)
			continue
		}
		p99 := stat.MedianOf(l, func(r result) time.Duration { return r.P99 })
		verdict := ""
		if s.Goal {
			verdict = pass(p99 <= goal, fmt.Sprintf("p99 at most %v", goal))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%.1f\t%s\n", s.Name, us(stat.MedianOf(l, func(r result) time.Duration { return r.P50 })), us(p99),
			us(stat.MedianOf(l, func(r result) time.Duration { return r.P999 })), us(stat.MedianOf(l, func(r result) time.Duration { return r.Most })),
			stat.MedianOf(l, func(r result) int { return r.Collections }), 100*stat.MedianOf(l, func(r result) float64 { return r.Away }), verdict)
	}
	w.Flush()
	fmt.Println()
	return costs()
}

// A run before or after which a processor was away for more than this share of the time is done again, up to as many tries; that with
// the least counts, for every set-up.
const (
	away  = 0.005
	tries = 4
)

// run measures a set-up in a process of its own.
func (s setup) run(self string, d time.Duration) (result, error) {
	n := tries
	if *quick {
		n = 1
	}
	r, _, err := stat.Best(n, away, func() (r result, err error) {
		before := 0.0
		if !*quick {
			before = quiet.Wait(away, 10)
		}
		b, err := exec.Command(self, "-role", s.Name, "-run", d.String()).Output()
		if err != nil {
			return r, err
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return r, err
		}
		r.Away = max(before, quiet.Lost(200*time.Millisecond))
		return r, nil
	}, func(r result) float64 { return r.Away })
	return r, err
}

func us(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e3) }

func pass(ok bool, want string) string {
	if ok {
		return "PASS " + want
	}
	return "MISS " + want
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// stamp writes the time, about every 2 ms, until nobody reads.
func stamp(w io.Writer) error {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	var b [8]byte
	for {
		sys.SleepThread(time.Millisecond+rand.N(2*time.Millisecond), true)
		binary.LittleEndian.PutUint64(b[:], uint64(monotonic()))
		if _, err := w.Write(b[:]); err != nil {
			return nil
		}
	}
}

var sink atomic.Uint64

func compute(stop *atomic.Bool) {
	x := uint64(1)
	for !stop.Load() {
		for range 10_000 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		sink.Store(x)
	}
}

// collections returns how many collections there were.
func collections() uint32 {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return uint32(s[0].Value.Uint64())
}

// watcher takes stamps.
type watcher struct {
	h     hist.Hist
	begin time.Time
	gcs   uint32 // collections until the beginning was over
	done  chan error
}

// stamp is the handler.
func (w *watcher) stamp(b []byte) {
	age := time.Duration(monotonic() - int64(binary.LittleEndian.Uint64(b)))
	if w.begin.IsZero() {
		w.begin = time.Now()
	}
	switch since := time.Since(w.begin); {
	case since > *run:
		select {
		case w.done <- nil:
		default:
		}
	case since > *run/5: // the beginning does not count
		if w.h.Count == 0 {
			w.gcs = collections()
		}
		w.h.Add(age)
	}
}

// read handles stamps in a goroutine that reads them.
func (w *watcher) read(out io.Reader, handle func(func())) {
	b := make([]byte, 8)
	for {
		if _, err := io.ReadFull(out, b); err != nil {
			w.done <- err
			return
		}
		handle(func() { w.stamp(b) })
	}
}

// listen handles stamps on a loop, and returns where they go.
func (w *watcher) listen(ex *aem.Executor, urgent *aem.Class, s setup) (string, error) {
	cfg := aem.LoopConfig{Backend: s.Loop}
	if s.Real {
		cfg.Realtime = 1
	}
	l, err := aem.NewLoop(ex, &cfg)
	if err != nil {
		return "", err
	}
	src := aem.Listen("tcp", "127.0.0.1:0")
	e, err := aem.Register(l, src, func(_ *aem.Ctx, s aem.StreamEvent) {
		for b := s.Data; len(b) >= 8; b = b[8:] {
			w.stamp(b)
		}
	}, aem.EventConfig{Class: urgent})
	if err != nil {
		return "", err
	}
	if err := e.Start(); err != nil {
		return "", err
	}
	return src.Addr().String(), nil
}

// measure runs one set-up and prints its result.
func (s setup) measure() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var stop atomic.Bool
	handle := func(f func()) { f() }
	w := &watcher{done: make(chan error, 1)}
	to := ""
	if s.Own {
		cfg := &aem.Config{TakeProcs: true, HeapBudget: s.Heap, HeapPrefault: s.Heap > 0}
		if s.Apart {
			all, err := sys.ThreadCPUs()
			if err != nil {
				return err
			}
			cfg.LoopCPUs = all[:1]
		}
		ex, err := aem.New(cfg)
		if err != nil {
			return err
		}
		defer ex.Close()
		urgent, err := ex.Class("stamps", aem.ClassConfig{Inline: true})
		if err != nil {
			return err
		}
		busy, err := ex.Class("busy", aem.ClassConfig{Level: aem.Background, Deadline: aem.NoDeadline, Budget: time.Hour})
		if err != nil {
			return err
		}
		for range s.Busy {
			if err := busy.Go(func(*aem.Ctx) { compute(&stop) }); err != nil {
				return err
			}
		}
		t := &aem.Task{}
		handle = func(f func()) {
			t.Run = func(*aem.Ctx) { f() }
			urgent.Submit(t)
		}
		if s.Loop != "" {
			if to, err = w.listen(ex, urgent, s); err != nil {
				return err
			}
		}
	} else {
		for range s.Busy {
			go compute(&stop)
		}
	}
	if s.Garbage {
		go garbage.Make(&stop)
	}
	// Without the privilege nice says so and runs it all the same.
	stamper := exec.Command("nice", "-n", "-15", self, "-role", "stamper", "-addr", to)
	out, err := stamper.StdoutPipe()
	if err != nil {
		return err
	}
	if err := stamper.Start(); err != nil {
		return err
	}
	defer func() {
		stamper.Process.Kill()
		stamper.Wait()
	}()
	if to == "" {
		go w.read(out, handle)
	}
	err = <-w.done
	stop.Store(true)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result{
		N: int(w.h.Count), Collections: int(collections() - w.gcs), P50: w.h.Quantile(0.5), P99: w.h.Quantile(0.99), P999: w.h.Quantile(0.999), Most: w.h.Most,
	})
}
