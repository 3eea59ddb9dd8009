// Package hist counts durations in fixed buckets of at most 1/32 relative width, without allocating.
package hist

import (
	"math/bits"
	"time"
)

const (
	subBits = 5 // 2^subBits buckets an octave
	sub     = 1 << subBits
	octaves = 36 // the last bucket begins above 18 minutes
	buckets = (octaves + 1) * sub
)

// Hist is a histogram. The zero value is empty. It is a value: copying it takes a snapshot. Not safe for concurrent use.
type Hist struct {
	Count uint64
	Sum   time.Duration
	Most  time.Duration // the longest that was counted
	n     [buckets]uint64
}

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < sub {
		return int(v)
	}
	e := bits.Len64(v) - subBits - 1
	return min(e*sub+int(v>>e), buckets-1)
}

// upper is the longest duration of a bucket.
func upper(i int) time.Duration {
	if i < sub {
		return time.Duration(i)
	}
	e := i/sub - 1
	return time.Duration((uint64(i%sub+sub)+1)<<e - 1)
}

// Add counts a duration; negative ones are 0.
func (h *Hist) Add(d time.Duration) {
	h.n[bucket(d)]++
	h.Count++
	h.Sum += max(d, 0)
	h.Most = max(h.Most, d)
}

// Merge counts what another histogram has counted.
func (h *Hist) Merge(o *Hist) {
	for i, n := range &o.n {
		h.n[i] += n
	}
	h.Count += o.Count
	h.Sum += o.Sum
	h.Most = max(h.Most, o.Most)
}

// Sub takes away what an earlier snapshot of the same histogram had counted. Most stays.
func (h *Hist) Sub(earlier *Hist) {
	for i, n := range &earlier.n {
		h.n[i] -= n
	}
	h.Count -= earlier.Count
	h.Sum -= earlier.Sum
}

// Quantile returns a duration that the share q (0 to 1) of what was counted does not exceed, at most 1/32 too long and
// never longer than Most; 0 when nothing was counted.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.Count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.Count))
	if float64(rank) < q*float64(h.Count) || rank == 0 {
		rank++
	}
	seen := uint64(0)
	for i, n := range &h.n {
		if seen += n; seen >= rank {
			if i == buckets-1 {
				break
			}
			return min(upper(i), h.Most)
		}
	}
	return h.Most
}

// Mean returns the mean, 0 when nothing was counted.
func (h *Hist) Mean() time.Duration {
	if h.Count == 0 {
		return 0
	}
	return h.Sum / time.Duration(h.Count)
}
