package ctl

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

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
