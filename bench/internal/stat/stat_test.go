package stat

import (
	"errors"
	"testing"
)

func TestBest(t *testing.T) {
	failed := errors.New("it failed")
	for _, c := range []struct {
		tries      int
		disturbed  []int // of each run; negative for an error
		best, runs int
		err        error
	}{
		{4, []int{1, 0}, 1, 1, nil},
		{4, []int{5, 1, 0}, 1, 2, nil},
		{3, []int{5, 3, 4, 0}, 3, 3, nil},
		{1, []int{5, 0}, 5, 1, nil},
		{4, []int{5, -1, 0}, -1, 1, failed},
	} {
		k := 0
		best, runs, err := Best(c.tries, 1, func() (d int, err error) {
			if d = c.disturbed[k]; d < 0 {
				err = failed
			}
			k++
			return d, err
		}, func(d int) int { return d })
		if best != c.best || runs != c.runs || err != c.err {
			t.Errorf("%d tries of %v: %d after %d runs, %v; want %d after %d, %v", c.tries, c.disturbed, best, runs, err, c.best, c.runs, c.err)
		}
	}
}
