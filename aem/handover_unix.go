//go:build unix

package aem

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

// What goes over the socket: records of a length, the descriptor that the first octet carries, and JSON. A listener comes
// before its connections; the record of kind "end" is last, and one octet confirms all.
type handoverRecord struct {
	Kind                string // listener, conn, end
	Name                string `json:",omitempty"`
	State               []byte `json:",omitempty"`
	Received, Unsent    []byte `json:",omitempty"`
	Fresh, Hungry, Shut bool   `json:",omitempty"`
}

// maxRecord bounds a record: a connection has at most its send queue, and what receive buffers hold.
const maxRecord = 256 << 20

const confirmed = 1

func sendAll(to *net.UnixConn, sources []*Streams, all []*handover) error {
	for i, s := range sources {
		d := <-all[i].listener
		all[i].listener <- d
		if d.err != nil {
			return d.err
		}
		if err := sendRecord(to, &handoverRecord{Kind: "listener", Name: s.String()}, d.file); err != nil {
			return err
		}
		for _, g := range all[i].conns {
			r := &handoverRecord{Kind: "conn", State: g.State, Received: g.received, Unsent: g.unsent, Fresh: g.fresh, Hungry: g.hungry, Shut: g.shut}
			if err := sendRecord(to, r, g.file); err != nil {
				return err
			}
		}
	}
	if err := sendRecord(to, &handoverRecord{Kind: "end"}, nil); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(to, b[:]); err != nil {
		return fmt.Errorf("no confirmation: %w", err)
	}
	if b[0] != confirmed {
		return fmt.Errorf("confirmation is %d, want %d", b[0], confirmed)
	}
	return nil
}

func sendRecord(to *net.UnixConn, r *handoverRecord, f *os.File) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(body) > maxRecord {
		return fmt.Errorf("a connection has %d octets queued, want at most %d", len(body), maxRecord)
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	var rights []byte
	if f != nil {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { rights = syscall.UnixRights(int(fd)) }); err != nil {
			return err
		}
	}
	n, _, err := to.WriteMsgUnix(msg, rights, nil)
	if err != nil {
		return err
	}
	_, err = to.Write(append(msg[n:], body...))
	return err
}

func receiveRecord(from *net.UnixConn) (r *handoverRecord, f *os.File, err error) {
	defer func() {
		if err != nil && f != nil {
			f.Close()
			f = nil
		}
	}()
	var head [4]byte
	oob := make([]byte, syscall.CmsgSpace(4*4))
	n, k, _, _, err := from.ReadMsgUnix(head[:], oob)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, err
	}
	if f, err = oneFile(oob[:k]); err != nil {
		return nil, f, err
	}
	if _, err = io.ReadFull(from, head[n:]); err != nil {
		return nil, f, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxRecord {
		return nil, f, fmt.Errorf("record of %d octets, want at most %d", size, maxRecord)
	}
	body, err := io.ReadAll(io.LimitReader(from, int64(size)))
	if err == nil && len(body) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, f, err
	}
	r = &handoverRecord{}
	err = json.Unmarshal(body, r)
	return r, f, err
}

// oneFile is the descriptor of a message; further ones are closed.
func oneFile(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, m := range msgs {
		fds, err := syscall.ParseUnixRights(&m)
		if err == nil {
			all = append(all, fds...)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	for _, fd := range all {
		syscall.CloseOnExec(fd)
	}
	for _, fd := range all[1:] {
		syscall.Close(fd)
	}
	return os.NewFile(uintptr(all[0]), "taken"), nil
}

// Takeover receives what Handover of another program gives, over a Unix stream socket. The caller makes Streams of it and,
// when their events are started, calls confirm: then, and only then, the other program lets go. On an error everything
// that came is closed, and the other program goes on.
func Takeover(ctx context.Context, from *net.UnixConn) (all []Inherited, confirm func() error, err error) {
	stop := context.AfterFunc(ctx, func() { _ = from.SetDeadline(past) })
	defer stop()
	defer func() {
		if err == nil {
			return
		}
		for _, i := range all {
			i.Close()
		}
		all = nil
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		err = fmt.Errorf("aem: taking over: %w", err)
	}()
	for {
		r, f, err := receiveRecord(from)
		if err != nil {
			return all, nil, err
		}
		if r.Kind == "end" {
			return all, func() error {
				_, err := from.Write([]byte{confirmed})
				return err
			}, nil
		}
		if f == nil {
			return all, nil, errors.New("record without a descriptor")
		}
		switch {
		case r.Kind == "listener":
			ln, err := net.FileListener(f)
			f.Close()
			if err != nil {
				return all, nil, err
			}
			all = append(all, Inherited{Name: r.Name, Listener: ln})
		case r.Kind == "conn" && len(all) > 0:
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				return all, nil, err
			}
			i := &all[len(all)-1]
			i.Conns = append(i.Conns, Taken{Conn: c, State: r.State, fresh: r.Fresh, hungry: r.Hungry, shut: r.Shut, received: r.Received, unsent: r.Unsent})
		default:
			f.Close()
			return all, nil, fmt.Errorf("record of kind %q", r.Kind)
		}
	}
}
