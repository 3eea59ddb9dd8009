//go:build race

package fib_test

// everyNth and scale keep tests short under the race detector, which makes them ten times slower.
const everyNth, scale = 8, 8
