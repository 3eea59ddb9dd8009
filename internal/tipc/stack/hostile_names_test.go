package stack_test

import (
	"time"

	"midplane/internal/tipc/wire"
)

// Name distribution.

// bulk is a message that is applied at once, publication or withdrawal.
func bulk(e *env, typ uint8, data []byte) wire.Msg {
	return raw(e.m.addr(), e.a.addr(), wire.UserNameDistr, typ, wire.IntHeaderSize, data, func(m wire.Msg) {
		m.SetBulk()
		m.SetNonLegacy()
	})
}

// update is a numbered change.
func update(e *env, typ uint8, no uint16, data []byte) wire.Msg {
	return raw(e.m.addr(), e.a.addr(), wire.UserNameDistr, typ, wire.IntHeaderSize, data, func(m wire.Msg) {
		m.SetNamedSeqNo(no)
		m.SetNonLegacy()
	})
}

func item(typ, lower, upper, port uint32) wire.NameItem {
	return wire.NameItem{Range: rangeOf(typ, lower, upper), Port: port, Key: port + 1}
}

// named is a case of one message in three positions. What is left of it is gone with the mad node, which is restarted.
func named(name, counts string, f func(e *env, i int) wire.Msg) hostile {
	msgs := func(e *env, i int) []wire.Msg { return []wire.Msg{f(e, i)} }
	return hostile{name, []attack{
		{by: "peer", do: sayAll(msgs), counts: counts, check: restart},
		{by: "broadcast", do: shoutAll(msgs), counts: counts, check: restart},
		{by: "stranger", do: strange(msgs), counts: "node.UnknownPeer"},
	}}
}

// restart has the mad node come back as an honest one: whatever it had published must be gone.
func restart(e *env) {
	e.m.start()
	for k := 0; k < 10 || !e.a.up(e.m) || !e.m.up(e.a); k++ {
		if k == 200 {
			e.fatalf("no contact after the restart")
		}
		e.n.run(50 * time.Millisecond)
	}
}

var hostileNames = []hostile{
	named("NameRangeSwapped", "distr.BadRange", func(e *env, i int) wire.Msg {
		return bulk(e, wire.TypePublication, nameItems(item(5000, 10, 9, uint32(i))))
	}),
	named("NameDuplicateKey", "distr.Duplicate", func(e *env, i int) wire.Msg {
		return bulk(e, wire.TypePublication, nameItems(item(5000, 1, 9, 3), item(5000, 1, 9, 3)))
	}),
	named("NameWithdrawalOfUnknown", "distr.UnknownWithdrawal", func(e *env, i int) wire.Msg {
		return bulk(e, wire.TypeWithdrawal, nameItems(item(5000, 1, 9, uint32(i)), item(rdmService, 1, 1, e.n.rdmRcv.Port())))
	}),
	named("NameOfAnotherNode", "distr.WrongOrigin", func(e *env, i int) wire.Msg {
		// If it were believed, the innocent nodes' service would be gone.
		p := e.n.rdmRcv.Publications()[0]
		m := bulk(e, wire.TypeWithdrawal, nameItems(wire.NameItem{Range: p.Range, Port: p.Addr.Port, Key: p.Key}))
		m.SetOrigNode(e.b.addr())
		return m
	}),
	named("NameOfThisNode", "distr.WrongOrigin", func(e *env, i int) wire.Msg {
		m := bulk(e, wire.TypeWithdrawal, nameItems(item(0, e.a.addr(), e.a.addr(), 0)))
		m.SetOrigNode(e.a.addr())
		return m
	}),
	named("NameItemCutOff", "distr.Tail", func(e *env, i int) wire.Msg {
		return bulk(e, wire.TypePublication, nameItems(item(5000, 1, 9, 3))[:1+i%19])
	}),
	named("NameTypeUnknown", "distr.BadType", func(e *env, i int) wire.Msg {
		return bulk(e, uint8(2+i%6), nameItems(item(5000, 1, 9, 3)))
	}),
	named("NameListEmpty", "link.RecvPkts|bcast.RecvPkts", func(e *env, i int) wire.Msg { return bulk(e, wire.TypePublication, nil) }),
	named("NameUpdateReplayed", "distr.Stale", func(e *env, i int) wire.Msg {
		return update(e, wire.TypePublication, uint16(65000+i), nameItems(item(5000, 1, 9, 3)))
	}),
	named("NameInBundle", "distr.Published|distr.Duplicate", func(e *env, i int) wire.Msg {
		return bundle(e, 1, bulk(e, wire.TypePublication, nameItems(item(5000, 1, 9, 3)))) // that is allowed
	}),
	{"NamesWithoutEnd", []attack{{by: "peer", times: 1, answers: 2000, heap: 8 << 20, counts: "distr.OverFull", do: func(e *env, _ int) {
		const per = 60
		items := make([]wire.NameItem, per)
		for n := uint32(0); n < 70000; n += per {
			for k := range items {
				items[k] = item(5000+n%7, n+uint32(k), n+uint32(k), n+uint32(k))
			}
			e.m.say(e.a, bulk(e, wire.TypePublication, nameItems(items...)))
			e.w.run(500 * time.Microsecond)
		}
		if n := e.a.s.Names().RemoteLen(e.m.addr()); n != 65535 {
			e.fatalf("%d publications of one node", n)
		}
	}, check: restart}}},
	{"NamesDeferredWithoutEnd", []attack{{by: "peer", times: 1, answers: 8000, heap: 8 << 20, counts: "distr.DeferOverflow", do: func(e *env, _ int) {
		for n := range uint16(3000) { // numbers far ahead of the next
			items := make([]wire.NameItem, 60)
			for k := range items {
				items[k] = item(5000, uint32(n), uint32(n), uint32(k))
			}
			e.m.say(e.a, update(e, wire.TypePublication, 2000+n, nameItems(items...)))
			e.w.run(300 * time.Microsecond)
		}
		if n := e.a.s.Distributor().Stats().DeferredNow; n > 1<<16 {
			e.fatalf("%d items are deferred", n)
		}
	}, check: restart}}},
	{"NameEventsWithoutEnd", []attack{{by: "peer", times: 1, answers: 4000, do: func(e *env, _ int) { // bind and unbind as fast as can be
		for n := range 2000 {
			typ := uint8(n % 2)
			e.m.say(e.a, bulk(e, typ, nameItems(item(5000, 1, 9, 3))))
			e.w.run(300 * time.Microsecond)
		}
	}, counts: "distr.Withdrawn", check: restart}}},
}
