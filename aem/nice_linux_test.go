package aem

import (
	"testing"

	"midplane/internal/sys"
)

// A class runs with its niceness, and nothing else does afterwards.
func TestNiceness(t *testing.T) {
	base, err := sys.ThreadNice()
	if err != nil {
		t.Fatal(err)
	}
	ex := newExecutor(t, nil)
	for nice, c := range map[int]*Class{
		base: ex.Normal(), 19: ex.Background(), max(7, base): newClass(t, ex, "seven", ClassConfig{Level: Normal, Nice: 7}),
	} {
		got := -1
		if err := c.Do(bounded(t), func(*Ctx) { got, _ = sys.ThreadNice() }); err != nil || got != nice {
			t.Errorf("%s runs with niceness %d, want %d (%v)", c.Name(), got, nice, err)
		}
	}
	if err := ex.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan int)
	for range 50 {
		go func() {
			n, _ := sys.ThreadNice()
			ended <- n
		}()
	}
	for range 50 {
		if n := <-ended; n != base {
			t.Errorf("a goroutine runs with niceness %d after Shutdown", n)
		}
	}
}
