// Package dev is the demonstration cluster of `midplane dev`: three nodes in one process, connected by real UDP sockets
// on loopback, and a service that moves when its node is killed and moves home when the node comes back.
package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"midplane/internal/daemon"
	"midplane/internal/tipc/bearer"
	"midplane/tipc"
)

// Size is the number of nodes. The first is the service's home and is the one that gets killed; the last watches.
const Size = 3

// Service is what moves.
var Service = tipc.ServiceAddr{Type: 4711, Instance: 1}

// Cluster is the nodes. Node methods may be called while another goroutine kills and starts nodes.
type Cluster struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex
	nodes [Size]*member
}

type member struct {
	name    string
	control string
	port    int // of its UDP socket, kept over restarts
	d       *daemon.Daemon
	work    *worker
}

// NewCluster starts the nodes. dir is for their control sockets; empty means a new temporary directory, which Close
// removes.
func NewCluster(dir string, log *slog.Logger) (c *Cluster, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c = &Cluster{log: log}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "midplane-dev-"); err != nil {
			return nil, err
		}
		c.dir = dir
	}
	for i := range c.nodes {
		name := identity(i).String()
		c.nodes[i] = &member{name: name, control: filepath.Join(dir, name), port: tipc.AnyPort}
	}
	for i := range c.nodes {
		if err := c.Start(i); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Meet waits until the last node sees all others.
func (c *Cluster) Meet(ctx context.Context) error {
	sub, err := c.Node(Size-1).Subscribe(tipc.ServiceRange{Type: tipc.NodeStateType, Upper: 1<<32 - 1}, nil)
	if err != nil {
		return err
	}
	defer sub.Close()
	for seen := map[uint32]bool{}; len(seen) < Size; {
		ev, err := sub.NextContext(ctx)
		if err != nil {
			return err
		}
		seen[ev.Service.Lower] = ev.Kind == tipc.Published
	}
	return nil
}

func identity(i int) tipc.NodeID { return tipc.MustParseNodeID(fmt.Sprintf("node%d", i+1)) }

// Start starts a node that is not running.
func (c *Cluster) Start(i int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.nodes[i]
	if m.d != nil {
		return nil
	}
	u := tipc.UDP{Name: "lo", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: m.port, PeerList: true}
	for k, o := range c.nodes {
		if k != i && o.port > 0 {
			u.Remotes = append(u.Remotes, loopback(o.port))
		}
	}
	d, err := daemon.Start(daemon.Config{Identity: identity(i), Control: m.control, Bearers: []tipc.Bearer{u}}, c.log.With("node", m.name))
	if err != nil {
		return err
	}
	b, _ := d.Node().Internals().Bearer(u.BearerName())
	m.port = int(b.Addr().IP.Port())
	// Those that started before have not heard of this one's port.
	for k, o := range c.nodes {
		if k == i || o.d == nil {
			continue
		}
		if b, ok := o.d.Node().Internals().Bearer(u.BearerName()); ok {
			if err := b.(*bearer.UDP).AddPeer(loopback(m.port)); err != nil {
				c.log.Debug("add peer", "err", err) // it is there already
			}
		}
	}
	m.d = d
	m.work = startWorker(d.Node(), m.name, i)
	return nil
}

func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
}

// Kill stops a node as if its machine had lost power.
func (c *Cluster) Kill(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.nodes[i]
	if m.d == nil {
		return
	}
	m.d.Kill()
	m.work.wait()
	m.d, m.work = nil, nil
}

// Name and Control tell about node i, whether it runs or not.
func (c *Cluster) Name(i int) string    { return c.nodes[i].name }
func (c *Cluster) Control(i int) string { return c.nodes[i].control }

// Node returns node i, or nil when it does not run.
func (c *Cluster) Node(i int) *tipc.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.nodes[i].d; d != nil {
		return d.Node()
	}
	return nil
}

// NameOf returns the name of the node with that address.
func (c *Cluster) NameOf(a tipc.NodeAddr) string {
	for i, m := range c.nodes {
		if identity(i).Addr() == a {
			return m.name
		}
	}
	return a.String()
}

// Close stops all nodes in order.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, m := range c.nodes {
		if m != nil && m.d != nil {
			errs = append(errs, m.d.Close())
			m.work.wait()
			m.d, m.work = nil, nil
		}
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
