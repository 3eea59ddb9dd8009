// Package mirror keeps FIBs the same as tables of the kernel, whoever writes to those: BIRD, static routes, any program.
//
// It takes a strict dump of each table, then the kernel's notifications; where they do not tell all, it takes a dump
// again and removes what is there no longer (mark and sweep), while the FIBs go on forwarding. Notifications do not
// tell all when the socket's buffer was full (ENOBUFS), when a dump was interrupted, and when routes go with a device or
// an address, which IPv4 does not announce (net/ipv4/fib_frontend.c, fib_disable_ip; fib_flush).
//
// The core of it has no socket, goroutine or clock; the driver waits and reads.
package mirror

import (
	"encoding/binary"
	"errors"
	"syscall"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
)

// Types of messages about links and addresses (include/uapi/linux/rtnetlink.h), which only say that a dump is due.
const (
	newLink = 16
	delLink = 17
	delAddr = 21

	afBridge = 7
	// What of a link's flags changes routes (include/uapi/linux/if.h): IFF_UP, IFF_RUNNING, IFF_LOWER_UP.
	flagsUp = 0x1 | 0x40 | 0x10000
)

// maxLinks bounds what is remembered of links. Beyond, each change of a link makes for a dump.
const maxLinks = 1 << 16

// Counters tell what a Mirror did. They only grow.
type Counters struct {
	Messages   uint64 // notifications read
	Dumped     uint64 // routes and next hops read in dumps
	Ignored    uint64 // of these: of other tables, or of types that are not for a FIB (broadcast, anycast, multicast, cloned)
	Rejected   uint64 // malformed, or what a FIB cannot do: by source or TOS, encapsulations
	Overflows  uint64 // how often the kernel or the queue dropped notifications
	Interrupts uint64 // dumps that the kernel said, or that the mirror saw, were not of one moment
	Resyncs    uint64 // resynchronisations that were completed, the first included
	Retries    uint64 // dumps that had to be taken again
	Proofs     uint64 // resynchronisations after which the FIBs had just as many routes as the dump
	Mismatches uint64 // those after which they had not; one more follows
	Swept      uint64 // routes that resynchronisations removed
	Dead       uint64 // routes passed over because all their next hops are dead
	Links      uint64 // changes of links and addresses that made for a resynchronisation
}

// core turns messages into what a feed.Applier does.
type core struct {
	set    *fib.Set
	sink   *feed.Applier
	tables map[uint32]fib.ID
	n      Counters

	skip  func(*rtnl.Route) bool
	open  func(uint32) (feed.Table, fib.ID, error)
	links map[uint32]uint32 // flags by interface index
	route rtnl.Route
	hop   rtnl.NextHop
	to    feed.Route
	obj   feed.Object

	routes     int64 // that the dump being read has given to the feed
	mismatched bool  // the last proof failed
}

func newCore(set *fib.Set, tables map[uint32]fib.ID, open func(uint32) (feed.Table, fib.ID, error), maxAlternates int) *core {
	return &core{
		set: set, tables: tables, open: open, links: map[uint32]uint32{},
		sink: feed.New(set, feed.Config{FIB: func(n uint32) fib.ID { return tables[n] }, Open: open, Metrics: true, MaxAlternates: maxAlternates}),
	}
}

// notified takes a notification. dump says that the routes must be read again, because it does not tell all.
func (c *core) notified(typ, flags uint16, b []byte) (dump bool) {
	c.n.Messages++
	switch typ {
	case rtnl.NewRoute, rtnl.DelRoute:
		return c.routed(typ == rtnl.NewRoute, flags, b)
	case rtnl.NewNextHop, rtnl.DelNextHop:
		return c.object(typ == rtnl.NewNextHop, b)
	case newLink, delLink:
		return c.linked(typ == newLink, b)
	case delAddr: // routes with this preferred source go silently (fib_sync_down_addr)
		if len(b) > 0 && b[0] == rtnl.FamilyIPv4 {
			c.n.Links++
			return true
		}
	default:
		c.n.Ignored++
	}
	return false
}

// linked takes struct ifinfomsg.
func (c *core) linked(added bool, b []byte) (dump bool) {
	if len(b) < 16 {
		c.n.Rejected++
		return false
	}
	if b[0] == afBridge {
		return false
	}
	index, flags := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])&flagsUp
	was, known := c.links[index]
	switch {
	case !added:
		delete(c.links, index)
	case known || len(c.links) < maxLinks:
		c.links[index] = flags
	}
	if added && known && was == flags {
		return false
	}
	c.n.Links++
	return true
}

// decode reads a route into c.route and c.to. use is false for what is not for the FIBs; usable is what
// feed.FromNetlink says.
func (c *core) decode(b []byte) (use, usable bool) {
	if err := rtnl.DecodeRoute(b, &c.route); err != nil {
		c.n.Rejected++
		return false, false
	}
	r := &c.route
	if c.tables[r.Table] == 0 || r.Flags&rtnl.RouteCloned != 0 || c.skip != nil && c.skip(r) {
		c.n.Ignored++
		return false, false
	}
	switch r.Type {
	case rtnl.RouteBroadcast, rtnl.RouteAnycast, rtnl.RouteMulticast:
		c.n.Ignored++
		return false, false
	case rtnl.RouteThrow: // "look in the next table", and a FIB has no next one: no route
		r.Type = rtnl.RouteUnreachable
	}
	usable, err := feed.FromNetlink(r, &c.to)
	if err != nil {
		c.n.Rejected++
		// It may have taken the place of one that a FIB can do.
		return !r.Src.IsValid() && r.TOS == 0, false
	}
	return true, usable
}

// leads says whether the route in c.to has a next hop.
func (c *core) leads() bool { return c.to.Object != 0 || len(c.to.Paths) > 0 }

func (c *core) routed(added bool, flags uint16, b []byte) (dump bool) {
	use, usable := c.decode(b)
	if !use {
		return false
	}
	six := c.to.Prefix.Addr().Is6()
	switch {
	case !added:
		c.applied(c.sink.Delete(&c.to))
		return false
	case usable && !c.leads():
		c.n.Rejected++
		return false
	case !usable:
		if flags&rtnl.FlagReplace != 0 {
			c.to.Paths = c.to.Paths[:0]
			c.applied(c.sink.Delete(&c.to))
		}
		c.n.Dead++
		return true // what the kernel does with it and its neighbours is better asked than guessed
	}
	// The flags are those that the kernel found true (net/ipv4/fib_trie.c, fib_table_insert): EXCL there was none of
	// this metric, REPLACE the first of them is replaced, APPEND it comes after them, and none of these before them.
	c.to.Mode = feed.Prepend
	switch {
	case flags&(rtnl.FlagReplace|rtnl.FlagExcl) != 0:
		c.to.Mode = feed.Replace
	case flags&rtnl.FlagAppend != 0:
		c.to.Mode = feed.Append
	}
	if six && flags&rtnl.FlagReplace == 0 {
		c.to.Mode, dump = c.sixth()
	}
	c.applied(c.sink.Add(&c.to))
	return dump
}

// sixth says how an IPv6 route joins those of its metric, which the flags of IPv6 do not tell (they are those of the
// request). A route with a gateway and no object joins the one of its kind, and the notification has the paths of all
// (net/ipv6/ip6_fib.c, fib6_add_rt2node; route.c, rt6_fill_node); others stand beside it. Where both kinds may be
// there, the kernel is asked.
func (c *core) sixth() (m feed.Mode, dump bool) {
	joins := func(h fib.NextHop) bool { return h.Type == fib.Unicast && h.Gateway.IsValid() }
	here := c.to.Object == 0 && joins(c.to.Paths[0].Hop)
	t, ok := c.view(c.to.Table)
	if !ok {
		return feed.Append, false
	}
	id, ok := t.Get(c.to.Prefix)
	if !ok {
		return feed.Append, false
	}
	i, _ := c.set.NextHop(id)
	there := len(i.Members) > 0 || joins(i.NextHop)
	if !here {
		return feed.Append, false
	}
	return feed.Replace, !there
}

// view returns what the routes of a table are written to.
func (c *core) view(table uint32) (feed.Table, bool) {
	if c.open != nil {
		t, _, err := c.open(table)
		return t, err == nil
	}
	return c.set.Table(c.tables[table])
}

func (c *core) object(added bool, b []byte) (dump bool) {
	if err := rtnl.DecodeNextHop(b, &c.hop); err != nil {
		c.n.Rejected++
		return false
	}
	if !added {
		c.applied(c.sink.DeleteObject(c.hop.ID))
		return true // its routes go, in IPv4 silently (net/ipv4/nexthop.c, __remove_nexthop_fib)
	}
	if err := feed.ObjectFromNetlink(&c.hop, &c.obj); err != nil {
		c.n.Rejected++
		return false
	}
	c.applied(c.sink.SetObject(&c.obj))
	return false
}

// applied counts what the FIBs refused: they are full, or a bound is reached. The feed's counters say more.
func (c *core) applied(err error) {
	if err != nil {
		c.n.Rejected++
	}
}

// dumped takes a message of a dump. The kernel writes the routes of a prefix in the order in which they count.
func (c *core) dumped(typ uint16, b []byte) {
	c.n.Dumped++
	switch typ {
	case rtnl.NewNextHop:
		c.object(true, b)
	case rtnl.NewRoute:
		use, usable := c.decode(b)
		if use && usable && c.leads() {
			c.to.Mode = feed.Append
			same := c.sink.Counters().Unchanged
			err := c.sink.Add(&c.to)
			c.applied(err)
			if err == nil && c.sink.Counters().Unchanged == same { // else two routes of the kernel are one for a FIB
				c.routes++
			}
		} else if use {
			c.n.Dead++
		}
	default:
		c.n.Ignored++
	}
}

// mark begins a resynchronisation, sweep ends it.
func (c *core) mark() {
	c.sink.Mark()
	c.routes = 0
}

func (c *core) sweep() {
	c.n.Swept += uint64(c.sink.Sweep())
	c.n.Resyncs++
}

// prove compares how many routes the feed has in the FIBs, those that wait behind better ones among them, with how many
// the dump gave it. It is to be asked when nothing was notified since mark. again says that another dump shall follow,
// which is so once: what stays different then is for a person to look at, and counted.
func (c *core) prove() (again bool) {
	if c.sink.Counters().Routes == c.routes {
		c.n.Proofs++
		c.mismatched = false
		return false
	}
	c.n.Mismatches++
	again = !c.mismatched
	c.mismatched = true
	return again
}

// overflowed says whether an error of receiving means that notifications were dropped.
func overflowed(err error) bool { return errors.Is(err, syscall.ENOBUFS) }
