package link

import (
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

// direct joins two links without a network: what one sends is collected and then given to the other.
type direct struct {
	l     [2]*Link
	batch [2]buf.Batch
	q     buf.Queue
	now   mono.Time
	hdr   [60]byte
}

type side struct {
	d *direct
	i int
}

func (s side) Send(pkt []byte, own *buf.Buf) { s.d.batch[s.i].SendFrom(0, wire.MediaAddr{}, pkt, own) }

func newDirect(t testing.TB, mtu int) (*direct, [2]Output) {
	p := newPipe(t, 1, options{mtu: mtu, maxWin: 8191})
	p.up()
	d := &direct{l: [2]*Link{p.ends[0].links[0], p.ends[1].links[0]}, now: p.now}
	wire.Init(d.hdr[:], d.l[0].own, wire.UserLow, wire.TypeConn, wire.ShortHeaderSize, d.l[0].peer)
	wire.Msg(d.hdr[:]).SetDestNode(d.l[0].peer)
	return d, [2]Output{side{d, 0}, side{d, 1}}
}

// exchange delivers until nothing is under way, and returns the number of messages that arrived.
func (d *direct) exchange(out [2]Output) (n int) {
	for d.batch[0].Len()+d.batch[1].Len() > 0 {
		for i := range d.batch {
			b := &d.batch[i]
			for k := range b.Len() {
				m, _ := wire.Validate(b.Bytes(k))
				d.l[1-i].Receive(d.now, m, out[1-i])
			}
			b.Reset()
		}
		for _, l := range d.l {
			n += l.inputq.Len()
			l.inputq.Purge()
		}
	}
	return n
}

func (d *direct) send(t testing.TB, payload []byte, out Output) {
	if err := msg.Build(d.hdr[:], payload, d.l[0].MSS(), &d.q); err != nil {
		t.Fatal(err)
	}
	if err := d.l[0].Xmit(d.now, &d.q, out); err != nil && err != ErrLinkCong {
		t.Fatal(err)
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops Bufs at random under the race detector")
	}
	for _, c := range []struct {
		name  string
		size  int
		eager bool
		count int
	}{
		{"small", 64, false, 32}, {"packet", 1300, false, 32}, {"fragments", 20000, false, 2}, {"bundles", 64, true, 100},
	} {
		d, out := newDirect(t, 1500)
		d.l[0].SetBundleEager(c.eager)
		payload := make([]byte, c.size)
		total, runs := 0, 0
		run := func() {
			runs++
			for range c.count {
				d.send(t, payload, out[0])
			}
			d.l[0].Flush(d.now, out[0])
			total += d.exchange(out)
			d.now += 375 * ms
			for i, l := range d.l {
				l.Timeout(d.now, out[i])
			}
			total += d.exchange(out)
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
		if total != runs*c.count {
			t.Errorf("%s: %d of %d messages arrived", c.name, total, runs*c.count)
		}
	}
}

func benchmark(b *testing.B, size int, eager bool) {
	d, out := newDirect(b, 14000)
	d.l[0].SetBundleEager(eager)
	payload := make([]byte, size)
	n := 0
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.send(b, payload, out[0])
		if i%16 == 15 {
			d.l[0].Flush(d.now, out[0])
			n += d.exchange(out)
		}
	}
	if n == 0 {
		b.Fatal("nothing arrived")
	}
}

func BenchmarkTransfer64(b *testing.B)      { benchmark(b, 64, false) }
func BenchmarkTransfer64Eager(b *testing.B) { benchmark(b, 64, true) }
func BenchmarkTransfer1300(b *testing.B)    { benchmark(b, 1300, false) }
func BenchmarkTransfer66000(b *testing.B)   { benchmark(b, 66000, false) }
