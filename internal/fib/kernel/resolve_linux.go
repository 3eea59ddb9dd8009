package kernel

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/kernel/neigh"
)

// resolver keeps connections for Resolve, which forwarders call often.
type resolver struct {
	mu    sync.Mutex
	conns map[string]*rtnl // by namespace, "" is home
}

// get returns the connection of a namespace. The caller holds r.mu.
func (r *resolver) get(k *Kernel, f FIB) (*rtnl, error) {
	name := ""
	if f.Backend == Netns {
		name = f.Title()
	}
	if c := r.conns[name]; c != nil {
		return c, nil
	}
	if len(r.conns) >= maxSpaces {
		r.clear()
	}
	s, err := k.visitSpace(f)
	if err != nil {
		return nil, err
	}
	s.h.Close()
	if s.ns != nil {
		_ = s.ns.Close()
	}
	if r.conns == nil {
		r.conns = map[string]*rtnl{}
	}
	r.conns[name] = s.rt
	return s.rt, nil
}

// clear closes all connections. The caller holds r.mu.
func (r *resolver) clear() {
	for _, c := range r.conns {
		c.close()
	}
	clear(r.conns)
}

// Resolve implements API.
func (k *Kernel) Resolve(key NeighKey) error {
	if err := neighbourAddress(key.IP); err != nil {
		return err
	}
	f, err := k.fib(fib.ID(key.FIB))
	if err != nil {
		return err
	}
	// Using an entry that is not there makes it, and that begins the search (net/core/neighbour.c, neigh_add: NTF_USE).
	b, err := encodeNeighbour(key.Device, key.IP, nil, 0, ntfUse)
	if err != nil {
		return err
	}
	k.resolver.mu.Lock()
	defer k.resolver.mu.Unlock()
	c, err := k.resolver.get(k, f)
	if err != nil {
		return err
	}
	// One that somebody entered for good would lose its MAC by that since Linux 5.16 (__neigh_update).
	state, err := c.neighbourState(key.Device, key.IP)
	if err == nil && state&(neigh.Permanent|neigh.NoARP) != 0 {
		return nil
	}
	if err == nil {
		err = c.do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
	}
	if err != nil {
		return fmt.Errorf("resolve %v on device %d of FIB %d: %w", key.IP, key.Device, key.FIB, err)
	}
	return nil
}
