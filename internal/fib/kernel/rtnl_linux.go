package kernel

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/sys"
)

// rtnl is a connection to rtnetlink in one namespace. It is used by one goroutine at a time.
type rtnl struct{ c *netlink.Conn }

// dial connects to rtnetlink in a namespace, or in that of the calling thread if ns is nil. The kernel has to check what it
// is asked strictly, so that a filter of a dump that it does not know is an error and not a dump of everything.
func dial(ns *os.File) (*rtnl, error) {
	c := netlink.Config{Strict: true}
	if ns != nil {
		c.NetNS = int(ns.Fd())
	}
	n, err := netlink.Dial(unix.NETLINK_ROUTE, &c)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil, &sys.UnsupportedError{Feature: "strict checking of netlink requests", MinKernel: "4.20", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return &rtnl{n}, nil
}

func (r *rtnl) close() { _ = r.c.Close() }

// do makes one request and waits for the answer.
func (r *rtnl) do(typ, flags uint16, body []byte) error {
	_, err := r.c.Execute(message(typ, flags, body))
	return cause(err)
}

func message(typ, flags uint16, body []byte) netlink.Message {
	h := netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.HeaderFlags(flags) | netlink.Request | netlink.Acknowledge}
	return netlink.Message{Header: h, Data: body}
}

// batchSize is how many requests are under way at once: their answers fit into the socket's buffer.
const batchSize = 64

// batch makes requests, and calls failed for those that the kernel refused.
func (r *rtnl) batch(l []netlink.Message, failed func(i int, err error)) error {
	for at := 0; at < len(l); at += batchSize {
		part := l[at:min(at+batchSize, len(l))]
		sent, err := r.c.SendMessages(part)
		if err != nil {
			return err
		}
		index := map[uint32]int{}
		for i, m := range sent {
			index[m.Header.Sequence] = at + i
		}
		for len(index) > 0 {
			replies, err := r.c.Receive()
			var op *netlink.OpError
			if errors.As(err, &op) && op.Sequence != 0 {
				if i, ok := index[op.Sequence]; ok {
					failed(i, cause(err))
					delete(index, op.Sequence)
				}
				continue
			}
			if err != nil {
				return err
			}
			for _, m := range replies {
				delete(index, m.Header.Sequence)
			}
		}
	}
	return nil
}

// dumpTries bounds how often a dump is begun anew because what it shows changed meanwhile.
const dumpTries = 20

// dump asks for everything of a kind and calls each for each answer. When what it shows changes while it runs, it begins anew,
// for which it calls restart.
func (r *rtnl) dump(typ uint16, body []byte, restart func(), each func(body []byte) error) error {
	for range dumpTries {
		restart()
		m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Dump}, Data: body}
		if _, err := r.c.Send(m); err != nil {
			return err
		}
		interrupted := false
		var bad error
		for m, err := range r.c.ReceiveIter() {
			if err != nil {
				return cause(err)
			}
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
			if bad == nil {
				bad = each(m.Data)
			}
		}
		if bad != nil {
			return bad
		}
		if !interrupted {
			return nil
		}
	}
	return fmt.Errorf("a dump was interrupted by changes %d times", dumpTries)
}

// cause keeps the kernel's own words with the error number.
func cause(err error) error {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return err
	}
	var no syscall.Errno
	if !errors.As(op.Err, &no) {
		return err
	}
	if op.Message != "" {
		return fmt.Errorf("%w (%s)", no, op.Message)
	}
	return no
}

// errShort says that the kernel's answer was not as long as it has to be.
var errShort = errors.New("a netlink message is too short")

// attributes decodes what follows the fixed part of a message.
func attributes(body []byte, fixed int, each func(d *netlink.AttributeDecoder)) error {
	if len(body) < fixed {
		return errShort
	}
	d, err := netlink.NewAttributeDecoder(body[fixed:])
	if err != nil {
		return err
	}
	for d.Next() {
		each(d)
	}
	return d.Err()
}

// encode puts attributes behind the fixed part of a message.
func encode(fixed []byte, f func(e *netlink.AttributeEncoder)) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	f(e)
	b, err := e.Encode()
	return append(fixed, b...), err
}
