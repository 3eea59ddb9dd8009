package bearer_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/bearer/bearertest"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// openLAN makes a bearer on each host of a lan with open.
func openLAN(mtu int, open func(host int) (bearer.Bearer, error)) bearertest.Open {
	return func(t *testing.T, n int) (bs []bearer.Bearer) {
		l := newLAN(t, n, mtu)
		for i, h := range l.hosts {
			var b bearer.Bearer
			var err error
			h.do(func() { b, err = open(i + 1) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			bs = append(bs, b)
		}
		return bs
	}
}

func TestPrivilegedEth(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			bearertest.Run(t, openLAN(mtu, func(int) (bearer.Bearer, error) {
				return bearer.OpenEth(bearer.EthConfig{Device: "eth0"})
			}))
		})
	}
}

// UDP as between hosts: the default MTU of 14000 is fragmented, segmentation
// works for small datagrams only.
func TestPrivilegedUDP4(t *testing.T) {
	bearertest.Run(t, openLAN(1500, func(host int) (bearer.Bearer, error) {
		return bearer.OpenUDP(bearer.UDPConfig{Name: "u", LocalIP: netip.AddrFrom4([4]byte{10, 77, 0, byte(host)})})
	}))
}

func TestPrivilegedUDP4Device(t *testing.T) {
	bearertest.Run(t, openLAN(1500, func(int) (bearer.Bearer, error) {
		return bearer.OpenUDP(bearer.UDPConfig{Name: "u", Device: "eth0", Plain: true})
	}))
}

func TestPrivilegedUDP6(t *testing.T) {
	bearertest.Run(t, openLAN(1500, func(host int) (bearer.Bearer, error) {
		return bearer.OpenUDP(bearer.UDPConfig{Name: "u", LocalIP: netip.MustParseAddr(fmt.Sprintf("fd77::%d", host))})
	}))
}

// IPv6 nodes that have link-local addresses alone. Not with Plain: the net
// package remembers interface names for the whole process, and they mean
// something else in each namespace.
func TestPrivilegedUDP6LinkLocal(t *testing.T) {
	bearertest.Run(t, func(t *testing.T, n int) (bs []bearer.Bearer) {
		l := newLAN(t, n, 1500)
		for _, h := range l.hosts {
			h.do(func() {
				ip, _ := netip.AddrFromSlice(l.linkLocal())
				b, err := bearer.OpenUDP(bearer.UDPConfig{Name: "u", LocalIP: ip.WithZone("eth0")})
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { b.Close() })
				bs = append(bs, b)
			})
		}
		if len(bs) != n {
			t.FailNow()
		}
		return bs
	})
}

// The first train of datagrams that are too large for segmentation teaches the
// bearer; smaller ones are still segmented.
func TestPrivilegedSegmentationFallsBack(t *testing.T) {
	bs := openLAN(1500, func(host int) (bearer.Bearer, error) {
		return bearer.OpenUDP(bearer.UDPConfig{Name: "u", LocalIP: netip.AddrFrom4([4]byte{10, 77, 0, byte(host)})})
	})(t, 2)
	r := bs[1].Readers()[0]
	train := func(size, n int) bearer.Stats {
		t.Helper()
		var batch buf.Batch
		for k := range n {
			b := buf.Copy([]byte(bearertest.Payload(k, size)))
			batch.SendFrom(0, bs[1].Addr(), b.Msg, b)
			b.Release()
		}
		before := bs[0].Stats()
		if err := bs[0].WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
		pkts := make([]bearer.Packet, 64)
		for have := 0; have < n; {
			k, err := r.ReadBatch(pkts)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pkts[:k] {
				if string(p.Data) != bearertest.Payload(have, size) {
					t.Fatalf("size %d: number %d is wrong", size, have)
				}
				have++
			}
		}
		after := bs[0].Stats()
		after.TxSegmented -= before.TxSegmented
		after.TxCalls -= before.TxCalls
		after.TxErrors -= before.TxErrors
		return after
	}
	for range 2 {
		if st := train(14000, 4); st.TxSegmented != 0 || st.TxErrors != 0 {
			t.Errorf("14000 octets: %+v", st)
		}
	}
	if st := train(1472, 20); st.TxSegmented != 20 || st.TxCalls != 1 {
		t.Errorf("1472 octets: %+v", st)
	}
	if st := train(1473, 20); st.TxSegmented != 0 || st.TxCalls != 1 {
		t.Errorf("1473 octets: %+v", st)
	}
}

// Two bearers of one node in one group must each get what comes by their own
// interface only.
func TestPrivilegedTwoInterfaces(t *testing.T) {
	l := newLAN(t, 2, 1500)
	// A second cable between the hosts, beside the bridge.
	h1, h2 := l.hosts[0], l.hosts[1]
	h1.ip(t, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", fmt.Sprint(h2.tid))
	var bs [2][2]*bearer.UDP
	for i, h := range l.hosts {
		h.ip(t, "link", "set", "eth1", "up")
		h.ip(t, "addr", "add", fmt.Sprintf("10.78.0.%d/24", i+1), "dev", "eth1")
	}
	for i, h := range l.hosts {
		h.running(t, "eth1")
		h.do(func() {
			for n := range 2 {
				bs[i][n] = mustUDP(t, bearer.UDPConfig{Name: "u", LocalIP: netip.AddrFrom4([4]byte{10, byte(77 + n), 0, byte(i + 1)})})
			}
		})
	}
	for n := range 2 {
		var batch buf.Batch
		for k := range 3 {
			batch.Send(0, bs[0][n].BroadcastAddr(), []byte(bearertest.Payload(100*n+k, 64)))
		}
		bs[0][n].WriteBatch(&batch, 0)
	}
	for n := range 2 {
		group := bs[1][n].Readers()[1]
		var pkts [8]bearer.Packet
		for have := 0; have < 3; {
			k, err := group.ReadBatch(pkts[:])
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pkts[:k] {
				if string(p.Data) != bearertest.Payload(100*n+have, 64) || p.Src != bs[0][n].Addr() || !p.Broadcast {
					t.Errorf("bearer %d: got %x from %v", n, p.Data[:4], p.Src)
				}
				have++
			}
		}
		if k, _ := group.TryReadBatch(pkts[:]); k != 0 {
			t.Errorf("bearer %d got the other's datagrams", n)
		}
	}
}

func nextEvent(t *testing.T, b bearer.Bearer) bearer.Event {
	t.Helper()
	select {
	case ev := <-b.Events():
		return ev
	case <-time.After(2 * time.Minute):
		t.Fatal("no event")
	}
	return bearer.Event{}
}

func TestPrivilegedEthEvents(t *testing.T) {
	l := newLAN(t, 2, 1500)
	var b, peer *bearer.Eth
	var err error
	l.hosts[0].do(func() { b, err = bearer.OpenEth(bearer.EthConfig{Device: "eth0"}) })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l.hosts[1].do(func() { peer, err = bearer.OpenEth(bearer.EthConfig{Device: "eth0"}) })
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	sink := bearertest.NewSink(b, 8)
	_ = sink
	want := func(ev bearer.Event) {
		t.Helper()
		if got := nextEvent(t, b); got != ev {
			t.Fatalf("got %+v, want %+v", got, ev)
		}
	}
	ping := func() {
		t.Helper()
		var batch buf.Batch
		batch.Send(0, b.Addr(), []byte(bearertest.Payload(1, b.MTU())))
		have := b.Stats().RxDatagrams
		deadline := time.Now().Add(2 * time.Minute)
		for b.Stats().RxDatagrams == have {
			if time.Now().After(deadline) {
				t.Fatalf("nothing arrives any more: %+v", b.Stats())
			}
			if err := peer.WriteBatch(&batch, 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // until the device is ready again, datagrams are lost
		}
	}
	ping()
	h := l.hosts[0]
	// Cable pulled at the other end, then the device set down, then both back.
	l.sw.ip(t, "link", "set", "p1", "down")
	want(bearer.Event{Kind: bearer.LinkDown})
	l.sw.ip(t, "link", "set", "p1", "up")
	want(bearer.Event{Kind: bearer.LinkUp})
	ping()
	h.ip(t, "link", "set", "eth0", "down")
	want(bearer.Event{Kind: bearer.LinkDown})
	// Sending on a device that is down is counted, nothing more.
	var batch buf.Batch
	batch.Send(0, peer.Addr(), []byte(bearertest.Payload(1, 64)))
	if err := b.WriteBatch(&batch, 0); err != nil {
		t.Error(err)
	}
	if b.Stats().TxErrors == 0 {
		t.Error("sending on a device that is down was not counted")
	}
	h.ip(t, "link", "set", "eth0", "up")
	want(bearer.Event{Kind: bearer.LinkUp})
	ping()
	for _, mtu := range []int{1400, 9000, 1500} {
		for _, n := range []*netns{h, l.hosts[1]} {
			n.ip(t, "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
		}
		for _, p := range []string{"p1", "p2", "br0"} {
			l.sw.ip(t, "link", "set", p, "mtu", fmt.Sprint(mtu))
		}
		want(bearer.Event{Kind: bearer.MTUChanged, MTU: mtu})
		if b.MTU() != mtu {
			t.Errorf("MTU is %d, want %d", b.MTU(), mtu)
		}
		ping() // with datagrams of the new MTU; the first may be cut off
	}
	h.ip(t, "link", "set", "eth0", "address", "02:00:00:00:00:77")
	mac := wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2, 0, 0, 0, 0, 0x77}}
	want(bearer.Event{Kind: bearer.AddrChanged, Addr: mac})
	if b.Addr() != mac {
		t.Errorf("address is %v", b.Addr())
	}
	ping()
	l.sw.ip(t, "link", "del", "p1")
	for {
		ev := nextEvent(t, b)
		if ev.Kind == bearer.Gone {
			break
		}
		if ev.Kind != bearer.LinkDown {
			t.Fatalf("got %v when the device was removed", ev)
		}
	}
	if err := b.WriteBatch(&batch, 0); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, open := <-b.Events(); open {
		t.Error("an event after the last")
	}
}

func TestPrivilegedEthRefuses(t *testing.T) {
	l := newLAN(t, 1, 1500)
	l.hosts[0].ip(t, "link", "set", "eth0", "mtu", "80")
	for _, tc := range []struct {
		dev  string
		want error
	}{
		{"lo", bearer.ErrConfig},
		{"", bearer.ErrConfig},
		{"eth0", bearer.ErrConfig}, // its MTU is too small
		{"nosuch0", nil},
	} {
		l.hosts[0].do(func() {
			b, err := bearer.OpenEth(bearer.EthConfig{Device: tc.dev})
			if err == nil {
				b.Close()
				t.Errorf("%q: opened", tc.dev)
			} else if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%q: %v", tc.dev, err)
			}
		})
	}
}

// Frames that are not for this host are not delivered even in promiscuous mode,
// and other protocols are not seen at all.
func TestPrivilegedEthForeignFrames(t *testing.T) {
	l := newLAN(t, 2, 1500)
	var b *bearer.Eth
	var err error
	l.hosts[0].ip(t, "link", "set", "eth0", "promisc", "on")
	l.hosts[0].do(func() { b, err = bearer.OpenEth(bearer.EthConfig{Device: "eth0"}) })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	frame := func(dst [6]byte, proto uint16, data string) {
		l.hosts[1].do(func() {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			var be [2]byte
			binary.BigEndian.PutUint16(be[:], proto)
			sa := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(be[:]), Ifindex: ifindex(t, "eth0"), Halen: 6}
			copy(sa.Addr[:], dst[:])
			if err := unix.Sendto(fd, []byte(data), 0, sa); err != nil {
				t.Error(err)
			}
		})
	}
	other := [6]byte{2, 9, 9, 9, 9, 9}
	frame(other, bearer.EtherType, bearertest.Payload(1, 64))
	frame(b.Addr().MAC, 0x88b5, bearertest.Payload(2, 64))
	frame([6]byte{1, 0, 0, 0, 0, 1}, bearer.EtherType, bearertest.Payload(3, 64)) // multicast is taken
	frame(b.Addr().MAC, bearer.EtherType, bearertest.Payload(4, 1500))
	var pkts [4]bearer.Packet
	for have, want := 0, []int{3, 4}; have < 2; {
		n, err := b.Readers()[0].ReadBatch(pkts[:1])
		if err != nil {
			t.Fatal(err)
		}
		if p := pkts[0]; n != 1 || binary.BigEndian.Uint32(p.Data) != uint32(want[have]) || p.Broadcast != (have == 0) {
			t.Errorf("got %x, broadcast %v, want frame %d", p.Data[:4], p.Broadcast, want[have])
		}
		have++
	}
	if st := b.Stats(); st.RxForeign != 1 {
		t.Errorf("%d foreign frames, want 1", st.RxForeign)
	}
}

func ifindex(t *testing.T, name string) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		t.Fatal(err)
	}
	return int(ifr.Uint32())
}
