// Package chain is the form of the audit log: one JSON object a line, each with a number and the hash of the line before
// it. It is a core: octets in, octets out.
//
// The hash of a line is the SHA-256 of its octets without the line feed. So whoever knows the last hash (the head, which
// is kept apart, and can be signed or sent elsewhere) knows every line before it: an edited, removed, inserted or moved
// line breaks the chain at that place, and lines cut off the end do not lead to the head. Who can write both the log and
// the head can make another history; keep heads where they cannot.
package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// MaxLine bounds a line, without its line feed.
const MaxLine = 64 << 10

// Hash is the SHA-256 of a line.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return fmt.Errorf("hash %.80q: want %d hexadecimal digits", b, 2*len(h))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Record is one line. Members without a value are left out.
type Record struct {
	Seq  uint64    `json:"seq"` // from 1, without a gap
	Time time.Time `json:"time"`
	Type string    `json:"type"` // verdict, lost, start, stop, mode, reload, worker, mount, file

	Verdict    string   `json:"verdict,omitempty"` // allow, deny, would-deny
	Reason     string   `json:"reason,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Use        string   `json:"use,omitempty"`  // exec, interp, lib, script, check, open
	Path       string   `json:"path,omitempty"` // as the kernel names it, in the enforcer's mount namespace
	Digest     string   `json:"digest,omitempty"`
	Key        string   `json:"key,omitempty"`
	Name       string   `json:"name,omitempty"` // that was signed
	Version    uint64   `json:"version,omitempty"`
	PID        int      `json:"pid,omitempty"`
	PPID       int      `json:"ppid,omitempty"`
	UID        *int     `json:"uid,omitempty"`
	Exe        string   `json:"exe,omitempty"` // of who asks
	Cgroup     string   `json:"cgroup,omitempty"`
	Generation uint64   `json:"generation,omitempty"`
	Mode       string   `json:"mode,omitempty"`
	Count      uint64   `json:"count,omitempty"` // of lost records
	Files      []string `json:"files,omitempty"`

	Prev Hash `json:"prev"` // of the line before; zeros at the first
}

// Head is the end of a chain.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash Hash   `json:"hash"`
}

// Append adds r to the chain that ends at head: it sets Seq and Prev, appends the line with its line feed to b, and
// returns the new head. A record that is too long loses its detail, then everything but its kind.
func Append(b []byte, head Head, r *Record) ([]byte, Head, error) {
	r.Seq, r.Prev = head.Seq+1, head.Hash
	r.Time = r.Time.UTC()
	line, err := json.Marshal(r)
	if err == nil && len(line) > MaxLine {
		r.Detail, r.Files = "(too long)", nil
		line, err = json.Marshal(r)
	}
	if err != nil {
		return b, head, err
	}
	if len(line) > MaxLine {
		short := Record{Seq: r.Seq, Time: r.Time, Type: r.Type, Verdict: r.Verdict, Reason: r.Reason, PID: r.PID, Detail: "(too long)", Prev: r.Prev}
		if line, err = json.Marshal(&short); err != nil {
			return b, head, err
		}
	}
	return append(append(b, line...), '\n'), Head{r.Seq, sha256.Sum256(line)}, nil
}

// BrokenError says where a chain is broken.
type BrokenError struct {
	Line int // from 1, in what was read
	Seq  uint64
	Why  string
}

// Error implements error.
func (e *BrokenError) Error() string {
	return "line " + strconv.Itoa(e.Line) + ": " + e.Why
}

// ErrUnfinished is for a last line without its end: the writer was killed in the middle of it.
var ErrUnfinished = errors.New("the last line is unfinished")

// Checker reads a chain line by line. The zero value begins with the first record of all.
type Checker struct {
	Head  Head // so far
	Lines int
	any   bool
}

// From returns a checker that goes on behind a head.
func From(h Head) Checker { return Checker{Head: h, any: true} }

// Any returns a checker for what begins somewhere: the first line is believed.
func Any() Checker { return Checker{any: false, Lines: -1} }

// Line checks the next line, without its line feed, and returns its record.
func (c *Checker) Line(line []byte) (Record, error) {
	loose := c.Lines < 0
	if loose {
		c.Lines = 0
	}
	c.Lines++
	broken := func(format string, a ...any) error {
		return &BrokenError{c.Lines, c.Head.Seq + 1, fmt.Sprintf(format, a...)}
	}
	var r Record
	if len(line) > MaxLine {
		return r, broken("longer than %d octets", MaxLine)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, broken("no record: %v", err)
	}
	if d.More() {
		return r, broken("more than one record")
	}
	if loose {
		if r.Seq == 0 {
			return r, broken("it has no number")
		}
		c.Head = Head{r.Seq - 1, r.Prev}
	}
	if r.Seq != c.Head.Seq+1 {
		return r, broken("it is number %d, want %d: lines were removed, added or moved", r.Seq, c.Head.Seq+1)
	}
	if r.Prev != c.Head.Hash {
		return r, broken("it does not follow the line before: one of the two was changed")
	}
	c.Head = Head{r.Seq, sha256.Sum256(line)}
	return r, nil
}

// End says whether the chain ends where it should.
func (c *Checker) End(want Head) error {
	switch {
	case c.Head.Seq < want.Seq:
		return &BrokenError{c.Lines, c.Head.Seq, fmt.Sprintf("it ends with number %d, and %d were written: the end was cut off", c.Head.Seq, want.Seq)}
	case c.Head == want, c.Head.Seq > want.Seq: // a head is written after the lines that it is of
		return nil
	}
	return &BrokenError{c.Lines, c.Head.Seq, "the last line is not the one that was written"}
}
