package bearer_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/bearer/bearertest"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

func loopback() *net.Interface {
	ifis, _ := net.Interfaces()
	for _, i := range ifis {
		if i.Flags&net.FlagLoopback != 0 {
			return &i
		}
	}
	return nil
}

func mustUDP(t testing.TB, c bearer.UDPConfig) *bearer.UDP {
	t.Helper()
	b, err := bearer.OpenUDP(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// freePort finds a port that nobody uses on any address.
func freePort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// openList makes nodes with one address, a port each, and lists of peers.
func openList(base bearer.UDPConfig) bearertest.Open {
	return func(t *testing.T, n int) (bs []bearer.Bearer) {
		var us []*bearer.UDP
		for i := range n {
			c := base
			c.Name = fmt.Sprintf("u%d", i)
			c.LocalPort = bearer.EphemeralPort
			c.PeerList = true
			us = append(us, mustUDP(t, c))
		}
		for i, u := range us {
			bs = append(bs, u)
			for j, peer := range us {
				if i != j {
					if err := u.AddPeer(peer.Addr().IP); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		return bs
	}
}

// openGroup makes nodes on 127.0.0.1, .2 and so on with one port and a
// multicast group, as separate hosts would be.
func openGroup(base bearer.UDPConfig) bearertest.Open {
	return func(t *testing.T, n int) (bs []bearer.Bearer) {
		if runtime.GOOS != "linux" {
			t.Skip("only Linux has all of 127.0.0.0/8 on its loopback interface")
		}
		port := freePort(t)
		for i := range n {
			c := base
			c.Name = fmt.Sprintf("u%d", i)
			c.LocalIP = netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})
			c.LocalPort, c.RemotePort = port, port
			bs = append(bs, mustUDP(t, c))
		}
		return bs
	}
}

// openShared makes nodes with one address, a port each, and a common group.
func openShared(base bearer.UDPConfig) bearertest.Open {
	return func(t *testing.T, n int) (bs []bearer.Bearer) {
		port := freePort(t)
		for i := range n {
			c := base
			c.Name = fmt.Sprintf("u%d", i)
			c.LocalPort, c.RemotePort = bearer.EphemeralPort, port
			bs = append(bs, mustUDP(t, c))
		}
		return bs
	}
}

var (
	lo4 = netip.MustParseAddr("127.0.0.1")
	lo6 = netip.MustParseAddr("::1")
)

func TestUDP(t *testing.T) {
	for _, v := range []struct {
		name string
		c    bearer.UDPConfig
	}{
		{"Fast", bearer.UDPConfig{}},
		{"NoOffload", bearer.UDPConfig{NoOffload: true}},
		{"Plain", bearer.UDPConfig{Plain: true}},
		{"Large", bearer.UDPConfig{MTU: bearer.MaxUDPMTU}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c4, c6 := v.c, v.c
			c4.LocalIP, c6.LocalIP = lo4, lo6
			t.Run("List4", func(t *testing.T) { bearertest.Run(t, openList(c4)) })
			t.Run("Group4", func(t *testing.T) { bearertest.Run(t, openGroup(v.c)) })
			t.Run("Shared4", func(t *testing.T) { bearertest.Run(t, openShared(c4)) })
			need6(t) // multicast is tested in TestPrivilegedUDP6
			t.Run("List6", func(t *testing.T) { bearertest.Run(t, openList(c6)) })
		})
	}
}

// need6 skips without IPv6 on the loopback interface.
func need6(t *testing.T) {
	t.Helper()
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skipf("no IPv6 on the loopback interface (sysctl -w net.ipv6.conf.lo.disable_ipv6=0): %v", err)
	}
	c.Close()
}

func TestUDPGroup(t *testing.T) {
	for _, tc := range []struct {
		netid uint32
		v6    bool
		want  string
	}{
		{4711, false, "228.0.18.103"}, // as in shared/captures
		{1, false, "228.0.0.1"},
		{0x12345678, false, "228.0.86.120"},
		{4711, true, "ff02::4711"}, // decimal digits
		{9999, true, "ff02::9999"},
		{10000, true, "ff02::2710"},
		{0x12345678, true, "ff02::1234:5678"},
	} {
		if got := bearer.UDPGroup(tc.netid, tc.v6).String(); got != tc.want {
			t.Errorf("network %d: %s, want %s", tc.netid, got, tc.want)
		}
	}
}

func TestUDPConfig(t *testing.T) {
	ap := netip.MustParseAddrPort
	ok := bearer.UDPConfig{Name: "x", LocalIP: lo4, LocalPort: bearer.EphemeralPort}
	for _, tc := range []struct {
		name   string
		change func(*bearer.UDPConfig)
	}{
		{"no name", func(c *bearer.UDPConfig) { c.Name = "" }},
		{"no address", func(c *bearer.UDPConfig) { c.LocalIP = netip.Addr{} }},
		{"any address", func(c *bearer.UDPConfig) { c.LocalIP = netip.IPv4Unspecified() }},
		{"multicast address", func(c *bearer.UDPConfig) { c.LocalIP = netip.MustParseAddr("228.0.0.1") }},
		{"not ours", func(c *bearer.UDPConfig) { c.LocalIP = netip.MustParseAddr("192.0.2.1") }},
		{"no such device", func(c *bearer.UDPConfig) { c.Device = "nosuch0" }},
		{"port", func(c *bearer.UDPConfig) { c.LocalPort = 65536 }},
		{"negative port", func(c *bearer.UDPConfig) { c.LocalPort = -2 }},
		{"remote port", func(c *bearer.UDPConfig) { c.RemotePort = -1 }},
		{"small MTU", func(c *bearer.UDPConfig) { c.MTU = bearer.MinUDPMTU - 1 }},
		{"large MTU", func(c *bearer.UDPConfig) { c.MTU = bearer.MaxUDPMTU + 1 }},
		{"TTL", func(c *bearer.UDPConfig) { c.TTL = 256 }},
		{"negative TTL", func(c *bearer.UDPConfig) { c.TTL = -1 }},
		{"no multicast", func(c *bearer.UDPConfig) { c.LocalIP = lo6 }},
		{"buffer", func(c *bearer.UDPConfig) { c.RecvBuf = -1 }},
		{"mixed families", func(c *bearer.UDPConfig) { c.Remote = []netip.AddrPort{ap("[::1]:1")} }},
		{"remote of nothing", func(c *bearer.UDPConfig) { c.Remote = []netip.AddrPort{{}} }},
		{"any remote", func(c *bearer.UDPConfig) { c.Remote = []netip.AddrPort{ap("0.0.0.0:1")} }},
		{"two groups", func(c *bearer.UDPConfig) { c.Remote = []netip.AddrPort{ap("228.0.0.1:1"), ap("228.0.0.2:1")} }},
		{"group and peer", func(c *bearer.UDPConfig) { c.Remote = []netip.AddrPort{ap("127.0.0.1:1"), ap("228.0.0.2:1")} }},
		{"group and list", func(c *bearer.UDPConfig) { c.PeerList, c.Remote = true, []netip.AddrPort{ap("228.0.0.1:1")} }},
	} {
		c := ok
		tc.change(&c)
		if tc.name == "no multicast" && loopback().Flags&net.FlagMulticast != 0 {
			continue // this system's loopback interface carries it
		}
		if b, err := bearer.OpenUDP(c); err == nil {
			b.Close()
			t.Errorf("%s: accepted", tc.name)
		}
	}
	b := mustUDP(t, ok)
	if b.MTU() != 14000 || b.Name() != "udp:x" || !b.BroadcastSupport() {
		t.Errorf("MTU %d, name %q, broadcast support %v", b.MTU(), b.Name(), b.BroadcastSupport())
	}
	if want := ap("228.0.18.103:6118"); b.BroadcastAddr().IP != want {
		t.Errorf("broadcasts go to %v, want %v", b.BroadcastAddr().IP, want)
	}
	lo := loopback()
	c := ok
	c.LocalIP, c.Device = netip.Addr{}, lo.Name
	if b := mustUDP(t, c); b.Addr().IP.Addr() != lo4 || b.Device() != lo.Name {
		t.Errorf("device %s gave address %v", lo.Name, b.Addr())
	}
}

func TestUDPAddressInUse(t *testing.T) {
	b := mustUDP(t, bearer.UDPConfig{Name: "a", LocalIP: lo4, LocalPort: bearer.EphemeralPort})
	c := bearer.UDPConfig{Name: "b", LocalIP: lo4, LocalPort: int(b.Addr().IP.Port())}
	if two, err := bearer.OpenUDP(c); err == nil {
		two.Close()
		t.Error("two nodes share one address and port")
	}
}

func TestUDPPeers(t *testing.T) {
	ap := netip.MustParseAddrPort
	b := mustUDP(t, bearer.UDPConfig{
		Name: "x", LocalIP: lo4, LocalPort: bearer.EphemeralPort, RemotePort: 7000,
		Remote: []netip.AddrPort{ap("127.0.0.1:7001"), ap("127.0.0.2:0"), ap("127.0.0.1:7001")},
	})
	check := func(want ...string) {
		t.Helper()
		if got := fmt.Sprint(b.Peers()); got != fmt.Sprint(want) {
			t.Errorf("peers %v, want %v", got, want)
		}
	}
	check("127.0.0.1:7001", "127.0.0.2:7000")
	for _, p := range []string{"127.0.0.3:0", "127.0.0.3:7000"} {
		if err := b.AddPeer(ap(p)); err != nil {
			t.Error(err)
		}
	}
	check("127.0.0.1:7001", "127.0.0.2:7000", "127.0.0.3:7000")
	if err := b.RemovePeer(ap("127.0.0.2:7000")); err != nil {
		t.Error(err)
	}
	check("127.0.0.1:7001", "127.0.0.3:7000")
	for _, p := range []string{"[::1]:1", "228.0.0.1:1", "0.0.0.0:1"} {
		if err := b.AddPeer(ap(p)); !errors.Is(err, bearer.ErrConfig) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := b.RemovePeer(ap("127.0.0.9:1")); !errors.Is(err, bearer.ErrConfig) {
		t.Errorf("removing a stranger: %v", err)
	}
	var err error
	for i := 0; err == nil; i++ {
		if i > bearer.MaxPeers {
			t.Fatal("the list of peers has no bound")
		}
		err = b.AddPeer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1))
	}
	if len(b.Peers()) != bearer.MaxPeers {
		t.Errorf("%d peers", len(b.Peers()))
	}
	m := mustUDP(t, bearer.UDPConfig{Name: "m", LocalIP: lo4, LocalPort: bearer.EphemeralPort})
	if err := m.AddPeer(ap("127.0.0.1:1")); err != bearer.ErrMulticastBearer {
		t.Errorf("adding a peer to a multicast bearer: %v", err)
	}
}

// Broadcasts go to the peers of the moment.
func TestUDPPeersChangeWhileSending(t *testing.T) {
	bs := openList(bearer.UDPConfig{LocalIP: lo4})(t, 3)
	a := bs[0].(*bearer.UDP)
	s1, s2 := bearertest.NewSink(bs[1], 8), bearertest.NewSink(bs[2], 8)
	say := func(k int) string {
		var batch buf.Batch
		msg := bearertest.Payload(k, 64)
		batch.Send(0, a.BroadcastAddr(), []byte(msg))
		if err := a.WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
		return msg
	}
	one := say(1)
	a.RemovePeer(bs[2].Addr().IP)
	two := say(2)
	a.AddPeer(bs[2].Addr().IP)
	three := say(3)
	if got := s1.Take(t, 3); !slices.Equal(got, []string{one, two, three}) {
		t.Error("the peer that stayed did not get all three")
	}
	if got := s2.Take(t, 2); !slices.Equal(got, []string{one, three}) {
		t.Error("the peer that left for a while did not get the first and the third")
	}
}

// Datagrams to a port where nobody listens come back as ICMP errors, which
// must end neither sending nor receiving.
func TestUDPUnreachable(t *testing.T) {
	for _, plain := range []bool{false, true} {
		bs := openList(bearer.UDPConfig{LocalIP: lo4, Plain: plain})(t, 2)
		nobody := wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(lo4, uint16(freePort(t)))}
		s0, s1 := bearertest.NewSink(bs[0], 8), bearertest.NewSink(bs[1], 8)
		var batch buf.Batch
		for range 20 {
			batch.Send(0, nobody, []byte(bearertest.Payload(1, 64)))
			batch.Send(0, bs[1].Addr(), []byte(bearertest.Payload(1, 64)))
		}
		if err := bs[0].WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
		s1.Take(t, 20)
		// And the sender still receives.
		batch.Reset()
		batch.Send(0, bs[0].Addr(), []byte(bearertest.Payload(2, 64)))
		if err := bs[1].WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
		s0.Take(t, 1)
	}
}

// What the socket's receive queue cannot hold is counted.
func TestUDPOverflowIsCounted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux counts them")
	}
	bs := openList(bearer.UDPConfig{LocalIP: lo4, RecvBuf: 8192, NoOffload: true})(t, 2)
	var batch buf.Batch
	for k := range 500 {
		batch.Send(0, bs[1].Addr(), []byte(bearertest.Payload(k, 1000)))
	}
	r := bs[1].Readers()[0]
	bs[0].WriteBatch(&batch, 0)
	pkts := make([]bearer.Packet, 64)
	have := 0
	drain := func() {
		for {
			n, err := r.TryReadBatch(pkts)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return
			}
			have += n
		}
	}
	drain()
	// The count comes with the next datagram.
	batch.Reset()
	batch.Send(0, bs[1].Addr(), []byte(bearertest.Payload(1, 1000)))
	bs[0].WriteBatch(&batch, 0)
	drain()
	st := bs[1].Stats()
	if st.RxOverflow == 0 || have+int(st.RxOverflow) != 501 {
		t.Errorf("%d arrived and %d were counted as lost, of 501", have, st.RxOverflow)
	}
}

// Segmentation is really used where it can be.
func TestUDPOffloadIsUsed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has segmentation offload")
	}
	bs := openList(bearer.UDPConfig{LocalIP: lo4})(t, 2)
	var batch buf.Batch
	for k := range 60 {
		batch.Send(0, bs[1].Addr(), []byte(bearertest.Payload(k, 1000)))
	}
	bs[0].WriteBatch(&batch, 0)
	pkts := make([]bearer.Packet, 64)
	for have := 0; have < 60; {
		n, err := bs[1].Readers()[0].ReadBatch(pkts)
		if err != nil {
			t.Fatal(err)
		}
		have += n
	}
	if st := bs[0].Stats(); st.TxSegmented != 60 || st.TxCalls != 1 || st.TxDatagrams != 60 || st.TxBytes != 60_000 {
		t.Errorf("sent with %+v", st)
	}
	if st := bs[1].Stats(); st.RxMerged != 60 || st.RxDatagrams != 60 || st.RxBytes != 60_000 {
		t.Errorf("received with %+v", st)
	}
}
