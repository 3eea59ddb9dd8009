package tipctool

import (
	"encoding/hex"
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/grammar"
	"midplane/internal/cli/ipjson"
	"midplane/tipc"
)

var nodeCmd = &command{Name: "node", Short: "show peers, show or change the local node", Sub: []*command{
	{Name: "list", Short: "list other nodes", Run: nodeList},
	{Name: "get", Short: "show a setting of the local node", Sub: []*command{
		{Name: "address", Short: "show the 32-bit address", Run: nodeGetAddress},
		{Name: "identity", Short: "show the 128-bit identity", Run: nodeGetIdentity},
		{Name: "netid", Short: "show the cluster's network id", Run: nodeGetNetID},
		{Name: "clusterid", Short: "the same as netid", Run: nodeGetNetID},
	}},
	{Name: "set", Short: "change a setting of the local node", Sub: []*command{
		{Name: "address", Short: "set a legacy address, before any bearer is enabled", Args: "Z.C.N", Run: nodeSetAddress},
		{Name: "identity", Short: "set the 128-bit identity, before any bearer is enabled", Args: "NODEID",
			Long: "NODEID is up to 16 characters of A-Z a-z 0-9 - _ . : @, or up to 32 hexadecimal digits.", Run: nodeSetIdentity},
		{Name: "netid", Short: "set the cluster's network id, before any bearer is enabled", Args: "NETID", Run: nodeSetNetID},
		{Name: "clusterid", Short: "the same as netid", Args: "NETID", Run: nodeSetNetID},
		{Name: "key", Short: "set an encryption key", Args: "KEY [algname ALGNAME] [master | nodeid NODEID] [rekeying MINUTES]\n       or: key rekeying { MINUTES | now }",
			Long: "KEY is 20, 28 or 36 octets, as characters or as 0x and hexadecimal digits: the key and 4 octets of salt.", Run: nodeSetKey},
	}},
	{Name: "flush", Short: "forget settings of the local node", Sub: []*command{
		{Name: "key", Short: "forget all encryption keys", Run: nodeFlushKeys},
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
		return c.Wrongf("address %q: want Z.C.N, where Z is 0 to 255, C and N are 0 to 4095, and not all are 0", s)
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
	s, err := c.Word(what)
	if err != nil {
		return "", err
	}
	return s, c.Done()
}

// onlyIdentity is only for an identity.
func (c *call) onlyIdentity() (id tipc.NodeID, err error) {
	s, err := c.only("identity")
	if err != nil {
		return id, err
	}
	if id, err = tipc.ParseNodeID(s); err != nil {
		return id, c.Wrongf("%v", err)
	}
	return id, nil
}

func nodeSetKey(c *call) error {
	alg, node, master, rekeying := keyval("algname"), keyval("nodeid"), key("master"), keyval("rekeying")
	opts := []*option{alg, node, master, rekeying}
	if len(c.Args) == 0 {
		return c.Wrongf("missing key")
	}
	var set api.KeySet
	if grammar.Lookup(opts, c.Args[0], (*option).names) == nil {
		k, err := parseKey(c.Args[0])
		if err != nil {
			return c.Wrongf("%v", err)
		}
		set.Key, c.Args = k, c.Args[1:]
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
			return c.Wrongf("a key of one node cannot be the master key")
		}
		id, err := tipc.ParseNodeID(node.val)
		if err != nil {
			return c.Wrongf("nodeid: %v", err)
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
		return c.Wrongf("missing key")
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
	return nil, &grammar.UsageError{Text: "key: want 20, 28 or 36 octets (16, 24 or 32 of key and 4 of salt)"}
}

func nodeFlushKeys(c *call) error {
	if err := c.Done(); err != nil {
		return err
	}
	return c.control().FlushKeys(c.ctx)
}
