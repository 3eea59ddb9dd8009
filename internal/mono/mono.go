// Package mono is the one notion of time the protocol cores know: nanoseconds
// on a monotonic scale, passed in by whoever calls them.
//
// Cores take a Time and never ask for one; only drivers call Now.
package mono

import "time"

// Time is a point in time, in nanoseconds since an arbitrary origin of this
// process. The zero value is that origin. Values compare with the ordinary
// operators; values of two processes cannot be compared.
type Time int64

// Never is later than every time that can occur. A core without a pending
// deadline returns it.
const Never Time = 1<<63 - 1

// base has a monotonic reading, so that Now is immune to clock steps. Inside a
// testing/synctest bubble the fake clock is what time.Since reads; the
// differences are right there, the absolute value is not (it may be negative).
var base = time.Now()

// Now returns the current time. It is safe for concurrent use, and for drivers
// only.
func Now() Time { return Time(time.Since(base)) }

// Add returns t+d. It saturates at Never instead of wrapping round, so adding
// to Never is harmless.
func (t Time) Add(d time.Duration) Time {
	s := t + Time(d)
	if d > 0 && s < t {
		return Never
	}
	return s
}

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Before reports whether t is earlier than u.
func (t Time) Before(u Time) bool { return t < u }

// After reports whether t is later than u.
func (t Time) After(u Time) bool { return t > u }

// Min returns the earlier of t and u.
func (t Time) Min(u Time) Time {
	if u < t {
		return u
	}
	return t
}

// Until returns how long a driver has to wait at now for t: never negative.
func (t Time) Until(now Time) time.Duration {
	if t <= now {
		return 0
	}
	return time.Duration(t - now)
}

// String formats t as a duration since the origin.
func (t Time) String() string {
	if t == Never {
		return "never"
	}
	return time.Duration(t).String()
}
