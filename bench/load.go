package main

import (
	"encoding/binary"
	"io"
	"slices"
	"time"
)

// endpoint is one side of a conversation. Send sends one message; Recv returns some octets of the stream of messages.
type endpoint interface {
	Send(p []byte) error
	Recv(p []byte) (int, error)
	Close() error
}

// conn makes an endpoint of a net.Conn: one Write a message.
type conn struct{ io.ReadWriteCloser }

func (c conn) Send(p []byte) error        { _, err := c.Write(p); return err }
func (c conn) Recv(p []byte) (int, error) { return c.Read(p) }

// A request precedes each measurement: mode, message size, number of messages.
const (
	requestSize = 12
	modeEcho    = 1
	modeCount   = 2
)

func request(e endpoint, mode, size, n int) {
	var b [requestSize]byte
	binary.BigEndian.PutUint32(b[:], uint32(mode))
	binary.BigEndian.PutUint32(b[4:], uint32(size))
	binary.BigEndian.PutUint32(b[8:], uint32(n))
	check(e.Send(b[:]))
}

// answer serves requests until the endpoint ends.
func answer(e endpoint) {
	buf := make([]byte, 1<<17)
	for {
		if !recvN(e, buf[:requestSize], requestSize) {
			return
		}
		mode, size, n := binary.BigEndian.Uint32(buf), int(binary.BigEndian.Uint32(buf[4:])), int(binary.BigEndian.Uint32(buf[8:]))
		switch mode {
		case modeEcho:
			for range n {
				if !recvN(e, buf[:size], size) || e.Send(buf[:size]) != nil {
					return
				}
			}
		case modeCount:
			if !recvN(e, buf, size*n) || e.Send(buf[:1]) != nil {
				return
			}
		}
	}
}

// recvN receives n octets in all; what does not fit into buf overwrites it.
func recvN(e endpoint, buf []byte, n int) bool {
	whole := n <= len(buf)
	for got := 0; got < n; {
		p := buf[:min(len(buf), n-got)]
		if whole {
			p = buf[got:n]
		}
		k, err := e.Recv(p)
		if err != nil {
			return false
		}
		got += k
	}
	return true
}

func rtt(e endpoint, size, n int) (p50, p99 float64) {
	msg, d := make([]byte, size), make([]time.Duration, n)
	request(e, modeEcho, size, n)
	for i := range n {
		t := time.Now()
		check(e.Send(msg))
		if !recvN(e, msg, size) {
			fatal("answering side ended")
		}
		d[i] = time.Since(t)
	}
	slices.Sort(d)
	return us(d[n/2]), us(d[n*99/100])
}

// oneway returns messages per second until the far side has received all.
func oneway(e endpoint, size, n int) float64 {
	msg := make([]byte, size)
	request(e, modeCount, size, n)
	t := time.Now()
	for range n {
		check(e.Send(msg))
	}
	if !recvN(e, msg[:1], 1) {
		fatal("answering side ended")
	}
	return float64(n) / time.Since(t).Seconds()
}

func check(err error) {
	if err != nil {
		fatal("%v", err)
	}
}
