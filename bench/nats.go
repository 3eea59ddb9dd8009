package main

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATS core: the server runs with the answering side, which is its client over loopback as well.
func serveNATS() (string, func(), error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		return "", nil, err
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return "", s.Shutdown, errors.New("nats-server does not start")
	}
	e, err := natsEndpoint(s.ClientURL(), "request", "reply")
	if err != nil {
		return "", s.Shutdown, err
	}
	go answer(e)
	return s.ClientURL(), s.Shutdown, nil
}

func dialNATS(url string) (endpoint, error) { return natsEndpoint(url, "reply", "request") }

type natsConn struct {
	*nats.Conn
	sub *nats.Subscription
	to  string
}

func natsEndpoint(url, from, to string) (endpoint, error) {
	c, err := nats.Connect(url, nats.SyncQueueLen(1<<20)) // a full queue would drop messages
	if err != nil {
		return nil, err
	}
	sub, err := c.SubscribeSync(from)
	if err != nil {
		return nil, err
	}
	sub.SetPendingLimits(-1, -1)
	return &natsConn{c, sub, to}, c.Flush()
}

func (n *natsConn) Send(p []byte) error { return n.Publish(n.to, p) }

func (n *natsConn) Recv(p []byte) (int, error) {
	m, err := n.sub.NextMsg(time.Minute)
	if err != nil {
		return 0, err
	}
	return copy(p, m.Data), nil
}

func (n *natsConn) Close() error { n.Conn.Close(); return nil }
