package aemhttp

import (
	"bufio"
	"net"
	"net/http"
)

// buffered keeps a response until its handler has ended, or until it has become too long or is flushed.
type buffered struct {
	w       http.ResponseWriter
	limit   int
	status  int // 0: not set yet
	b       []byte
	through bool // it goes to w directly
	taken   bool // the handler has taken the connection
}

// Header returns the header of the response.
func (b *buffered) Header() http.Header { return b.w.Header() }

// WriteHeader sets the status. Informational ones go out at once.
func (b *buffered) WriteHeader(status int) {
	switch {
	case b.through || status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		b.w.WriteHeader(status)
	case b.status == 0:
		b.status = status
	}
}

// Write keeps octets of the response, or sends them.
func (b *buffered) Write(p []byte) (int, error) {
	if !b.through && len(b.b)+len(p) <= b.limit {
		b.b = append(b.b, p...)
		return len(p), nil
	}
	if err := b.send(); err != nil {
		return 0, err
	}
	return b.w.Write(p)
}

// send sends what was kept, and lets the rest through.
func (b *buffered) send() error {
	if b.through || b.taken {
		return nil
	}
	b.through = true
	if b.status != 0 {
		b.w.WriteHeader(b.status)
	}
	if len(b.b) == 0 {
		return nil
	}
	_, err := b.w.Write(b.b)
	b.b = nil
	return err
}

// end is called when the handler has ended.
func (b *buffered) end() { b.send() }

// Flush sends what was kept, for http.Flusher.
func (b *buffered) Flush() { b.FlushError() }

// FlushError sends what was kept, for http.ResponseController.
func (b *buffered) FlushError() error {
	if err := b.send(); err != nil {
		return err
	}
	return http.NewResponseController(b.w).Flush()
}

// Hijack gives the connection to the handler, for http.Hijacker.
func (b *buffered) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(b.w).Hijack()
	b.taken = b.taken || err == nil
	return c, rw, err
}

// Unwrap is for http.ResponseController.
func (b *buffered) Unwrap() http.ResponseWriter { return b.w }
