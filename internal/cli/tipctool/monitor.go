package tipctool

import (
	"fmt"
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
)

func monitorSet(c *call) error {
	s, err := c.Word("threshold")
	if err != nil {
		return err
	}
	n, err := c.number("threshold", s, 1<<32-1)
	if err != nil {
		return err
	}
	if err := c.Done(); err != nil {
		return err
	}
	return c.control().SetMonitor(c.ctx, n)
}

func monitorGet(c *call) error {
	m, err := ask(c, api.Control.Monitors)
	if err != nil {
		return err
	}
	// iproute2 6.1 forgets the object around it: ["threshold":32] is no JSON.
	c.one("threshold", m.Threshold)
	return nil
}

func monitorSummary(c *call) error {
	m, err := ask(c, api.Control.Monitors)
	if err != nil {
		return err
	}
	algorithm := map[bool]string{true: "overlapping-ring", false: "full-mesh"}
	c.answer(func() {
		for _, b := range m.Bearers {
			c.printf("\nbearer %s\n    table_generation %d\n    cluster_size %d\n    algorithm %s\n", b.Bearer, b.Generation, b.ClusterSize, algorithm[b.Ring])
		}
	}, func(w *ipjson.Writer) {
		for _, b := range m.Bearers {
			w.BeginObject()
			w.Field("bearer", b.Bearer)
			w.Field("table_generation", b.Generation)
			w.Field("cluster_size", b.ClusterSize)
			w.Field("algorithm", algorithm[b.Ring])
			w.EndObject()
		}
	})
	return nil
}

func monitorList(c *call) error {
	media, name, device := keyval("media"), keyval("name"), keyval("device")
	if err := c.options(media, name, device); err != nil {
		return err
	}
	var only string
	if media.set {
		var err error
		if only, err = c.bearerName(media, name, device); err != nil {
			return err
		}
	}
	m, err := c.control().Monitors(c.ctx)
	if err != nil {
		return err
	}
	var list []api.Monitor
	for _, b := range m.Bearers {
		if only == "" || only == b.Bearer {
			list = append(list, b)
		}
	}
	c.answer(func() {
		for _, b := range list {
			c.printf("\nbearer %s\nnode          status monitored generation applied_node_status [non_applied_node:status]\n", b.Bearer)
			for _, p := range b.Peers {
				c.monitorPeerText(p)
			}
		}
	}, func(w *ipjson.Writer) {
		for _, b := range list {
			w.BeginObject()
			w.Field("bearer", b.Bearer)
			w.Name(b.Bearer)
			w.BeginArray()
			for _, p := range b.Peers {
				monitorPeerJSON(w, p)
			}
			w.EndArray()
			w.EndObject()
		}
	})
	return nil
}

func status(p api.MonitorPeer) (state, monitored string) {
	state, monitored = "down", "indirect"
	if p.Up {
		state = "up"
	}
	if p.Direct {
		monitored = "direct"
	}
	return state, monitored
}

// members splits what a peer reports in the states of the nodes in the local list, by position, and "address:state" of
// the others.
func members(p api.MonitorPeer) (applied, others []string) {
	letter := func(i int) string {
		if i < 64 && p.UpMap>>i&1 != 0 {
			return "U"
		}
		return "D"
	}
	for i := range p.Applied {
		applied = append(applied, letter(i))
	}
	for i := p.Applied; i < len(p.Members); i++ {
		others = append(others, fmt.Sprintf("%x:%s", uint32(p.Members[i]), letter(i)))
	}
	return applied, others
}

func (c *call) monitorPeerText(p api.MonitorPeer) {
	state, monitored := status(p)
	c.printf("%-14s%-7s%-10s%-11d", p.Address.Legacy(), state, monitored, p.Generation)
	if p.Applied > 0 {
		applied, others := members(p)
		for i, s := range applied {
			if i > 0 && i%5 == 0 {
				c.printf(",")
			}
			c.printf("%s", s)
		}
		c.printf(" [%s]", strings.Join(others, ","))
	}
	c.printf("\n")
}

func monitorPeerJSON(w *ipjson.Writer, p api.MonitorPeer) {
	state, monitored := status(p)
	w.BeginObject()
	w.Field("node", p.Address.Legacy())
	w.Field("status", state)
	w.Field("monitored", monitored)
	w.Field("generation", p.Generation)
	if p.Applied > 0 {
		applied, others := members(p)
		for _, l := range []struct {
			name string
			list []string
		}{{"applied_node_status", applied}, {"[non_applied_node:status]", others}} {
			w.Name(l.name)
			w.BeginArray()
			for _, s := range l.list {
				w.Str(s)
			}
			w.EndArray()
		}
	}
	w.EndObject()
}
