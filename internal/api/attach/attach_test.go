package attach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/sockif/sockiftest"
	"midplane/internal/tipc/wire"
)

var service = wire.ServiceRange{Type: 4711, Lower: 7, Upper: 7}

func serviceDest(kind sockif.DestKind) sockif.Dest { return sockif.Dest{Kind: kind, Range: service} }

// serve runs a server for a model node, and returns a client of it.
func serve(t testing.TB, n *sockiftest.Node) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &Server{Node: n}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				head := make([]byte, len(Magic))
				if _, err := io.ReadFull(c, head); err == nil && string(head) == Magic {
					srv.Serve(ctx, c)
				}
				c.Close()
			})
		}
	})
	client, err := NewClient(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); l.Close(); cancel(); wg.Wait() })
	return client
}

// eventually waits for goroutines of the other end; it is bounded, and each look costs little.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

func pair(t testing.TB, c *Client, typ sockif.Type) (a, b sockif.Socket) {
	t.Helper()
	l, err := c.Socket(typ, sockif.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(l.Listen(1), l.Bind(service, wire.ScopeCluster)); err != nil {
		t.Fatal(err)
	}
	if a, err = c.Socket(typ, sockif.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(t.Context(), serviceDest(sockif.ServiceDest)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if a.PeerAddr() != b.LocalAddr() || b.PeerAddr() != a.LocalAddr() || a.LocalAddr() == b.LocalAddr() {
		t.Fatalf("addresses: %v-%v, %v-%v", a.LocalAddr(), a.PeerAddr(), b.LocalAddr(), b.PeerAddr())
	}
	return a, b
}

// netConn makes a net.Conn of a stream socket.
type netConn struct{ sockif.Socket }

func (c netConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, err := c.Recv(p)
	return n, netError(err)
}
func (c netConn) Write(p []byte) (int, error) {
	n, err := c.Send(p, sockif.Dest{})
	return n, netError(err)
}
func (c netConn) LocalAddr() net.Addr  { return &net.UnixAddr{Net: "tipc"} }
func (c netConn) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "tipc"} }
func (c netConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// netError makes errors the net.Error that nettest wants.
func netError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: "x", Net: "tipc", Err: err}
}

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c := serve(t, &sockiftest.Node{})
		a, b := pair(t, c, sockif.Stream)
		return netConn{a}, netConn{b}, func() { a.Close(); b.Close() }, nil
	})
}

// Both directions at once, more than any window, with sockets that hold little: nothing may wait for ever.
func TestFullDuplexBulk(t *testing.T) {
	c := serve(t, &sockiftest.Node{Limit: 1})
	a, b := pair(t, c, sockif.Stream)
	const total = 8 * window
	var wg sync.WaitGroup
	for _, d := range [][2]sockif.Socket{{a, b}, {b, a}} {
		wg.Go(func() {
			p := make([]byte, 100_000)
			for sent := 0; sent < total; {
				for i := range p {
					p[i] = byte((sent + i) * 7)
				}
				n, err := d[0].Send(p[:min(len(p), total-sent)], sockif.Dest{})
				if err != nil {
					t.Error(err)
					return
				}
				sent += n
			}
		})
		wg.Go(func() {
			p := make([]byte, 30_000)
			for got := 0; got < total; {
				n, _, err := d[1].Recv(p)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range n {
					if p[i] != byte((got+i)*7) {
						t.Errorf("octet %d is wrong", got+i)
						return
					}
				}
				got += n
			}
		})
	}
	wg.Wait()
}

// What was sent before Close arrives, and then the end.
func TestCloseDeliversFirst(t *testing.T) {
	c := serve(t, &sockiftest.Node{Limit: 2})
	a, b := pair(t, c, sockif.SeqPacket)
	const n = 40 // more than the model holds, less than the window
	for i := range n {
		if _, err := a.Send(bytes.Repeat([]byte{byte(i)}, 1000), sockif.Dest{}); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	buf := make([]byte, 600)
	for i := range n {
		k, info, err := b.Recv(buf)
		if err != nil || k != 600 || buf[0] != byte(i) || !info.Truncated {
			t.Fatal(i, k, info, err)
		}
	}
	if _, _, err := b.Recv(buf); err != io.EOF {
		t.Fatal("end: ", err)
	}
	eventually(t, "a pipelined write fails", func() bool {
		_, err := b.Send([]byte("x"), sockif.Dest{})
		return errors.Is(err, syscall.EPIPE)
	})
}

func TestConnectionless(t *testing.T) {
	node := &sockiftest.Node{}
	c := serve(t, node)
	open := func() sockif.Socket {
		s, err := c.Socket(sockif.RDM, sockif.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b, d := open(), open(), open()
	var se *sockif.Error
	if _, err := a.Send([]byte("x"), serviceDest(sockif.ServiceDest)); !errors.Is(err, syscall.EHOSTUNREACH) || !errors.As(err, &se) || se.Code != wire.CodeNoName {
		t.Fatal("nobody bound: ", err)
	}
	if err := b.Bind(wire.ServiceRange{Type: 1, Lower: 0, Upper: 0}, wire.ScopeCluster); !errors.Is(err, syscall.EACCES) {
		t.Fatal("reserved type: ", err)
	}
	for _, s := range []sockif.Socket{b, d} {
		if err := s.Bind(service, wire.ScopeNode); err != nil {
			t.Fatal(err)
		}
	}
	big := bytes.Repeat([]byte("y"), wire.MaxUserMsgSize)
	if n, err := a.Send(big, serviceDest(sockif.RangeDest)); err != nil || n != len(big) {
		t.Fatal(n, err)
	}
	if _, err := a.Send(append(big, 'z'), serviceDest(sockif.RangeDest)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Fatal("too large: ", err)
	}
	buf := make([]byte, wire.MaxUserMsgSize)
	for _, s := range []sockif.Socket{b, d} {
		n, info, err := s.Recv(buf)
		if err != nil || !bytes.Equal(buf[:n], big) || info.From != a.LocalAddr() || !info.HasDest || info.Dest != service {
			t.Fatal(n, info, err)
		}
	}
	b.SetReadDeadline(time.Now().Add(-1))
	if _, _, err := b.Recv(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := b.Unbind(service, wire.ScopeNode); err != nil {
		t.Fatal(err)
	}
	if err := b.Unbind(service, wire.ScopeNode); !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
	if _, err := a.Send(nil, sockif.Dest{Kind: sockif.SocketDest, Addr: d.LocalAddr()}); err != nil {
		t.Fatal("empty message: ", err)
	}
	if n, _, err := d.Recv(buf); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

// A client that dies, also in the middle of a frame or of an Accept, leaves no socket behind.
func TestClientDeath(t *testing.T) {
	node := &sockiftest.Node{}
	c := serve(t, node)
	l, err := c.Socket(sockif.Stream, sockif.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Bind(service, wire.ScopeCluster), l.Listen(10)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a, err := c.Socket(sockif.Stream, sockif.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Connect(t.Context(), serviceDest(sockif.ServiceDest)); err != nil {
			t.Fatal(err)
		}
		a.(*Socket).conn.c.Write([]byte{0, 0, 1, 0, byte(kData), 0})
	}
	if node.Open() != 7 {
		t.Fatalf("%d sockets", node.Open())
	}
	for s := range c.socks {
		s.conn.c.Close() // as the kernel does when a process ends
	}
	eventually(t, "all sockets are closed", func() bool { return node.Open() == 0 })
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatal("after the connection is gone: ", err)
	}
}

// A client that breaks the protocol loses its socket, and no other.
func TestMalformedFrames(t *testing.T) {
	node := &sockiftest.Node{}
	c := serve(t, node)
	good, err := c.Socket(sockif.RDM, sockif.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const ver = string(rune(version))
	open := string([]byte{0, 0, 0, 13, byte(kOpen), 0, 0, 1, version, byte(sockif.RDM), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for name, in := range map[string]string{
		"nothing":        "",
		"unknown first":  "\x00\x00\x00\x00\x0d\x00\x00\x01",
		"huge":           "\xff\xff\xff\xff\x01\x00\x00\x01",
		"short open":     "\x00\x00\x00\x02\x01\x00\x00\x01" + ver + "\x04",
		"bad type":       "\x00\x00\x00\x0d\x01\x00\x00\x01" + ver + "\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"bad version":    "\x00\x00\x00\x0d\x01\x00\x00\x01\x09\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"unknown token":  "\x00\x00\x00\x11\x02\x00\x00\x01" + ver + string(make([]byte, 16)),
		"short bind":     open + "\x00\x00\x00\x01\x03\x00\x00\x02\x00",
		"bad dest":       open + "\x00\x00\x00\x15\x07\x00\x00\x02" + "\x09" + string(make([]byte, 20)),
		"unknown":        open + "\x00\x00\x00\x00\x63\x00\x00\x02",
		"credit unasked": open + "\x00\x00\x00\x04\x09\x00\x00\x00\x00\x00\x00\x01",
		"credit wraps":   open + "\x00\x00\x00\x04\x09\x00\x00\x00\xff\xff\xff\xff",
	} {
		nc, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, Magic+in)
		if name == "nothing" || name == "short open" {
			nc.(*net.UnixConn).CloseWrite()
		}
		nc.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", name)
		}
		nc.Close()
	}
	eventually(t, "only the good socket is left", func() bool { return node.Open() == 1 })
	if err := good.Bind(service, wire.ScopeCluster); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	for i, c := range causes {
		if i == 0 {
			continue
		}
		for _, err := range []error{c, &sockif.Error{Code: 3, Err: c}, &net.OpError{Op: "x", Err: c}} {
			d := dec{b: enc(nil).err(err)}
			got := d.err()
			if !errors.Is(got, c) || d.bad || len(d.b) != 0 {
				t.Errorf("%v: %v", err, got)
			}
			var a, b *sockif.Error
			if errors.As(err, &a) != errors.As(got, &b) || a != nil && a.Code != b.Code {
				t.Errorf("%v: code lost", err)
			}
			if got.Error() != err.Error() {
				t.Errorf("%q became %q", err, got)
			}
		}
	}
	d := dec{b: enc(nil).err(errors.New("novel"))}
	if err := d.err(); err == nil || err.Error() != "novel" {
		t.Error(err)
	}
	d = dec{b: enc(nil).err(nil)}
	if d.err() != nil {
		t.Error("nil")
	}
}

func FuzzClientFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 10, 0, 0, 0})
	f.Add([]byte("\x00\x00\x00\x1a\x08\x00\x00\x00" + string(make([]byte, 26))))
	f.Add([]byte("\x00\x00\x00\x08\x0c\x00\x00\x00\x01\x05\x01\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		s := &Socket{client: &Client{}, conn: newConn(near), replies: map[uint16]*reply{}}
		s.rd.Init(&s.mu)
		s.wr.Init(&s.mu)
		done := make(chan struct{})
		go func() { s.receive(); close(done) }()
		far.Write(in)
		far.Close()
		<-done
		if s.dead == nil {
			t.Error("receive ended without an error")
		}
	})
}
