//go:build race

package node

// raceEnabled: the race detector has sync.Pool forget at random, so allocations cannot be counted.
const raceEnabled = true
