package aem

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func newExecutor(t *testing.T, cfg *Config) *Executor {
	t.Helper()
	ex, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	return ex
}

func newClass(t *testing.T, ex *Executor, name string, cfg ClassConfig) *Class {
	t.Helper()
	c, err := ex.Class(name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryTaskLearnsItsFate(t *testing.T) {
	ex := newExecutor(t, nil)
	for _, c := range []*Class{ex.Critical(), ex.Normal(), ex.Background(), newClass(t, ex, "inline", ClassConfig{Inline: true})} {
		var ran atomic.Int64
		fate := make(chan Fate, 1)
		task := &Task{Run: func(x *Ctx) { ran.Add(1) }, Done: func(_ *Task, f Fate) { fate <- f }}
		for range 100 {
			if err := c.Submit(task); err != nil {
				t.Fatal(err)
			}
			if f := <-fate; f != Ran {
				t.Fatalf("%s: %v", c.Name(), f)
			}
		}
		if ran.Load() != 100 {
			t.Errorf("%s: ran %d times", c.Name(), ran.Load())
		}
		if err := c.Do(context.Background(), func(*Ctx) { panic("on purpose") }); FateOf(err) != Panicked {
			t.Errorf("%s: panic: %v", c.Name(), err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := ex.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := ex.Normal().Go(func(*Ctx) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Shutdown: %v", err)
	}
}
