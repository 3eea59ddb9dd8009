package aem

import (
	"slices"
	"strings"
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

func TestCPUs(t *testing.T) {
	may, err := sys.ThreadCPUs()
	if err != nil {
		t.Fatal(err)
	}
	want := may[len(may)-1:]
	ex := newExecutor(t, &Config{CPUs: want})
	var got []int
	if err := ex.Background().Do(bounded(t), func(*Ctx) { got, _ = sys.ThreadCPUs() }); err != nil || !slices.Equal(got, want) {
		t.Errorf("a lowered worker may run on %v, want %v (%v)", got, want, err)
	}
	if err := ex.Normal().Do(bounded(t), func(*Ctx) { got, _ = sys.ThreadCPUs() }); err != nil || !slices.Equal(got, may) {
		t.Errorf("another may run on %v, want %v (%v)", got, may, err)
	}
	if _, err := New(&Config{CPUs: []int{1 << 16}}); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Errorf("a processor that does not exist: %v", err)
	}
}
