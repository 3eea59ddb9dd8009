package mrt

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gomrt "github.com/osrg/gobgp/v4/pkg/packet/mrt"
)

// TestWrittenByGoBGP reads dumps that another program's code wrote, random ones with a fixed seed. They are of
// IPv4, because gobgp 4.8 writes AFI and SAFI into RIB_IPV6_UNICAST, where RFC 6396 section 4.3.2 has none.
func TestWrittenByGoBGP(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	peers := []*gomrt.Peer{
		gomrt.NewPeer(addr("192.0.2.101"), addr("192.0.2.1"), 64500, true),
		gomrt.NewPeer(addr("192.0.2.102"), addr("2001:db8::2"), 4200000000, true),
	}
	var file []byte
	put := func(sub gomrt.MRTSubTypeTableDumpv2, body gomrt.Body) {
		t.Helper()
		m, err := gomrt.NewMRTMessage(time.Unix(1700000000, 0), gomrt.TABLE_DUMPv2, sub, body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := m.Serialize()
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, b...)
	}
	put(gomrt.PEER_INDEX_TABLE, gomrt.NewPeerIndexTable(addr("192.0.2.255"), "view", peers))
	var want []Entry
	for i := range 2000 {
		addPath := rng.IntN(2) == 0
		var raw [4]byte
		for j := range raw {
			raw[j] = byte(rng.Uint32())
		}
		p := netip.PrefixFrom(netip.AddrFrom4(raw), rng.IntN(33)).Masked()
		hop, family, sub := addr("192.0.2.77"), bgp.RF_IPv4_UC, gomrt.RIB_IPV4_UNICAST
		if addPath {
			sub += gomrt.RIB_IPV4_UNICAST_ADDPATH - gomrt.RIB_IPV4_UNICAST
		}
		n, err := bgp.NewIPAddrPrefix(p)
		if err != nil {
			t.Fatal(err)
		}
		var entries []*gomrt.RibEntry
		for range 1 + rng.IntN(3) {
			index, id := rng.IntN(2), uint32(0)
			if addPath {
				id = rng.Uint32()
			}
			attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeMultiExitDisc(7)}
			nh, err := bgp.NewPathAttributeNextHop(hop)
			if err != nil {
				t.Fatal(err)
			}
			attrs = append(attrs, nh)
			entries = append(entries, gomrt.NewRibEntry(uint16(index), 1600000000, id, attrs, addPath))
			want = append(want, Entry{Prefix: p, Hops: []Hop{{Gateway: hop}}, PathID: id, Time: 1600000000,
				Peer: peers[index].IpAddress, PeerAS: peers[index].AS})
		}
		put(sub, gomrt.NewRib(uint32(i), family, n, entries))
	}
	got, err := all(t, open(t, file, Options{Paths: All}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	if d := diff(want, got); d != "" {
		t.Fatal(d)
	}
}
