package msg_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

const own, peer = 0x1001, 0x1002

func header(h int) wire.Msg {
	m := make(wire.Msg, h)
	wire.Init(m, own, wire.UserHigh, wire.TypeNamed, h, peer)
	m.SetOrigPort(77)
	m.SetDestPort(88)
	return m
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)
	}
	return p
}

func TestBuildOnePacket(t *testing.T) {
	var q buf.Queue
	if err := msg.Build(header(40), pattern(100), 140, &q); err != nil || q.Len() != 1 {
		t.Fatalf("%v, %d packets", err, q.Len())
	}
	m := q.Front().Msg
	if m.User() != wire.UserHigh || m.Size() != 140 || !bytes.Equal(m.Data(), pattern(100)) {
		t.Errorf("%x", m)
	}
}

// The layout that Linux puts on the wire, checked octet by octet for three fragments.
func TestBuildFragments(t *testing.T) {
	var q buf.Queue
	if err := msg.Build(header(32), pattern(200), 132, &q); err != nil || q.Len() != 3 {
		t.Fatalf("%v, %d packets", err, q.Len())
	}
	want := []struct {
		typ  uint8
		size int
	}{{wire.TypeFirstFragment, 132}, {wire.TypeFragment, 132}, {wire.TypeLastFragment, 88}}
	i := 0
	for b := q.Front(); b != nil; b = b.Next() {
		m := b.Msg
		if m.User() != wire.UserFragmenter || m.Type() != want[i].typ || m.Size() != want[i].size || len(m) != m.Size() ||
			m.Hdrsz() != 40 || int(m.FragmNo()) != i+1 || m.NofFragms() != 0 || m.Importance() != 2 || m.DestNode() != peer || m.PrevNode() != own {
			t.Errorf("fragment %d: %x", i+1, m[:40])
		}
		i++
	}
	in := q.Front().Msg.InnerHdr()
	if in.Size() != 232 || in.User() != wire.UserHigh || q.Front().Msg.OrigPort() != 77 {
		t.Errorf("inner header %x", in[:32])
	}
}

func TestBuildErrors(t *testing.T) {
	var q buf.Queue
	if err := msg.Build(header(24), make([]byte, 66001), 1500, &q); err != msg.ErrTooLarge {
		t.Errorf("66001 octets: %v", err)
	}
	if err := msg.Build(header(24), make([]byte, 100), 64, &q); err != msg.ErrPacketSize {
		t.Errorf("packet size 64: %v", err)
	}
	if q.Len() != 0 {
		t.Error("packets in spite of an error")
	}
}

func TestBuildReassembleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.SampledFrom([]int{24, 32, 40, 44}).Draw(t, "header")
		n := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 66000)).Draw(t, "size")
		pktmax := rapid.OneOf(rapid.IntRange(90, 300), rapid.IntRange(1400, 14000)).Draw(t, "pktmax")
		var q buf.Queue
		if err := msg.Build(header(h), pattern(n), pktmax, &q); err != nil {
			t.Fatal(err)
		}
		total := 0
		for b := q.Front(); b != nil; b = b.Next() {
			if len(b.Msg) > pktmax {
				t.Fatalf("packet of %d", len(b.Msg))
			}
			if _, err := wire.Validate(b.Msg); err != nil {
				t.Fatal(err)
			}
			total += len(b.Msg)
		}
		copied := msg.Reassemble(&q)
		whole := msg.Assemble(&q)
		if q.Len() != 0 || copied == nil || whole == nil || !bytes.Equal(copied.Msg, whole.Msg) {
			t.Fatal("the two ways to reassemble differ")
		}
		if whole.Msg.Hdrsz() != h || whole.Msg.Size() != h+n || !bytes.Equal(whole.Msg.Data(), pattern(n)) {
			t.Fatalf("message of %d changed", n)
		}
	})
}

func TestFragmentRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q, frags buf.Queue
		n := rapid.IntRange(1, 3000).Draw(t, "size")
		pktmax := rapid.IntRange(100, 1500).Draw(t, "pktmax")
		if err := msg.Build(header(40), pattern(n), 4000, &q); err != nil {
			t.Fatal(err)
		}
		m := q.Front().Msg
		err := msg.Fragment(m, header(40), pktmax, &frags)
		if (err != nil) != (m.Size() <= pktmax-40) {
			t.Fatalf("%d in %d: %v", m.Size(), pktmax, err)
		}
		var r msg.Reassembler
		for f := frags.Front(); f != nil; f = f.Next() {
			if int(f.Msg.NofFragms()) != frags.Len() {
				t.Fatal("count of fragments")
			}
			typ := uint8(wire.TypeFragment)
			if f.Msg.FragmNo() == 1 {
				typ = wire.TypeFirstFragment
			} else if f.Next() == nil {
				typ = wire.TypeLastFragment
			}
			b, err := r.AppendTyped(f.Msg, typ)
			if err != nil || (b != nil) != (f.Next() == nil) {
				t.Fatalf("fragment %d: %v", f.Msg.FragmNo(), err)
			}
			if b != nil && !bytes.Equal(b.Msg, m) {
				t.Fatal("changed")
			}
		}
	})
}

func TestReassemblerHostile(t *testing.T) {
	frag := func(typ uint8, data []byte) wire.Msg {
		b := msg.Create(wire.UserFragmenter, typ, 40, len(data), own, peer, 0, 0, 0)
		copy(b.Msg.Data(), data)
		return b.Msg
	}
	whole := append(header(24), pattern(100)...)
	whole.SetSize(124)
	lie := func(f func(m wire.Msg)) []byte {
		c := bytes.Clone(whole)
		f(wire.Msg(c))
		return c
	}
	const first, mid, last = wire.TypeFirstFragment, wire.TypeFragment, wire.TypeLastFragment
	for _, c := range []struct {
		name  string
		frags []wire.Msg
		want  error // of the last one
	}{
		{"last without first", []wire.Msg{frag(last, whole)}, msg.ErrNoFirst},
		{"middle without first", []wire.Msg{frag(mid, whole)}, msg.ErrNoFirst},
		{"two first", []wire.Msg{frag(first, whole[:50]), frag(first, whole[:50])}, msg.ErrSecondFirst},
		{"empty first", []wire.Msg{frag(first, nil)}, msg.ErrInner},
		{"short first", []wire.Msg{frag(first, whole[:23])}, msg.ErrInner},
		{"inner version", []wire.Msg{frag(first, lie(func(m wire.Msg) { m[0] = 0 }))}, msg.ErrInner},
		{"inner header size 0", []wire.Msg{frag(first, lie(func(m wire.Msg) { m.SetHdrsz(0) }))}, msg.ErrInner},
		{"inner size 0", []wire.Msg{frag(first, lie(func(m wire.Msg) { m.SetSize(0) }))}, msg.ErrInner},
		{"inner size huge", []wire.Msg{frag(first, lie(func(m wire.Msg) { m.SetSize(0x1ffff) }))}, msg.ErrInner},
		{"too early an end", []wire.Msg{frag(first, whole[:50]), frag(last, whole[50:123])}, msg.ErrIncomplete},
		{"type 7", []wire.Msg{frag(first, whole[:50]), frag(7, whole[50:])}, msg.ErrFragType},
		{"excess is ignored", []wire.Msg{frag(first, whole[:50]), frag(mid, make([]byte, 60000)), frag(last, make([]byte, 60000))}, nil},
	} {
		var r msg.Reassembler
		for i, f := range c.frags {
			b, err := r.Append(f)
			if i < len(c.frags)-1 {
				if err != nil || b != nil {
					t.Errorf("%s: fragment %d: %v", c.name, i, err)
				}
				continue
			}
			if err != c.want || (b != nil) != (err == nil) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if b != nil && len(b.Msg) != 124 {
				t.Errorf("%s: %d octets", c.name, len(b.Msg))
			}
		}
		if !r.Empty() {
			t.Errorf("%s: state is left", c.name)
		}
	}
}

func TestReverse(t *testing.T) {
	build := func(h, n int, f func(m wire.Msg)) wire.Msg {
		var q buf.Queue
		if err := msg.Build(header(h), pattern(n), 70000, &q); err != nil {
			t.Fatal(err)
		}
		m := q.Front().Msg
		m.SetPrevNode(peer)
		if h > 24 {
			m.SetOrigNode(0x1003)
		}
		if f != nil {
			f(m)
		}
		return m
	}
	for _, c := range []struct {
		name         string
		m            wire.Msg
		code         wire.ErrCode
		hdrsz, dsize int
		ok           bool
	}{
		{"named", build(40, 100, nil), wire.CodeNoName, 40, 100, true},
		{"long", build(40, 5000, nil), wire.CodeNoName, 40, 1024, true},
		{"short becomes basic", build(24, 10, nil), wire.CodeNoPort, 32, 10, true},
		{"droppable", build(40, 10, func(m wire.Msg) { m.SetDestDroppable(true) }), wire.CodeNoName, 0, 0, false},
		{"returned", build(40, 10, func(m wire.Msg) { m.SetErrCode(wire.CodeOverload) }), wire.CodeNoName, 0, 0, false},
		{"syn, overload", build(40, 10, func(m wire.Msg) { m.SetSyn(true) }), wire.CodeOverload, 40, 0, true},
		{"syn, no name", build(40, 10, func(m wire.Msg) { m.SetSyn(true) }), wire.CodeNoName, 40, 10, true},
	} {
		before := bytes.Clone(c.m)
		b, ok := msg.Reverse(own, c.m, c.code)
		if ok != c.ok || (b != nil) != ok {
			t.Errorf("%s: %v", c.name, ok)
			continue
		}
		if !bytes.Equal(before, c.m) {
			t.Errorf("%s: original changed", c.name)
		}
		if !ok {
			continue
		}
		r := b.Msg
		if r.Hdrsz() != c.hdrsz || r.DataSize() != c.dsize || r.Size() != len(r) || r.ErrCode() != c.code || r.NonSeq() ||
			r.OrigPort() != 88 || r.DestPort() != 77 || r.DestNode() != peer || r.PrevNode() != own || r.OrigNode() != own {
			t.Errorf("%s: %x", c.name, r)
		}
		if !bytes.Equal(r.Data(), pattern(c.dsize)) {
			t.Errorf("%s: data", c.name)
		}
	}
}

func TestReject(t *testing.T) {
	var in, out buf.Queue
	msg.Build(header(40), pattern(5), 1500, &in)
	msg.Reject(own, in.PopFront(), wire.CodeNoPort, &out)
	if out.Len() != 1 || out.Front().Msg.ErrCode() != wire.CodeNoPort {
		t.Error("no returned message")
	}
	b := out.PopFront()
	if msg.Reject(own, b, wire.CodeNoPort, &out); out.Len() != 0 {
		t.Error("a returned message was returned again")
	}
}

// Messages packed by TryBundle come out of Extract in order and unchanged.
func TestBundleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mss := rapid.IntRange(100, 14000).Draw(t, "mss")
		sizes := rapid.SliceOfN(rapid.IntRange(0, 200), 1, 40).Draw(t, "sizes")
		var q buf.Queue
		var target *buf.Buf
		for _, n := range sizes {
			var one buf.Queue
			msg.Build(header(24), pattern(n), 70000, &one)
			b := one.PopFront()
			next, how := msg.TryBundle(&q, target, b.Msg, mss, peer)
			switch how {
			case msg.NotBundled:
				if b.Msg.Size()+40 < mss {
					t.Fatal("refused")
				}
				q.PushBack(b)
				target = nil
			case msg.NewTarget:
				q.PushBack(b)
				target = b
			default:
				target = next
			}
		}
		var got []int
		for b := q.Front(); b != nil; b = b.Next() {
			if _, err := wire.Validate(b.Msg); err != nil || len(b.Msg) != b.Msg.Size() {
				t.Fatal(err)
			}
			if b.Msg.User() != wire.UserBundler {
				got = append(got, b.Msg.DataSize())
				continue
			}
			if b.Msg.Size() > mss || b.Msg.Importance() != 2 || b.Msg.DestNode() != peer {
				t.Fatalf("bundle %x", b.Msg[:40])
			}
			n := 0
			for in, pos, ok := msg.Extract(b.Msg, 0); ok; in, pos, ok = msg.Extract(b.Msg, pos) {
				if !bytes.Equal(in.Data(), pattern(in.DataSize())) {
					t.Fatal("contents")
				}
				got = append(got, in.DataSize())
				n++
			}
			if n != int(b.Msg.MsgCnt()) || n < 2 {
				t.Fatalf("%d messages in a bundle of %d", n, b.Msg.MsgCnt())
			}
		}
		if len(got) != len(sizes) {
			t.Fatalf("%v became %v", sizes, got)
		}
		for i := range got {
			if got[i] != sizes[i] {
				t.Fatalf("%v became %v", sizes, got)
			}
		}
	})
}

func TestNeverBundled(t *testing.T) {
	for _, u := range []wire.User{wire.UserFragmenter, wire.UserTunnel, wire.UserBcastProtocol, wire.UserBundler} {
		m := header(40)
		m.SetUser(u)
		if msg.Bundlable(m, 1500) {
			t.Errorf("%v may be bundled", u)
		}
	}
}

func TestExtractHostile(t *testing.T) {
	bundle := func(f func(in wire.Msg)) wire.Msg {
		b := msg.Create(wire.UserBundler, 0, 40, 60, own, peer, 0, 0, 0)
		in := b.Msg.InnerHdr()
		wire.Init(in, own, wire.UserLow, 0, 24, 0)
		in.SetSize(50)
		f(in)
		return b.Msg
	}
	for name, f := range map[string]func(in wire.Msg){
		"size 0":         func(in wire.Msg) { in.SetSize(0) },
		"size over end":  func(in wire.Msg) { in.SetSize(61) },
		"header 60":      func(in wire.Msg) { in.SetHdrsz(60) },
		"header 0":       func(in wire.Msg) { in.SetHdrsz(0) },
		"version":        func(in wire.Msg) { in[0] = 0xff },
		"size below hdr": func(in wire.Msg) { in.SetSize(23) },
	} {
		if in, _, ok := msg.Extract(bundle(f), 0); ok {
			t.Errorf("%s: got %x", name, in)
		}
	}
	m := bundle(func(wire.Msg) {})
	if _, next, ok := msg.Extract(m, 0); !ok || next != 52 {
		t.Errorf("odd size: next at %d", next)
	}
	for _, pos := range []int{-1, 37, 60, 61, 1 << 40} {
		if _, _, ok := msg.Extract(m, pos); ok {
			t.Errorf("position %d", pos)
		}
	}
}

func TestAppendStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mss := rapid.IntRange(30, 3000).Draw(t, "mss")
		var q buf.Queue
		var want []byte
		total := 0
		for range rapid.IntRange(1, 10).Draw(t, "calls") {
			p := pattern(rapid.IntRange(0, 5000).Draw(t, "size"))
			want = append(want, p...)
			total += msg.Append(header(24), p, mss, &q)
		}
		var got []byte
		blocks := 0
		for b := q.Front(); b != nil; b = b.Next() {
			if len(b.Msg) > mss || b.Msg.Size() != len(b.Msg) {
				t.Fatal("size")
			}
			got = append(got, b.Msg.Data()...)
			blocks += int(b.Msg.Blocks())
		}
		if !bytes.Equal(got, want) || blocks != total {
			t.Fatalf("%d octets became %d; %d blocks counted as %d", len(want), len(got), blocks, total)
		}
	})
}

func TestInsertSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Uint16().Draw(t, "base")
		offs := rapid.SliceOf(rapid.Uint16Range(0, 200)).Draw(t, "offsets")
		var q buf.Queue
		seen := map[uint16]bool{}
		for _, o := range offs {
			b := buf.Get(24)
			b.Msg.SetSeqNo(base + o)
			if msg.InsertSorted(&q, b) == seen[o] {
				t.Fatalf("offset %d: seen %v", o, seen[o])
			}
			seen[o] = true
		}
		if q.Len() != len(seen) {
			t.Fatal("length")
		}
		for o := range uint16(201) {
			if b := msg.PopSeq(&q, base+o); (b != nil) != seen[o] {
				t.Fatalf("offset %d", o)
			}
		}
	})
}

func FuzzReassemble(f *testing.F) {
	f.Add([]byte{0, 40, 1, 40, 2, 40}, []byte("seed"))
	f.Fuzz(func(t *testing.T, plan, data []byte) {
		var r, byBuf msg.Reassembler
		for len(plan) >= 2 {
			typ, n, roomy := plan[0]&3, min(int(plan[1])*16, len(data)), plan[0]&4 != 0
			plan = plan[2:]
			fr := msg.Create(wire.UserFragmenter, typ, 40, n, own, peer, 0, 0, 0)
			copy(fr.Msg.Data(), data[:n])
			data = data[n:]
			b, err := r.Append(fr.Msg)
			in := buf.Copy(fr.Msg)
			if roomy {
				in = buf.Get(buf.Largest)
				in.Resize(copy(in.Msg, fr.Msg))
			}
			if b2, err2 := byBuf.AppendBuf(in.Msg, in); err2 != err || (b == nil) != (b2 == nil) || b != nil && !bytes.Equal(b.Msg, b2.Msg) {
				t.Fatalf("by Buf: %v, %v; otherwise %v, %v", b2, err2, b, err)
			}
			if r.Empty() != byBuf.Empty() {
				t.Fatal("one has begun, the other not")
			}
			if err != nil && !r.Empty() {
				t.Fatal("state left after an error")
			}
			if b != nil {
				if m, err := wire.Validate(b.Msg); err != nil || len(m) != len(b.Msg) {
					t.Fatalf("invalid message: %v", err)
				}
			}
		}
	})
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte{0x4c, 0, 0, 100})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Validate(data)
		if err != nil {
			return
		}
		used, pos := 0, 0
		for {
			in, next, ok := msg.Extract(m, pos)
			if !ok {
				break
			}
			if next <= pos || len(in) < wire.MinHeaderSize {
				t.Fatalf("from %d to %d", pos, next)
			}
			used += len(in)
			pos = next
		}
		if used > len(m) {
			t.Fatal("more out than in")
		}
		msg.Reverse(own, m, wire.CodeNoPort)
	})
}

// TestReassembleInPlace: the Buf of a first fragment with room for all becomes the message.
func TestReassembleInPlace(t *testing.T) {
	hdr := make(wire.Msg, wire.MaxHeaderSize)
	wire.Init(hdr, own, wire.UserLow, wire.TypeDirect, 32, peer)
	payload := make([]byte, 66000)
	for i := range payload {
		payload[i] = byte(i * 31 >> 3)
	}
	var q buf.Queue
	if err := msg.Build(hdr, payload, 64000, &q); err != nil {
		t.Fatal(err)
	}
	var r msg.Reassembler
	var first *buf.Buf
	for {
		in := buf.Get(buf.Largest)
		in.Resize(copy(in.Msg, q.Front().Msg))
		q.PopFront().Release()
		if first == nil {
			first = in
		}
		b, err := r.AppendBuf(in.Msg, in)
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			continue
		}
		if b != first {
			t.Error("copied")
		}
		if m, err := wire.Validate(b.Msg); err != nil || !bytes.Equal(m.Data(), payload) {
			t.Errorf("%v, or other octets", err)
		}
		return
	}
}
