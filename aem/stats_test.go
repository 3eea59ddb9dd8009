package aem

import (
	"bytes"
	"context"
	"runtime/trace"
	"testing"
	"time"

	"midplane/internal/aem/ctl"
	"midplane/internal/mono"
)

func TestStats(t *testing.T) {
	ex := newExecutor(t, &Config{Workers: 2})
	c := newClass(t, ex, "own", ClassConfig{Level: Normal, Nice: 19, Queue: 5, Deadline: time.Hour})
	release := occupy(t, c)
	if err := c.Go(func(*Ctx) {}); err != nil {
		t.Fatal(err)
	}
	for c.Stats().Oldest == 0 {
	}
	s := ex.Stats()
	names := ""
	for _, c := range s.Classes {
		names += c.Name + " "
	}
	if names != "critical normal background own " || s.Workers != 2 || s.TookProcs {
		t.Errorf("classes %s, %d workers, took GOMAXPROCS %v", names, s.Workers, s.TookProcs)
	}
	if o := s.Classes[3]; o.Level != Normal || o.Nice != 19 || o.Queue != 5 || o.Deadline != time.Hour || o.Waiting != 1 || o.Running != 2 ||
		o.MostWaiting < 1 || o.Accepted != 3 || o.Ran != 0 || o.Total.Count != 0 {
		t.Errorf("%+v", o)
	}
	release()
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if o := c.Stats(); o.Ran != 3 || o.Running != 0 || o.Waiting != 0 || o.Total.Count != 3 || o.Total.P50 <= 0 || o.Total.P50 > o.Total.Max ||
		o.Wait.Max > o.Total.Max || o.Total.Mean < o.Run.Mean {
		t.Errorf("%+v", o)
	}
}

// Lowered workers give way while goroutines or urgent tasks wait too long, and come back; others do not.
func TestGivesWay(t *testing.T) {
	ex := newExecutor(t, &Config{Workers: 4})
	gate := make(chan struct{})
	defer close(gate)
	for _, c := range []*Class{ex.Background(), ex.Normal()} {
		began := make(chan struct{})
		if err := c.Go(func(*Ctx) { close(began); <-gate }); err != nil {
			t.Fatal(err)
		}
		<-began
		p := c.pool
		p.mu.Lock()
		now := mono.Now()
		for range 10 * patience {
			p.control(ctl.Sample{Scheduling: time.Second}, now)
		}
		task := &Task{}
		task.core.Deadline = mono.Never
		if !p.core.Submit(now, c.core, &task.core) {
			t.Fatal("not accepted")
		}
		if gave := !p.core.Ready(); gave != (c == ex.Background()) {
			t.Errorf("%s: one runs, one waits, and the next may not begin: %v", c.name, gave)
		}
		for range 4 {
			p.control(ctl.Sample{}, now)
		}
		if !p.core.Ready() {
			t.Errorf("%s: the workers did not come back", c.name)
		}
		p.core.Cancel(&task.core)
		p.core.Decided()
		p.mu.Unlock()
	}
	if ex.Stats().GaveWay == 0 {
		t.Error("it was not counted")
	}
}

// While the program is traced, each run is a region with the name of its class.
func TestTrace(t *testing.T) {
	if trace.IsEnabled() {
		t.Skip("the test itself is traced")
	}
	var b bytes.Buffer
	if err := trace.Start(&b); err != nil {
		t.Fatal(err)
	}
	ex := newExecutor(t, nil)
	c := newClass(t, ex, "a class with a name", ClassConfig{Inline: true})
	err := c.Do(context.Background(), func(*Ctx) {})
	trace.Stop()
	if err != nil || !bytes.Contains(b.Bytes(), []byte("a class with a name")) {
		t.Errorf("%v, %d octets of trace", err, b.Len())
	}
}
