package xdp

import "fmt"

// Stats returns the counters of a FIB. FIB 0 has those of packets that came in where no FIB is. It is an error when the
// FIB is not in the image.
func (f *Forwarder) Stats(fib uint32) (Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Stats{}, errClosed
	}
	index := uint32(0)
	if fib != 0 {
		var err error
		if _, index, err = f.descriptor(fib); err != nil {
			return Stats{}, err
		}
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
