package bearer

import (
	"errors"
	"os"
	"time"
)

var _ UntilReader = (*udpRx)(nil)

// ReadBatchUntil implements UntilReader.
func (r *udpRx) ReadBatchUntil(p []Packet, t time.Time) (int, error) {
	if t != r.until {
		conn := r.u.conn
		if r.group {
			conn = r.u.groupConn
		}
		if err := conn.SetReadDeadline(t); err != nil {
			return 0, ErrClosed
		}
		r.until = t
	}
	n, err := r.read(p, true)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return n, err
}
