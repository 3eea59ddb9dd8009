//go:build linux

package interop

import (
	"math/rand/v2"
	"sync"
	"time"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// badBearer loses some of what our node sends, and lets some overtake others.
type badBearer struct {
	bearer.Bearer
	loss float64

	mu   sync.Mutex
	rnd  *rand.Rand // guarded by mu
	late buf.Batch  // guarded by mu: one datagram that goes after the next batch
}

// WriteBatch implements bearer.Bearer.
func (b *badBearer) WriteBatch(in *buf.Batch, id int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out, late buf.Batch
	for i, d := range in.Datagrams {
		to := &out
		switch x := b.rnd.Float64(); {
		case x < b.loss:
			continue
		case x < 3*b.loss:
			to = &late
		}
		to.Send(d.Bearer, d.Dst, in.Bytes(i))
	}
	for i, d := range b.late.Datagrams {
		out.Send(d.Bearer, d.Dst, b.late.Bytes(i))
	}
	b.late = late
	return b.Bearer.WriteBatch(&out, id)
}

// lossy replaces the bearer of our node by one that loses and reorders what it sends.
func lossy(w pair, loss float64) {
	w.Helper()
	old := w.m.ours(w.c.hosts[0], 0)
	if err := w.n.DisableBearer(old.BearerName()); err != nil {
		w.Fatal(err)
	}
	var raw bearer.Bearer
	err := w.c.hosts[0].Do(func() (err error) {
		if w.m.name == "eth" {
			raw, err = bearer.OpenEth(bearer.EthConfig{Device: "eth0"})
		} else {
			raw, err = bearer.OpenUDP(bearer.UDPConfig{Name: "u0", LocalIP: w.c.hosts[0].Addr(0)})
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	settings := stack.Bearer{Priority: 10, Tolerance: int(tolerance / time.Millisecond), MinWin: 50, MaxWin: 50}
	if raw.Media() == wire.MediaEth {
		settings.MaxWin = 8191
	}
	bad := &badBearer{Bearer: raw, loss: loss, rnd: rand.New(rand.NewPCG(1, 2))}
	if err := w.n.Internals().EnableBearer(bad, settings); err != nil {
		w.Fatal(err)
	}
	w.c.waitUp()
	w.c.waitNamesEqual()
}
