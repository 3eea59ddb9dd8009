package topsrv

import (
	"errors"

	"midplane/internal/mono"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// Errors that end a session, besides those of names.Subscriber.Subscribe.
var (
	ErrShort    = errors.New("topsrv: message shorter than a subscription")
	ErrOverflow = errors.New("topsrv: too many events unread")
)

// Session is one user of the topology service. Create it with [NewSession] and end it with Close.
type Session struct {
	User any // the owner's own

	sub *names.Subscriber
}

// NewSession returns a session that joins ready when it has events; a subscriber that comes from ready has the session
// as User. At most maxEvents (0: default of names) wait in it.
func NewSession(t *names.Table, ready *names.Ready, maxEvents int) *Session {
	s := &Session{sub: t.NewSubscriber(ready, maxEvents)}
	s.sub.User = s
	return s
}

// Receive takes one message: a subscription, or the cancellation of one. After an error the session is to be closed
// (tipc_conn_rcv_from_sock). rec is not kept.
func (s *Session) Receive(now mono.Time, rec []byte) error {
	if len(rec) < wire.SubscrSize {
		return ErrShort
	}
	return s.sub.Request(now, [wire.SubscrSize]byte(rec))
}

// Peek writes the oldest event to dst; it reports whether there is one. Drop takes that event off.
func (s *Session) Peek(dst *[wire.EventSize]byte) bool {
	e, ok := s.sub.Peek()
	if ok {
		wire.PutEvent(dst[:], e.Event, e.Order)
	}
	return ok
}

// Drop takes the oldest event off, if there is one.
func (s *Session) Drop() { s.sub.Drop() }

// Err says why the session has to be closed though the user did nothing wrong: [ErrOverflow], or nil.
func (s *Session) Err() error {
	if s.sub.Overflowed() {
		return ErrOverflow
	}
	return nil
}

// Pending is the number of events, Len that of subscriptions.
func (s *Session) Pending() int { return s.sub.Pending() }
func (s *Session) Len() int     { return s.sub.Len() }

// Close ends all subscriptions and drops what is unread.
func (s *Session) Close() { s.sub.Close() }
