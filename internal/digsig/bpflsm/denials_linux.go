package bpflsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"midplane/internal/digsig/envelope"
)

// Denials fetches denials from the gate. There should be one at a time: who fetches a denial keeps it from others.
type Denials struct{ r *ringbuf.Reader }

// Denials starts fetching. The oldest denials that nobody fetched come first; the kernel keeps about 2,900 and counts the
// rest in Status.Lost.
func (g *Gate) Denials() (*Denials, error) {
	r, err := ringbuf.NewReader(g.maps.Events)
	if err != nil {
		return nil, fmt.Errorf("bpflsm: denials: %w", err)
	}
	return &Denials{r}, nil
}

// Next waits for the next denial. After Close the error is os.ErrClosed, after the deadline os.ErrDeadlineExceeded.
func (d *Denials) Next() (Denial, error) {
	rec, err := d.r.Read()
	switch {
	case errors.Is(err, ringbuf.ErrClosed):
		return Denial{}, os.ErrClosed
	case err != nil:
		return Denial{}, err
	}
	return decode(rec.RawSample)
}

// SetDeadline bounds the waiting of Next from then on; the zero time lifts the bound.
func (d *Denials) SetDeadline(t time.Time) { d.r.SetDeadline(t) }

// Close ends Next.
func (d *Denials) Close() error { return d.r.Close() }

// decode reads struct event (bpf/state.h), which the kernel's octet order is that of this machine.
func decode(b []byte) (Denial, error) {
	var e lsmEvent
	if len(b) < int(unsafe.Sizeof(e)) {
		return Denial{}, fmt.Errorf("bpflsm: a denial of %d octets, want %d", len(b), unsafe.Sizeof(e))
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &e); err != nil {
		return Denial{}, fmt.Errorf("bpflsm: denial: %w", err)
	}
	d := Denial{
		Since: time.Duration(e.Time), Hook: Hook(e.Hook), Reason: Reason(e.Reason), Mode: Mode(e.Mode), Digest: Digest{Kind(e.Kind), e.Sum},
		Roles: envelope.Role(e.Roles & uint32(envelope.AllRoles)), Need: envelope.Role(e.Need & uint32(envelope.AllRoles)),
		PID: int(e.Pid), Parent: int(e.Parent), UID: e.Uid, Command: text(e.Comm[:]), Path: text(e.Path[:]), Cgroup: e.Cgroup, Inode: e.Inode,
	}
	if e.Inode != 0 {
		d.Device = unix.Mkdev(e.Device>>20, e.Device&(1<<20-1))
	}
	return d, nil
}

// text returns the characters before the first zero.
func text(c []int8) string {
	b := make([]byte, 0, len(c))
	for _, x := range c {
		if x == 0 {
			break
		}
		b = append(b, byte(x))
	}
	return string(b)
}
