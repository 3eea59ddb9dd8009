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
			view := &devView{w: e.out, cluster: cl, program: e.program, live: !plain && isTerminal(e.out)}
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

// devView shows the demonstration: a screen that is drawn anew with each change, or a line for each event. The screen
// fits a terminal of 80 columns and 24 lines.
type devView struct {
	w       io.Writer
	cluster *dev.Cluster
	program string
	live    bool
	log     []string
	err     error
	last    dev.Status
}

const devLog = 7 // lines of history on the screen

func (v *devView) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(v.w, format, args...); err != nil && v.err == nil {
		v.err = err
	}
}

// hints are commands for a shell in another terminal, as they can be copied.
func (v *devView) hints() string {
	var b strings.Builder
	program := shellWord(v.program)
	fmt.Fprintf(&b, "Talk to it from another terminal, as %s sees it:\n", v.cluster.Name(dev.Size-1))
	fmt.Fprintf(&b, "  export MIDPLANE_CONTROL=%s\n", shellWord(v.cluster.Control(dev.Size-1)))
	fmt.Fprintf(&b, "  %s tipc node list\n", program)
	fmt.Fprintf(&b, "  %s tipc nametable show\n", program)
	fmt.Fprintf(&b, "  echo hello | %s tipc pipe %v\n", program, dev.Service)
	fmt.Fprintf(&b, "  %s tipc subscribe %d\n", program, dev.Service.Type)
	return b.String()
}

// shellWord quotes what a shell would take apart.
func shellWord(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (v *devView) begin() {
	if v.live {
		v.printf("\x1b[?1049h\x1b[?25l") // the other screen, so that this one is there again afterwards; no cursor
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
		v.printf("\x1b[?25h\x1b[?1049l")
		for _, l := range v.log {
			v.printf("%s\n", l)
		}
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
	v.printf("%s", v.screen(st, time.Now()))
}

// screen is everything, with what a terminal needs to draw it over the last one.
func (v *devView) screen(st dev.Status, now time.Time) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\x1b[K\n", args...) }
	home := v.cluster.Name(0)
	put("Midplane: three TIPC nodes in this process, over UDP on loopback. Ctrl-C ends.")
	put("")
	for i := range dev.Size {
		state, mark := "\x1b[31mdown\x1b[0m", ""
		if st.Up[i] {
			state = "\x1b[32mup  \x1b[0m"
		}
		if v.cluster.Name(i) == st.Server {
			mark = fmt.Sprintf("  service %v", dev.Service)
		}
		if i == 0 && st.Up[0] && !st.Alive {
			mark += "  (killed; the others have not noticed yet)"
		}
		put("  %s  %s%s", v.cluster.Name(i), state, mark)
	}
	put("")
	left := max(0, st.Next.Sub(now)).Round(time.Second)
	if st.Alive {
		put("  %s is killed in %v, and the service moves", home, left)
	} else {
		put("  %s comes back in %v, and the service with it", home, left)
	}
	put("  client on %s: %d requests answered, %d failed, last took %v", v.cluster.Name(dev.Size-1), st.Answers, st.Failures, st.Latency.Round(time.Microsecond))
	put("")
	for _, l := range v.log {
		put("%s", l)
	}
	for range devLog - len(v.log) {
		put("")
	}
	put("")
	b.WriteString(strings.ReplaceAll(strings.TrimSuffix(v.hints(), "\n"), "\n", "\x1b[K\n"))
	b.WriteString("\x1b[K\x1b[J")
	return b.String()
}
