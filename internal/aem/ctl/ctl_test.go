package ctl

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestResize(t *testing.T) {
	over := Sample{Scheduling: 2}
	c := New(Config{Workers: 8, Goal: 1, Patience: 1})
	for i, s := range []struct{ workers, allowed, next int }{{12, 12, 12}, {4, 4, 4}, {4, 4, 4}, {1, 1, 1}, {8, 8, 8}} {
		if c.Resize(s.workers); c.Allowed() != s.allowed || c.Step(Sample{}) != s.next {
			t.Fatalf("step %d: %d workers are allowed, want %d of %d", i, c.Allowed(), s.allowed, s.workers)
		}
	}
	c.Step(over) // 6 of 8
	if c.Resize(10); c.Allowed() != 6 || c.Step(Sample{}) != 7 {
		t.Fatalf("%d of 10 are allowed: those that gave way come back one by one", c.Allowed())
	}
	if c.Resize(3); c.Allowed() != 3 || c.Step(Sample{Stalled: 9}) != 6 {
		t.Fatalf("%d of 3 are allowed", c.Allowed())
	}
}

func TestStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Workers:  rapid.IntRange(1, 64).Draw(t, "workers"),
			Goal:     time.Duration(rapid.IntRange(1, 1000).Draw(t, "goal")),
			Patience: rapid.IntRange(1, 5).Draw(t, "patience"),
		}
		c := New(cfg)
		row := 0 // samples above the goal in a row, since it acted last
		for range 200 {
			before := c.Allowed()
			s := Sample{
				Scheduling: time.Duration(rapid.IntRange(0, 2000).Draw(t, "scheduling")),
				Urgent:     time.Duration(rapid.IntRange(0, 2000).Draw(t, "urgent")),
				Stalled:    rapid.IntRange(0, 100).Draw(t, "stalled"),
			}
			got := c.Step(s)
			above := s.Scheduling > cfg.Goal || s.Urgent > cfg.Goal
			switch {
			case !above:
				row = 0
				if c.Allowed() != min(before+1, cfg.Workers) {
					t.Fatalf("calm: %d after %d", c.Allowed(), before)
				}
			case row+1 < cfg.Patience || before == 1:
				row++
				if c.Allowed() != before {
					t.Fatalf("acted after %d samples: %d after %d", row, c.Allowed(), before)
				}
			default:
				row = 0
				if c.Allowed() >= before {
					t.Fatalf("did not give way: %d after %d", c.Allowed(), before)
				}
			}
			if c.Allowed() < 1 || c.Allowed() > cfg.Workers || got < c.Allowed() || got > 2*cfg.Workers || (s.Stalled == 0 && got != c.Allowed()) {
				t.Fatalf("allowed %d, run %d of %d", c.Allowed(), got, cfg.Workers)
			}
		}
		for range cfg.Workers {
			c.Step(Sample{})
		}
		if c.Allowed() != cfg.Workers {
			t.Fatalf("%d workers after a calm time, want %d", c.Allowed(), cfg.Workers)
		}
	})
}

func TestConfigOutOfRange(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Config{})
}
