//go:build unix && !linux

package fib

const mapNoReserve = 0

func advise([]byte) {}
