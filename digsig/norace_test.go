//go:build !race

package digsig

// raced says that the race detector is there, with which arithmetic takes many times as long.
const raced = false
