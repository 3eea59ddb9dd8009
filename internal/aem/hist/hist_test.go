package hist

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Against the sorted list: never below the exact quantile, and at most 1/32 above it.
func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shift := rapid.IntRange(0, 40).Draw(t, "shift")
		all := rapid.SliceOfN(rapid.Int64Range(0, 1<<shift), 1, 300).Draw(t, "durations")
		var h, first Hist
		for i, d := range all {
			h.Add(time.Duration(d))
			if i == len(all)/2 {
				first = h
			}
		}
		sorted := slices.Sorted(slices.Values(all))
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			rank := max(int(math.Ceil(q*float64(len(all)))), 1)
			exact := sorted[rank-1]
			got := int64(h.Quantile(q))
			if got < exact && exact < int64(upper(buckets-2)) || got > exact+exact/32+1 && got > int64(upper(buckets-2)) {
				t.Fatalf("quantile %v of %d is %d, exactly %d", q, len(all), got, exact)
			}
		}
		if h.Most != time.Duration(sorted[len(sorted)-1]) {
			t.Fatalf("most is %v", h.Most)
		}
		rest := h
		rest.Sub(&first)
		rest.Merge(&first)
		if rest != h {
			t.Fatal("what was taken away and given back is not the same")
		}
	})
}

func TestBucketsAreInOrder(t *testing.T) {
	for i := range buckets - 1 {
		if got := bucket(upper(i)); got != i {
			t.Fatalf("the end of bucket %d is in bucket %d", i, got)
		}
		if got := bucket(upper(i) + 1); got != i+1 {
			t.Fatalf("what follows bucket %d is in bucket %d", i, got)
		}
	}
	if bucket(-1) != 0 || bucket(math.MaxInt64) != buckets-1 {
		t.Error("out of range")
	}
}

func TestEmpty(t *testing.T) {
	var h Hist
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram has values")
	}
	h.Add(-time.Second)
	h.Add(10)
	if h.Mean() != 5 || h.Quantile(1) != 10 {
		t.Errorf("mean %v, longest %v", h.Mean(), h.Quantile(1))
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	var h Hist
	if n := testing.AllocsPerRun(100, func() { h.Add(time.Millisecond); h.Quantile(0.99) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
