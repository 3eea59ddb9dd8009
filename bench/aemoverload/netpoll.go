package main

import (
	"context"
	"net"

	"github.com/cloudwego/netpoll"
)

func serveNetpoll(ready func(string)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		for c.Reader().Len() >= header {
			b, err := c.Reader().Next(header)
			if err != nil {
				return err
			}
			r := append([]byte(nil), b...)
			c.Reader().Release()
			work(r[0])
			if _, err := c.Write(reply(nil, r, answered)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ready(l.Addr().String())
	return loop.Serve(l)
}
