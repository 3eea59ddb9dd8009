package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"midplane/internal/api"
	"midplane/internal/api/attach"
	"midplane/internal/api/fibapi"
	"midplane/internal/ctlpath"
	"midplane/tipc"
)

// Daemon is a node with a control socket.
type Daemon struct {
	node   *tipc.Node
	fib    *fibControl // nil: no FIBs
	log    *slog.Logger
	path   string
	listen net.Listener
	http   *http.Server
	conns  *connQueue
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start runs a node as cfg says, and serves its control socket. The control socket is there and all bearers are
// enabled when it returns.
func Start(cfg Config, log *slog.Logger) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Control == "" {
		cfg.Control = tipc.DefaultControl()
	}
	l, err := listenControl(cfg.Control)
	if err != nil {
		return nil, err
	}
	n, err := tipc.NewNode(tipc.Config{Identity: cfg.Identity, Address: cfg.Address, NetID: cfg.NetID, Bearers: cfg.Bearers, Logger: log})
	if err != nil {
		l.Close()
		return nil, unwrapOp(err) // of a bearer, which it names
	}
	d := &Daemon{node: n, log: log, path: cfg.Control, listen: l, conns: newConnQueue(l.Addr())}
	mux := http.NewServeMux()
	mux.Handle("/", api.Handler(newControl(n)))
	if cfg.FIB.Enabled {
		if d.fib, err = openFIB(context.Background(), cfg.FIB, log); err != nil {
			l.Close()
			return nil, errors.Join(fmt.Errorf("FIBs: %w", err), n.Close())
		}
		fibapi.Register(mux, d.fib)
	}
	d.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.wg.Go(func() { _ = d.http.Serve(d.conns) }) // it ends with ErrServerClosed
	d.wg.Go(func() { d.accept(ctx) })
	log.Info("node runs", "identity", n.Identity().String(), "netid", orDefault(cfg.NetID), "control", cfg.Control, "bearers", len(cfg.Bearers))
	return d, nil
}

func orDefault(netid uint32) uint32 {
	if netid == 0 {
		return tipc.DefaultNetID
	}
	return netid
}

// Node returns the daemon's node.
func (d *Daemon) Node() *tipc.Node { return d.node }

// Control returns the path of the control socket.
func (d *Daemon) Control() string { return d.path }

// Close withdraws the node's services, tells its peers that it stops, and removes the control socket.
func (d *Daemon) Close() error { return d.stop(d.node.Close) }

// Kill stops the daemon as if its process had died: no peer is told.
func (d *Daemon) Kill() error { return d.stop(d.node.Internals().Abort) }

func (d *Daemon) stop(node func() error) error {
	d.listen.Close() // removes the file
	err := node()
	d.cancel()
	d.http.Close()
	d.wg.Wait()
	if d.fib != nil {
		err = errors.Join(err, d.fib.Close())
	}
	return err
}

// listenControl makes the control socket. A file that a dead node left behind is removed; one that answers is an error.
func listenControl(path string) (net.Listener, error) {
	if err := ctlpath.Prepare(path); err != nil {
		var foreign *ctlpath.Error
		if errors.As(err, &foreign) {
			return nil, err
		}
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if c, derr := net.DialTimeout("unix", path, 2*time.Second); derr == nil {
			c.Close()
			return nil, fmt.Errorf("control socket %s: a node answers there already: stop it, or choose another --control", path)
		} else if !errors.Is(derr, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("control socket %s: %w", path, derr)
		}
		fi, serr := os.Lstat(path)
		if serr == nil && fi.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("control socket %s: there is a file that is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// Whoever can write to the socket controls the node: its user and group.
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// accept tells the two kinds of clients apart: those that attach sockets begin with attach.Magic, the others speak HTTP.
func (d *Daemon) accept(ctx context.Context) {
	srv := &attach.Server{Node: d.node.Internals()}
	defer d.conns.Close()
	for {
		c, err := d.listen.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: it may pass.
			d.log.Warn("control socket", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		d.wg.Go(func() {
			var head [len(attach.Magic)]byte
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := readFull(c, head[:])
			c.SetReadDeadline(time.Time{})
			switch {
			case err != nil:
				c.Close()
			case string(head[:n]) == attach.Magic:
				srv.Serve(ctx, c)
			default:
				d.conns.push(&headConn{Conn: c, head: head[:n]})
			}
		})
	}
}

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = c.Read(b[n:])
		n += k
	}
	return n, err
}

// headConn gives back what was read to look at it.
type headConn struct {
	net.Conn
	head []byte
}

func (c *headConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// connQueue is the listener of the HTTP server.
type connQueue struct {
	addr net.Addr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, ch: make(chan net.Conn), done: make(chan struct{})}
}

func (q *connQueue) push(c net.Conn) {
	select {
	case q.ch <- c:
	case <-q.done:
		c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *connQueue) Addr() net.Addr { return q.addr }
