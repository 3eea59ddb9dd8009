package wire

// Sequence numbers are 16 bits wide and wrap; one is before another when it lies within half the circle behind it
// (net/tipc/link.h, msg.h: less, less_eq, more).

// SeqLess reports whether a comes before b.
func SeqLess(a, b uint16) bool { return a != b && b-a < 1<<15 }

// SeqLessEq reports whether a comes before b or is b.
func SeqLessEq(a, b uint16) bool { return b-a < 1<<15 }

// SeqMore reports whether a comes after b.
func SeqMore(a, b uint16) bool { return !SeqLessEq(a, b) }

// SeqBetween reports whether lo <= n <= hi on the circle.
func SeqBetween(lo, hi, n uint16) bool { return SeqLessEq(lo, n) && SeqLessEq(n, hi) }
