//go:build race

package bearer

const raceEnabled = true // the detector allocates, and drops from pools
