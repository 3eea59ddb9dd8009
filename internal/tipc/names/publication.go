package names

import "midplane/internal/tipc/wire"

// Publication is one binding of a socket to a range of service addresses (net/tipc/name_table.h struct publication).
// It belongs to its table; others only read the exported fields.
type Publication struct {
	Range wire.ServiceRange
	Addr  wire.SocketAddr // binding socket; Node 0 while this node has no address
	Key   uint32          // tells bindings of one socket to one range apart
	Scope wire.Scope

	id    uint32 // age inside the service
	rng   *bounds
	links [listKinds]pubLink
}

// Bound reports whether p is (still) in its table.
func (p *Publication) Bound() bool { return p.rng != nil }

// A publication is on up to four lists.
const (
	listAll   = iota // publications of the same range
	listLocal        // those of them made on this node
	listNode         // publications of the same node (of this one: of the same scope)
	listAge          // those of the same range again, oldest first
	listKinds
)

type pubLink struct{ prev, next *Publication }

// pubList is a list of publications; kind says through which of their links.
type pubList struct {
	kind       int8
	head, tail *Publication
}

func (l *pubList) empty() bool { return l.head == nil }

func (l *pubList) next(p *Publication) *Publication { return p.links[l.kind].next }

func (l *pubList) pushFront(p *Publication) {
	p.links[l.kind] = pubLink{next: l.head}
	if l.head != nil {
		l.head.links[l.kind].prev = p
	} else {
		l.tail = p
	}
	l.head = p
}

func (l *pubList) pushBack(p *Publication) {
	p.links[l.kind] = pubLink{prev: l.tail}
	if l.tail != nil {
		l.tail.links[l.kind].next = p
	} else {
		l.head = p
	}
	l.tail = p
}

func (l *pubList) remove(p *Publication) {
	k := p.links[l.kind]
	if k.prev != nil {
		k.prev.links[l.kind].next = k.next
	} else {
		l.head = k.next
	}
	if k.next != nil {
		k.next.links[l.kind].prev = k.prev
	} else {
		l.tail = k.prev
	}
	p.links[l.kind] = pubLink{}
}

// rotate moves the first publication to the end and returns it; l is not empty.
func (l *pubList) rotate() *Publication {
	p := l.head
	if p != l.tail {
		l.moveToBack(p)
	}
	return p
}

func (l *pubList) moveToBack(p *Publication) {
	l.remove(p)
	l.pushBack(p)
}
