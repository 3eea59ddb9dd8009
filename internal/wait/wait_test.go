package wait

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWakeAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g Gate
		g.Init(&mu)
		ready := false
		wait := func() error {
			mu.Lock()
			defer mu.Unlock()
			for !ready {
				if err := g.Wait(); err != nil {
					return err
				}
			}
			return nil
		}
		res := make(chan error, 3)
		for range 3 {
			go func() { res <- wait() }()
		}
		synctest.Wait()
		mu.Lock()
		ready = true
		g.Wake()
		mu.Unlock()
		for range 3 {
			if err := <-res; err != nil {
				t.Fatal(err)
			}
		}

		ready = false
		start := time.Now()
		mu.Lock()
		g.SetDeadline(start.Add(time.Second))
		mu.Unlock()
		go func() { res <- wait() }()
		time.Sleep(500 * time.Millisecond)
		mu.Lock()
		g.SetDeadline(start.Add(3 * time.Second)) // moved while someone waits
		mu.Unlock()
		if err := <-res; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Fatal(err, time.Since(start))
		}
		if err := wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("an expired deadline stays", err)
		}
		mu.Lock()
		g.SetDeadline(time.Time{})
		if g.Expired() {
			t.Fatal("expired after removal")
		}
		g.SetDeadline(time.Now().Add(-1))
		if !g.Expired() {
			t.Fatal("a deadline in the past")
		}
		g.Stop()
		mu.Unlock()
	})
}

func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g Gate
		g.Init(&mu)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			mu.Lock()
			defer mu.Unlock()
			defer g.WithContext(ctx)()
			for ctx.Err() == nil {
				g.Wait()
			}
			done <- ctx.Err()
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

func TestWaitDoesNotAllocate(t *testing.T) {
	var mu sync.Mutex
	var g Gate
	g.Init(&mu)
	turn := 0
	go func() {
		mu.Lock()
		for turn < 2002 {
			for turn%2 == 0 {
				g.Wait()
			}
			turn++
			g.Wake()
		}
		mu.Unlock()
	}()
	n := testing.AllocsPerRun(1000, func() {
		mu.Lock()
		turn++
		g.Wake()
		for turn%2 == 1 {
			g.Wait()
		}
		mu.Unlock()
	})
	if n > 0 {
		t.Errorf("%v allocations a wait", n)
	}
}
