package topsrv_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"midplane/internal/mono"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/topsrv"
	"midplane/internal/tipc/wire"
)

const own = 0x01001001

func sr(typ, lower, upper uint32) wire.ServiceRange {
	return wire.ServiceRange{Type: typ, Lower: lower, Upper: upper}
}

func subscr(s wire.Subscr, order binary.ByteOrder) []byte {
	b := make([]byte, wire.SubscrSize)
	wire.PutSubscr(b, s, order)
	return b
}

func publish(t testing.TB, tab *names.Table, r wire.ServiceRange, port uint32) *names.Publication {
	t.Helper()
	p, err := tab.Publish(0, r, wire.ScopeCluster, wire.SocketAddr{Port: port, Node: own}, port+1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func next(s *topsrv.Session, order binary.ByteOrder) (e wire.Event, ok bool) {
	var b [wire.EventSize]byte
	if ok = s.Peek(&b); ok {
		e, _ = wire.ParseEvent(b[:], order)
		s.Drop()
	}
	return e, ok
}

// TestSessionEvents runs subscription, events, cancellation and timeout in both byte orders.
func TestSessionEvents(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		tab := names.NewTable(names.Config{Own: own})
		var ready names.Ready
		s := topsrv.NewSession(tab, &ready, 0)
		p := publish(t, tab, sr(100, 3, 8), 7)
		sub := wire.Subscr{Range: sr(100, 5, 20), Timeout: wire.WaitForever, Filter: wire.SubPorts, UserHandle: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
		timed := wire.Subscr{Range: sr(100, 50, 60), Timeout: 250, Filter: wire.SubService}
		for _, x := range []wire.Subscr{sub, timed} {
			if err := s.Receive(0, subscr(x, order)); err != nil {
				t.Fatal(err)
			}
		}
		if got := ready.Pop(); got == nil || got.User != any(s) {
			t.Errorf("ready: %v", got)
		}
		tab.Withdraw(0, p)
		tab.Tick(mono.Time(250 * time.Millisecond))
		cancel := sub
		cancel.Filter |= wire.SubCancel
		if err := s.Receive(0, subscr(cancel, order)); err != nil || s.Len() != 0 {
			t.Errorf("%v: cancel: %v, %d left", order, err, s.Len())
		}
		publish(t, tab, sr(100, 5, 5), 8)
		port := wire.SocketAddr{Port: 7, Node: own}
		for i, want := range []wire.Event{
			{Kind: wire.EventPublished, Lower: 3, Upper: 8, Port: port, Subscr: sub},
			{Kind: wire.EventWithdrawn, Lower: 3, Upper: 8, Port: port, Subscr: sub},
			{Kind: wire.EventTimeout, Lower: 50, Upper: 60, Subscr: timed},
		} {
			if e, ok := next(s, order); !ok || e != want {
				t.Errorf("%v: event %d (-want +got):\n%s", order, i, cmp.Diff(want, e))
			}
		}
		if s.Pending() != 0 || s.Err() != nil {
			t.Errorf("%v: %d more events, %v", order, s.Pending(), s.Err())
		}
		s.Drop()
		s.Close()
	}
}

func TestSessionRefuses(t *testing.T) {
	good := wire.Subscr{Range: sr(100, 1, 2), Timeout: wire.WaitForever, Filter: wire.SubPorts}
	both, swapped, cancel := good, good, good
	both.Filter |= wire.SubService
	swapped.Range.Lower = 3
	cancel.Filter |= wire.SubCancel
	for name, c := range map[string]struct {
		rec  []byte
		want error
		n    int
	}{
		"empty":              {nil, topsrv.ErrShort, 0},
		"27 octets":          {subscr(good, binary.LittleEndian)[:27], topsrv.ErrShort, 0},
		"both filters":       {subscr(both, binary.BigEndian), names.ErrFilter, 0},
		"swapped bounds":     {subscr(swapped, binary.LittleEndian), names.ErrRange, 0},
		"cancels nothing":    {subscr(cancel, binary.LittleEndian), nil, 0},
		"good":               {subscr(good, binary.LittleEndian), nil, 1},
		"two in one message": {append(subscr(good, binary.LittleEndian), subscr(good, binary.LittleEndian)...), nil, 1},
		"good and a half":    {append(subscr(good, binary.LittleEndian), 1, 2, 3), nil, 1},
		"no filter":          {make([]byte, 28), nil, 1},
	} {
		tab := names.NewTable(names.Config{Own: own})
		s := topsrv.NewSession(tab, nil, 0)
		if err := s.Receive(0, c.rec); err != c.want || s.Len() != c.n {
			t.Errorf("%s: %v, %d subscriptions; want %v, %d", name, err, s.Len(), c.want, c.n)
		}
	}
}

func TestSessionLimits(t *testing.T) {
	tab := names.NewTable(names.Config{Own: own})
	a, b := topsrv.NewSession(tab, nil, 3), topsrv.NewSession(tab, nil, 0)
	rec := subscr(wire.Subscr{Range: sr(100, 0, 99), Timeout: wire.WaitForever, Filter: wire.SubPorts}, binary.LittleEndian)
	for i := range names.MaxSubscriptions {
		s := a
		if i%2 == 1 {
			s = b
		}
		if err := s.Receive(0, rec); err != nil {
			t.Fatalf("subscription %d: %v", i, err)
		}
	}
	if err := b.Receive(0, rec); err != names.ErrTooManySubscr {
		t.Errorf("number 65,536: %v", err)
	}
	publish(t, tab, sr(100, 1, 1), 1)
	if a.Err() != topsrv.ErrOverflow || b.Err() != nil || b.Pending() != names.MaxSubscriptions/2 {
		t.Errorf("a: %v; b: %v, %d events", a.Err(), b.Err(), b.Pending())
	}
	a.Close()
	b.Close()
	if st := tab.Stats(); st.Subscriptions != 0 || st.QueuedEvents != 0 {
		t.Errorf("left: %+v", st)
	}
}

// TestSessionMirrorsTable checks that a user who applies all events knows the bindings, whenever it subscribed.
func TestSessionMirrorsTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := names.NewTable(names.Config{Own: own})
		s := topsrv.NewSession(tab, nil, 0)
		var pubs []*names.Publication
		key := uint32(0)
		known := map[uint32]wire.ServiceRange{} // by port
		subscribed := false
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				a, b := rapid.Uint32Range(0, 9).Draw(t, "a"), rapid.Uint32Range(0, 9).Draw(t, "b")
				key++
				p, err := tab.Publish(0, sr(100, min(a, b), max(a, b)), wire.ScopeCluster, wire.SocketAddr{Port: key, Node: own}, key)
				if err != nil {
					t.Fatal(err)
				}
				pubs = append(pubs, p)
			},
			"withdraw": func(t *rapid.T) {
				if len(pubs) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(pubs)-1).Draw(t, "i")
				tab.Withdraw(0, pubs[i])
				pubs = slices.Delete(pubs, i, i+1)
			},
			"subscribe": func(t *rapid.T) {
				if subscribed {
					t.Skip()
				}
				subscribed = true
				s.Receive(0, subscr(wire.Subscr{Range: sr(100, 0, 9), Timeout: wire.WaitForever, Filter: wire.SubPorts}, binary.BigEndian))
			},
			"": func(t *rapid.T) {
				for e, ok := next(s, binary.BigEndian); ok; e, ok = next(s, binary.BigEndian) {
					r := sr(100, e.Lower, e.Upper)
					switch _, have := known[e.Port.Port]; {
					case e.Kind == wire.EventPublished && !have:
						known[e.Port.Port] = r
					case e.Kind == wire.EventWithdrawn && known[e.Port.Port] == r:
						delete(known, e.Port.Port)
					default:
						t.Fatalf("event %+v, known %v", e, known)
					}
				}
				want := map[uint32]wire.ServiceRange{}
				for _, p := range pubs {
					if subscribed {
						want[p.Addr.Port] = p.Range
					}
				}
				if d := cmp.Diff(want, known); d != "" {
					t.Fatalf("(-want +got):\n%s", d)
				}
			},
		})
	})
}

// FuzzSession feeds records of any length to a session while bindings come and go. Whatever a session is told, its
// events must repeat a subscription that it sent, octet for octet.
func FuzzSession(f *testing.F) {
	good := wire.Subscr{Range: sr(100, 0, 300), Timeout: 100, Filter: wire.SubPorts}
	cancel := good
	cancel.Filter |= wire.SubCancel
	le, be := binary.LittleEndian, binary.BigEndian
	frame := func(recs ...[]byte) (out []byte) {
		for _, r := range recs {
			out = append(append(out, byte(len(r))), r...)
		}
		return out
	}
	f.Add(frame(subscr(good, le), subscr(good, be), subscr(cancel, le), subscr(cancel, be)))
	f.Add(frame(subscr(good, be), make([]byte, 28), make([]byte, 27)))
	f.Fuzz(func(t *testing.T, in []byte) {
		tab := names.NewTable(names.Config{Own: own, MaxSubscriptions: 20})
		s := topsrv.NewSession(tab, nil, 50)
		sent := map[[wire.SubscrSize]byte]bool{}
		var now mono.Time
		for i := uint32(0); len(in) > 0; i++ {
			n := min(int(in[0]), len(in)-1)
			rec := in[1 : 1+n]
			in = in[1+n:]
			now = now.Add(20 * time.Millisecond)
			p, err := tab.Publish(now, sr(100, i, i+uint32(n)), wire.ScopeCluster, wire.SocketAddr{Port: i, Node: own}, i)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Receive(now, rec)
			if err == nil {
				sent[[wire.SubscrSize]byte(rec)] = true
			} else if len(rec) >= wire.SubscrSize && err == topsrv.ErrShort {
				t.Fatalf("%d octets are short", len(rec))
			}
			if i&1 == 0 {
				tab.Withdraw(now, p)
			}
			tab.Tick(now)
			if s.Pending() > 50 || s.Len() > 20 {
				t.Fatalf("%d events, %d subscriptions", s.Pending(), s.Len())
			}
			var e [wire.EventSize]byte
			for s.Peek(&e) && i%3 == 0 {
				if !sent[[wire.SubscrSize]byte(e[20:])] {
					t.Fatalf("event %x for a subscription that was not made", e)
				}
				s.Drop()
			}
		}
		s.Close()
		if st := tab.Stats(); st.Subscriptions != 0 || st.QueuedEvents != 0 || tab.Deadline() != mono.Never {
			t.Fatalf("left: %+v", st)
		}
	})
}
