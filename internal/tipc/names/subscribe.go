package names

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"midplane/internal/mono"
	"midplane/internal/timer"
	"midplane/internal/tipc/wire"
)

// Filter bits that the kernel uses inside (net/tipc/topsrv.h). As in the kernel nothing stops a remote subscriber from
// setting them.
const (
	SubClusterScope wire.SubscrFilter = 0x20 // no bindings of node scope
	SubNodeScope    wire.SubscrFilter = 0x40 // only bindings of node scope
	SubNoStatus     wire.SubscrFilter = 0x80 // no report of what is bound already
)

// defaultEvents bounds what one subscriber may leave unread: enough for a report of the largest table.
const defaultEvents = 1 << 19

// Event is something that happened to a range of service addresses, in the byte order that the subscriber used.
// Lower and Upper are the bounds of the whole binding, also where it reaches beyond the subscription (subscr.c
// tipc_sub_send_event); for a timeout they are those of the subscription, and Port is zero.
type Event struct {
	wire.Event
	Order binary.ByteOrder
}

// Subscription is one range that a subscriber watches (struct tipc_subscription).
type Subscription struct {
	s        wire.Subscr
	key      subscrKey
	bigEnd   bool
	inactive bool // cancelled, expired or its subscriber is gone
	seq      uint64
	owner    *Subscriber
	svc      *service
	node     interval[Subscription]
	older    *Subscription // equal ones of the same subscriber
	newer    *Subscription
	timer    timer.Timer[Subscription]
}

// subscrKey is a subscription as the subscriber wrote it. Cancelling needs the same octets again
// (topsrv.c tipc_conn_delete_sub).
type subscrKey [wire.SubscrSize]byte

// queuedEvent is an event before it is written out.
type queuedEvent struct {
	sub          *Subscription
	kind         wire.EventKind
	lower, upper uint32
	port         wire.SocketAddr
}

// Ready is a list of subscribers that have something to be read. The zero value is empty and ready.
type Ready struct {
	head, tail *Subscriber
}

// Pop returns the subscriber that has waited longest, or nil. A subscriber comes back when something new is queued for
// it, not for what was left unread.
func (r *Ready) Pop() *Subscriber {
	for {
		s := r.head
		if s == nil {
			return nil
		}
		r.head = s.nextReady
		if r.head == nil {
			r.tail = nil
		}
		s.nextReady, s.onReady = nil, false
		if !s.closed {
			return s
		}
	}
}

func (r *Ready) push(s *Subscriber) {
	if r == nil || s.onReady {
		return
	}
	s.onReady = true
	if r.tail != nil {
		r.tail.nextReady = s
	} else {
		r.head = s
	}
	r.tail = s
}

// Subscriber has any number of subscriptions and one queue of events (the part of struct tipc_conn that is not the
// socket). Create it with [Table.NewSubscriber] and end it with Close.
type Subscriber struct {
	User any // the owner's own

	t          *Table
	subs       map[subscrKey]*Subscription // newest of equal ones
	n          int
	queue      []queuedEvent
	head       int
	limit      int
	overflowed bool
	closed     bool
	ready      *Ready
	onReady    bool
	nextReady  *Subscriber
	prev, next *Subscriber // all of the table
}

// NewSubscriber returns a subscriber without subscriptions. It joins ready (which may be nil) whenever events are
// queued for it. At most limit events (0: 524,288) are kept for it.
func (t *Table) NewSubscriber(ready *Ready, limit int) *Subscriber {
	if limit <= 0 {
		limit = defaultEvents
	}
	s := &Subscriber{t: t, subs: map[subscrKey]*Subscription{}, limit: limit, ready: ready, next: t.subscribers}
	if s.next != nil {
		s.next.prev = s
	}
	t.subscribers = s
	return s
}

// Subscribe adds a subscription, or cancels one if the filter has [wire.SubCancel]. Bindings that exist already are
// reported at once, oldest first: all of them with the filter [wire.SubPorts], else the oldest of each range.
// Equal subscriptions may exist several times.
//
// Errors: [ErrFilter], [ErrRange], [ErrTooManySubscr], [ErrClosed].
func (s *Subscriber) Subscribe(now mono.Time, sub wire.Subscr) error {
	var rec subscrKey
	wire.PutSubscr(rec[:], sub, binary.LittleEndian)
	return s.request(now, rec, sub, false)
}

// Request is Subscribe for a record as it came over a socket, in either byte order (topsrv.c tipc_conn_rcv_sub).
func (s *Subscriber) Request(now mono.Time, rec [wire.SubscrSize]byte) error {
	sub, order, _ := wire.ParseSubscr(rec[:])
	return s.request(now, rec, sub, order == binary.ByteOrder(binary.BigEndian))
}

func (s *Subscriber) request(now mono.Time, rec subscrKey, sub wire.Subscr, bigEnd bool) error {
	if s.closed || s.overflowed {
		return ErrClosed
	}
	if sub.Filter&wire.SubCancel != 0 {
		s.cancel(rec, sub, bigEnd)
		return nil
	}
	t := s.t
	if t.subs >= t.cfg.MaxSubscriptions {
		t.refusedSubs++
		return ErrTooManySubscr
	}
	if sub.Filter&wire.SubPorts != 0 && sub.Filter&wire.SubService != 0 {
		return ErrFilter
	}
	if sub.Range.Lower > sub.Range.Upper {
		return ErrRange
	}
	t.subSeq++
	n := &Subscription{s: sub, key: rec, bigEnd: bigEnd, seq: t.subSeq, owner: s, svc: t.service(sub.Range.Type)}
	n.node.lower, n.node.upper, n.node.item = sub.Range.Lower, sub.Range.Upper, n
	n.svc.subs.insert(&n.node)
	if n.older = s.subs[rec]; n.older != nil {
		n.older.newer = n
	}
	s.subs[rec] = n
	s.n++
	t.subs++
	if sub.Timeout != wire.WaitForever {
		t.timers.Set(&n.timer, n, now.Add(time.Duration(sub.Timeout)*time.Millisecond))
	}
	t.report(n)
	return nil
}

// Cancel ends the newest subscription that equals sub, whether or not sub has the filter bit [wire.SubCancel]; it
// reports whether there was one. Events already queued stay. It finds subscriptions made by Subscribe.
func (s *Subscriber) Cancel(sub wire.Subscr) bool {
	var rec subscrKey
	wire.PutSubscr(rec[:], sub, binary.LittleEndian)
	return s.cancel(rec, sub, false)
}

func (s *Subscriber) cancel(rec subscrKey, sub wire.Subscr, bigEnd bool) bool {
	filter := uint32(sub.Filter &^ wire.SubCancel)
	if bigEnd {
		binary.BigEndian.PutUint32(rec[16:], filter)
	} else {
		binary.LittleEndian.PutUint32(rec[16:], filter)
	}
	n := s.subs[rec]
	if n != nil {
		s.t.unsubscribe(n)
	}
	return n != nil
}

// Len is the number of subscriptions, Pending that of events not yet read.
func (s *Subscriber) Len() int     { return s.n }
func (s *Subscriber) Pending() int { return len(s.queue) - s.head }

// Overflowed reports that too many events were unread. Those are dropped and all subscriptions have ended; nothing more
// will be queued. The kernel keeps queueing, and loses single events when memory ends.
func (s *Subscriber) Overflowed() bool { return s.overflowed }

// Next takes the oldest event.
func (s *Subscriber) Next() (Event, bool) {
	e, ok := s.Peek()
	if ok {
		s.Drop()
	}
	return e, ok
}

// Peek returns the oldest event without taking it.
func (s *Subscriber) Peek() (Event, bool) {
	if s.head == len(s.queue) {
		return Event{}, false
	}
	q := &s.queue[s.head]
	e := Event{
		Event: wire.Event{Kind: q.kind, Lower: q.lower, Upper: q.upper, Port: q.port, Subscr: q.sub.s},
		Order: binary.LittleEndian,
	}
	if q.sub.bigEnd {
		e.Order = binary.BigEndian
	}
	return e, true
}

// Drop takes the oldest event, if there is one.
func (s *Subscriber) Drop() {
	if s.head == len(s.queue) {
		return
	}
	s.queue[s.head] = queuedEvent{}
	s.head++
	s.t.queued--
	switch {
	case s.head == len(s.queue):
		s.head = 0
		if cap(s.queue) > 1024 {
			s.queue = nil
		} else {
			s.queue = s.queue[:0]
		}
	case s.head >= 1024 && s.head >= len(s.queue)/2:
		n := copy(s.queue, s.queue[s.head:])
		clear(s.queue[n:])
		s.queue, s.head = s.queue[:n], 0
	}
}

// Close ends all subscriptions and drops what is unread. Closing again does nothing.
func (s *Subscriber) Close() {
	if s.closed {
		return
	}
	s.endAll()
	s.closed = true
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		s.t.subscribers = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

// endAll drops all subscriptions and events.
func (s *Subscriber) endAll() {
	for _, n := range s.subs {
		for n != nil {
			older := n.older
			s.t.detach(n)
			n = older
		}
	}
	clear(s.subs)
	s.t.queued -= s.Pending()
	s.queue, s.head = nil, 0
}

// unsubscribe ends one subscription (subscr.c tipc_sub_unsubscribe).
func (t *Table) unsubscribe(n *Subscription) {
	subs := n.owner.subs
	if n.older != nil {
		n.older.newer = n.newer
	}
	switch {
	case n.newer != nil:
		n.newer.older = n.older
	case n.older != nil:
		subs[n.key] = n.older
	default:
		delete(subs, n.key)
	}
	t.detach(n)
}

// detach takes n out of everything but its subscriber's map.
func (t *Table) detach(n *Subscription) {
	n.inactive = true
	n.older, n.newer = nil, nil
	n.owner.n--
	t.subs--
	t.timers.Stop(&n.timer)
	n.svc.subs.remove(&n.node)
	t.dropIfUnused(n.svc)
}

// notify tells the subscribers of a service about a change, newest subscription first. edge says that p is the first
// or last publication of its range.
func (t *Table) notify(sc *service, p *Publication, kind wire.EventKind, edge bool) {
	lower, upper := p.Range.Lower, p.Range.Upper
	v := sc.subs.first(lower, upper)
	if v == nil {
		return
	}
	m := t.matched[:0]
	for ; v != nil; v = v.next(lower, upper) {
		m = append(m, v.item)
	}
	if len(m) > 1 {
		slices.SortFunc(m, func(a, b *Subscription) int { return cmp.Compare(b.seq, a.seq) })
	}
	for _, n := range m {
		t.reportOverlap(n, p, kind, edge)
	}
	clear(m)
	t.matched = m[:0]
}

// report queues what a new subscription is told about existing publications (name_table.c tipc_service_subscribe).
func (t *Table) report(n *Subscription) {
	if n.s.Filter&SubNoStatus != 0 {
		return
	}
	lower, upper := n.node.lower, n.node.upper
	found := t.initial[:0]
	for v := n.svc.ranges.first(lower, upper); v != nil; v = v.next(lower, upper) {
		l := &v.item.age
		if n.s.Filter&wire.SubPorts == 0 {
			found = append(found, l.head)
			continue
		}
		for p := l.head; p != nil; p = l.next(p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *Publication) int { return cmp.Compare(int32(a.id-b.id), 0) })
	for _, p := range found {
		t.reportOverlap(n, p, wire.EventPublished, true)
	}
	clear(found)
	t.initial = found[:0]
	if cap(found) > 4096 {
		t.initial = nil
	}
}

// reportOverlap queues an event unless the filter excludes it (subscr.c tipc_sub_report_overlap). That the ranges
// overlap is known.
func (t *Table) reportOverlap(n *Subscription, p *Publication, kind wire.EventKind, must bool) {
	f := n.s.Filter
	switch {
	case !must && f&wire.SubPorts == 0:
	case f&SubClusterScope != 0 && p.Scope == wire.ScopeNode:
	case f&SubNodeScope != 0 && p.Scope != wire.ScopeNode:
	default:
		t.enqueue(queuedEvent{n, kind, p.Range.Lower, p.Range.Upper, p.Addr})
	}
}

func (t *Table) enqueue(e queuedEvent) {
	s := e.sub.owner
	if e.sub.inactive || s.closed || s.overflowed {
		return
	}
	if s.Pending() >= s.limit {
		t.overflow(s)
		return
	}
	if t.queued >= t.cfg.MaxQueuedEvents {
		most := s
		for x := t.subscribers; x != nil; x = x.next {
			if x.Pending() > most.Pending() {
				most = x
			}
		}
		t.overflow(most)
		if most == s {
			return
		}
	}
	s.queue = append(s.queue, e)
	t.queued++
	s.ready.push(s)
}

func (t *Table) overflow(s *Subscriber) {
	t.overflows++
	s.overflowed = true
	s.endAll()
	s.ready.push(s)
}

// Deadline is when Tick has to be called next, or [mono.Never].
func (t *Table) Deadline() mono.Time { return t.timers.Next() }

// Tick ends the subscriptions that have expired and reports that (subscr.c tipc_sub_timeout).
func (t *Table) Tick(now mono.Time) {
	for n := t.timers.Due(now); n != nil; n = t.timers.Due(now) {
		t.enqueue(queuedEvent{n, wire.EventTimeout, n.node.lower, n.node.upper, wire.SocketAddr{}})
		if !n.inactive {
			t.unsubscribe(n)
		}
	}
}
