//go:build linux

// Command digsigexec measures what enforcement costs where programs are started and libraries are loaded: with none, with
// Midplane's enforcer (warm: verdicts are kept in the kernel; cold: every file is read and verified anew), and with
// fapolicyd (Debian's, integrity=sha256). Each measurement goes in turn to a file system that is watched and to one that
// never is, the control, so that what else happens on the machine meets both alike; each round runs all ways one after the
// other. What is reported is the watched one's time divided by the control's, and that divided by the same with no
// enforcement (the file systems differ); the medians of the rounds.
//
//	go run . [-rounds 5] [-n 400] [-jobs 200]
//
// It needs root, gcc, xfsprogs, and fapolicyd for the comparison; everything is made in a mount namespace of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"text/tabwriter"
	"time"

	"midplane/bench/internal/stat"
	"midplane/internal/digsig/enforcer"
)

const inside = "MIDPLANE_BENCH_INSIDE"

var verbose = flag.Bool("v", false, "tell of each measurement")

func main() {
	enforcer.Main()
	rounds := flag.Int("rounds", 5, "rounds; medians are reported")
	n := flag.Int("n", 400, "starts and loads of each measurement")
	jobs := flag.Int("jobs", 200, "jobs of the build")
	flag.Parse()
	if os.Getuid() != 0 {
		fatal("it needs root")
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			os.Exit(1)
		}
		return
	}
	b, err := newBed()
	if err == nil {
		if err = b.measure(*rounds, *n, *jobs); err == nil {
			err = b.revocation()
		}
		b.close()
	}
	if err != nil {
		fatal("%v", err)
	}
}

func fatal(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "digsigexec: "+format+"\n", a...)
	os.Exit(1)
}

// way is one of what is compared.
type way struct {
	name  string
	start func() (stop func(), err error)
	cold  bool // what is kept is dropped before each start
}

// what is measured: one start of a dynamic program (program, loader, two libraries), one load of a library, one open of a
// data file, and a build: many runs of gcc's compiler proper, eight at a time.
var what = []string{"spawn", "dlopen", "open", "build"}

func (b *bed) measure(rounds, n, jobs int) error {
	ways := []way{
		{"off", func() (func(), error) { return func() {}, nil }, false},
		{"midplane warm", b.midplane, false},
		{"midplane cold", b.midplane, true},
	}
	if _, err := exec.LookPath("fapolicyd"); err == nil {
		ways = append(ways, way{"fapolicyd", b.fapolicyd, false})
	} else {
		fmt.Println("no fapolicyd here (apt-get install fapolicyd): not compared")
	}
	got := map[string]map[string][]pair{}
	for _, w := range ways {
		got[w.name] = map[string][]pair{}
	}
	for round := range rounds {
		for i := range ways { // another order each round
			w := ways[(i+round)%len(ways)]
			stop, err := w.start()
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			begin := time.Now()
			err = b.once(w, n, jobs, got[w.name])
			if *verbose {
				fmt.Fprintf(os.Stderr, "round %d, %s: %v\n", round+1, w.name, time.Since(begin))
			}
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t")
	for _, k := range what {
		fmt.Fprintf(t, "%s us\toverhead\t", k)
	}
	fmt.Fprintln(t)
	for _, w := range ways {
		fmt.Fprintf(t, "%s\t", w.name)
		for _, k := range what {
			r := ratios(got[w.name][k])
			if len(r) == 0 {
				fmt.Fprintf(t, "-\t-\t")
				continue
			}
			fmt.Fprintf(t, "%.1f\t%+.1f %%\t", subject(got[w.name][k]), 100*(stat.Median(r)/stat.Median(ratios(got["off"][k]))-1))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// pair is the same thing measured on the control and on what is watched, microseconds.
type pair struct{ control, subject float64 }

func ratios(p []pair) (r []float64) {
	for _, x := range p {
		r = append(r, x.subject/x.control)
	}
	return r
}

func subject(p []pair) float64 {
	var v []float64
	for _, x := range p {
		v = append(v, x.subject)
	}
	return stat.Median(v)
}

func (b *bed) once(w way, n, jobs int, got map[string][]pair) error {
	state := "warm"
	if w.cold {
		state = "cold"
		n = max(n/5, 20)
	}
	for _, k := range what {
		times := n
		if k == "build" {
			if times = jobs; w.cold {
				continue
			}
		}
		p, err := b.helper(k, state, times)
		if err != nil {
			return err
		}
		got[k] = append(got[k], p)
	}
	return nil
}
