package tipctool

import (
	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
	"midplane/tipc"
)

var root = &command{Args: "[-h] [-j] [-p] [--control PATH]", Options: optionsText, Short: "Shows and changes a TIPC node", Long: `Two more commands explain themselves with --help: pipe connects standard input and output to a service,
subscribe TYPE[:LOWER:UPPER] reports bindings as they come and go.`, Sub: []*command{
	bearerCmd, linkCmd, mediaCmd,
	{Name: "nametable", Short: "show the name table", Sub: []*command{{Name: "show", Short: "show the name table", Run: nametableShow}}},
	nodeCmd,
	{Name: "peer", Short: "manage other nodes", Sub: []*command{{Name: "remove", Short: "forget a node that is down", Sub: []*command{
		{Name: "address", Short: "by its address", Args: "{ Z.C.N | HASH }", Run: peerRemoveAddress},
		{Name: "identity", Short: "by its identity", Args: "NODEID", Run: peerRemoveIdentity},
	}}}},
	{Name: "socket", Short: "show sockets", Sub: []*command{{Name: "list", Short: "list the sockets of this node", Run: socketList}}},
}}

func nametableShow(c *call) error {
	names, err := ask(c, api.Control.Names)
	if err != nil {
		return err
	}
	node := func(n api.Name) string {
		if n.Identity == nil {
			return ""
		}
		return identity(*n.Identity)
	}
	c.answer(func() {
		if len(names) > 0 {
			c.printf("%-10s %-10s %-10s %-8s %-10s %-33s\n", "Type", "Lower", "Upper", "Scope", "Port", "Node")
		}
		for _, n := range names {
			c.printf("%-10d %-10d %-10d %-8s %-10d %s\n", n.Range.Type, n.Range.Lower, n.Range.Upper, n.Scope, n.Socket.Port, node(n))
		}
	}, func(w *ipjson.Writer) {
		for _, n := range names {
			w.BeginObject()
			w.Field("type", n.Range.Type)
			w.Field("lower", n.Range.Lower)
			w.Field("upper", n.Range.Upper)
			w.Field("scope", n.Scope.String())
			w.Field("port", n.Socket.Port)
			w.Field("node", node(n))
			w.EndObject()
		}
	})
	return nil
}

func peerRemoveAddress(c *call) error {
	s, err := c.only("address")
	if err != nil {
		return err
	}
	a, err := tipc.ParseNodeAddr(s)
	if err != nil || a == 0 {
		return c.Wrongf("address %q: want Z.C.N, or the hash that node list shows", s)
	}
	return c.control().RemovePeer(c.ctx, api.PeerRemove{Address: &a})
}

func peerRemoveIdentity(c *call) error {
	id, err := c.onlyIdentity()
	if err != nil {
		return err
	}
	return c.control().RemovePeer(c.ctx, api.PeerRemove{Identity: &id})
}

func socketList(c *call) error {
	socks, err := ask(c, api.Control.Sockets)
	if err != nil {
		return err
	}
	c.answer(func() {
		for _, s := range socks {
			c.printf("socket %d\n", s.Port)
			if s.Peer != nil {
				c.printf("  connected to %x:%d", uint32(s.Peer.Node), s.Peer.Port)
				if s.Via != nil {
					c.printf(" via {%d,%d}", s.Via.Type, s.Via.Instance)
				}
				c.printf("\n")
				continue
			}
			for _, b := range s.Bound {
				c.printf("  bound to {%d,%d,%d}\n", b.Type, b.Lower, b.Upper)
			}
		}
	}, func(w *ipjson.Writer) {
		for _, s := range socks {
			socketJSON(w, s)
		}
	})
	return nil
}

// socketJSON has no model: the original prints text even with -j.
func socketJSON(w *ipjson.Writer, s api.Socket) {
	w.BeginObject()
	w.Field("socket", s.Port)
	w.Field("type", s.Type.String())
	if s.Peer != nil {
		w.Name("connected")
		w.BeginObject()
		w.Field("node", s.Peer.Node.String())
		w.Field("port", s.Peer.Port)
		w.EndObject()
	}
	if s.Via != nil {
		w.Name("via")
		w.BeginObject()
		w.Field("type", s.Via.Type)
		w.Field("instance", s.Via.Instance)
		w.EndObject()
	}
	if len(s.Bound) > 0 {
		w.Name("bound")
		w.BeginArray()
		for _, b := range s.Bound {
			w.BeginObject()
			w.Field("type", b.Type)
			w.Field("lower", b.Lower)
			w.Field("upper", b.Upper)
			w.EndObject()
		}
		w.EndArray()
	}
	w.EndObject()
}
