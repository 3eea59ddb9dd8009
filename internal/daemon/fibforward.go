package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"midplane/fib"
	fibs "midplane/internal/fib/service"
	"midplane/internal/fib/xdp"
)

// forwarder gives the FIBs of a daemon the XDP forwarder, whose image they are in.
type forwarder struct {
	f      *xdp.Forwarder
	set    *fib.Set
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ fibs.Forwarder = (*forwarder)(nil)

// DefaultBPF is where the forwarder is pinned unless configured.
const DefaultBPF = "/sys/fs/bpf/midplane-fib"

// openForwarder opens the forwarder and the FIBs in its image. One that runs goes on meanwhile, by the image as it was;
// an image that is damaged is left to it until the first ports are set, and a new one is made.
func openForwarder(cfg FIBConfig, log *slog.Logger) (*forwarder, error) {
	c := xdp.Config{Dir: cfg.BPF, Image: cfg.ImageSize, Seed: cfg.Seed}
	if c.Dir == "" {
		c.Dir = DefaultBPF
	}
	switch cfg.Mode {
	case "native":
		c.Mode = xdp.Native
	case "generic":
		c.Mode = xdp.Generic
	default:
		c.Mode = xdp.Auto
	}
	f, err := xdp.Open(c)
	if err != nil {
		return nil, fmt.Errorf("forwarder: %w", err)
	}
	var set *fib.Set
	if m := f.Memory(); m[0] == 0 {
		set, err = fib.New(&fib.Config{Memory: m})
	} else if set, err = fib.Adopt(m); errors.Is(err, fib.ErrCorrupt) {
		log.Error("forwarder: its image is made anew", "err", err)
		if err := f.Close(); err != nil {
			return nil, err
		}
		c.Fresh = true
		if f, err = xdp.Open(c); err != nil {
			return nil, fmt.Errorf("forwarder: %w", err)
		}
		set, err = fib.New(&fib.Config{Memory: f.Memory()})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("forwarder: %w", err), f.Close())
	}
	return &forwarder{f: f, set: set}, nil
}

// follow begins to keep neighbours and devices as the kernel has them.
func (w *forwarder) follow(log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.wg.Go(func() {
		if err := w.f.Follow(ctx); err != nil {
			log.Error("forwarder: neighbours are not followed any more; packets to new ones go by the kernel", "err", err)
		}
	})
}

// SetPorts implements service.Forwarder.
func (w *forwarder) SetPorts(ports []fibs.ForwardPort) error {
	l := make([]xdp.Port, 0, len(ports))
	for _, p := range ports {
		x := xdp.Port{Device: p.Device, Link: p.Link, Outer: xdp.Tag(p.Outer), Inner: xdp.Tag(p.Inner), FIB: uint32(p.FIB)}
		l = append(l, x)
	}
	return w.f.SetPorts(l)
}

// Packets implements service.Forwarder.
func (w *forwarder) Packets(id fib.ID) (map[string]uint64, error) {
	st, err := w.f.Stats(uint32(id))
	if err != nil {
		return nil, err
	}
	m := map[string]uint64{}
	for _, r := range xdp.Reasons() {
		if n := st.Packets[r]; n > 0 {
			m[r.String()] = n
		}
	}
	if st.Octets > 0 {
		m["octets"] = st.Octets
	}
	return m, nil
}

// Close lets go of the forwarder, which goes on forwarding.
func (w *forwarder) Close() error {
	if w.cancel != nil {
		w.cancel()
		w.wg.Wait()
	}
	return w.f.Close()
}
