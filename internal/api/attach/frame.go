// Package attach carries TIPC sockets over the control socket of a daemon: each TIPC socket of a client process is one
// Unix connection, so that a client's end, orderly or not, closes its sockets.
//
// A connection is a sequence of frames in both directions: a header of 8 octets (length of the payload, kind, an unused
// octet, number of the request; all numbers are big-endian) and the payload. The client's first frame is Open or
// Claim. It then sends requests, each answered by one Reply of the same number. Data flows in Data frames without a
// reply; each side sends only as much as the other has granted with Credit frames, so neither side's reader ever waits
// for its user and a full socket never holds up requests.
//
//	Open    C>S  version, type, options         a new socket; Reply: local address
//	Claim   C>S  version, token                 a socket announced by Accepted; Reply: local and peer address
//	Bind    C>S  range, scope                   Unbind likewise
//	Listen  C>S  backlog                        then Accepted frames follow
//	Connect C>S  destination                    Reply, when it is done: peer address
//	Send    C>S  destination, data              connectionless; Reply: octets sent
//	Data    both data (from server: info, data)
//	Credit  both octets
//	Accepted S>C token, peer address
//	End     S>C  error                          nothing more will be received
//	Fail    S>C  error                          data could not be sent, nothing more will be
//
// A request counts its payload and frameCost against the credit as data does.
package attach

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/wire"
)

const (
	version    = 2
	headerSize = 8
	maxPayload = wire.MaxUserMsgSize + 64
	frameCost  = 64        // credit that a frame costs besides its payload
	window     = 512 << 10 // credit at the start, octets; more than the largest message
	chunk      = 64 << 10  // of a stream, in one Data frame
)

// Magic begins every connection, before the first frame, to tell it from HTTP on the same socket.
const Magic = "TIPCATT1"

// token is what an accepted connection is claimed with. It is random, so that no client can claim what was announced
// to another.
type token [16]byte

type kind uint8

const (
	kOpen kind = iota + 1
	kClaim
	kBind
	kUnbind
	kListen
	kConnect
	kSend
	kData
	kCredit
	kReply
	kAccepted
	kEnd
	kFail
)

// conn reads and writes frames. One goroutine reads; any may write.
type conn struct {
	c   net.Conn
	r   *bufio.Reader
	in  []byte // payload of the frame read last
	wmu sync.Mutex
	out []byte
}

func newConn(c net.Conn) *conn { return &conn{c: c, r: bufio.NewReaderSize(c, 64<<10)} }

// write sends one frame whose payload is the concatenation of a and b.
func (c *conn) write(k kind, seq uint16, a, b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = binary.BigEndian.AppendUint32(c.out[:0], uint32(len(a)+len(b)))
	c.out = append(c.out, byte(k), 0, byte(seq>>8), byte(seq))
	c.out = append(append(c.out, a...), b...)
	_, err := c.c.Write(c.out)
	return err
}

// read returns the next frame. The payload is valid until the next read.
func (c *conn) read() (k kind, seq uint16, payload []byte, err error) {
	h, err := c.r.Peek(headerSize)
	if err != nil {
		return 0, 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(h))
	k, seq = kind(h[4]), binary.BigEndian.Uint16(h[6:])
	if n > maxPayload {
		return 0, 0, nil, fmt.Errorf("attach: frame of %d octets", n)
	}
	if _, err := c.r.Discard(headerSize); err != nil {
		return 0, 0, nil, err
	}
	if cap(c.in) < n {
		c.in = make([]byte, max(n, 4096))
	}
	c.in = c.in[:n]
	if _, err := io.ReadFull(c.r, c.in); err != nil {
		return 0, 0, nil, err
	}
	return k, seq, c.in, nil
}

// enc appends values, dec takes them off the front; a dec that ran short is bad.
type enc []byte

func (e enc) u8(v uint8) enc    { return append(e, v) }
func (e enc) u32(v uint32) enc  { return binary.BigEndian.AppendUint32(e, v) }
func (e enc) token(t token) enc { return append(e, t[:]...) }
func (e enc) rng(r wire.ServiceRange) enc {
	return e.u32(r.Type).u32(r.Lower).u32(r.Upper)
}
func (e enc) sock(a wire.SocketAddr) enc { return e.u32(a.Port).u32(a.Node) }
func (e enc) dest(d sockif.Dest) enc     { return e.u8(uint8(d.Kind)).rng(d.Range).sock(d.Addr) }

type dec struct {
	b   []byte
	bad bool
}

func (d *dec) take(n int) []byte {
	if len(d.b) < n {
		d.b, d.bad = nil, true
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}
func (d *dec) u8() uint8    { return d.take(1)[0] }
func (d *dec) u32() uint32  { return binary.BigEndian.Uint32(d.take(4)) }
func (d *dec) token() token { return token(d.take(len(token{}))) }
func (d *dec) rng() wire.ServiceRange {
	return wire.ServiceRange{Type: d.u32(), Lower: d.u32(), Upper: d.u32()}
}
func (d *dec) sock() wire.SocketAddr { return wire.SocketAddr{Port: d.u32(), Node: d.u32()} }
func (d *dec) dest() sockif.Dest {
	t := sockif.Dest{Kind: sockif.DestKind(d.u8()), Range: d.rng(), Addr: d.sock()}
	d.bad = d.bad || t.Kind > sockif.SocketDest
	return t
}

const infoSize = 8 + 12 + 3

func (e enc) info(i sockif.Info) enc {
	flag := func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}
	return e.sock(i.From).rng(i.Dest).u8(flag(i.HasDest)).u8(uint8(i.Err)).u8(flag(i.Truncated))
}

func (d *dec) info() sockif.Info {
	return sockif.Info{From: d.sock(), Dest: d.rng(), HasDest: d.u8() != 0, Err: wire.ErrCode(d.u8()), Truncated: d.u8() != 0}
}

var errProtocol = errors.New("attach: malformed frame")
