//go:build linux && amd64

package xdp

import (
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"

	"midplane/internal/lab"
)

func testForwarder(t testing.TB, cfg Config) *Forwarder {
	t.Helper()
	lab.RequireNamespaces(t)
	f, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

type xdpMD struct{ Data, DataEnd, DataMeta, Ingress, RxQueue, Egress uint32 }

// router is a namespace with links p0, p1, …, each with a peer in the same namespace that lets everything by.
type router struct {
	*lab.Namespace
	*Forwarder
	links []uint32
	macs  [][6]byte
}

func newRouter(t testing.TB, links int, cfg Config) *router {
	t.Helper()
	lab.RequireNamespaces(t)
	r := &router{Namespace: lab.NewNamespace(t)}
	r.in(t, func() error {
		f, err := Open(cfg)
		r.Forwarder = f
		return err
	})
	t.Cleanup(func() {
		if err := r.Forwarder.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range links {
		name := fmt.Sprintf("p%d", i)
		r.IP("link", "add", name, "type", "veth", "peer", "name", "q"+name[1:])
		r.IP("link", "set", name, "addrgenmode", "none", "up")
		r.IP("link", "set", "q"+name[1:], "addrgenmode", "none", "up")
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

func (r *router) in(t testing.TB, f func() error) {
	t.Helper()
	if err := r.Do(f); err != nil {
		t.Fatal(err)
	}
}

// run gives a frame to the program as if it had come in by a link.
func (r *router) run(t testing.TB, frame []byte, link uint32) (action uint32, out []byte) {
	t.Helper()
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: xdpMD{DataEnd: uint32(len(frame)), Ingress: link}}
	r.in(t, func() (err error) {
		action, err = r.objs.MidplaneForward.Run(o)
		return err
	})
	return action, o.DataOut
}

func TestIntegrationSmoke(t *testing.T) {
	r := newRouter(t, 2, Config{Image: 1 << 20})
	b := newBuilder(r.Memory())
	b.fib(0, 10, map[string]uint32{"10.0.0.0/8": b.unicast(r.links[1], "192.0.2.9")}, 12)
	r.in(t, func() error { return r.SetPorts([]Port{{Device: r.links[0], FIB: 10}, {Device: r.links[1], FIB: 10}}) })
	frame := make([]byte, 64)
	frame[12] = 8
	frame[14] = 0x45
	copy(frame, r.macs[0][:])
	a, out := r.run(t, frame, r.links[0])
	t.Log(a, out)
	t.Log(r.Stats(10))
}
