package node

import (
	"testing"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Messages sent between two flushes share packets, and arrive in order all the same.
func TestEagerBundling(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(1, 0), w.add(2, 0)
	a.SetBundleEager(true)
	w.run(2 * sec)
	f := &flow{h: a, to: 2, port: 1000}
	before := w.sent
	f.pump(30)
	a.Flush(w.now)
	if n := w.sent - before; n > 3 {
		t.Errorf("%d packets for 30 small messages", n)
	}
	w.run(sec)
	f.check(b)
	for range 50 {
		f.pump(w.r.IntN(20))
		if w.r.IntN(3) == 0 {
			a.Flush(w.now)
		}
		w.run(sec / 50)
	}
	a.Flush(w.now)
	a.Flush(w.now)
	w.run(2 * sec)
	f.check(b)
	if len(a.heldBack) != 0 {
		t.Error("links are remembered after a flush")
	}
	a.SetBundleEager(false)
	before = w.sent
	f.pump(10)
	if n := w.sent - before; n != 10 {
		t.Errorf("%d packets for 10 messages without eager bundling", n)
	}
}

type nullUpcalls struct{ n int }

func (u *nullUpcalls) Deliver(now mono.Time, q *buf.Queue) {
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		u.n++
		b.Release()
	}
}
func (u *nullUpcalls) DeliverMulticast(now mono.Time, q *buf.Queue)                        { u.Deliver(now, q) }
func (u *nullUpcalls) DeliverNames(now mono.Time, q *buf.Queue, from uint32)               { q.Purge() }
func (u *nullUpcalls) NodeUp(now mono.Time, addr uint32, caps wire.Caps)                   {}
func (u *nullUpcalls) NodeDown(now mono.Time, addr uint32, caps wire.Caps)                 {}
func (u *nullUpcalls) LinkUp(now mono.Time, addr, id uint32, bearer int)                   {}
func (u *nullUpcalls) LinkDown(now mono.Time, addr, id uint32, bearer int)                 {}
func (u *nullUpcalls) Discovery(now mono.Time, bearer int, src wire.MediaAddr, m wire.Msg) {}

// batchOut is a Batch as output.
type batchOut buf.Batch

func (o *batchOut) Send(bearer int, dst wire.MediaAddr, pkt []byte, own *buf.Buf) {
	(*buf.Batch)(o).SendFrom(bearer, dst, pkt, own)
}

// duo joins two Tables directly, without a simulated network.
type duo struct {
	tab [2]*Table
	up  [2]nullUpcalls
	out [2]buf.Batch
	now mono.Time
}

func newDuo(tb testing.TB) *duo {
	d := &duo{now: 1000 * sec}
	for i := range d.tab {
		addr := uint32(i + 1)
		tab, err := New(Config{Own: addr, ID: identity(addr), Rand: func() uint32 { return 7 }, Out: (*batchOut)(&d.out[i]), Up: &d.up[i]})
		if err != nil {
			tb.Fatal(err)
		}
		b := testBearer(0)
		b.MTU, b.MaxWin = 14000, 1000
		if err := tab.BearerEnable(d.now, 0, b); err != nil {
			tb.Fatal(err)
		}
		d.tab[i] = tab
	}
	for i, tab := range d.tab {
		peer := uint32(2 - i)
		tab.CheckDest(d.now, Dest{Addr: peer, ID: identity(peer), Caps: wire.CapsAll, Signature: 1, Media: media(peer, 0)})
	}
	for range 20 {
		d.now += sec / 2
		for _, tab := range d.tab {
			tab.Tick(d.now)
		}
		d.exchange()
	}
	if !d.tab[0].IsUp(2) || !d.tab[1].IsUp(1) {
		tb.Fatal("no contact")
	}
	return d
}

// exchange carries packets to and fro until there are none left.
func (d *duo) exchange() {
	for d.out[0].Len()+d.out[1].Len() > 0 {
		for i := range d.tab {
			for k := range d.out[i].Len() {
				d.tab[1-i].Receive(d.now, 0, wire.MediaAddr{}, d.out[i].Bytes(k))
			}
			d.out[i].Reset()
		}
	}
}

func (d *duo) send(size int) {
	b := buf.Get(wire.BasicHeaderSize + size)
	wire.Init(b.Msg, 1, wire.UserLow, wire.TypeDirect, wire.BasicHeaderSize, 2)
	b.Msg.SetSize(wire.BasicHeaderSize + size)
	b.Msg.SetOrigPort(1000)
	d.tab[0].XmitBuf(d.now, b, 2, 1000)
}

func TestNoAllocationsInSteadyState(t *testing.T) {
	d := newDuo(t)
	step := func() {
		for range 32 {
			d.send(64)
		}
		d.now += 100_000
		d.exchange()
	}
	for range 100 {
		step()
	}
	d.up[1].n = 0
	if n := testing.AllocsPerRun(100, step); n > 1 && !raceEnabled { // a garbage collection empties the buffer pools now and then
		t.Errorf("%v allocations for 32 messages", n)
	}
	if d.up[1].n != 101*32 {
		t.Errorf("%d messages arrived", d.up[1].n)
	}
}

func BenchmarkSendReceive(b *testing.B) {
	for _, size := range []int{64, 1400, 13000} {
		b.Run(map[int]string{64: "64", 1400: "1400", 13000: "13000"}[size], func(b *testing.B) {
			d := newDuo(b)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := range b.N {
				d.send(size)
				if i&15 == 15 {
					d.now += 100_000
					d.exchange()
				}
			}
		})
	}
}
