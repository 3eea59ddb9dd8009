package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/internal/dev"
)

func newDev(e *env) *cobra.Command {
	var length, up, down time.Duration
	var plain bool
	var dir string
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a three-node demonstration cluster: no root, no configuration",
		Long: `Runs three TIPC nodes in one process, which find each other and talk over real UDP sockets on loopback. A service
runs on the first; every few seconds that node is killed, the service moves to another, and moves home when the node
is back. A client on the third node asks the service all the time, always by the same address.

On a terminal the state is shown live, elsewhere as lines.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if length < 0 || up <= 0 || down <= 0 {
				return usagef("--for cannot be negative, --up and --down must be positive")
			}
			ctx := c.Context()
			if dir != "" {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
			}
			cl, err := dev.NewCluster(dir, nil)
			if err != nil {
				return err
			}
			if err := cl.Meet(ctx); err != nil {
				return errors.Join(quietly(ctx, err), cl.Close())
			}
			view := &devView{w: e.out, cluster: cl, live: !plain && isTerminal(e.out)}
			view.begin()
			if length > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, length)
				defer cancel()
			}
			err = (&dev.Story{Cluster: cl, Up: up, Down: down, Report: view.report}).Run(ctx)
			view.end()
			return errors.Join(err, cl.Close(), view.err)
		},
	}
	f := c.Flags()
	f.DurationVar(&length, "for", 0, "end after this time; 0: run until interrupted")
	f.DurationVar(&up, "up", 8*time.Second, "how long the first node lives")
	f.DurationVar(&down, "down", 6*time.Second, "how long it stays dead")
	f.BoolVar(&plain, "plain", false, "lines, even on a terminal")
	f.StringVar(&dir, "dir", "", "directory for the control sockets; default: a temporary one")
	return c
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// devView shows the demonstration: a screen that is drawn anew with each change, or a line for each event.
type devView struct {
	w       io.Writer
	cluster *dev.Cluster
	live    bool
	log     []string
	err     error
	last    dev.Status
}

const devLog = 12 // lines of history on the screen

func (v *devView) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(v.w, format, args...); err != nil && v.err == nil {
		v.err = err
	}
}

func (v *devView) hints() string {
	var b strings.Builder
	b.WriteString("Talk to it from another terminal:\n")
	control := v.cluster.Control(dev.Size - 1)
	fmt.Fprintf(&b, "  midplane tipc --control %s node list\n", control)
	fmt.Fprintf(&b, "  midplane tipc --control %s nametable show\n", control)
	fmt.Fprintf(&b, "  echo hello | midplane tipc pipe --control %s %v\n", control, dev.Service)
	fmt.Fprintf(&b, "  midplane tipc subscribe --control %s %d\n", control, dev.Service.Type)
	return b.String()
}

func (v *devView) begin() {
	if v.live {
		v.printf("\x1b[?25l\x1b[2J")
		return
	}
	v.printf("Three TIPC nodes in this process, over UDP on loopback. Control sockets:\n")
	for i := range dev.Size {
		v.printf("  %s  %s\n", v.cluster.Name(i), v.cluster.Control(i))
	}
	v.printf("%s\n", v.hints())
}

func (v *devView) end() {
	if v.live {
		v.printf("\x1b[?25h\n")
	}
	v.printf("%d requests answered, %d failed\n", v.last.Answers, v.last.Failures)
}

func (v *devView) report(e dev.Entry, st dev.Status) {
	v.last = st
	line := ""
	if e.Text != "" {
		line = fmt.Sprintf("%6.2fs  %s", e.At.Seconds(), e.Text)
	}
	if !v.live {
		if line != "" {
			v.printf("%s\n", line)
		}
		return
	}
	if line != "" {
		v.log = append(v.log, line)
		v.log = v.log[max(0, len(v.log)-devLog):]
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\x1b[K\n", args...) }
	put("Midplane: three TIPC nodes in this process, over UDP on loopback. Ctrl-C ends.")
	put("")
	for i := range dev.Size {
		state, mark := "\x1b[31mdown\x1b[0m", ""
		if st.Up[i] {
			state = "\x1b[32mup  \x1b[0m"
		}
		if v.cluster.Name(i) == st.Server {
			mark = fmt.Sprintf("<- service %v", dev.Service)
		}
		put("  %s  %s  %s  %s", v.cluster.Name(i), state, v.cluster.Control(i), mark)
	}
	put("")
	put("  client on %s: %d requests answered, %d failed, last took %v", v.cluster.Name(dev.Size-1), st.Answers, st.Failures, st.Latency.Round(time.Microsecond))
	put("")
	for _, l := range v.log {
		put("%s", l)
	}
	for range devLog - len(v.log) {
		put("")
	}
	put("")
	b.WriteString(strings.ReplaceAll(v.hints(), "\n", "\x1b[K\n"))
	b.WriteString("\x1b[J")
	v.printf("%s", b.String())
}
