package tipctool

import (
	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
)

// Formats of `tipc link statistics show`, as iproute2 6.1 prints them.

var profileNames = [7]string{"0-64", "-256", "-1024", "-4096", "-16384", "-32768", "-66000"}

func linkState(l api.Link) string {
	switch {
	case l.Active:
		return "ACTIVE"
	case l.Up:
		return "STANDBY"
	}
	return "DEFUNCT"
}

// average is the mean length of the profiled messages. The kernel counts at least one packet.
func average(p api.Profile) uint32 { return p.Octets / max(p.Packets, 1) }

// percent rounds half up.
func percent(n, total uint32) uint32 {
	total = max(total, 1)
	return uint32((uint64(n)*100 + uint64(total)/2) / uint64(total))
}

func (c *call) statText(l api.Link) {
	s := l.Stats
	c.printf("Link <%s>\n", l.Name)
	if l.Broadcast {
		c.printf("  Window:%d packets\n", l.Window)
	} else {
		c.printf("  %s  MTU:%d  Priority:%d  Tolerance:%d ms  Window:%d packets\n", linkState(l), l.MTU, l.Priority, l.Tolerance, l.Window)
	}
	c.printf("  RX packets:%d fragments:%d/%d bundles:%d/%d\n", s.RxPackets, s.RxFragments, s.RxFragmented, s.RxBundles, s.RxBundled)
	c.printf("  TX packets:%d fragments:%d/%d bundles:%d/%d\n", s.TxPackets, s.TxFragments, s.TxFragmented, s.TxBundles, s.TxBundled)
	if l.Broadcast {
		c.printf("  RX naks:%d defs:%d dups:%d\n", s.RxNaks, s.RxDeferred, s.Duplicates)
		c.printf("  TX naks:%d acks:%d retrans:%d\n", s.TxNaks, s.TxAcks, s.Retransmitted)
	} else {
		c.printf("  TX profile sample:%d packets average:%d octets\n", s.Profile.Messages, average(s.Profile))
		c.printf(" ")
		for i, name := range profileNames {
			c.printf(" %s:%d%%", name, percent(s.Profile.Lengths[i], s.Profile.Packets))
		}
		c.printf("\n")
		c.printf("  RX states:%d probes:%d naks:%d defs:%d dups:%d\n", s.RxStates, s.RxProbes, s.RxNaks, s.RxDeferred, s.Duplicates)
		c.printf("  TX states:%d probes:%d naks:%d acks:%d retrans:%d\n", s.TxStates, s.TxProbes, s.TxNaks, s.TxAcks, s.Retransmitted)
	}
	c.printf("  Congestion link:%d  Send queue max:%d avg:%d\n\n", s.Congestions, s.MaxQueue, s.AvgQueue)
}

func statJSON(w *ipjson.Writer, l api.Link) {
	s := l.Stats
	type kv struct {
		k string
		v uint32
	}
	object := func(name string, fields ...kv) {
		w.Name(name)
		w.BeginObject()
		for _, f := range fields {
			w.Field(f.k, f.v)
		}
		w.EndObject()
	}
	w.BeginObject()
	w.Field("link", l.Name)
	if !l.Broadcast {
		w.Name("state")
		w.BeginArray()
		w.Str(linkState(l))
		w.EndArray()
		w.Field("mtu", l.MTU)
		w.Field("priority", l.Priority)
		w.Field("tolerance", l.Tolerance)
	}
	w.Field("window", l.Window)
	object("rx packets", kv{"rx packets", s.RxPackets}, kv{"fragments", s.RxFragments}, kv{"fragmented", s.RxFragmented}, kv{"bundles", s.RxBundles}, kv{"bundled", s.RxBundled})
	object("tx packets", kv{"tx packets", s.TxPackets}, kv{"fragments", s.TxFragments}, kv{"fragmented", s.TxFragmented}, kv{"bundles", s.TxBundles}, kv{"bundled", s.TxBundled})
	if l.Broadcast {
		object("rx naks", kv{"rx naks", s.RxNaks}, kv{"defs", s.RxDeferred}, kv{"dups", s.Duplicates})
		object("tx naks", kv{"tx naks", s.TxNaks}, kv{"acks", s.TxAcks}, kv{"retrans", s.Retransmitted})
	} else {
		w.Field("tx profile sample", s.Profile.Messages)
		w.Field("packets average", average(s.Profile))
		for i, name := range profileNames {
			w.Field(name, percent(s.Profile.Lengths[i], s.Profile.Packets))
		}
		object("rx states", kv{"rx states", s.RxStates}, kv{"probes", s.RxProbes}, kv{"naks", s.RxNaks}, kv{"defs", s.RxDeferred}, kv{"dups", s.Duplicates})
		object("tx states", kv{"tx states", s.TxStates}, kv{"probes", s.TxProbes}, kv{"naks", s.TxNaks}, kv{"acks", s.TxAcks}, kv{"retrans", s.Retransmitted})
	}
	w.Field("congestion link", s.Congestions)
	w.Field("send queue max", s.MaxQueue)
	w.Field("avg", s.AvgQueue)
	w.EndObject()
}
