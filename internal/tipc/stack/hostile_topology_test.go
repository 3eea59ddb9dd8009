package stack_test

import (
	"encoding/binary"
	"io"
	"time"

	"midplane/internal/tipc/socket"
	"midplane/internal/tipc/wire"
)

// The topology service, from another node.

func subscription(order binary.ByteOrder, typ, lower, upper uint32, filter wire.SubscrFilter, change ...func(*wire.Subscr)) []byte {
	s := wire.Subscr{Range: rangeOf(typ, lower, upper), Timeout: wire.WaitForever, Filter: filter}
	for _, c := range change {
		c(&s)
	}
	b := make([]byte, wire.SubscrSize)
	wire.PutSubscr(b, s, order)
	return b
}

// subscribe connects the mad node to the attacked one's topology server.
func (e *env) subscribe() *socket.Sock {
	e.t.Helper()
	s := e.m.socket(socket.SeqPacket)
	to := service(wire.TopologyType, wire.TopologyType)
	to.Addr.Node = e.a.addr()
	if err := s.Connect(e.w.now, to); err != socket.ErrInProgress {
		e.fatalf("%v", err)
	}
	e.m.flush()
	e.w.run(2 * time.Millisecond)
	if err := s.ConnectResult(); err != nil {
		e.fatalf("no topology server: %v", err)
	}
	return s
}

func (e *env) request(s *socket.Sock, b []byte) {
	e.t.Helper()
	if _, err := s.Send(e.w.now, b, socket.Dest{}); err != nil {
		e.fatalf("%v", err)
	}
	e.m.flush()
	e.w.run(2 * time.Millisecond)
}

// event reads one event, or what the connection ended with.
func (e *env) event(s *socket.Sock) ([]byte, error) {
	b := make([]byte, 100)
	n, _, err := s.Recv(e.w.now, b, 0)
	e.m.flush()
	return b[:n], err
}

// topology is a case of one topology session at a time. ends: the server closes it.
func topology(name string, ends bool, f func(e *env, s *socket.Sock, i int)) hostile {
	at := attack{by: "peer", times: 10, answers: 60, do: func(e *env, i int) {
		s := e.subscribe()
		f(e, s, i)
		_, err := e.event(s)
		for err == nil {
			_, err = e.event(s)
		}
		if ended := err != socket.ErrWouldBlock; ended != ends {
			e.fatalf("session ended: %v (%v)", ended, err)
		} else if ended && err != io.EOF && err != socket.ErrConnReset {
			e.fatalf("session ended with %v", err)
		}
		s.Close(e.w.now)
		e.m.flush()
		e.n.run(20 * time.Millisecond)
		if n := e.a.s.Topsrv().Sessions(); n != 0 {
			e.fatalf("%d sessions are left", n)
		}
		if n := e.a.s.Names().Stats().Subscriptions; n != 0 {
			e.fatalf("%d subscriptions are left", n)
		}
	}}
	if ends {
		at.counts = "topsrv.Rejected"
	}
	return hostile{name, []attack{at}}
}

var hostileTopology = []hostile{
	topology("SubscriptionInParts", true, func(e *env, s *socket.Sock, i int) { // 28 octets in two messages
		b := subscription(binary.LittleEndian, 5000, 0, 10, wire.SubPorts)
		e.request(s, b[:1+i*2])
	}),
	topology("SubscriptionTooLong", false, func(e *env, s *socket.Sock, i int) { // one message is one subscription
		b := subscription(binary.LittleEndian, 5000, 0, 10, wire.SubPorts)
		for range i {
			b = append(b, b[:wire.SubscrSize]...)
		}
		e.request(s, b)
		if n := e.a.s.Names().Stats().Subscriptions; n != 1 {
			e.fatalf("%d subscriptions", n)
		}
	}),
	topology("SubscriptionByteOrdersMixed", false, func(e *env, s *socket.Sock, i int) {
		for k := range 4 {
			order := []binary.ByteOrder{binary.BigEndian, binary.LittleEndian}[(i+k)%2]
			e.request(s, subscription(order, rdmService, 0, uint32(10+k), wire.SubPorts))
			b, err := e.event(s)
			if err != nil {
				e.fatalf("%v", err)
			}
			if ev, ok := wire.ParseEvent(b, order); !ok || ev.Kind != wire.EventPublished || ev.Subscr.Range != rangeOf(rdmService, 0, uint32(10+k)) {
				e.fatalf("event %x in %v", b, order)
			}
		}
	}),
	topology("SubscriptionFilterNone", false, func(e *env, s *socket.Sock, i int) { // no bit known: taken as the other byte order
		e.request(s, subscription(binary.LittleEndian, 5000, 0, 10, wire.SubscrFilter(8<<(i%28))))
	}),
	topology("SubscriptionFilterBoth", true, func(e *env, s *socket.Sock, _ int) {
		e.request(s, subscription(binary.LittleEndian, 5000, 0, 10, wire.SubPorts|wire.SubService))
	}),
	topology("SubscriptionRangeSwapped", true, func(e *env, s *socket.Sock, i int) {
		e.request(s, subscription([]binary.ByteOrder{binary.BigEndian, binary.LittleEndian}[i%2], 5000, 10, 9, wire.SubPorts))
	}),
	topology("SubscriptionCancelOfNothing", false, func(e *env, s *socket.Sock, i int) {
		for k := range uint32(5) {
			e.request(s, subscription(binary.LittleEndian, 5000, k, 10, wire.SubPorts|wire.SubCancel))
		}
	}),
	topology("SubscriptionOfNothingForNoTime", false, func(e *env, s *socket.Sock, i int) {
		e.request(s, subscription(binary.LittleEndian, 5000, 0, 10, wire.SubPorts, func(s *wire.Subscr) { s.Timeout = uint32(i % 2) }))
		e.n.run(10 * time.Millisecond)
	}),
	{"SubscriptionsWithoutEnd", []attack{{by: "peer", times: 1, answers: 1 << 17, heap: 8 << 20, counts: "topsrv.Rejected", do: func(e *env, _ int) {
		e.w.limit = 4 * maxSteps
		s := e.subscribe()
		for i := uint32(0); ; i++ {
			_, err := s.Send(e.w.now, subscription(binary.LittleEndian, 5000+i%3, i, i, wire.SubPorts), socket.Dest{})
			e.m.flush()
			if err == socket.ErrWouldBlock || i%50 == 49 {
				e.w.run(300 * time.Microsecond)
				continue
			}
			if err != nil {
				break
			}
			if i > 200_000 {
				e.fatalf("%d subscriptions", e.a.s.Names().Stats().Subscriptions)
			}
		}
		s.Close(e.w.now)
		e.m.flush()
		e.n.run(100 * time.Millisecond)
		if n := e.a.s.Names().Stats().Subscriptions; n != 0 {
			e.fatalf("%d subscriptions are left", n)
		}
	}}}},
	{"SubscriberWhoDoesNotRead", []attack{{by: "peer", times: 1, answers: 20000, heap: 24 << 20, do: func(e *env, _ int) {
		s := e.subscribe()
		e.request(s, subscription(binary.LittleEndian, 5000, 0, 1000, wire.SubPorts))
		rdm := e.a.socket(socket.RDM)
		for i := range 20000 { // his window is soon used up, then events wait at the server
			if err := rdm.Bind(e.w.now, rangeOf(5000, 1, 1), wire.ScopeNode); err != nil {
				e.fatalf("%v", err)
			}
			if err := rdm.Unbind(e.w.now, rangeOf(5000, 1, 1), wire.ScopeNode); err != nil {
				e.fatalf("%v", err)
			}
			if i%10 == 0 {
				e.a.flush()
				e.w.run(200 * time.Microsecond)
			}
		}
		rdm.Close(e.w.now)
		e.a.flush()
		if n := e.a.s.Names().Stats().QueuedEvents; n < 1000 || n > 40000 {
			e.fatalf("%d events wait", n)
		}
		s.Close(e.w.now)
		e.m.flush()
		e.n.run(100 * time.Millisecond)
		if n := e.a.s.Names().Stats().QueuedEvents; n != 0 {
			e.fatalf("%d events are left", n)
		}
	}}}},
}
