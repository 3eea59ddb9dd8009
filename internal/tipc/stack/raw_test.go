package stack_test

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/wire"
)

// Packets written by hand.

// raw makes a message of any kind. Its size is what it has; change may then make it lie.
func raw(from, to uint32, user wire.User, typ uint8, hdrsz int, data []byte, change ...func(wire.Msg)) wire.Msg {
	m := make(wire.Msg, hdrsz+len(data))
	wire.Init(m, from, user, typ, hdrsz, to)
	m.SetSize(len(m))
	copy(m[hdrsz:], data)
	for _, c := range change {
		c(m)
	}
	return m
}

// dsc makes a discovery message of host number n.
func dsc(n int, typ uint8, sig uint16, change ...func(wire.Msg)) wire.Msg {
	id := idOf(n)
	m := raw(discover.AddrOf(id), 0, wire.UserLinkConfig, typ, wire.MaxHeaderSize, id[:])
	m.SetNonSeq(true)
	m.SetNodeSig(sig)
	m.SetNodeCapabilities(wire.CapsAll)
	m.SetBcNetID(wire.DefaultNetID)
	wire.PutMediaInfo(m.MediaInfo(), busAddr(n))
	m.SetPeerNetHash(uint32(n))
	for _, c := range change {
		c(m)
	}
	return m
}

// hello makes a RESET or ACTIVATE of a link.
func hello(from, to uint32, typ uint8, session uint16, change ...func(wire.Msg)) wire.Msg {
	name := make([]byte, wire.IfNameSize)
	copy(name, "raw0")
	m := raw(from, to, wire.UserLinkProtocol, typ, wire.IntHeaderSize, name)
	m.SetSession(session)
	m.SetMaxPkt(busMTU)
	m.SetLinkTolerance(1500)
	m.SetLinkPrio(10)
	m.SetNextSent(1)
	m.SetSeqNo(1 << 15)
	m.SetBcAckInvalid(true)
	for _, c := range change {
		c(m)
	}
	return m
}

// addrOf is the address of host number n.
func addrOf(n int) uint32 { return discover.AddrOf(idOf(n)) }

// say sends a message on h's own working link to k: session, sequence number and acknowledgements are right, the rest is
// as it stands.
func (h *host) say(k *host, m wire.Msg) {
	h.w.t.Helper()
	_ = h.s.Nodes().XmitBuf(h.w.now, buf.Copy(m), k.addr(), 0)
	h.flush()
}

// shout sends a message on h's own broadcast link.
func (h *host) shout(m wire.Msg) {
	h.s.Nodes().Broadcast(h.w.now, buf.Copy(m), 0)
	h.flush()
}

// data makes a message between sockets.
func data(from, to *host, typ uint8, origPort, destPort uint32, payload []byte, change ...func(wire.Msg)) wire.Msg {
	hdr := wire.BasicHeaderSize
	switch typ {
	case wire.TypeConn:
		hdr = wire.ShortHeaderSize
	case wire.TypeNamed:
		hdr = wire.NamedHeaderSize
	case wire.TypeMcast, wire.TypeGroupBcast, wire.TypeGroupMcast, wire.TypeGroupUcast, wire.TypeGroupMemberEvt:
		hdr = wire.McastHeaderSize
	}
	m := raw(from.addr(), to.addr(), wire.UserLow, typ, hdr, payload)
	m.SetOrigPort(origPort)
	m.SetDestPort(destPort)
	for _, c := range change {
		c(m)
	}
	return m
}

// nameItems encodes publications.
func nameItems(items ...wire.NameItem) []byte {
	b := make([]byte, len(items)*wire.NameItemSize)
	for i, it := range items {
		wire.PutNameItem(b[i*wire.NameItemSize:], it)
	}
	return b
}

// counters are all that a host counts, by "where.Field".
type counters map[string]uint64

func (c counters) add(where string, stats any) {
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		name := where + "." + v.Type().Field(i).Name
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64, reflect.Uint32:
			c[name] += f.Uint()
		case reflect.Int:
			c[name] += uint64(f.Int())
		case reflect.Array:
			for k := range f.Len() {
				c[fmt.Sprintf("%s.%d", name, k)] += f.Index(k).Uint()
			}
		}
	}
}

// counters reads what h counts. "link" is the link to k, "bcast" the receive link for k's broadcasts, "bcastsend" the
// own broadcast link.
func (h *host) counters(k *host) counters {
	c := counters{}
	c.add("node", h.s.Nodes().Stats())
	c.add("disc", h.s.Discovery().Stats())
	c.add("distr", h.s.Distributor().Stats())
	c.add("names", h.s.Names().Stats())
	c.add("socket", h.s.Sockets().Stats())
	c.add("topsrv", h.s.Topsrv().Stats())
	for li := range h.s.Nodes().Links(true) {
		switch {
		case li.Peer == 0:
			c.add("bcastsend", li.Stats)
		case k == nil || li.Peer != k.addr():
		case li.Broadcast:
			c.add("bcast", li.Stats)
		default:
			c.add("link", li.Stats)
		}
	}
	return c
}

// rise says by how much a counter rose; "a|b" adds counters up.
func rise(before, after counters, names string) (n int64) {
	for _, name := range strings.Split(names, "|") {
		if _, ok := after[name]; !ok {
			panic("no counter " + name)
		}
		n += int64(after[name] - before[name])
	}
	return n
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
