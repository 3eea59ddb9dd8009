package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"midplane/aem/aemview"
	"midplane/internal/cli/aemtool"
)

// newAEM is what concerns executors of events.
func newAEM(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "aem",
		Short: "See what the event executor of a program does, and what one would do on this machine",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAEMTop(e), newAEMBench(e))
	return c
}

func newAEMTop(e *env) *cobra.Command {
	t := &aemtool.Top{}
	var plain bool
	c := &cobra.Command{
		Use:   "top SOCKET",
		Short: "Show classes, loops and events of a program live",
		Long: `Shows the classes, loops and events of a program that called aemview.Serve with that socket: how long work waits, how much is
shed, how busy the loops are. On a terminal the view is live (q ends it, e hides the events, space freezes it), elsewhere it is
text, one block a snapshot.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if t.Interval < aemview.MinInterval || t.Interval > aemview.MaxInterval {
				return usagef("--interval is %v, want %v to %v", t.Interval, aemview.MinInterval, aemview.MaxInterval)
			}
			if t.Count < 0 {
				return usagef("--count is %d, want 0 or more", t.Count)
			}
			t.Path, t.In, t.Out, t.Live = args[0], e.in, e.out, !plain && isTerminal(e.out)
			if err := t.Run(c.Context()); err != nil {
				return fmt.Errorf("showing %s: %w", t.Path, err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.DurationVar(&t.Interval, "interval", time.Second, "time between two snapshots")
	f.IntVar(&t.Count, "count", 0, "end after so many snapshots; 0: when interrupted")
	f.BoolVarP(&t.JSON, "json", "j", false, "a line of JSON a snapshot")
	f.BoolVar(&plain, "plain", false, "text, even on a terminal")
	return c
}

func newAEMBench(e *env) *cobra.Command {
	b := &aemtool.Bench{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Show what becomes of light work under heavy load, with goroutines and with aem",
		Long: `Offers this machine's processors more heavy work than they can do, and light work beside it, first as goroutines and then by
an executor: how long light work takes, and how much of the heavy work ends in time. It also tells which back ends of the
event loop work here, and why not. Benchmarks against other libraries are in bench/.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if b.For < 100*time.Millisecond || b.For > time.Hour {
				return usagef("--for is %v, want 100ms to 1h", b.For)
			}
			if b.Load < 0.1 || b.Load > 10 {
				return usagef("--load is %g, want 0.1 to 10", b.Load)
			}
			b.Out = e.out
			return b.Run(c.Context())
		},
	}
	f := c.Flags()
	f.DurationVar(&b.For, "for", 5*time.Second, "length of each of the two runs")
	f.BoolVarP(&b.JSON, "json", "j", false, "JSON, durations in ns")
	f.Float64Var(&b.Load, "load", 1.5, "heavy work offered, as a multiple of what the processors can do")
	return c
}
