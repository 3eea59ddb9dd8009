package tipctool

import (
	"encoding/hex"
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
	"midplane/tipc"
)

var nodeCmd = &command{name: "node", short: "show peers, show or change the local node", sub: []*command{
	{name: "list", short: "list other nodes", run: nodeList},
	{name: "get", short: "show a setting of the local node", sub: []*command{
		{name: "address", short: "show the 32-bit address", run: nodeGetAddress},
		{name: "identity", short: "show the 128-bit identity", run: nodeGetIdentity},
		{name: "netid", short: "show the cluster's network id", run: nodeGetNetID},
		{name: "clusterid", short: "the same as netid", run: nodeGetNetID},
	}},
	{name: "set", short: "change a setting of the local node", sub: []*command{
		{name: "address", short: "set a legacy address, before any bearer is enabled", args: "Z.C.N", run: nodeSetAddress},
		{name: "identity", short: "set the 128-bit identity, before any bearer is enabled", args: "NODEID",
			long: "NODEID is up to 16 characters of A-Z a-z 0-9 - _ . : @, or up to 32 hexadecimal digits.", run: nodeSetIdentity},
		{name: "netid", short: "set the cluster's network id, before any bearer is enabled", args: "NETID", run: nodeSetNetID},
		{name: "clusterid", short: "the same as netid", args: "NETID", run: nodeSetNetID},
		{name: "key", short: "set an encryption key", args: "KEY [algname ALGNAME] [master | nodeid NODEID] [rekeying MINUTES]\n       or: key rekeying { MINUTES | now }",
			long: "KEY is 20, 28 or 36 octets, as characters or as 0x and hexadecimal digits: the key and 4 octets of salt.", run: nodeSetKey},
	}},
	{name: "flush", short: "forget settings of the local node", sub: []*command{
		{name: "key", short: "forget all encryption keys", run: nodeFlushKeys},
	}},
}}

func nodeList(c *call) error {
	peers, err := ask(c, api.Control.Peers)
	if err != nil {
		return err
	}
	state := map[bool]string{true: "up", false: "down"}
	c.answer(func() {
		c.printf("Node Identity                    Hash     State\n")
		for _, p := range peers {
			c.printf("%-32s %s %s\n", identity(p.Identity), p.Address, state[p.Up])
		}
	}, func(w *ipjson.Writer) {
		for _, p := range peers {
			w.BeginObject()
			w.Field("identity", identity(p.Identity))
			w.Field("hash", p.Address.String())
			w.Field("state", state[p.Up])
			w.EndObject()
		}
	})
	return nil
}

// identity is the text form; a node of unknown identity has none.
func identity(id tipc.NodeID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func nodeGetAddress(c *call) error {
	n, err := ask(c, api.Control.Node)
	if err != nil {
		return err
	}
	c.one("address", n.Address.String())
	return nil
}

func nodeGetIdentity(c *call) error {
	n, err := ask(c, api.Control.Node)
	if err != nil {
		return err
	}
	c.answer(func() {
		c.printf("Node Identity                    Hash\n%-33s%s\n", identity(n.Identity), n.Address)
	}, func(w *ipjson.Writer) {
		w.BeginObject()
		w.Field("identity", identity(n.Identity))
		w.Field("hash", n.Address.String())
		w.EndObject()
	})
	return nil
}

func nodeGetNetID(c *call) error {
	n, err := ask(c, api.Control.Node)
	if err != nil {
		return err
	}
	c.one("netid", n.NetID)
	return nil
}

func nodeSetAddress(c *call) error {
	s, err := c.only("address")
	if err != nil {
		return err
	}
	a, err := tipc.ParseNodeAddr(s)
	if err != nil || !strings.Contains(s, ".") || a == 0 {
		return c.usagef("address %q: want Z.C.N, where Z is 0 to 255, C and N are 0 to 4095, and not all are 0", s)
	}
	return c.control().SetNode(c.ctx, api.NodeSet{Address: &a})
}

func nodeSetIdentity(c *call) error {
	id, err := c.onlyIdentity()
	if err != nil {
		return err
	}
	return c.control().SetNode(c.ctx, api.NodeSet{Identity: &id})
}

func nodeSetNetID(c *call) error {
	s, err := c.only("network id")
	if err != nil {
		return err
	}
	n, err := c.number("network id", s, 1<<32-1)
	if err != nil {
		return err
	}
	return c.control().SetNode(c.ctx, api.NodeSet{NetID: &n})
}

// only takes the one argument that there must be.
func (c *call) only(what string) (string, error) {
	s, err := c.word(what)
	if err != nil {
		return "", err
	}
	return s, c.done()
}

// onlyIdentity is only for an identity.
func (c *call) onlyIdentity() (id tipc.NodeID, err error) {
	s, err := c.only("identity")
	if err != nil {
		return id, err
	}
	if id, err = tipc.ParseNodeID(s); err != nil {
		return id, c.usagef("%v", err)
	}
	return id, nil
}

func nodeSetKey(c *call) error {
	alg, node, master, rekeying := keyval("algname"), keyval("nodeid"), key("master"), keyval("rekeying")
	opts := []*option{alg, node, master, rekeying}
	if len(c.args) == 0 {
		return c.usagef("missing key")
	}
	var set api.KeySet
	if lookup(opts, c.args[0], func(o *option) string { return o.key }) == nil {
		k, err := parseKey(c.args[0])
		if err != nil {
			return c.usagef("%v", err)
		}
		set.Key, c.args = k, c.args[1:]
	}
	if err := c.options(opts...); err != nil {
		return err
	}
	set.Algname = "gcm(aes)"
	if alg.set {
		set.Algname = alg.val
	}
	set.Master = master.set
	if node.set {
		if master.set {
			return c.usagef("a key of one node cannot be the master key")
		}
		id, err := tipc.ParseNodeID(node.val)
		if err != nil {
			return c.usagef("nodeid: %v", err)
		}
		set.Node = &id
	}
	if rekeying.set {
		if rekeying.val == "now" {
			set.RekeyNow = true
		} else {
			n, err := c.number("rekeying", rekeying.val, 1<<32-2)
			if err != nil {
				return err
			}
			set.Rekeying = &n
		}
	}
	if set.Key == nil && !rekeying.set {
		return c.usagef("missing key")
	}
	return c.control().SetKey(c.ctx, set)
}

// parseKey reads a key: characters, or hexadecimal digits after 0x, of which an odd first one counts as an octet.
func parseKey(s string) ([]byte, error) {
	k := []byte(s)
	if digits, ok := strings.CutPrefix(s, "0x"); ok && digits != "" {
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		if b, err := hex.DecodeString(digits); err == nil {
			k = b
		}
	}
	switch len(k) {
	case 20, 28, 36:
		return k, nil
	}
	return nil, &usageError{"key: want 20, 28 or 36 octets (16, 24 or 32 of key and 4 of salt)", ""}
}

func nodeFlushKeys(c *call) error {
	if err := c.done(); err != nil {
		return err
	}
	return c.control().FlushKeys(c.ctx)
}
