package main

import "net"

func serveTCP() (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn{c})
		}
	}()
	return l.Addr().String(), func() { l.Close() }, nil
}

// dialTCP leaves TCP_NODELAY on, which is Go's default.
func dialTCP(addr string) (endpoint, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}
