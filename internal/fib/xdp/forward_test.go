//go:build linux && amd64

package xdp

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"midplane/fib"
	"midplane/internal/lab"
)

// router is a forwarder in a namespace with links p0, p1, …, whose peers q0, q1, … are in the same namespace, and a Set
// that writes its image.
type router struct {
	*lab.Namespace
	*Forwarder
	set   *fib.Set
	links []uint32
	macs  [][6]byte
}

const testImage = 1 << 20

func newRouter(t testing.TB, links int, cfg Config) *router {
	t.Helper()
	lab.RequireNamespaces(t)
	r := &router{Namespace: lab.NewNamespace(t)}
	if cfg.Image == 0 {
		cfg.Image = testImage
	}
	r.in(t, func() (err error) {
		r.Forwarder, err = Open(cfg)
		return err
	})
	t.Cleanup(func() {
		if err := r.Forwarder.Close(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if r.set, err = fib.New(&fib.Config{Memory: r.Memory(), MaxFIBs: 64, MaxNextHops: 4096}); err != nil {
		t.Fatal(err)
	}
	for i := range links {
		name, peer := fmt.Sprintf("p%d", i), fmt.Sprintf("q%d", i)
		r.IP("link", "add", name, "type", "veth", "peer", "name", peer)
		r.IP("link", "set", name, "addrgenmode", "none", "up")
		r.IP("link", "set", peer, "addrgenmode", "none", "up")
		r.running(t, name)
		r.in(t, func() error {
			i, err := net.InterfaceByName(name)
			if err == nil {
				r.links = append(r.links, uint32(i.Index))
				r.macs = append(r.macs, [6]byte(i.HardwareAddr))
			}
			return err
		})
	}
	return r
}

// running waits until the kernel has seen that both ends of a cable are up.
func (r *router) running(t testing.TB, name string) {
	t.Helper()
	up := func() (up bool) {
		r.in(t, func() error {
			i, err := net.InterfaceByName(name)
			up = err == nil && i.Flags&net.FlagRunning != 0
			return err
		})
		return up
	}
	if _, ok := lab.Until(lab.Patience, up); !ok {
		t.Fatalf("%s does not run", name)
	}
}

func (r *router) in(t testing.TB, f func() error) {
	t.Helper()
	if err := r.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (r *router) table(t testing.TB, id fib.ID) *fib.Table {
	t.Helper()
	if f, ok := r.set.Table(id); ok {
		return f
	}
	f, err := r.set.Create(id, "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// route adds a route to a FIB.
func (r *router) route(t testing.TB, id fib.ID, prefix string, h fib.NextHop) fib.NextHopID {
	t.Helper()
	nh, err := r.set.Intern(h)
	if err != nil {
		t.Fatal(err)
	}
	r.insert(t, id, prefix, nh)
	return nh
}

func (r *router) insert(t testing.TB, id fib.ID, prefix string, nh fib.NextHopID) {
	t.Helper()
	if _, _, err := r.table(t, id).Insert(netip.MustParsePrefix(prefix), nh); err != nil {
		t.Fatal(err)
	}
}

func via(gateway string, device uint32) fib.NextHop {
	h := fib.NextHop{Type: fib.Unicast, Device: device}
	if gateway != "" {
		h.Gateway = netip.MustParseAddr(gateway)
	}
	return h
}

func (r *router) ports(t testing.TB, ports ...Port) {
	t.Helper()
	for _, p := range ports {
		r.table(t, fib.ID(p.FIB))
	}
	r.in(t, func() error { return r.SetPorts(ports) })
}

func (r *router) neighbour(t testing.TB, id uint32, device uint32, addr string, mac [6]byte) {
	t.Helper()
	if err := r.SetNeighbour(Neighbour{NeighbourKey{id, device, netip.MustParseAddr(addr)}, mac}); err != nil {
		t.Fatal(err)
	}
}

type xdpMD struct{ Data, DataEnd, DataMeta, Ingress, RxQueue, Egress uint32 }

// Actions, from linux/bpf.h.
const (
	drop     = 1
	pass     = 2
	redirect = 4
)

// give gives a frame to the program as if it had come in by a link. It must run in the namespace.
func (r *router) give(frame []byte, link uint32) (action uint32, out []byte, err error) {
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: xdpMD{DataEnd: uint32(len(frame)), Ingress: link}}
	action, err = r.objs.MidplaneForward.Run(o)
	return action, o.DataOut, err
}

func (r *router) run(t testing.TB, frame []byte, link uint32) (action uint32, out []byte) {
	t.Helper()
	r.in(t, func() (err error) {
		action, out, err = r.give(frame, link)
		return err
	})
	return action, out
}

func (r *router) counters(t testing.TB, id uint32) Stats {
	t.Helper()
	s, err := r.Stats(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
