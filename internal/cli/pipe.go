package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"midplane/tipc"
)

// pipe is `tipc pipe`: netcat for TIPC.
type pipe struct {
	env    *env
	typ    tipc.SocketType
	listen bool
	keep   bool
	scope  tipc.Scope
	block  int
	count  int
	quiet  time.Duration
}

func newPipe(e *env) *cobra.Command {
	p := &pipe{env: e}
	var path, typ, scope string
	c := &cobra.Command{
		Use:   "pipe [--listen] [--type stream|seqpacket|rdm|dgram] TYPE:INSTANCE",
		Short: "Connect standard input and output to a service, like netcat",
		Long: `Connects to a service, or with --listen is one, and copies standard input there and what comes from
there to standard output.

The other types than stream carry messages: each line of input, with its end, is sent as one, or with --block each
block of that many octets. With rdm and dgram, TYPE:LOWER:UPPER sends each message to every socket bound in that
range; with --listen, input is sent to whoever sent the last message.

TIPC closes connections in both directions at once. After the end of input the pipe therefore stays until nothing
has come for the time of --wait. A listener ends with its connection, or goes on with --keep.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if p.typ, err = tipc.ParseSocketType(typ); err != nil {
				return usageError{err}
			}
			if p.scope, err = tipc.ParseScope(scope); err != nil {
				return usageError{err}
			}
			var addr net.Addr
			if strings.Count(args[0], ":") == 2 {
				addr, err = tipc.ParseServiceRange(args[0])
			} else if strings.Contains(args[0], ":") {
				addr, err = tipc.ParseServiceAddr(args[0])
			} else {
				addr, err = tipc.ParseSocketAddr(args[0])
			}
			_, isRange := addr.(tipc.ServiceRange)
			_, isSocket := addr.(tipc.SocketAddr)
			switch {
			case err != nil:
				return usageError{err}
			case isRange && !p.listen && p.typ.Connected():
				return usagef("a connection goes to one instance: want TYPE:INSTANCE")
			case isSocket && p.listen:
				return usagef("a service has the form TYPE:INSTANCE or TYPE:LOWER:UPPER")
			case p.block < 0 || p.block > tipc.MaxMessage:
				return usagef("--block: want 1 to %d octets", tipc.MaxMessage)
			case p.count < 0 || p.quiet < 0:
				return usagef("--count and --wait cannot be negative")
			}
			n, err := open(path)
			if err != nil {
				return err
			}
			defer n.Close()
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			if p.typ.Connected() {
				return p.connection(ctx, n, addr)
			}
			return p.messages(ctx, n, addr)
		},
	}
	control(c, &path)
	f := c.Flags()
	f.BoolVarP(&p.listen, "listen", "l", false, "be the service")
	f.BoolVarP(&p.keep, "keep", "k", false, "with --listen: go on with the next connection")
	f.StringVarP(&typ, "type", "t", "stream", "stream, seqpacket, rdm or dgram")
	f.StringVar(&scope, "scope", "cluster", "with --listen: cluster or node")
	f.IntVar(&p.block, "block", 0, "send messages of this many octets in place of lines")
	f.IntVar(&p.count, "count", 0, "end after this many received messages")
	f.DurationVarP(&p.quiet, "wait", "w", time.Second, "after the end of input, stay until nothing came for this long")
	return c
}

func (p *pipe) connection(ctx context.Context, n *tipc.Node, addr net.Addr) error {
	cfg := &tipc.SocketConfig{Type: p.typ, Scope: p.scope}
	if !p.listen {
		c, err := n.DialContext(ctx, addr, cfg)
		if err != nil {
			return quietly(ctx, err)
		}
		return quietly(ctx, p.copy(ctx, c))
	}
	l, err := n.Listen(addr, cfg)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.AcceptConn()
		if err != nil {
			return quietly(ctx, err)
		}
		if err := p.copy(ctx, c); err != nil && !p.keep {
			return quietly(ctx, err)
		} else if err != nil {
			fmt.Fprintf(p.env.err, "midplane: %v\n", err)
		}
		if !p.keep || ctx.Err() != nil {
			return nil
		}
	}
}

// quietly drops the errors that an interrupt causes.
func quietly(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// copy runs one connection. Its own end of input is waited out, the peer's end ends it at once.
func (p *pipe) copy(ctx context.Context, c *tipc.Conn) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var inputOver atomic.Bool
	sent := make(chan error, 1)
	go func() {
		err := p.input(func(b []byte) error { _, err := c.Write(b); return err })
		inputOver.Store(true)
		if err == nil {
			c.SetReadDeadline(time.Now().Add(p.quiet))
		}
		sent <- err
	}()
	buf := make([]byte, tipc.MaxMessage)
	for i := 0; p.count == 0 || i < p.count; i++ {
		n, err := c.Read(buf)
		if _, werr := p.env.out.Write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && inputOver.Load():
			return nil
		case err != nil:
			select {
			case serr := <-sent:
				if serr != nil {
					return serr
				}
			default:
			}
			return err
		}
		if inputOver.Load() {
			c.SetReadDeadline(time.Now().Add(p.quiet))
		}
	}
	return nil
}

// input reads standard input to its end and hands out what is to be sent in one go.
func (p *pipe) input(send func([]byte) error) error {
	r := bufio.NewReaderSize(p.env.in, tipc.MaxMessage)
	buf := make([]byte, max(p.block, 64<<10))
	for {
		var b []byte
		var err error
		switch {
		case p.block > 0:
			var n int
			n, err = io.ReadFull(r, buf[:p.block])
			b = buf[:n]
		case p.typ == tipc.Stream:
			var n int
			n, err = r.Read(buf)
			b = buf[:n]
		default:
			b, err = r.ReadSlice('\n') // a line that is too long is sent in parts
			if errors.Is(err, bufio.ErrBufferFull) {
				err = nil
			}
		}
		if len(b) > 0 {
			if err := send(b); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("standard input: %w", err)
		}
	}
}

// messages runs a connectionless socket.
func (p *pipe) messages(ctx context.Context, n *tipc.Node, addr net.Addr) error {
	cfg := &tipc.SocketConfig{Type: p.typ, Scope: p.scope, ReturnUndelivered: p.typ == tipc.RDM}
	var bind net.Addr
	if p.listen {
		bind = addr
	}
	c, err := n.ListenPacket(bind, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var last atomic.Value // net.Addr: where input goes
	if !p.listen {
		last.Store(addr)
	}
	var inputOver atomic.Bool
	failed := make(chan error, 1)
	go func() {
		err := p.input(func(b []byte) error {
			to, _ := last.Load().(net.Addr)
			if to == nil {
				return errors.New("nobody to send to: no message came yet")
			}
			_, err := c.WriteTo(b, to)
			return err
		})
		inputOver.Store(true)
		if err != nil {
			failed <- err
		}
		if !p.listen {
			c.SetReadDeadline(time.Now().Add(p.quiet))
		}
	}()
	returned := 0
	buf := make([]byte, tipc.MaxMessage)
	for i := 0; p.count == 0 || i < p.count; i++ {
		n, info, err := c.ReadMsg(buf)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case err := <-failed:
				return err
			default:
			}
			if returned > 0 {
				return fmt.Errorf("%d messages came back", returned)
			}
			return nil
		case err != nil:
			return err
		case info.Returned != 0:
			returned++
			fmt.Fprintf(p.env.err, "midplane: a message came back: %v\n", info.Returned)
			continue
		}
		if p.listen {
			last.Store(net.Addr(info.From))
		}
		if _, err := p.env.out.Write(buf[:n]); err != nil {
			return err
		}
		if inputOver.Load() && !p.listen {
			c.SetReadDeadline(time.Now().Add(p.quiet))
		}
	}
	return nil
}
