//go:build race

package buf_test

const raceEnabled = true // the detector drops from pools
