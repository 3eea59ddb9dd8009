// Command aemoverload measures how servers answer light requests (20 us of work, 500 a second) while heavy ones (2 ms) are
// offered at 0.4 to 3 times of what the machine can do, which is measured before each cell. Every server runs in a process of its
// own, and is asked by a generator in another one, at a higher priority, in an open loop: requests leave by a schedule, whatever
// comes back, and latency counts from the schedule. A run whose generator is itself late is done again. All servers run in each round,
// one after the other; what is printed are medians of the rounds. See docs/performance.md.
//
//	cd bench && go run ./aemoverload [-quick | -full] [-rounds 5] [-only aem,net] [-cells "burst, 1.5x"] [-plot overload.svg]
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"midplane/bench/internal/garbage"
	"midplane/bench/internal/stat"
)

// deadline is when the answer to a heavy request is too late.
const deadline = 50 * time.Millisecond

const lightRate = 500.0

// goalLoad is the load from which on there are goals.
const goalLoad = 1.5

// A generator that is later than this, as the 99th percentile, did not keep to the schedule, and what it saw tells little of the server.
// Where there are goals, the run is done again, up to as many tries; the one that kept it best counts, for every server. Below, processors
// are idle now and then, and some virtual ones take milliseconds to wake.
const (
	lateness = time.Millisecond
	tries    = 4
)

var (
	rounds = flag.Int("rounds", 5, "rounds; medians are reported")
	run    = flag.Duration("run", 2*time.Second, "measured time of one run, after half a second to settle")
	quick  = flag.Bool("quick", false, "the most important cells, two short rounds: to see that it runs, not for numbers")
	full   = flag.Bool("full", false, "every load in every scenario, with and without garbage")
	only   = flag.String("only", "", "comma-separated servers; empty: all")
	which  = flag.String("cells", "", "semicolon-separated cells, named as they are printed (burst, 1.5x; steady, 3x, garbage); empty: all")
	live   = flag.Int("live", 16, "MB that the garbage keeps alive, 1 or more")
	budget = flag.Int("heap", 512, "MB that the heap of each server may grow to before it is collected (aem's Config.HeapBudget; GOGC of the others is set alike), 0 for as the runtime has it")
	plot   = flag.String("plot", "overload.svg", "where the plot of latency over load goes; empty: nowhere")

	roleServer = flag.String("server", "", "run as this server (internal)")
	roleGen    = flag.String("generate", "", "run as the generator with this plan (internal)")
	roleProbe  = flag.Bool("probe", false, "measure what the machine does, and print it (internal)")
	churn      = flag.Bool("churn", false, "the server makes garbage (internal)")
	spin       = flag.Int("spin", 0, "work for a microsecond (internal)")
)

// cell is one set-up of the matrix.
type cell struct {
	Scenario string
	Load     float64
	Garbage  bool
}

func (c cell) String() string {
	s := fmt.Sprintf("%s, %gx", c.Scenario, c.Load)
	if c.Garbage {
		s += ", garbage"
	}
	return s
}

var loads = []float64{0.4, 0.8, 1, 1.5, 3}

func cells() (l []cell) {
	for _, load := range loads {
		l = append(l, cell{"steady", load, false})
	}
	switch {
	case *quick:
		return []cell{{"steady", 0.4, false}, {"steady", 1.5, false}, {"steady", 3, false}, {"steady", 1.5, true}}
	case *full:
		for _, load := range loads {
			l = append(l, cell{"steady", load, true})
		}
		for _, s := range []string{"burst", "slow readers", "10k idle"} {
			for _, load := range loads {
				l = append(l, cell{s, load, false}, cell{s, load, true})
			}
		}
		return l
	}
	return append(l, cell{"steady", 1.5, true}, cell{"steady", 3, true}, cell{"burst", 1.5, false}, cell{"slow readers", 1.5, false}, cell{"10k idle", 1.5, false})
}

// named returns those of a list that are named; all when none is.
func named(list []cell, names string) (chosen []cell, err error) {
	if names == "" {
		return list, nil
	}
	for name := range strings.SplitSeq(names, ";") {
		i := slices.IndexFunc(list, func(c cell) bool { return c.String() == strings.TrimSpace(name) })
		if i < 0 {
			var have []string
			for _, c := range list {
				have = append(have, c.String())
			}
			return nil, fmt.Errorf("no cell is called %q; there are %s", strings.TrimSpace(name), strings.Join(have, "; "))
		}
		chosen = append(chosen, list[i])
	}
	return chosen, nil
}

func main() {
	flag.Parse()
	spinPerMicrosecond = *spin
	var err error
	if *roleServer == "" {
		garbage.Keep(*live)
	}
	switch {
	case *roleServer != "":
		err = runServer(*roleServer, *churn)
	case *roleProbe:
		err = runProbe(*churn)
	case *roleGen != "":
		var p plan
		if err = json.Unmarshal([]byte(*roleGen), &p); err == nil {
			err = generate(p)
		}
	default:
		err = orchestrate()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "aemoverload:", err)
		os.Exit(1)
	}
}

// measured is one run of one server in one cell.
type measured struct {
	result
	machine
	again            int // runs that the generator spoiled
	rssEarly, rssEnd int // KiB, after a third of the run and at its end
}

func orchestrate() error {
	if *quick {
		*rounds, *run = min(*rounds, 2), min(*run, time.Second)
	}
	var chosen []server
	for _, s := range servers {
		if *only == "" || slices.Contains(strings.Split(*only, ","), s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no server is called %s", *only)
	}
	list, err := named(cells(), *which)
	if err != nil {
		return err
	}
	calibrate()
	fmt.Printf("%s, %d processors; deadline %v; %d rounds of %v; load average %s; garbage keeps %d MB alive, heaps may have %d MB\n\n",
		runtime.Version(), runtime.NumCPU(), deadline, *rounds, *run, loadAverage(), *live, *budget)
	all := map[cell]map[string][]measured{}
	for round := range *rounds {
		for _, c := range list {
			now, err := probed(c.Garbage)
			if err != nil {
				return err
			}
			for i := range chosen {
				s := chosen[(i+round)%len(chosen)] // nobody is always first
				m, err := best(s, c, now, uint64(round))
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, c, err)
				}
				if all[c] == nil {
					all[c] = map[string][]measured{}
				}
				all[c][s.name] = append(all[c][s.name], m)
			}
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %-30s", round+1, *rounds, c)
		}
	}
	fmt.Fprint(os.Stderr, "\r", strings.Repeat(" ", 60), "\r")
	report(list, chosen, all)
	if *plot != "" {
		if err := os.WriteFile(*plot, []byte(svg(list, chosen, all)), 0o644); err != nil {
			return err
		}
		fmt.Println("\nplot:", *plot)
	}
	return nil
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	w, _, _ := strings.Cut(string(b), " ")
	return w
}

// best runs one server in one cell until the generator keeps to the schedule.
func best(s server, c cell, now machine, seed uint64) (measured, error) {
	n := tries
	if c.Load < goalLoad {
		n = 1
	}
	m, runs, err := stat.Best(n, lateness, func() (measured, error) {
		settle()
		return one(s, c, now.Capacity, seed)
	}, func(m measured) time.Duration { return m.Late })
	m.again, m.machine = runs-1, now
	return m, err
}

// serverFlags are the flags of a process that works like a server.
func serverFlags(garbage bool) []string {
	return []string{"-spin", strconv.Itoa(spinPerMicrosecond), "-churn=" + strconv.FormatBool(garbage), "-heap", strconv.Itoa(*budget)}
}

// one runs one server in one cell.
func one(s server, c cell, capacity float64, seed uint64) (m measured, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	srv := exec.Command(self, append(serverFlags(c.Garbage), "-server", s.name)...)
	srv.Stderr = os.Stderr
	in, err := srv.StdinPipe()
	if err != nil {
		return m, err
	}
	out, err := srv.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := srv.Start(); err != nil {
		return m, err
	}
	defer func() {
		in.Close()
		srv.Process.Kill()
		srv.Wait()
	}()
	// gnet logs to standard output, so the address is the first line that looks like one.
	addr, lines := "", bufio.NewScanner(out)
	for addr == "" {
		if !lines.Scan() {
			return m, errors.New("the server told no address")
		}
		if strings.HasPrefix(lines.Text(), "127.0.0.1:") {
			addr = lines.Text()
		}
	}
	p := plan{Addr: addr, Light: lightRate, Heavy: c.Load * capacity, Warm: 500 * time.Millisecond, Run: *run, Burst: 1, Seed: seed}
	switch c.Scenario {
	case "burst":
		p.Burst = 20
	case "slow readers":
		p.Slow = 20
	case "10k idle":
		p.Idle = 10_000
	}
	text, err := json.Marshal(p)
	if err != nil {
		return m, err
	}
	// Without the privilege nice says so and runs it all the same.
	gen := exec.Command("nice", "-n", "-15", self, "-generate", string(text))
	gen.Stderr = os.Stderr
	told, err := gen.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := gen.Start(); err != nil {
		return m, fmt.Errorf("generator: %w", err)
	}
	defer gen.Wait()
	defer gen.Process.Kill()
	answers := json.NewDecoder(told)
	if err := answers.Decode(new(started)); err != nil {
		return m, fmt.Errorf("generator: %w", err)
	}
	early := time.AfterFunc(p.Warm+*run/3, func() { m.rssEarly = rss(srv.Process.Pid) })
	last := time.AfterFunc(p.Warm+*run, func() { m.rssEnd = rss(srv.Process.Pid) })
	defer early.Stop()
	defer last.Stop()
	if err := answers.Decode(&m.result); err != nil {
		return m, fmt.Errorf("generator: %w", err)
	}
	return m, nil
}

// rss returns the resident memory of a process in KiB.
func rss(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
