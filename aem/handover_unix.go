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

// maxRecord bounds a record: a connection has at most its send queue, and what receive buffers hold. maxRecords bounds all.
const (
	maxRecord  = 256 << 20
	maxRecords = 4 << 30
)

const confirmed = 1

func sendAll(to *net.UnixConn, all []passing) error {
	total := int64(0)
	record := func(r *handoverRecord, f *os.File) error {
		n, err := sendRecord(to, r, f)
		if total += int64(n); err == nil && total > maxRecords {
			err = fmt.Errorf("more than %d octets are queued", int64(maxRecords))
		}
		return err
	}
	for _, h := range all {
		if err := h.send(record); err != nil {
			return err
		}
	}
	if err := record(&handoverRecord{Kind: "end"}, nil); err != nil {
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

// sendRecord returns how long the record is.
func sendRecord(to *net.UnixConn, r *handoverRecord, f *os.File) (int, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if len(body) > maxRecord {
		return 0, fmt.Errorf("a socket has %d octets queued, want at most %d", len(body), maxRecord)
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	var rights []byte
	if f != nil {
		raw, err := f.SyscallConn()
		if err != nil {
			return 0, err
		}
		if err := raw.Control(func(fd uintptr) { rights = syscall.UnixRights(int(fd)) }); err != nil {
			return 0, err
		}
	}
	n, _, err := to.WriteMsgUnix(msg, rights, nil)
	if err != nil {
		return 0, err
	}
	_, err = to.Write(append(msg[n:], body...))
	return len(body), err
}

// receiveRecord takes a record of at most room octets, which it takes off.
func receiveRecord(from *net.UnixConn, room *int64) (r *handoverRecord, f *os.File, err error) {
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
	if most := min(maxRecord, *room); int64(size) > most {
		return nil, f, fmt.Errorf("record of %d octets, want at most %d", size, most)
	}
	*room -= int64(size)
	body, err := io.ReadAll(io.LimitReader(from, int64(size)))
	if err == nil && len(body) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, f, err
	}
	r = &handoverRecord{}
	if err = json.Unmarshal(body, r); err == nil {
		err = r.check(f)
	}
	return r, f, err
}

// check tells whether a record came with the descriptor that it is of.
func (r *handoverRecord) check(f *os.File) error {
	if r.Kind == "end" {
		if f != nil {
			return errors.New("the last record has a descriptor")
		}
		return nil
	}
	if f == nil {
		return fmt.Errorf("record of kind %q without a descriptor", r.Kind)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var typ, listens int
	if cerr := raw.Control(func(fd uintptr) {
		if typ, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil {
			listens, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		}
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("record of kind %q: %w", r.Kind, os.NewSyscallError("getsockopt", err))
	}
	stream := typ == syscall.SOCK_STREAM || typ == syscall.SOCK_SEQPACKET
	fits := map[string]bool{"listener": stream && listens != 0, "conn": stream && listens == 0, "packets": typ == syscall.SOCK_DGRAM}
	if ok, known := fits[r.Kind]; !known {
		return fmt.Errorf("record of kind %q", r.Kind)
	} else if !ok {
		return fmt.Errorf("record of kind %q with a socket of type %d, listening %d", r.Kind, typ, listens)
	}
	return nil
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

// Takeover receives what Handover of another program gives, over a Unix stream socket. The caller makes Streams and
// Packets of it and, when their events are started, calls confirm: then, and only then, the other program lets go. On an
// error everything that came is closed, and the other program goes on. Who starts events and does not confirm may have handled
// what the other program then handles again.
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
	for room := int64(maxRecords); ; {
		r, f, err := receiveRecord(from, &room)
		if err != nil {
			return all, nil, err
		}
		if r.Kind == "end" {
			return all, func() error {
				_, err := from.Write([]byte{confirmed})
				return err
			}, nil
		}
		switch {
		case r.Kind == "listener":
			ln, err := net.FileListener(f)
			f.Close()
			if err != nil {
				return all, nil, err
			}
			all = append(all, Inherited{Name: r.Name, Listener: ln})
		case r.Kind == "packets":
			t, err := takePackets(r, f)
			if err != nil {
				return all, nil, err
			}
			all = append(all, Inherited{Name: r.Name, Packets: t})
		case len(all) > 0 && all[len(all)-1].Listener != nil: // conn
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				return all, nil, err
			}
			i := &all[len(all)-1]
			i.Conns = append(i.Conns, Taken{Conn: c, State: r.State, fresh: r.Fresh, hungry: r.Hungry, shut: r.Shut, received: r.Received, unsent: r.Unsent})
		default:
			f.Close()
			return all, nil, errors.New("a connection without a listener before it")
		}
	}
}

func takePackets(r *handoverRecord, f *os.File) (*TakenPackets, error) {
	defer f.Close()
	t := &TakenPackets{}
	var err error
	if t.received, err = parseGrams(r.Received); err != nil {
		return nil, err
	}
	if t.unsent, err = parseGrams(r.Unsent); err != nil {
		return nil, err
	}
	t.Conn, err = net.FilePacketConn(f)
	return t, err
}
