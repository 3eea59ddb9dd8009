package stack_test

import (
	"encoding/binary"
	"time"

	"midplane/internal/tipc/wire"
)

// Messages made of messages: fragments, bundles and tunnels, the ways in which one packet hides others.

// inner is a harmless message from m to nobody at a: it is dropped when it gets through.
func inner(e *env, payload []byte, change ...func(wire.Msg)) wire.Msg {
	m := data(e.m, e.a, wire.TypeDirect, 77, 0xdead, payload, change...)
	m.SetDestDroppable(true)
	return m
}

func fragment(e *env, typ uint8, payload []byte, change ...func(wire.Msg)) wire.Msg {
	return raw(e.m.addr(), e.a.addr(), wire.UserFragmenter, typ, wire.IntHeaderSize, payload, change...)
}

func bundle(e *env, count uint16, payload []byte) wire.Msg {
	return raw(e.m.addr(), e.a.addr(), wire.UserBundler, wire.TypeBundleOpen, wire.IntHeaderSize, payload,
		func(m wire.Msg) { m.SetMsgCnt(count) })
}

func failover(e *env, payload []byte, change ...func(wire.Msg)) wire.Msg {
	return raw(e.m.addr(), e.a.addr(), wire.UserTunnel, wire.TypeFailover, wire.IntHeaderSize, payload,
		append([]func(wire.Msg){func(m wire.Msg) { m.SetMsgCnt(1) }}, change...)...)
}

// whole is a message of n octets to nobody.
func whole(e *env, n int) wire.Msg { return inner(e, make([]byte, n-wire.BasicHeaderSize)) }

// sayAll sends packets on the mad node's link.
func sayAll(packets func(e *env, i int) []wire.Msg) func(*env, int) {
	return func(e *env, i int) {
		for _, m := range packets(e, i) {
			e.m.say(e.a, m)
		}
	}
}

// shoutAll broadcasts them.
func shoutAll(packets func(e *env, i int) []wire.Msg) func(*env, int) {
	return func(e *env, i int) {
		for _, m := range packets(e, i) {
			e.m.shout(m)
		}
	}
}

// strange has somebody send them from an address that is no peer's.
func strange(packets func(e *env, i int) []wire.Msg) func(*env, int) {
	return func(e *env, i int) {
		for _, m := range packets(e, i) {
			m.SetPrevNode(0x1234_5678)
			m.SetSeqNo(uint16(i))
			e.a.inject(busAddr(99), m)
		}
	}
}

// bad is a case of packets that are refused in the three positions. In Linux a broken fragment chain is the end of a
// unicast link; the broadcast link goes on.
func bad(name string, fails bool, packets func(e *env, i int) []wire.Msg) hostile {
	counts := "link.BadMessages"
	if fails {
		counts = "" // and the counters start anew
	}
	return hostile{name, []attack{
		{by: "peer", do: sayAll(packets), counts: counts, fails: fails, times: 5},
		{by: "broadcast", do: shoutAll(packets), counts: "bcast.BadMessages"},
		{by: "stranger", do: strange(packets), counts: "node.UnknownPeer"},
	}}
}

func one(f func(e *env) wire.Msg) func(*env, int) []wire.Msg {
	return func(e *env, _ int) []wire.Msg { return []wire.Msg{f(e)} }
}

func size(n int) func(wire.Msg) { return func(m wire.Msg) { m.SetSize(n) } }

var hostileFragments = []hostile{
	bad("LastFragmentWithoutFirst", true, one(func(e *env) wire.Msg { return fragment(e, wire.TypeLastFragment, make([]byte, 100)) })),
	bad("MiddleFragmentWithoutFirst", true, one(func(e *env) wire.Msg { return fragment(e, wire.TypeFragment, make([]byte, 100)) })),
	bad("TwoFirstFragments", true, func(e *env, _ int) []wire.Msg {
		f := fragment(e, wire.TypeFirstFragment, whole(e, 5000)[:1000])
		return []wire.Msg{f, append(wire.Msg(nil), f...)}
	}),
	bad("FragmentTypeUnknown", true, one(func(e *env) wire.Msg { return fragment(e, 7, make([]byte, 100)) })),
	bad("FragmentOfNothing", true, one(func(e *env) wire.Msg { return fragment(e, wire.TypeFirstFragment, nil) })),
	bad("FragmentInnerHeaderCutOff", true, one(func(e *env) wire.Msg { return fragment(e, wire.TypeFirstFragment, whole(e, 2000)[:20]) })),
	bad("FragmentInnerSizeHuge", true, one(func(e *env) wire.Msg {
		return fragment(e, wire.TypeFirstFragment, inner(e, make([]byte, 100), size(1<<17-1)))
	})),
	bad("FragmentInnerSizeZero", true, one(func(e *env) wire.Msg {
		return fragment(e, wire.TypeFirstFragment, inner(e, make([]byte, 100), size(0)))
	})),
	bad("FragmentInnerSizeLie", true, func(e *env, _ int) []wire.Msg { // says 60000, ends after 200
		m := inner(e, make([]byte, 100), size(60000))
		return []wire.Msg{fragment(e, wire.TypeFirstFragment, m), fragment(e, wire.TypeLastFragment, make([]byte, 100))}
	}),
	bad("FragmentInFragment", false, func(e *env, _ int) []wire.Msg {
		in := fragment(e, wire.TypeFirstFragment, whole(e, 300))
		return []wire.Msg{fragment(e, wire.TypeFirstFragment, in[:200]), fragment(e, wire.TypeLastFragment, in[200:])}
	}),
	bad("BundleInFragment", false, func(e *env, _ int) []wire.Msg {
		in := bundle(e, 1, whole(e, 300))
		return []wire.Msg{fragment(e, wire.TypeFirstFragment, in[:200]), fragment(e, wire.TypeLastFragment, in[200:])}
	}),
	{"FragmentsWithoutEnd", []attack{
		{by: "peer", times: 3, every: 200 * time.Millisecond, answers: 60, do: func(e *env, i int) { // more than was announced, for ever
			m := fragment(e, wire.TypeFragment, make([]byte, 1400))
			if i == 0 {
				e.m.say(e.a, fragment(e, wire.TypeFirstFragment, whole(e, 66000)[:1400]))
			}
			for range 200 {
				e.m.say(e.a, append(wire.Msg(nil), m...))
			}
			e.w.run(10 * time.Millisecond)
		}, counts: "link.RecvFragments"},
		{by: "broadcast", times: 3, every: 200 * time.Millisecond, answers: 60, do: func(e *env, i int) {
			m := fragment(e, wire.TypeFragment, make([]byte, 1400))
			if i == 0 {
				e.m.shout(fragment(e, wire.TypeFirstFragment, whole(e, 66000)[:1400]))
			}
			for range 200 {
				e.m.shout(append(wire.Msg(nil), m...))
			}
			e.w.run(10 * time.Millisecond)
		}, counts: "bcast.RecvFragments"},
	}},

	bad("BundleInnerSizeZero", false, one(func(e *env) wire.Msg { return bundle(e, 2, inner(e, make([]byte, 60), size(0))) })),
	bad("BundleInnerSizeOverEnd", false, one(func(e *env) wire.Msg { return bundle(e, 1, inner(e, make([]byte, 60), size(500))) })),
	bad("BundleInnerSizeOdd", false, one(func(e *env) wire.Msg { // the second one is not aligned where the first one ends
		in := inner(e, make([]byte, 31))
		return bundle(e, 2, append(append([]byte(nil), in...), in...))
	})),
	bad("BundleCountLies", false, one(func(e *env) wire.Msg { return bundle(e, 65535, whole(e, 100)) })),
	bad("BundleOfNothing", false, one(func(e *env) wire.Msg { return bundle(e, 1, nil) })),
	bad("BundleInBundle", false, one(func(e *env) wire.Msg { return bundle(e, 1, bundle(e, 1, whole(e, 100))) })),
	bad("FragmentInBundle", false, one(func(e *env) wire.Msg {
		return bundle(e, 1, fragment(e, wire.TypeFirstFragment, whole(e, 100)))
	})),
	bad("LinkProtocolInBundle", false, one(func(e *env) wire.Msg {
		return bundle(e, 1, hello(e.m.addr(), e.a.addr(), wire.TypeReset, 1))
	})),
	bad("DiscoveryInBundle", false, one(func(e *env) wire.Msg { return bundle(e, 1, dsc(9, wire.TypeDscRequest, 9)) })),
	bad("WakeupFromOutside", false, one(func(e *env) wire.Msg { // the number is that of a pseudo user inside a node
		return raw(e.m.addr(), e.a.addr(), wire.UserSockWakeup, 0, wire.IntHeaderSize, nil)
	})),
	bad("KeyDistributionInPlain", false, one(func(e *env) wire.Msg { // CVE-2021-43267: length of the key beyond the message
		p := make([]byte, 36)
		copy(p, "gcm(aes)")
		binary.BigEndian.PutUint32(p[32:], 0xffffffff)
		return raw(e.m.addr(), e.a.addr(), wire.UserCrypto, wire.TypeKeyDistr, wire.IntHeaderSize, p)
	})),
	bad("KeyDistributionInBundle", false, one(func(e *env) wire.Msg {
		return bundle(e, 1, raw(e.m.addr(), e.a.addr(), wire.UserCrypto, wire.TypeKeyDistr, wire.IntHeaderSize, make([]byte, 36)))
	})),
	bad("TopologyServerUserFromOutside", false, one(func(e *env) wire.Msg {
		return raw(e.m.addr(), e.a.addr(), wire.UserTopSrv, 0, wire.IntHeaderSize, make([]byte, 28))
	})),

	{"TunnelInTunnel", tunnel(func(e *env) wire.Msg { return failover(e, failover(e, whole(e, 100), seq), seq) }, "link.BadMessages")},
	{"TunnelInTunnelInTunnel", tunnel(func(e *env) wire.Msg {
		return failover(e, failover(e, failover(e, whole(e, 100), seq), seq), seq)
	}, "link.BadMessages")},
	{"TunnelOfNothing", tunnel(func(e *env) wire.Msg { return failover(e, nil) }, "link.BadMessages")},
	{"TunnelInnerSizeLie", tunnel(func(e *env) wire.Msg { return failover(e, inner(e, make([]byte, 60), size(9000))) }, "link.BadMessages")},
	{"TunnelCountZero", tunnel(func(e *env) wire.Msg {
		return failover(e, whole(e, 100), func(m wire.Msg) { m.SetMsgCnt(0) })
	}, "node.BadState")},
	{"TunnelCountHuge", tunnel(func(e *env) wire.Msg {
		return failover(e, whole(e, 100), func(m wire.Msg) { m.SetMsgCnt(65535) })
	}, "node.BadState")},
	{"TunnelFragmentsZero", tunnel(func(e *env) wire.Msg { // fragment number without a number of fragments
		return failover(e, whole(e, 100), func(m wire.Msg) { m.SetFragmNo(3) })
	}, "")},
	{"TunnelFragmentsHuge", []attack{
		{by: "peer", times: 5, fails: true, do: func(e *env, _ int) { // the second of 65535 without the first
			e.m.say(e.a, failover(e, whole(e, 100), func(m wire.Msg) { m.SetFragmNo(2); m.SetNofFragms(65535) }))
		}},
		{by: "stranger", counts: "node.UnknownPeer", do: strange(one(func(e *env) wire.Msg {
			return failover(e, whole(e, 100), func(m wire.Msg) { m.SetFragmNo(2); m.SetNofFragms(65535) })
		}))},
	}},
	{"TunnelFragmentsWithoutEnd", []attack{{by: "peer", times: 1, answers: 400, do: func(e *env, _ int) {
		no := uint16(1)
		for range 400 {
			payload := make([]byte, 1200)
			if no == 1 {
				payload = whole(e, 60000)[:1200]
			}
			e.m.say(e.a, failover(e, payload, func(m wire.Msg) { m.SetFragmNo(no); m.SetNofFragms(65535) }))
			no++
		}
		e.w.run(30 * time.Millisecond)
	}, counts: "link.RecvPkts", check: noEcho}}},
	{"TunnelReplaysOldPackets", tunnel(func(e *env) wire.Msg { // inner numbers far before and behind what is due
		return failover(e, inner(e, nil, func(m wire.Msg) { m.SetSeqNo(40000) }))
	}, "")},
	{"SynchWithoutSecondLink", tunnel(func(e *env) wire.Msg {
		return raw(e.m.addr(), e.a.addr(), wire.UserTunnel, wire.TypeSynch, wire.IntHeaderSize, nil, func(m wire.Msg) { m.SetSyncPt(60000) })
	}, "")},
}

func seq(m wire.Msg) { m.SetSeqNo(1) }

// noEcho checks that the two nodes do not go on to answer each other for ever.
func noEcho(e *env) {
	n := 0
	e.w.mangle = func(from *host, _ wire.MediaAddr, pkt []byte) [][]byte {
		if from == e.a && wire.Msg(pkt).User() == wire.UserTunnel {
			n++
		}
		return [][]byte{pkt}
	}
	e.n.run(time.Second)
	e.w.mangle = nil
	if n > 0 {
		e.t.Errorf("%d tunnel packets in a second, long after the attack", n)
	}
}

// tunnel is a case of one tunnel packet. A peer with one link has no reason to send it, but Linux takes it: the other
// link may never have come up at this end.
func tunnel(packet func(e *env) wire.Msg, counts string) []attack {
	return []attack{
		{by: "peer", do: sayAll(one(packet)), counts: counts, once: true, check: noEcho},
		{by: "stranger", do: strange(one(packet)), counts: "node.UnknownPeer"},
	}
}
