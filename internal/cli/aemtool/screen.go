package aemtool

import (
	"fmt"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"midplane/aem"
	"midplane/aem/aemview"
)

// Screen is a snapshot, and the one before it, as text.
type Screen struct {
	Now, Before *aemview.Snapshot
	Events      bool // one line an event, else none
	Width       int  // lines are cut to it; 0: not
}

// String is the text.
func (s *Screen) String() string {
	var b strings.Builder
	v, ex := s.Now, &s.Now.Executor
	fmt.Fprintf(&b, "%s (%d)  %s  workers %d  GOMAXPROCS %d%s  scheduling p99 %s  stalls %d  panics %d\n\n", v.Program, v.PID, v.Time.Format("15:04:05"), ex.Workers,
		ex.GOMAXPROCS, map[bool]string{true: " (taken)"}[ex.TookProcs], short(ex.Scheduling), ex.Stalls, ex.Panics)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "class\tlevel\tnice\tran/s\tlost/s\twaiting\toldest\twait p50\tp99\tp99.9\ttotal p99\tlate\tshed\texpired\trejected\t")
	for i := range ex.Classes {
		c := &ex.Classes[i]
		ran, lost := s.rates(c)
		nice := fmt.Sprint(c.Nice)
		if c.Inline {
			nice = "inline"
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%d/%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t\n", c.Name, c.Level, nice, ran, lost, c.Waiting, c.Queue, short(c.Oldest),
			short(c.Wait.P50), short(c.Wait.P99), short(c.Wait.P999), short(c.Total.P99), c.Late, c.Shed, c.Expired, c.Rejected)
	}
	w.Flush()
	if len(v.Loops) > 0 {
		fmt.Fprintln(&b)
		w = tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "loop\tconns\ttimers\tturns/s\tin/s\tout/s\tbuffers held\tqueued\tstarved\taccept pauses\tresets\t")
		for i := range v.Loops {
			l := &v.Loops[i]
			if l.Busy {
				fmt.Fprintf(w, "%s\tbusy\t\t\t\t\t\t\t\t\t\t\n", l.Backend)
				continue
			}
			var was aem.LoopStats
			if s.Before != nil && i < len(s.Before.Loops) && !s.Before.Loops[i].Busy {
				was = s.Before.Loops[i]
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%d\t\n", l.Backend, l.Conns, l.Timers, s.rate(l.Turns, was.Turns), s.octets(l.Received, was.Received),
				s.octets(l.Sent, was.Sent), l.Held, size(float64(l.Queued)), l.Starved, l.AcceptPauses, l.Resets)
		}
		w.Flush()
	}
	if s.Events && len(v.Events) > 0 {
		fmt.Fprintln(&b)
		w = tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "event\tclass\tstate\thappened\tran\trefused\tlost\tpanicked\tpending\t")
		events := v.Events
		sort.SliceStable(events, func(i, j int) bool { return events[i].Happened > events[j].Happened })
		for _, e := range events {
			lost := e.Fates[aem.Shed] + e.Fates[aem.Expired] + e.Fates[aem.Drained]
			fmt.Fprintf(w, "%s\t%s\t%v\t%d\t%d\t%d\t%d\t%d\t%d\t\n", e.Name, e.Class, e.State, e.Happened, e.Fates[aem.Ran], e.Refused, lost, e.Fates[aem.Panicked], e.Pending)
		}
		w.Flush()
	}
	return cut(b.String(), s.Width)
}

func (s *Screen) rates(c *aem.ClassStats) (ran, lost string) {
	var was aem.ClassStats
	if s.Before != nil {
		for _, b := range s.Before.Executor.Classes {
			if b.Name == c.Name {
				was = b
			}
		}
	}
	return s.rate(c.Ran, was.Ran), s.rate(c.Shed+c.Expired+c.Rejected+c.Panicked, was.Shed+was.Expired+was.Rejected+was.Panicked)
}

// since is how long ago the snapshot before was made, 0 if there is none.
func (s *Screen) since() float64 {
	if s.Before == nil {
		return 0
	}
	return s.Now.Time.Sub(s.Before.Time).Seconds()
}

func (s *Screen) rate(now, was uint64) string {
	t := s.since()
	if t <= 0 || now < was {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(now-was)/t)
}

func (s *Screen) octets(now, was uint64) string {
	t := s.since()
	if t <= 0 || now < was {
		return "-"
	}
	return size(float64(now-was) / t)
}

func size(v float64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.0f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f GiB", v)
}

// short is a duration in three digits.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return fmt.Sprintf("%.3gus", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3gs", d.Seconds())
}

// cut shortens lines that a terminal would wrap.
func cut(text string, width int) string {
	if width <= 0 {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		if r := []rune(body); len(r) > width {
			body = string(r[:width])
		}
		b.WriteString(body)
		b.WriteString(line[len(strings.TrimSuffix(line, "\n")):])
	}
	return b.String()
}
