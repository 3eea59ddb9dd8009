package main

import (
	"net"
	"runtime"
	"time"

	"github.com/panjf2000/ants/v2"
	"github.com/panjf2000/gnet/v2"
)

type gnetServer struct {
	gnet.BuiltinEventEngine
	pool  *ants.Pool // heavy work goes there, unless nil
	ready func()
}

func (s *gnetServer) OnBoot(gnet.Engine) gnet.Action {
	// The listener is open when this returns, or a moment later.
	time.AfterFunc(50*time.Millisecond, s.ready)
	return gnet.None
}

func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	for c.InboundBuffered() >= header {
		b, err := c.Next(header)
		if err != nil {
			return gnet.Close
		}
		if s.pool == nil || b[0] == light {
			work(b[0])
			c.Write(reply(nil, b, answered))
			continue
		}
		r := append([]byte(nil), b...)
		if err := s.pool.Submit(func() {
			work(heavy)
			c.AsyncWrite(reply(nil, r, answered), nil)
		}); err != nil {
			c.Write(reply(nil, r, shed))
		}
	}
	return gnet.None
}

func runGnet(ready func(string), pool *ants.Pool) error {
	// gnet does not tell which port it was given, so one that is free is chosen before.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	s := &gnetServer{pool: pool, ready: func() { ready(addr) }}
	return gnet.Run(s, "tcp://"+addr, gnet.WithMulticore(true))
}

func serveGnet(ready func(string)) error { return runGnet(ready, nil) }

// serveAnts has a pool of as many workers as processors. Its Submit waits for a worker, as in the examples of both.
func serveAnts(ready func(string)) error {
	pool, err := ants.NewPool(runtime.NumCPU())
	if err != nil {
		return err
	}
	return runGnet(ready, pool)
}
