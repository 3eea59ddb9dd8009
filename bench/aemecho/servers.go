//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/lesismal/nbio"
	nbiolog "github.com/lesismal/nbio/logging"
	"github.com/panjf2000/gnet/v2"

	"midplane/aem"
)

var serverNames = []string{"net", "gnet", "netpoll", "nbio", "aem/uring", "aem/epoll", "aem/stdnet"}

// runServer is an echo server until its input ends.
func runServer(name string) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	serve, ok := map[string]func() error{
		"net": serveNet, "gnet": serveGnet, "netpoll": serveNetpoll, "nbio": serveNbio,
		"aem/uring": func() error { return serveAem("io_uring") }, "aem/epoll": func() error { return serveAem("epoll") },
		"aem/stdnet": func() error { return serveAem("stdnet") },
	}[name]
	if !ok {
		return fmt.Errorf("server is %q, want one of %v", name, serverNames)
	}
	return serve()
}

func listening(a net.Addr) { fmt.Printf("listening %s\n", a) }

func serveAem(backend string) error {
	ex, err := aem.New(nil)
	if err != nil {
		return err
	}
	c, err := ex.Class("echo", aem.ClassConfig{Inline: true})
	if err != nil {
		return err
	}
	l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: backend})
	if err != nil {
		return err
	}
	src := aem.Listen("tcp", "127.0.0.1:0")
	e, err := aem.Register(l, src, func(_ *aem.Ctx, e aem.StreamEvent) {
		switch e.Kind {
		case aem.StreamReceived:
			if n, err := e.Conn.Send(e.Data); err == nil && n < len(e.Data) {
				e.Conn.Abort() // a peer that does not read its echoes
			}
		case aem.StreamEnded:
			e.Conn.Close()
		}
	}, aem.EventConfig{Class: c})
	if err != nil {
		return err
	}
	if err := e.Start(); err != nil {
		return err
	}
	listening(src.Addr())
	select {}
}

func serveNet() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listening(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// freePort is one for servers that do not tell which they took.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

type gnetEcho struct {
	gnet.BuiltinEventEngine
	addr net.Addr
}

func (g *gnetEcho) OnBoot(gnet.Engine) gnet.Action {
	listening(g.addr)
	return gnet.None
}

func (*gnetEcho) OnTraffic(c gnet.Conn) gnet.Action {
	b, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	if _, err := c.Write(b); err != nil {
		return gnet.Close
	}
	return gnet.None
}

func serveGnet() error {
	addr, err := freePort()
	if err != nil {
		return err
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return err
	}
	return gnet.Run(&gnetEcho{addr: a}, "tcp://"+addr, gnet.WithNumEventLoop(1), gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogLevel(4))
}

func serveNetpoll() error {
	l, err := netpoll.CreateListener("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		r, w := c.Reader(), c.Writer()
		b, err := r.Next(r.Len())
		if err != nil {
			return err
		}
		if _, err := w.WriteBinary(b); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return r.Release()
	})
	if err != nil {
		return err
	}
	listening(l.Addr())
	return loop.Serve(l)
}

func serveNbio() error {
	nbiolog.SetLevel(nbiolog.LevelError)
	addr, err := freePort()
	if err != nil {
		return err
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return err
	}
	e := nbio.NewEngine(nbio.Config{Network: "tcp", Addrs: []string{addr}, NPoller: 1})
	e.OnData(func(c *nbio.Conn, b []byte) { _, _ = c.Write(append([]byte(nil), b...)) })
	if err := e.Start(); err != nil {
		return err
	}
	listening(a)
	for {
		time.Sleep(time.Hour)
	}
}
