package discover_test

import (
	"encoding/binary"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/discover"
	"midplane/internal/tipc/wire"
)

// dsc returns a correct request of node 5 at udp(3), changed by change.
func dsc(change func(wire.Msg)) wire.Msg {
	m := make(wire.Msg, wire.MaxHeaderSize+wire.NodeIDSize)
	wire.Init(m, 5, wire.UserLinkConfig, wire.TypeDscRequest, wire.MaxHeaderSize, 0)
	m.SetSize(len(m))
	m.SetNonSeq(true)
	m.SetNodeCapabilities(wire.CapsAll)
	m.SetBcNetID(discover.DefaultNetID)
	wire.PutMediaInfo(m.MediaInfo(), udp(3))
	m.SetNodeIdentity(nodeID("five"))
	if change != nil {
		change(m)
	}
	return m
}

// TestHostile sends the discovery messages of section 6 of the reference, which lists what hurt Linux.
func TestHostile(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(wire.Msg) wire.Msg
		count  func(discover.Stats) uint64
	}{
		{"60 octets without identity", func(m wire.Msg) wire.Msg { m.SetSize(60); return m[:60] }, malformed},
		{"half an identity", func(m wire.Msg) wire.Msg { m.SetSize(68); return m[:68] }, malformed},
		{"identity zero", func(m wire.Msg) wire.Msg { m.SetNodeIdentity(wire.NodeID{}); return m }, malformed},
		{"short header", func(m wire.Msg) wire.Msg { m.SetHdrsz(40); return m }, malformed},
		{"shortest", func(m wire.Msg) wire.Msg { m.SetHdrsz(24); m.SetSize(24); return m[:24] }, malformed},
		{"unknown type", func(m wire.Msg) wire.Msg { m.SetType(4); return m }, malformed},
		{"other media", func(m wire.Msg) wire.Msg {
			wire.PutMediaInfo(m.MediaInfo(), wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2, 0, 0, 0, 0, 1}})
			return m
		}, malformed},
		{"no media", func(m wire.Msg) wire.Msg { clear(m.MediaInfo()); return m }, malformed},
		{"multicast address", func(m wire.Msg) wire.Msg { wire.PutMediaInfo(m.MediaInfo(), broadcast); return m }, malformed},
		{"unknown address family", func(m wire.Msg) wire.Msg { binary.BigEndian.PutUint16(m.MediaInfo()[4:], 0x88ca); return m }, malformed},
		{"from address 0", func(m wire.Msg) wire.Msg { m.SetPrevNode(0); return m }, malformed},
		{"own media address", func(m wire.Msg) wire.Msg { wire.PutMediaInfo(m.MediaInfo(), udp(2)); return m },
			func(s discover.Stats) uint64 { return s.Own }},
		{"own address", func(m wire.Msg) wire.Msg { m.SetPrevNode(0x100); return m },
			func(s discover.Stats) uint64 { return s.Duplicates }},
		{"other cluster", func(m wire.Msg) wire.Msg { m.SetBcNetID(4712); return m },
			func(s discover.Stats) uint64 { return s.OtherNet }},
		{"for another node", func(m wire.Msg) wire.Msg { m.SetDestDomain(0x101); return m },
			func(s discover.Stats) uint64 { return s.OutOfScope }},
		{"refusal outside a trial", func(m wire.Msg) wire.Msg {
			m.SetType(wire.TypeDscTrialFail)
			m.SetDestDomain(0x100)
			m.SetSuggNodeAddr(9)
			return m
		}, func(s discover.Stats) uint64 { return s.Refused }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bus{t: t}
			h := b.add(2, discover.Config{Addr: 0x100, Random: 1}, discover.Bearer{})
			b.log = nil
			m, err := wire.Validate(c.change(dsc(nil)))
			if err != nil {
				t.Fatalf("does not reach discovery: %v", err)
			}
			h.Receive(b.now, 0, udp(3), m)
			if n := c.count(h.Stats()); n != 1 {
				t.Errorf("counted %d times: %+v", n, h.Stats())
			}
			if len(h.peers) != 0 || len(b.log) != 0 || h.Own() != 0x100 {
				t.Errorf("peers %v, answers %q, own %x", h.peers, b.log, h.Own())
			}
		})
	}
}

func malformed(s discover.Stats) uint64 { return s.Malformed }

// Peers without 128-bit identity are known by their address, and their messages need no identity.
func TestOldPeer(t *testing.T) {
	b := &bus{t: t}
	h := b.add(2, discover.Config{Addr: 0x100}, discover.Bearer{})
	m := dsc(func(m wire.Msg) {
		m.SetNodeCapabilities(wire.CapsAll &^ wire.CapNodeID128)
		m.SetSize(60)
	})[:60]
	h.Receive(b.now, 0, udp(3), m)
	if p := h.peers[5]; p.ID != nodeID("5") || p.Caps != wire.CapsAll&^wire.CapNodeID128 {
		t.Errorf("%+v", p)
	}
}

// A storm of messages is answered at a bounded rate.
func TestStorm(t *testing.T) {
	for _, typ := range []uint8{wire.TypeDscRequest, wire.TypeDscTrial} {
		b := &bus{t: t}
		h := b.add(2, discover.Config{Addr: 0x100, Random: 1}, discover.Bearer{})
		b.log = nil
		m := dsc(func(m wire.Msg) { m.SetType(typ) })
		if typ == wire.TypeDscTrial {
			m.SetPrevNode(0x100)
		}
		const second, n = 3, 30000
		for i := range n {
			h.Receive(b.now+mono.Time(second*time.Second*time.Duration(i)/n), 0, udp(3), m)
		}
		if got := len(b.log); got < 1024 || got > 1024+second*1000+1 {
			t.Errorf("type %d: %d answers to %d messages in %d s", typ, got, n, second)
		}
		if s := h.Stats(); s.Suppressed+uint64(len(b.log)) != n {
			t.Errorf("type %d: %d suppressed", typ, s.Suppressed)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	d := discover.New(discover.Config{Addr: 0x100, Out: nothing{}, Up: nothing{}})
	if err := d.BearerEnable(0, 0, discover.Bearer{Addr: udp(2), Broadcast: broadcast}); err != nil {
		t.Fatal(err)
	}
	m := dsc(nil)
	now := mono.Time(0)
	if n := testing.AllocsPerRun(100, func() {
		now += 1e9
		d.Receive(now, 0, udp(3), m)
		d.Tick(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s := d.Stats(); s.Sent[wire.TypeDscResponse] == 0 || s.Sent[wire.TypeDscRequest] < 50 {
		t.Errorf("measured nothing: %+v", s)
	}
}

// nothing is an Output and Upcalls that keeps nothing.
type nothing struct{}

func (nothing) Send(int, wire.MediaAddr, []byte, *buf.Buf)           {}
func (nothing) CheckDest(mono.Time, discover.Dest) (bool, bool)      { return true, false }
func (nothing) TryAddr(wire.NodeID, uint32, uint32) uint32           { return 0 }
func (nothing) Finalize(mono.Time, uint32)                           {}
func (nothing) DuplicateAddr(mono.Time, int, uint32, wire.MediaAddr) {}
func (nothing) LearnPeer(mono.Time, int, wire.MediaAddr)             {}

// FuzzDiscovery plays a script of messages and pauses to a node: each item is a length, a pause in units of 10 ms and
// so many octets that replace the beginning of a correct message.
func FuzzDiscovery(f *testing.F) {
	for _, typ := range []uint8{wire.TypeDscRequest, wire.TypeDscResponse, wire.TypeDscTrial, wire.TypeDscTrialFail} {
		m := dsc(func(m wire.Msg) { m.SetType(typ) })
		item := append([]byte{byte(len(m)), 3}, m...)
		f.Add(item, true)
		f.Add(append(item, item...), false)
	}
	f.Add([]byte{0, 255, 60, 1}, true)
	f.Fuzz(func(t *testing.T, script []byte, fixed bool) {
		b := &bus{t: t}
		c := discover.Config{ID: nodeID("node2"), Random: 7}
		if fixed {
			c.Addr = 0x100
		}
		h := b.add(2, c, discover.Bearer{Learn: true})
		var in uint64
		for range 64 {
			if len(script) < 2 {
				break
			}
			n, pause := int(script[0]), script[1]
			script = script[2:]
			n = min(n, len(script))
			m := dsc(nil)
			m = append(append(m[:0:0], script[:n]...), m[min(n, len(m)):]...)
			script = script[n:]
			b.run(time.Duration(pause) * 10 * time.Millisecond)
			b.queue = nil
			v, err := wire.Validate(m)
			if err != nil || v.User() != wire.UserLinkConfig {
				continue
			}
			before := string(v)
			h.Receive(b.now, 0, udp(3), v)
			in++
			if string(v) != before {
				t.Fatal("the message was changed")
			}
			for _, d := range b.queue {
				if a, err := wire.Validate(d.pkt); err != nil || a.PrevNode() != h.Trial() {
					t.Fatalf("sent %x: %v", d.pkt, err)
				}
			}
			b.queue = nil
		}
		s := h.Stats()
		var recv uint64
		for _, n := range s.Received {
			recv += n
		}
		if recv+s.Malformed+s.Own+s.OtherNet != in {
			t.Errorf("%d messages, counted %+v", in, s)
		}
		if s.Sent[wire.TypeDscResponse]+s.Sent[wire.TypeDscTrialFail] > in {
			t.Errorf("more answers than messages: %+v", s)
		}
		b.run(time.Second * (discover.MaxTrialRestarts + 2))
		if h.Own() == 0 || (!fixed && len(h.finalized) != 1) {
			t.Errorf("own %x finalized %x", h.Own(), h.finalized)
		}
	})
}
