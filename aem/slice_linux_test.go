package aem_test

import (
	"testing"
	"time"

	"midplane/aem"
	"midplane/internal/sys"
)

// The thread of a loop has a processor soon after it wakes: its time slice is the shortest that there is, and nobody else's is.
func TestLoopSlice(t *testing.T) {
	before, err := sys.ThreadSlice()
	must(t, err)
	if before == 0 {
		t.Skip("this kernel has one slice for all threads (before Linux 6.12)")
	}
	ex, err := aem.New(nil)
	must(t, err)
	defer ex.Close()
	for _, backend := range backends {
		want := 100 * time.Microsecond
		if backend == "stdnet" {
			want = before // it has no thread of its own
		}
		l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: backend})
		must(t, err)
		inline, err := ex.Class(backend, aem.ClassConfig{Inline: true})
		must(t, err)
		var d time.Duration
		started := make(chan time.Duration, 1)
		onLoop(t, l, inline, func() {
			d, _ = sys.ThreadSlice()
			go func() {
				d, _ := sys.ThreadSlice()
				started <- d
			}()
		})
		if d != want {
			t.Errorf("on %s a handler runs with a slice of %v, want %v", backend, d, want)
		}
		if d := <-started; d != before {
			t.Errorf("on %s a goroutine that it starts has a slice of %v, want %v", backend, d, before)
		}
		must(t, l.Close())
	}
}
