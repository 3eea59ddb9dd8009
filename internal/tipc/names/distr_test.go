package names

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// record is a Network that keeps what is sent.
type record struct {
	mtu     int
	unicast map[uint32][]wire.Msg
	bcast   []wire.Msg
	rcDests []int
}

func newRecord(mtu int) *record { return &record{mtu: mtu, unicast: map[uint32][]wire.Msg{}} }

func (r *record) Xmit(_ mono.Time, q *buf.Queue, dnode, selector uint32) error {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		r.unicast[dnode] = append(r.unicast[dnode], slices.Clone(b.Msg))
		b.Release()
	}
	return nil
}

func (r *record) Broadcast(_ mono.Time, b *buf.Buf, rcDests int) {
	r.bcast = append(r.bcast, slices.Clone(b.Msg))
	r.rcDests = append(r.rcDests, rcDests)
	b.Release()
}

func (r *record) MTU(uint32, uint32) int { return r.mtu }

func newDist(addr uint32, cfg DistConfig) (*Table, *Distributor, *record) {
	tab := NewTable(Config{Own: addr})
	net := newRecord(13976)
	return tab, NewDistributor(tab, net, cfg), net
}

func deliver(d *Distributor, from uint32, msgs ...wire.Msg) {
	var q buf.Queue
	for _, m := range msgs {
		q.PushBack(buf.Copy(m))
	}
	d.Receive(0, &q, from)
	if !q.Empty() {
		panic("Receive left something on the queue")
	}
}

func items(msgs ...wire.Msg) (out []wire.NameItem) {
	for _, m := range msgs {
		for b := m.Data(); len(b) >= wire.NameItemSize; b = b[wire.NameItemSize:] {
			it, _ := wire.ParseNameItem(b)
			out = append(out, it)
		}
	}
	return out
}

// item is a binding of port 1 with key 1 to {100, n, n}.
func item(n uint32) wire.NameItem { return wire.NameItem{Range: sr(100, n, n), Port: 1, Key: 1} }

// message makes a message of peerA; bulk is "", "bulk", "last" or "legacy".
func message(typ uint8, bulk string, seq uint16, its ...wire.NameItem) wire.Msg {
	m := make(wire.Msg, wire.IntHeaderSize+len(its)*wire.NameItemSize)
	wire.Init(m, peerA, wire.UserNameDistr, typ, wire.IntHeaderSize, own)
	m.SetSize(len(m))
	m.SetNamedSeqNo(seq)
	if bulk != "legacy" {
		m.SetNonLegacy()
	}
	if bulk == "bulk" || bulk == "last" {
		m.SetBulk()
	}
	if bulk == "last" {
		m.SetLastBulk()
	}
	for i, it := range its {
		wire.PutNameItem(m[wire.IntHeaderSize+i*wire.NameItemSize:], it)
	}
	return m
}

func unhex(t testing.TB, s string) wire.Msg {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Messages that two Linux kernels sent (udp.pcap): node 5c6f6465 with a binding to {4711, 1, 1} comes up, then the
// binding is withdrawn. The link wrote word 2; the broadcast link also word 5.
const (
	linuxBulk = "57400050 1c000000 00000002 5c6f6465 00000002 00004000 5c6f6465 5d6f6465 00000000 00000000" +
		"00001267 00000001 00000001 1320d67d 1320d67e" + "00000000 5c6f6465 5c6f6465 00000000 5c6f6465"
	linuxWithdrawal = "5750003c 24000000 00000001 5c6f6465 00000002 00001267 5c6f6465 00000000 00000000 00000000" +
		"00001267 00000001 00000001 1320d67d 1320d67e"
)

// TestSentLikeLinux compares our messages with the captured ones.
func TestSentLikeLinux(t *testing.T) {
	tab, d, net := newDist(0, DistConfig{})
	p := mustPublish(t, tab, sr(4711, 1, 1), wire.ScopeCluster, 0x1320d67d, 0x1320d67e)
	tab.SetOwn(own)
	mustPublish(t, tab, sr(NodeState, own, own), wire.ScopeCluster, 0, own)
	mustPublish(t, tab, sr(TopSrv, 1, 1), wire.ScopeNode, 7, 8)
	net.bcast = nil
	d.NodeUp(0, peerA, wire.CapsAll)
	tab.Withdraw(0, p)
	if len(net.unicast[peerA]) != 1 || len(net.bcast) != 1 {
		t.Fatalf("sent %d and %d messages", len(net.unicast[peerA]), len(net.bcast))
	}
	bulk, wd := unhex(t, linuxBulk), unhex(t, linuxWithdrawal)
	bulk.SetWord(2, 0)
	wd.SetWord(2, 0)
	wd.SetMcNetID(0)
	wd.SetNonSeq(false)
	if got := net.unicast[peerA][0]; !bytes.Equal(got, bulk) {
		t.Errorf("bulk\n%x, Linux sends\n%x", got, bulk)
	}
	if got := net.bcast[0]; !bytes.Equal(got, wd) {
		t.Errorf("withdrawal\n%x, Linux sends\n%x", got, wd)
	}
}

func TestReceivedFromLinux(t *testing.T) {
	tab, d, _ := newDist(peerA, DistConfig{})
	d.NodeUp(0, own, wire.CapsAll)
	deliver(d, own, unhex(t, linuxBulk))
	if a, ok := tab.Lookup(4711, 1, 0); !ok || a != (wire.SocketAddr{Port: 0x1320d67d, Node: own}) {
		t.Errorf("after bulk: %v %v", a, ok)
	}
	deliver(d, own, unhex(t, linuxWithdrawal))
	if _, ok := tab.Lookup(4711, 1, 0); ok {
		t.Error("not withdrawn")
	}
	if _, ok := tab.Lookup(NodeState, own, 0); !ok {
		t.Error("the node's own name is gone")
	}
	d.NodeDown(0, own)
	if tab.Len() != 0 {
		t.Error("publications of a lost node")
	}
}

// TestBulkSizes: messages are filled up to the MTU, only the last one is marked and numbered; without publications
// there still is one (Linux: CVE-2023-1390 is what happens else).
func TestBulkSizes(t *testing.T) {
	const perMsg = (1460 - 40) / 20
	for _, n := range []int{0, 1, perMsg - 1, perMsg, perMsg + 1, 3 * perMsg} {
		tab, d, net := newDist(own, DistConfig{})
		net.mtu = 1460
		for i := range n {
			mustPublish(t, tab, sr(100, uint32(i), uint32(i)), wire.ScopeCluster, 1, 1)
		}
		mustPublish(t, tab, sr(200, 0, 0), wire.ScopeNode, 1, 1)
		d.NodeUp(0, peerA, wire.CapsAll)
		msgs := net.unicast[peerA]
		if want := max(1, (n+perMsg-1)/perMsg); len(msgs) != want {
			t.Errorf("%d publications: %d messages, want %d", n, len(msgs), want)
		}
		for i, m := range msgs {
			last := i == len(msgs)-1
			if _, err := wire.Validate(m); err != nil || len(m) > 1460 || m.Size() != len(m) {
				t.Errorf("%d publications: message %d of %d octets: %v", n, i, len(m), err)
			}
			if !last && m.DataSize() != perMsg*20 || m.IsLastBulk() != last || !m.IsBulk() || m.IsLegacy() || !m.BcAckInvalid() {
				t.Errorf("%d publications: header of message %d: %x", n, i, m[:40])
			}
			if last && m.NamedSeqNo() != uint16(n) {
				t.Errorf("%d publications: number %d", n, m.NamedSeqNo())
			}
		}
		for i, it := range items(msgs...) {
			if it != item(uint32(i)) {
				t.Errorf("item %d: %+v", i, it)
			}
		}
		if got := len(items(msgs...)); got != n {
			t.Errorf("%d items, want %d", got, n)
		}
	}
	for _, mtu := range []int{0, 40, 59, 66060, 1 << 20} { // MTUs of a link that is going down
		tab, d, net := newDist(own, DistConfig{})
		net.mtu = mtu
		for i := range uint32(4000) {
			mustPublish(t, tab, sr(100, i, i), wire.ScopeCluster, 1, 1)
		}
		d.NodeUp(0, peerA, wire.CapsAll)
		if got := len(items(net.unicast[peerA]...)); got != 4000 {
			t.Errorf("MTU %d: %d items", mtu, got)
		}
	}
}

// TestUpdates: numbers grow by one for each change of cluster scope; peers without NAMED_BCAST force single messages.
func TestUpdates(t *testing.T) {
	tab, d, net := newDist(own, DistConfig{})
	p := mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeNode, 1, 2)
	d.NodeUp(0, peerA, wire.CapsAll)
	tab.Withdraw(0, p)
	d.NodeUp(0, peerB, wire.CapsAll&^wire.CapNamedBcast)
	p = mustPublish(t, tab, sr(100, 2, 2), wire.ScopeCluster, 1, 1)
	d.NodeUp(0, peerB, wire.CapsAll&^wire.CapNamedBcast) // again, without a loss between
	d.NodeDown(0, peerB)
	d.NodeDown(0, peerB)
	tab.Withdraw(0, p)
	if !slices.Equal(net.rcDests, []int{0, 0, 1, 0}) {
		t.Errorf("destinations without NAMED_BCAST: %v", net.rcDests)
	}
	for i, m := range net.bcast {
		if m.NamedSeqNo() != uint16(i) || m.Type() != uint8(i&1) || m.IsBulk() || m.IsLegacy() || len(m) != 60 {
			t.Errorf("update %d: %x", i, m)
		}
	}
}

// TestUnicastUpdates is the option that keeps changes in order with data.
func TestUnicastUpdates(t *testing.T) {
	tab, d, net := newDist(own, DistConfig{UnicastPeers: 1})
	d.NodeUp(0, peerA, wire.CapsAll)
	mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
	d.NodeUp(0, peerB, wire.CapsAll)
	mustPublish(t, tab, sr(100, 2, 2), wire.ScopeCluster, 1, 1)
	if !slices.Equal(net.rcDests, []int{1, 0}) {
		t.Errorf("%v", net.rcDests)
	}
}

// TestDeferral: changes wait for the whole bulk, then for their number; what the bulk contains already is dropped.
func TestDeferral(t *testing.T) {
	tab, d, _ := newDist(own, DistConfig{})
	d.NodeUp(0, peerA, wire.CapsAll)
	const pub, wd = wire.TypePublication, wire.TypeWithdrawal
	has := func(want ...uint32) {
		t.Helper()
		var got []uint32
		for p := range tab.Publications() {
			got = append(got, p.Range.Lower)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	deliver(d, peerA, message(pub, "", 65534, item(3)), message(wd, "", 0, item(4)), message(pub, "", 65533, item(9)))
	has()
	deliver(d, peerA, message(pub, "bulk", 0, item(1)))
	has(1)
	deliver(d, peerA, message(pub, "last", 65534, item(2)))
	has(1, 2, 3)
	deliver(d, peerA, message(pub, "", 65534, item(7)), message(pub, "", 2, item(6)))
	has(1, 2, 3)
	deliver(d, peerA, message(pub, "", 65535, item(4), item(5)))
	has(1, 2, 3, 5) // 65535 adds 4 and 5, 0 takes 4 away
	deliver(d, peerA, message(pub, "", 1))
	has(1, 2, 3, 5, 6) // 1 is empty, but counts
	if s := d.Stats(); s.Stale != 2 || s.DeferredNow != 0 || s.Published != 6 || s.Withdrawn != 1 {
		t.Errorf("%+v", s)
	}
}

// TestContactAgain: a node that comes back has new numbers. Linux 6.1 compares with the old ones.
func TestContactAgain(t *testing.T) {
	tab, d, _ := newDist(own, DistConfig{})
	d.NodeUp(0, peerA, wire.CapsAll)
	deliver(d, peerA, message(0, "last", 500, item(1)), message(0, "", 500, item(2)), message(0, "", 502, item(3)))
	d.NodeDown(0, peerA)
	if tab.Len() != 0 || d.Stats().DeferredNow != 0 {
		t.Errorf("%d publications, %d deferred", tab.Len(), d.Stats().DeferredNow)
	}
	deliver(d, peerA, message(0, "last", 0, item(9)))
	if tab.Len() != 0 || d.Stats().UnknownPeer != 1 {
		t.Error("took a message of a lost node")
	}
	d.NodeUp(0, peerA, wire.CapsAll)
	deliver(d, peerA, message(0, "", 3, item(2)), message(0, "last", 3, item(1)))
	if tab.Len() != 2 {
		t.Errorf("%d publications, want 2", tab.Len())
	}
	deliver(d, peerA, message(0, "last", 9, item(5)), message(0, "", 4, item(6))) // a second last bulk does not move the number
	if tab.Len() != 4 {
		t.Errorf("%d publications, want 4", tab.Len())
	}
}

// TestLegacyPeer: messages without the non-legacy bit are applied at once.
func TestLegacyPeer(t *testing.T) {
	tab, d, _ := newDist(own, DistConfig{})
	d.NodeUp(0, peerA, 0)
	deliver(d, peerA, message(0, "legacy", 0, item(1), item(2)), message(1, "legacy", 0, item(1)))
	if tab.Len() != 1 {
		t.Errorf("%d publications", tab.Len())
	}
}

// TestHostileMessages: each is dropped or taken as far as it makes sense, and counted.
func TestHostileMessages(t *testing.T) {
	swapped, zeroNode, otherOrigin, otherUser, tail, typ7 := item(1), message(0, "bulk", 0, item(1)), message(0, "bulk", 0, item(1)),
		message(0, "bulk", 0, item(1)), append(message(0, "bulk", 0, item(1)), make([]byte, 19)...), message(7, "bulk", 0, item(1))
	swapped.Range.Lower = 2
	zeroNode.SetOrigNode(0)
	otherOrigin.SetOrigNode(peerB)
	otherUser.SetUser(wire.UserConnManager)
	tail.SetSize(len(tail))
	lying := message(0, "bulk", 0, item(1))
	lying.SetSize(60000)
	for name, c := range map[string]struct {
		msgs []wire.Msg
		len  int
		bad  func(DistStats) uint64
	}{
		"swapped bounds":       {[]wire.Msg{message(0, "bulk", 0, swapped)}, 0, func(s DistStats) uint64 { return s.BadRange }},
		"twice":                {[]wire.Msg{message(0, "bulk", 0, item(1), item(1))}, 1, func(s DistStats) uint64 { return s.Duplicate }},
		"withdrawn unknown":    {[]wire.Msg{message(1, "bulk", 0, item(1))}, 0, func(s DistStats) uint64 { return s.UnknownWithdrawal }},
		"origin 0":             {[]wire.Msg{zeroNode}, 0, func(s DistStats) uint64 { return s.WrongOrigin }},
		"origin another":       {[]wire.Msg{otherOrigin}, 0, func(s DistStats) uint64 { return s.WrongOrigin }},
		"another user":         {[]wire.Msg{otherUser}, 0, func(s DistStats) uint64 { return s.WrongOrigin }},
		"19 octets more":       {[]wire.Msg{tail}, 1, func(s DistStats) uint64 { return s.Tail }},
		"19 octets, deferred":  {[]wire.Msg{tailed(message(0, "", 0, item(1))), message(0, "last", 0)}, 1, func(s DistStats) uint64 { return s.Tail }},
		"type 7":               {[]wire.Msg{typ7}, 0, func(s DistStats) uint64 { return s.BadType }},
		"type 7, deferred":     {[]wire.Msg{message(7, "", 0, item(1)), message(0, "last", 0)}, 0, func(s DistStats) uint64 { return s.BadType }},
		"same number":          {[]wire.Msg{message(0, "", 0, item(1)), message(0, "", 0, item(2))}, 0, func(s DistStats) uint64 { return s.Stale }},
		"longer than it is":    {[]wire.Msg{lying}, 1, func(DistStats) uint64 { return 1 }},
		"header only":          {[]wire.Msg{message(0, "bulk", 0)[:8]}, 0, func(s DistStats) uint64 { return s.WrongOrigin }},
		"empty":                {[]wire.Msg{{}}, 0, func(s DistStats) uint64 { return s.WrongOrigin }},
		"empty bulk, not last": {[]wire.Msg{message(0, "bulk", 0)}, 0, func(DistStats) uint64 { return 1 }},
	} {
		tab, d, _ := newDist(own, DistConfig{})
		d.NodeUp(0, peerA, wire.CapsAll)
		deliver(d, peerA, c.msgs...)
		if tab.Len() != c.len || c.bad(d.Stats()) != 1 {
			t.Errorf("%s: %d publications, %+v", name, tab.Len(), d.Stats())
		}
		d.NodeDown(0, peerA)
		if s := tab.Stats(); s.Publications != 0 || s.Services != 0 {
			t.Errorf("%s: left %+v", name, s)
		}
	}
	tab, d, _ := newDist(own, DistConfig{})
	d.NodeUp(0, own, wire.CapsAll) // a peer with our own address
	m := message(0, "bulk", 0, item(1))
	m.SetOrigNode(own)
	p := mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
	deliver(d, own, m)
	d.NodeDown(0, own)
	if !p.Bound() || tab.Len() != 1 {
		t.Error("a peer with our address changed our publications")
	}
}

func tailed(m wire.Msg) wire.Msg {
	m = append(m, make([]byte, 19)...)
	m.SetSize(len(m))
	return m
}

// TestDeferralBounds fills the queue of deferred changes, with single items, many items and none.
func TestDeferralBounds(t *testing.T) {
	many := make([]wire.NameItem, 100)
	for name, its := range map[string][]wire.NameItem{"one": {item(1)}, "many": many, "none": nil} {
		_, d, _ := newDist(own, DistConfig{MaxDeferred: 1000, MaxDeferredTotal: 1500})
		d.NodeUp(0, peerA, wire.CapsAll)
		d.NodeUp(0, peerB, wire.CapsAll)
		for seq := range uint16(2000) {
			m := message(0, "", seq, its...)
			deliver(d, peerA, m)
			m.SetOrigNode(peerB)
			deliver(d, peerB, m)
			if n := d.Stats().DeferredNow; n > 1500 || d.peers[peerA].items > 1000 || d.peers[peerB].items > 1000 {
				t.Fatalf("%s: %d deferred", name, n)
			}
		}
		s := d.Stats()
		if want := uint64(4000 - 1500/max(1, len(its))); s.DeferOverflow != want || s.DeferredNow != 1500 {
			t.Errorf("%s: overflow %d, want %d; %d deferred", name, s.DeferOverflow, want, s.DeferredNow)
		}
		d.NodeDown(0, peerB)
		d.NodeDown(0, peerA)
		if d.total != 0 {
			t.Errorf("%s: %d deferred after both are gone", name, d.total)
		}
	}
}

// Test65536Items: a node cannot publish more than a node may have.
func Test65536Items(t *testing.T) {
	tab, d, _ := newDist(own, DistConfig{})
	d.NodeUp(0, peerA, wire.CapsAll)
	var its []wire.NameItem
	for i := range uint32(70000) {
		its = append(its, item(i))
		if len(its) == 3300 {
			deliver(d, peerA, message(0, "bulk", 0, its...))
			its = its[:0]
		}
	}
	deliver(d, peerA, message(0, "last", 0, its...))
	if s := d.Stats(); tab.RemoteLen(peerA) != 65535 || s.OverFull != 70000-65535 {
		t.Errorf("%d publications, %d refused", tab.RemoteLen(peerA), s.OverFull)
	}
}

// TestClusterConverges connects distributors whose broadcasts arrive out of order and late, and checks that everyone
// ends with the same table.
func TestClusterConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 3
		var tabs [n]*Table
		var ds [n]*Distributor
		var nets [n]*record
		var pubs [n][]*Publication
		var waiting [n][n][]wire.Msg // [to][from]
		for i := range n {
			tabs[i], ds[i], nets[i] = newDist(uint32(i+1), DistConfig{})
			nets[i].mtu = 100
			tabs[i].sndNxt = rapid.SampledFrom([]uint16{0, 65530}).Draw(t, "first")
		}
		up := [n][n]bool{}
		collect := func() {
			for i := range n {
				for to, msgs := range nets[i].unicast {
					if up[to-1][i] {
						waiting[to-1][i] = append(waiting[to-1][i], msgs...)
					}
					delete(nets[i].unicast, to)
				}
				for to := range n {
					if up[to][i] {
						waiting[to][i] = append(waiting[to][i], nets[i].bcast...)
					}
				}
				nets[i].bcast = nil
			}
		}
		deliverAt := func(to, from, k int) {
			w := waiting[to][from]
			deliver(ds[to], uint32(from+1), w[k])
			waiting[to][from] = slices.Delete(w, k, k+1)
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				i, inst := rapid.IntRange(0, n-1).Draw(t, "i"), rapid.Uint32Range(0, 3).Draw(t, "inst")
				key := uint32(len(pubs[i]) + 1)
				pubs[i] = append(pubs[i], mustPublishR(t, tabs[i], sr(100, inst, inst), key))
				collect()
			},
			"withdraw": func(t *rapid.T) {
				i := rapid.IntRange(0, n-1).Draw(t, "i")
				if len(pubs[i]) == 0 {
					t.Skip()
				}
				tabs[i].Withdraw(0, rapid.SampledFrom(pubs[i]).Draw(t, "p"))
				collect()
			},
			"contact": func(t *rapid.T) {
				a, b := rapid.IntRange(0, n-1).Draw(t, "a"), rapid.IntRange(0, n-1).Draw(t, "b")
				if a == b {
					t.Skip()
				}
				was := up[a][b]
				up[a][b], up[b][a] = !was, !was
				for _, x := range [][2]int{{a, b}, {b, a}} {
					waiting[x[0]][x[1]] = nil
					if was {
						ds[x[0]].NodeDown(0, uint32(x[1]+1))
					} else {
						ds[x[0]].NodeUp(0, uint32(x[1]+1), wire.CapsAll)
					}
				}
				collect()
			},
			"deliver": func(t *rapid.T) {
				to, from := rapid.IntRange(0, n-1).Draw(t, "to"), rapid.IntRange(0, n-1).Draw(t, "from")
				w := waiting[to][from]
				if len(w) == 0 {
					t.Skip()
				}
				// Each link keeps order. The first of the bulk and the first of the changes can come next.
				k := 0
				if rapid.Bool().Draw(t, "other link") {
					k = slices.IndexFunc(w, func(m wire.Msg) bool { return m.IsBulk() != w[0].IsBulk() })
				}
				deliverAt(to, from, max(k, 0))
			},
		})
		for to := range n {
			for from := range n {
				for len(waiting[to][from]) > 0 {
					deliverAt(to, from, 0)
				}
				if to == from {
					continue
				}
				want := 0
				if up[to][from] {
					want = tabs[from].LocalLen()
				}
				if got := tabs[to].RemoteLen(uint32(from + 1)); got != want {
					t.Fatalf("node %d knows %d of %d publications of node %d", to+1, got, want, from+1)
				}
				for p := range tabs[from].Publications() {
					if p.Addr.Node == uint32(from+1) && up[to][from] && tabs[to].index[p.pubID()] == nil {
						t.Fatalf("node %d lacks %+v", to+1, p)
					}
				}
			}
			if s := ds[to].Stats(); s.DeferredNow != 0 || s.Duplicate+s.UnknownWithdrawal+s.DeferOverflow != 0 {
				t.Fatalf("node %d: %+v", to+1, s)
			}
		}
	})
}

func mustPublishR(t *rapid.T, tab *Table, r wire.ServiceRange, key uint32) *Publication {
	p, err := tab.Publish(0, r, wire.ScopeCluster, wire.SocketAddr{Port: 1, Node: tab.Own()}, key)
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	return p
}

// FuzzReceive feeds a distributor a script of messages in arbitrary form: each begins with one octet that says from
// whom, and one for its length.
func FuzzReceive(f *testing.F) {
	script := func(msgs ...wire.Msg) (out []byte) {
		for _, m := range msgs {
			out = append(append(out, 0, byte(len(m))), m...)
		}
		return out
	}
	f.Add(script(unhex(f, linuxBulk), unhex(f, linuxWithdrawal)))
	f.Add(script(message(0, "", 1, item(1)), message(0, "last", 0, item(1), item(2)), message(1, "", 0, item(1))))
	f.Add(script(message(1, "legacy", 9, item(1)), message(7, "last", 65535), tailed(message(0, "bulk", 0, item(1)))))
	f.Fuzz(func(t *testing.T, in []byte) {
		tab, d, _ := newDist(peerB, DistConfig{MaxDeferred: 50, MaxDeferredTotal: 80})
		s := tab.NewSubscriber(nil, 100)
		mustSubscribe(t, s, 0, wire.Subscr{Range: sr(100, 0, 50), Timeout: wire.WaitForever, Filter: wire.SubPorts})
		mine := mustPublish(t, tab, sr(100, 1, 1), wire.ScopeCluster, 1, 1)
		d.NodeUp(0, own, wire.CapsAll)
		d.NodeUp(0, peerA, wire.CapsAll)
		for len(in) > 2 {
			from := uint32(peerA)
			switch in[0] & 3 {
			case 1:
				from = own
			case 2:
				d.NodeDown(0, from)
			case 3:
				d.NodeUp(0, from, wire.Caps(in[0])<<8)
			}
			n := min(int(in[1]), len(in)-2)
			m := slices.Clone(wire.Msg(in[2 : 2+n]))
			if in[0]&4 == 0 {
				m.SetUser(wire.UserNameDistr)
				m.SetOrigNode(from)
			}
			deliver(d, from, m)
			in = in[2+n:]
			if d.total > 80 {
				t.Fatalf("%d items deferred", d.total)
			}
			for _, sc := range tab.services {
				checkTree(t, &sc.ranges)
			}
		}
		for p := range tab.Publications() {
			if p.Range.Lower > p.Range.Upper || p != mine && p.Addr.Node != own && p.Addr.Node != peerA {
				t.Fatalf("took %+v", p)
			}
		}
		d.NodeDown(0, own)
		d.NodeDown(0, peerA)
		if tab.Len() != 1 || len(tab.index) != 1 || len(tab.ranges) != 1 || d.total != 0 {
			t.Fatalf("left: %+v", tab.Stats())
		}
	})
}
