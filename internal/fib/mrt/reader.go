package mrt

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// MaxRecord bounds one MRT record. A prefix seen by 1,500 peers takes some 300,000 octets.
const MaxRecord = 16 << 20

// MaxLine bounds a line of text.
const MaxLine = 64 << 10

// Paths says which paths of a table dump are wanted.
type Paths uint8

// Choices of paths.
const (
	First Paths = iota // the first of each prefix that has a next hop, where the paths of a prefix follow each other
	All                // every one
)

// Options say what to read. The zero value reads the first path of each prefix, from whatever peer.
type Options struct {
	Paths Paths
	Peer  netip.Addr // when valid: paths of this peer only, in dumps, in updates and in text that names peers
	// IPv6 makes "default" in text ::/0. Unless it or IPv4 is set, a default route without a gateway, which would
	// tell the family, is an error.
	IPv4, IPv6 bool
	// Progress, when set, is called from Next with the number of octets of the file read so far, before
	// decompression, about once every 64 KiB and at the end.
	Progress func(octets int64)
}

// Reader reads entries. It is not safe for concurrent use; it blocks as the underlying reader does. Its memory is
// bounded by MaxRecord, whatever the file says.
type Reader struct {
	opt    Options
	in     counter
	br     *bufio.Reader
	next   func() error // reads one record or line and appends to pending
	format string

	buf     []byte // of the record
	peers   []peer
	pending []Entry
	at      int // in pending
	hops    []Hop
	offset  int64 // after decompression, of the next record
	start   int64 // of the current one
	stats   Stats
	failed  error        // after which there is no next record
	time    uint32       // of the current record
	last    netip.Prefix // text of a table dump: whose path was taken last
	foreign bool         // text: the route's gateway is of another family than the route
}

type counter struct {
	r    io.Reader
	n    int64
	said int64
	tell func(int64)
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if c.tell != nil && (c.n-c.said >= 64<<10 || (err == io.EOF && c.n != c.said)) {
		c.said = c.n
		c.tell(c.n)
	}
	return n, err
}

// NewReader looks at the beginning of a file and finds out what it is: MRT or text, either of them plain, in gzip or
// in bzip2. Errors are those of reading, and ErrFormat.
func NewReader(r io.Reader, opt Options) (*Reader, error) {
	if opt.IPv4 && opt.IPv6 {
		return nil, errors.New("options: IPv4 and IPv6: want one of them at most")
	}
	if opt.Peer.IsValid() {
		opt.Peer = opt.Peer.Unmap().WithZone("")
	}
	rd := &Reader{opt: opt, in: counter{r: r, tell: opt.Progress}}
	br := bufio.NewReaderSize(&rd.in, MaxLine)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case has(head, 0x1f, 0x8b):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		rd.format, br = "gzip ", bufio.NewReaderSize(z, MaxLine)
	case has(head, 'B', 'Z', 'h'):
		rd.format, br = "bzip2 ", bufio.NewReaderSize(bzip2.NewReader(br), MaxLine)
	case has(head, 0xfd, '7', 'z', 'X', 'Z'):
		return nil, fmt.Errorf("%w: xz; want it decompressed, or gzip or bzip2", ErrFormat)
	case has(head, 0x28, 0xb5, 0x2f, 0xfd):
		return nil, fmt.Errorf("%w: zstd; want it decompressed, or gzip or bzip2", ErrFormat)
	}
	head, err = br.Peek(headerLen)
	if err != nil && err != io.EOF {
		return nil, err
	}
	rd.br = br
	// Types of MRT are below 256, and text has no zero octet.
	if len(head) > 4 && head[4] == 0 {
		rd.format += "MRT"
		rd.next = rd.record
	} else {
		rd.format += "text"
		rd.next = rd.line
	}
	return rd, nil
}

func has(b []byte, magic ...byte) bool {
	return len(b) >= len(magic) && string(b[:len(magic)]) == string(magic)
}

// ErrFormat says that a file is of a kind that is not read here.
var ErrFormat = errors.New("not a format that can be read")

// Format says what the file is: "MRT" or "text", after "gzip " or "bzip2 " when it is compressed.
func (r *Reader) Format() string { return r.format }

// Stats returns the counters so far.
func (r *Reader) Stats() Stats {
	s := r.stats
	s.Octets, s.Peers = r.in.n, len(r.peers)
	return s
}

// Next returns the next entry, and io.EOF after the last. Errors are *RecordError; unless it is Fatal, the next call
// goes on with the next record.
func (r *Reader) Next() (*Entry, error) {
	for r.at >= len(r.pending) {
		if r.failed != nil {
			return nil, r.failed
		}
		r.pending, r.hops, r.at = r.pending[:0], r.hops[:0], 0
		r.start = r.offset
		if err := r.next(); err != nil {
			r.pending = r.pending[:0] // of a record with an error nothing counts
			if e := (*RecordError)(nil); err == io.EOF || (errors.As(err, &e) && e.Fatal) {
				r.failed = err
			}
			return nil, err
		}
	}
	e := &r.pending[r.at]
	r.at++
	r.stats.Entries++
	return e, nil
}

// fail makes a *RecordError of the current record.
func (r *Reader) fail(fatal bool, err error) error {
	return &RecordError{Record: r.stats.Records, Offset: r.start, Err: err, Fatal: fatal}
}
