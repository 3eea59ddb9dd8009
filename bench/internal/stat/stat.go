// Package stat has the few sums that the comparisons report.
package stat

import (
	"cmp"
	"slices"
)

// Median returns the middle of v, of an even number the mean of the two in the middle, of none 0. v stays as it is.
func Median[T ~int | ~int64 | ~float64](v []T) T {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// MedianOf returns the median of one value of each row.
func MedianOf[R any, T ~int | ~int64 | ~float64](rows []R, f func(R) T) T {
	return Median(Column(rows, f))
}

// Ratio divides a by b round by round and returns the median.
func Ratio(a, b []float64) float64 {
	l := make([]float64, len(a))
	for i := range a {
		l[i] = a[i] / b[i]
	}
	return Median(l)
}

// Column returns one value of each row.
func Column[R, T any](rows []R, f func(R) T) []T {
	v := make([]T, len(rows))
	for i, r := range rows {
		v[i] = f(r)
	}
	return v
}

// Best runs something, again up to tries times in all while it was disturbed by more than limit, and returns the run that was
// disturbed least, and how many there were. It ends with the first error.
func Best[R any, D cmp.Ordered](tries int, limit D, run func() (R, error), disturbed func(R) D) (best R, runs int, err error) {
	for {
		r, err := run()
		if err != nil {
			return r, runs, err
		}
		if runs++; runs == 1 || disturbed(r) < disturbed(best) {
			best = r
		}
		if runs >= tries || disturbed(best) <= limit {
			return best, runs, nil
		}
	}
}
