package xdp

import "fmt"

// Stats returns the counters of a FIB, all 0 for one that never had a port. FIB 0 has those of packets that came in where
// no FIB is.
func (f *Forwarder) Stats(fib uint32) (Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Stats{}, errClosed
	}
	index := f.stats[fib]
	if index == 0 && fib != 0 {
		return Stats{}, nil
	}
	var perCPU []forwardStat
	if err := f.objs.Stats.Lookup(index, &perCPU); err != nil {
		return Stats{}, fmt.Errorf("counters of fib %d: %w", fib, err)
	}
	var s Stats
	for _, c := range perCPU {
		if c.Fib != uint64(fib) { // of a FIB that had the index before
			continue
		}
		s.Octets += c.Octets
		for r := range s.Packets {
			s.Packets[r] += c.N[r]
		}
	}
	return s, nil
}
