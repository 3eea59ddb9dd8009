package aem

import (
	"testing"
	"time"
)

// While a lowered handler runs a loop comes round by itself, for it keeps its P for moments only; when none runs, it sleeps in the
// kernel until something happens. So many loops as GOMAXPROCS has room for do that, and their places are given back.
func TestHold(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	ex := newExecutor(t, &Config{TakeProcs: true})
	for _, backend := range []string{"epoll", "io_uring"} {
		l, err := NewLoop(ex, &LoopConfig{Backend: backend})
		if err != nil {
			t.Skip(err)
		}
		over, err := NewLoop(ex, &LoopConfig{Backend: backend})
		if err != nil {
			t.Fatal(err)
		}
		turns := func(l *Loop, d time.Duration) uint64 {
			from := l.Stats().Turns
			time.Sleep(d) // what is counted is what happens meanwhile
			return l.Stats().Turns - from
		}
		const own = 4 // turns that asking takes
		if n := turns(l, 100*time.Millisecond); n > own {
			t.Errorf("%s: %d turns although nothing runs", backend, n)
		}
		if err := ex.Background().Do(bounded(t), func(*Ctx) {
			for give := time.Now().Add(time.Minute); turns(l, 20*time.Millisecond) <= own; {
				if time.Now().After(give) {
					t.Errorf("%s: the loop gives its P up while a lowered handler runs", backend)
					return
				}
			}
			from := ex.pace.beats.Load()
			eventually(t, "beats, which the loop makes", func() bool { return ex.pace.beats.Load() > from+3 })
			if !ex.pace.asleep.Load() {
				t.Errorf("%s: the pacemaker's thread beats although the loop does", backend)
			}
			if n := turns(over, 100*time.Millisecond); n > own {
				t.Errorf("%s: %d turns of a second loop, for which there is no P", backend, n)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if n := turns(l, 100*time.Millisecond); n > own {
			t.Errorf("%s: %d turns although nothing runs any more", backend, n)
		}
		for _, l := range []*Loop{l, over} {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := ex.pace.loops.Load(); n != 0 {
			t.Errorf("%s: %d loops hold after Close", backend, n)
		}
	}
}
