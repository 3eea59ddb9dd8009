package stack_test

import (
	"net/netip"
	"testing"
	"time"

	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/node"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// Discovery: anybody on the bus can say anything here, there is no session to know.

// heard is a case of one discovery message from nowhere.
func heard(name, counts string, f func(e *env, i int) wire.Msg) hostile {
	return hostile{name, []attack{{by: "stranger", counts: counts, do: func(e *env, i int) { e.a.inject(busAddr(99), f(e, i)) }}}}
}

func media(a wire.MediaAddr) func(wire.Msg) {
	return func(m wire.Msg) { wire.PutMediaInfo(m.MediaInfo(), a) }
}

func udp(s string) wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.MustParseAddrPort(s)}
}

func cutTo(n int) func(m wire.Msg) wire.Msg {
	return func(m wire.Msg) wire.Msg {
		m = m[:n]
		m.SetSize(n)
		return m
	}
}

var hostileDiscovery = []hostile{
	heard("DiscoveryWithoutIdentity", "disc.Malformed", func(_ *env, i int) wire.Msg {
		return cutTo(wire.MaxHeaderSize)(dsc(9, uint8(i%4), 1))
	}),
	heard("DiscoveryIdentityCutOff", "disc.Malformed", func(_ *env, i int) wire.Msg {
		return cutTo(wire.MaxHeaderSize + i%wire.NodeIDSize)(dsc(9, uint8(i%4), 1))
	}),
	heard("DiscoveryHeaderShort", "disc.Malformed", func(_ *env, i int) wire.Msg {
		m := cutTo(24 + 4*(i%9))(dsc(9, uint8(i%4), 1))
		m.SetHdrsz(len(m))
		return m
	}),
	heard("DiscoveryTypeUnknown", "disc.Malformed", func(_ *env, i int) wire.Msg { return dsc(9, uint8(4+i%4), 1) }),
	heard("DiscoveryOfAddressZero", "disc.Malformed", func(_ *env, i int) wire.Msg {
		return dsc(9, uint8(i%2), 1, func(m wire.Msg) { m.SetPrevNode(0) })
	}),
	heard("DiscoveryOfOwnAddress", "disc.Duplicates", func(e *env, i int) wire.Msg {
		return dsc(9, uint8(i%2), uint16(i), func(m wire.Msg) { m.SetPrevNode(e.a.addr()) })
	}),
	heard("DiscoveryOfOwnIdentity", "disc.Duplicates", func(e *env, i int) wire.Msg {
		return dsc(1, uint8(i%2), uint16(i), media(busAddr(98)))
	}),
	heard("DiscoveryEcho", "disc.Own", func(e *env, i int) wire.Msg { return dsc(1, uint8(i%4), uint16(i)) }),
	heard("DiscoveryOtherCluster", "disc.OtherNet", func(_ *env, i int) wire.Msg {
		return dsc(9, uint8(i%4), 1, func(m wire.Msg) { m.SetBcNetID(99) })
	}),
	heard("DiscoveryMediaMismatch", "disc.Malformed", func(_ *env, i int) wire.Msg {
		return dsc(9, uint8(i%4), 1, media(wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2, 0, 0, 0, 0, 1}}))
	}),
	heard("DiscoveryMediaUnknown", "disc.Malformed", func(_ *env, i int) wire.Msg {
		return dsc(9, uint8(i%4), 1, func(m wire.Msg) { m.MediaInfo()[3] = byte(4 + i) })
	}),
	heard("DiscoveryMediaBroadcast", "disc.Malformed", func(_ *env, i int) wire.Msg {
		a := []string{"228.0.18.103:6118", "255.255.255.255:6118", "0.0.0.0:6118", "[ff02::1]:6118", "10.0.0.9:0", "[::]:6118"}
		return dsc(9, uint8(i%4), 1, media(udp(a[i%len(a)])))
	}),
	heard("DiscoveryAddressOfPeerTaken", "disc.Duplicates", func(e *env, i int) wire.Msg {
		// Another node claims the innocent peer's address: that peer's link must stay.
		return dsc(9, uint8(i%2), uint16(i), func(m wire.Msg) { m.SetPrevNode(e.b.addr()) })
	}),
	heard("DiscoveryIdentityOfPeerTaken", "disc.Duplicates", func(e *env, i int) wire.Msg {
		return dsc(2, uint8(i%2), uint16(i), media(busAddr(98)), func(m wire.Msg) { m.SetPrevNode(m.PrevNode() + 1) })
	}),
	heard("DiscoveryPeerMoves", "disc.Duplicates", func(e *env, i int) wire.Msg {
		return dsc(2, uint8(i%2), uint16(i), media(busAddr(98)))
	}),
	heard("DiscoverySignatureFlips", "disc.Received.0", func(e *env, i int) wire.Msg { return dsc(2, wire.TypeDscRequest, uint16(i*7)) }),
	heard("DiscoveryCapabilityFlips", "disc.Received.0|disc.Received.1", func(e *env, i int) wire.Msg {
		return dsc(3, uint8(i%2), uint16(i), func(m wire.Msg) { m.SetNodeCapabilities(wire.Caps(i * 0x111)) })
	}),
	heard("DiscoveryPadding", "disc.Received.2", func(e *env, i int) wire.Msg {
		return append(dsc(9, wire.TypeDscTrial, 1), make([]byte, 1+i*50)...)
	}),
	heard("TrialFailAfterTrial", "disc.Refused", func(e *env, i int) wire.Msg {
		return dsc(9, wire.TypeDscTrialFail, 1, func(m wire.Msg) { m.SetDestDomain(e.a.addr()); m.SetSuggNodeAddr(uint32(i)) })
	}),
	{"TrialStorm", []attack{{by: "stranger", times: 1, answers: 1100, counts: "disc.Suppressed", do: func(e *env, _ int) {
		// Trials of taken addresses, each of which wants an answer.
		for i := range 5000 {
			e.a.inject(busAddr(99), dsc(9, wire.TypeDscTrial, uint16(i), func(m wire.Msg) { m.SetPrevNode(e.b.addr()) }))
		}
	}}}},
	{"RequestStorm", []attack{{by: "stranger", times: 1, answers: 2600, heap: 24 << 20, counts: "node.Evicted", do: func(e *env, _ int) {
		// More nodes than there is room for. None of them answers.
		for i := range 5000 {
			m := dsc(9, wire.TypeDscRequest, uint16(i), media(udp("10.9.9.9:7000")))
			m.SetPrevNode(uint32(0x4000_0000 + i))
			id, _ := m.NodeIdentity()
			id[15], id[14], id[13] = byte(i), byte(i>>8), 1
			m.SetNodeIdentity(id)
			e.a.inject(busAddr(99), m)
		}
		n := 0
		for range e.a.s.Nodes().Nodes() {
			n++
		}
		if n > node.DefaultMaxNodes {
			e.fatalf("%d nodes", n)
		}
	}}}},
}

// A node that is refused each address that it tries gets one all the same, in bounded time (TRIAL storms).
func TestHostileTrialFailStorm(t *testing.T) {
	w := newWorld(t, 3)
	h := w.add(1)
	fails := 0
	w.mangle = func(from *host, _ wire.MediaAddr, pkt []byte) [][]byte {
		if m := wire.Msg(pkt); m.User() == wire.UserLinkConfig && m.Type() == wire.TypeDscTrial {
			fails++
			tried := m.PrevNode()
			f := dsc(9, wire.TypeDscTrialFail, 1, func(f wire.Msg) { f.SetDestDomain(tried); f.SetSuggNodeAddr(tried + 1) })
			w.late(flight{w.now + delay, from, busAddr(9), f})
		}
		return nil
	}
	w.run(2 * time.Second * discover.MaxTrialRestarts)
	if h.addr() == 0 {
		t.Fatalf("no address after %d refusals", fails)
	}
	st := h.s.Discovery().Stats()
	if st.Restarts != discover.MaxTrialRestarts || st.Refused == 0 {
		t.Errorf("%+v", st)
	}
}

// On a bearer with a peer list, each unknown sender is worth learning; the list of those that the driver has not
// fetched is bounded (CVE-2026-68323 was about concurrent additions to the kernel's list).
func TestHostileReplicastAdds(t *testing.T) {
	w := newWorld(t, 4)
	s, err := stack.New(w.now, stack.Config{ID: idOf(1), Rand: w.r.Uint32})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.BearerEnable(w.now, stack.Bearer{
		Name: "udp:U0", MTU: busMTU, Priority: 10, Tolerance: 1500, MinWin: 50, MaxWin: 50, Addr: busAddr(1),
		Broadcast: busBroadcast, Replicast: true, Learn: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	src := func(i int) wire.MediaAddr {
		return wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 6118)}
	}
	for i := range 10_000 {
		m := dsc(9, wire.TypeDscTrial, 1)
		if i%3 == 0 {
			m = m[:40] // not even correct: not worth learning
		}
		s.HandlePacket(w.now, 0, src(i), m)
	}
	learned := s.TakeLearned()
	if len(learned) == 0 || len(learned) > 64 {
		t.Errorf("%d senders learned", len(learned))
	}
	for _, l := range learned {
		ip := l.Addr.IP.Addr().As4()
		if i := int(ip[2])<<8 | int(ip[3]); i%3 == 0 {
			t.Errorf("learned %v, which sent nothing correct", l.Addr)
		}
	}
	if n := len(s.TakeLearned()); n != 0 {
		t.Errorf("%d are still there", n)
	}
}
