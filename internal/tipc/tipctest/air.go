package tipctest

import (
	"math/rand/v2"
	"slices"

	"midplane/internal/mono"
)

const delay = 100_000 // of every packet

// Noise is what happens to packets on their way.
type Noise struct {
	Loss, Dup float64   // probabilities that a packet is lost, and that it is sent twice
	Jitter    mono.Time // added delay, up to this
}

// Flight is a packet under way between nodes of type H.
type Flight[H any] struct {
	At       mono.Time // of arrival
	From, To H
	Bearer   int
	Pkt      []byte
}

// Air has the packets under way, by their time of arrival.
type Air[H any] []Flight[H]

// Send puts a copy of f's packet on its way, at the time f.At. All that is random comes from r.
func (a *Air[H]) Send(r *rand.Rand, f Flight[H], noise Noise) {
	n := 1
	if r.Float64() < noise.Dup {
		n = 2
	}
	for range n {
		if r.Float64() < noise.Loss {
			continue
		}
		c := f
		c.At += delay
		if noise.Jitter > 0 {
			c.At += mono.Time(r.Int64N(int64(noise.Jitter)))
		}
		c.Pkt = slices.Clone(f.Pkt)
		i := len(*a)
		for i > 0 && (*a)[i-1].At > c.At {
			i--
		}
		*a = slices.Insert(*a, i, c)
	}
}

// Next is when the first packet arrives, [mono.Never] if none is under way.
func (a Air[H]) Next() mono.Time {
	if len(a) == 0 {
		return mono.Never
	}
	return a[0].At
}

// Arrived takes out the first packet if it has arrived.
func (a *Air[H]) Arrived(now mono.Time) (f Flight[H], ok bool) {
	if a.Next() > now || len(*a) == 0 {
		return f, false
	}
	f, *a = (*a)[0], (*a)[1:]
	return f, true
}
