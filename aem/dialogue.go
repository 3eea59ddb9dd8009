package aem

import (
	"bytes"
	"context"
	"io"
	"net"
	"time"
)

// Dialogue is a connection in straight-line code: a routine on its loop that reads and writes, and waits where it must,
// while the loop goes on.
type Dialogue struct {
	// Conn is the connection. Use Read and Write in place of its Send, Pause and Resume.
	Conn *Conn

	r     *Routine
	in    bytes.Buffer
	eof   bool
	err   error
	gone  bool
	want  Wait // what the routine waits for, if waits is set
	waits bool
	room  bool // for room to send, else for data
}

// dialogueHeld is how much of what the peer said a dialogue keeps before it lets the peer wait.
const dialogueHeld = 64 << 10

// Dialogues is a handler of Streams that runs serve for each connection, as a routine of rs: on the loop, so the event must
// have an inline class. When serve returns the connection is closed, after an error at once.
func Dialogues(rs *Routines, serve func(*Routine, *Dialogue) error) func(*Ctx, StreamEvent) {
	return func(_ *Ctx, e StreamEvent) {
		d, _ := e.Conn.Value.(*Dialogue)
		switch e.Kind {
		case StreamOpened, StreamTaken:
			d = &Dialogue{Conn: e.Conn}
			e.Conn.Value = d
			rs.Go(context.Background(), func(r *Routine) error {
				d.r = r
				return serve(r, d)
			}, func(err error) {
				if err != nil {
					_ = d.Conn.Abort()
				} else {
					_ = d.Conn.Close()
				}
				d.gone, d.err = true, net.ErrClosed
			})
			return
		case StreamReceived:
			d.in.Write(e.Data)
			if d.in.Len() >= dialogueHeld {
				_ = d.Conn.Pause()
			}
		case StreamEnded:
			d.eof = true
		case StreamClosed:
			d.gone, d.err = true, e.Err
			if d.err == nil {
				d.err = net.ErrClosed
			}
		}
		if d.waits && (d.gone || d.room == (e.Kind == StreamWritable)) {
			d.waits = false
			d.want.Complete(nil)
		}
	}
}

// wait lets the routine wait for the next occurrence of its kind.
func (d *Dialogue) wait(room bool, deadline time.Duration) error {
	d.want, d.waits, d.room = d.r.Begin(), true, room
	err := d.r.Await(deadline)
	d.waits = false
	return err
}

// Read waits for data, as long as deadline says (0: for ever): then os.ErrDeadlineExceeded. io.EOF tells that the peer sends no
// more.
func (d *Dialogue) Read(p []byte, deadline time.Duration) (int, error) {
	for d.in.Len() == 0 {
		switch {
		case d.eof:
			return 0, io.EOF
		case d.gone:
			return 0, d.err
		}
		if err := d.wait(false, deadline); err != nil {
			return 0, err
		}
	}
	was := d.in.Len()
	n, err := d.in.Read(p)
	if was >= dialogueHeld && d.in.Len() < dialogueHeld {
		_ = d.Conn.Resume()
	}
	return n, err
}

// Write waits until the queue of the connection has taken all of p, as long as deadline says (0: for ever).
func (d *Dialogue) Write(p []byte, deadline time.Duration) error {
	for len(p) > 0 {
		if d.gone {
			return d.err
		}
		n, err := d.Conn.Send(p)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) > 0 {
			if err := d.wait(true, deadline); err != nil {
				return err
			}
		}
	}
	return nil
}
