package main

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// A request is header octets: kind, status, length of the reply's payload, sequence number. A reply is the same header with the
// status set, and the payload.
const (
	header = 16

	light byte = 1 // about 20 us of work
	heavy byte = 2 // about 2 ms of work

	answered byte = 1
	shed     byte = 2
)

type request []byte

func (r request) payload() int     { return int(binary.LittleEndian.Uint32(r[4:])) }
func (r request) seq() uint64      { return binary.LittleEndian.Uint64(r[8:]) }
func (r request) setSeq(n int)     { binary.LittleEndian.PutUint64(r[8:], uint64(n)) }
func (r request) size(payload int) { binary.LittleEndian.PutUint32(r[4:], uint32(payload)) }

const (
	lightWork = 20 * time.Microsecond
	heavyWork = 2 * time.Millisecond
)

// spinPerMicrosecond is how many rounds of burn take a microsecond on this machine when nothing else runs. Work is a fixed
// number of rounds, so that a slow server does not get less to do.
var spinPerMicrosecond int

var sink atomic.Uint64

func burn(d time.Duration) {
	x := uint64(88172645463325252)
	for range int(d.Microseconds()) * spinPerMicrosecond {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	sink.Store(x)
}

// calibrate finds spinPerMicrosecond: the fastest of many short tries.
func calibrate() {
	spinPerMicrosecond = 100
	best := time.Hour
	for range 2000 {
		t := time.Now()
		burn(50 * time.Microsecond)
		best = min(best, time.Since(t))
	}
	spinPerMicrosecond = max(1, int(100*50*time.Microsecond/best))
}

func work(kind byte) {
	if kind == heavy {
		burn(heavyWork)
	} else {
		burn(lightWork)
	}
}

// reply appends the reply to a request.
func reply(b []byte, r request, status byte) []byte {
	n := len(b)
	b = append(b, r[:header]...)
	b[n+1] = status
	return append(b, zeros[:min(r.payload(), len(zeros))]...)
}

var zeros [64 << 10]byte
