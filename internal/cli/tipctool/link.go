package tipctool

import (
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
)

var linkCmd = &command{Name: "link", Short: "show or change links", Sub: []*command{
	{Name: "get", Short: "show one setting of a link", Sub: []*command{
		linkGet(api.Priority), linkGet(api.Tolerance), linkGet(api.Window),
		{Name: "broadcast", Short: "show how multicast messages travel", Run: broadcastGet},
	}},
	{Name: "list", Short: "list links", Run: linkList},
	{Name: "set", Short: "change one setting of a link", Sub: []*command{
		linkSet(api.Priority), linkSet(api.Tolerance), linkSet(api.Window),
		{Name: "broadcast", Short: "choose how multicast messages travel", Args: "{ BROADCAST | REPLICAST | AUTOSELECT [ratio PERCENT] | ratio PERCENT }",
			Long: "BROADCAST uses the broadcast link only, REPLICAST a copy for each destination node, and AUTOSELECT replicates\nup to PERCENT of the cluster's nodes and broadcasts above.", Run: broadcastSet},
	}},
	{Name: "statistics", Short: "show or reset counters", Sub: []*command{
		{Name: "reset", Short: "set the counters of a link to zero", Args: "link LINK", Run: statReset},
		{Name: "show", Short: "show the counters of links", Args: "[link { LINK | SUBSTRING | all }]", Run: statShow},
	}},
	{Name: "monitor", Short: "show or change neighbour monitoring", Sub: []*command{
		{Name: "set", Short: "change monitoring", Sub: []*command{{Name: "threshold", Short: "cluster size above which only a ring of neighbours is monitored", Args: "SIZE", Run: monitorSet}}},
		{Name: "get", Short: "show settings", Sub: []*command{{Name: "threshold", Short: "show the threshold", Run: monitorGet}}},
		{Name: "list", Short: "list the monitored nodes", Args: "[" + bearerID + "]", Run: monitorList},
		{Name: "summary", Short: "show the state of monitoring", Run: monitorSummary},
	}},
}}

// linkName takes "link LINK", which is all that is left.
func (c *call) linkName() (string, error) {
	link := keyval("link")
	if err := c.options(link); err != nil {
		return "", err
	}
	if !link.set {
		return "", c.Wrongf("missing link")
	}
	return link.val, nil
}

func linkList(c *call) error {
	if err := c.Done(); err != nil {
		return err
	}
	links, err := c.control().Links(c.ctx, false)
	if err != nil {
		return err
	}
	state := map[bool]string{true: "up", false: "down"}
	c.answer(func() {
		for _, l := range links {
			c.printf("%s: %s\n", l.Name, state[l.Up])
		}
	}, func(w *ipjson.Writer) {
		w.BeginObject()
		for _, l := range links {
			w.Field(l.Name, state[l.Up])
		}
		w.EndObject()
	})
	return nil
}

func linkGet(p api.Property) *command {
	return &command{Name: string(p), Short: "show a link's " + string(p), Args: "link LINK", Run: func(c *call) error {
		name, err := c.linkName()
		if err != nil {
			return err
		}
		links, err := c.control().Links(c.ctx, false)
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Name == name {
				if l.Broadcast && p != api.Window {
					return &api.Error{Code: api.Invalid, Message: l.Name + " has no " + string(p)}
				}
				c.one(string(p), l.Get(p))
				return nil
			}
		}
		return &api.Error{Code: api.NotFound, Message: "no link " + name}
	}}
}

func linkSet(p api.Property) *command {
	return &command{Name: string(p), Short: "set a link's " + string(p), Args: strings.ToUpper(string(p)) + " link LINK", Run: func(c *call) error {
		v, err := c.propertyValue(p)
		if err != nil {
			return err
		}
		name, err := c.linkName()
		if err != nil {
			return err
		}
		return c.control().SetLink(c.ctx, api.PropertySet{Name: name, Property: p, Value: v})
	}}
}

func broadcastGet(c *call) error {
	b, err := ask(c, api.Control.Broadcast)
	if err != nil {
		return err
	}
	withRatio := b.Method == "AUTOSELECT" && b.Ratio != nil
	c.answer(func() {
		c.printf("%s", b.Method)
		if withRatio {
			c.printf(" ratio:%d", *b.Ratio)
		}
		c.printf("\n")
	}, func(w *ipjson.Writer) {
		w.BeginObject()
		w.Field("method", b.Method)
		w.EndObject()
		if withRatio {
			w.BeginObject()
			w.Field("ratio", *b.Ratio)
			w.EndObject()
		}
	})
	return nil
}

func broadcastSet(c *call) error {
	methods := []*option{key("BROADCAST"), key("REPLICAST"), key("AUTOSELECT")}
	ratio := keyval("ratio")
	if err := c.options(append(methods, ratio)...); err != nil {
		return err
	}
	var b api.Broadcast
	for _, m := range methods {
		if !m.set {
			continue
		}
		if b.Method != "" {
			return c.Wrongf("%s and %s exclude each other", b.Method, m.key)
		}
		b.Method = m.key
	}
	if ratio.set {
		n, err := c.number("ratio", ratio.val, 100)
		if err != nil {
			return err
		}
		b.Ratio = &n
	}
	if b.Method == "" && b.Ratio == nil {
		return c.Wrongf("missing method or ratio")
	}
	return c.control().SetBroadcast(c.ctx, b)
}

func statReset(c *call) error {
	name, err := c.linkName()
	if err != nil {
		return err
	}
	return c.control().ResetLink(c.ctx, name)
}

func statShow(c *call) error {
	link := keyval("link")
	if err := c.options(link); err != nil {
		return err
	}
	links, err := c.control().Links(c.ctx, link.set)
	if err != nil {
		return err
	}
	if link.set && link.val != "all" {
		var match []api.Link
		for _, l := range links {
			if strings.Contains(l.Name, link.val) {
				match = append(match, l)
			}
		}
		links = match
	}
	c.answer(func() {
		for _, l := range links {
			c.statText(l)
		}
	}, func(w *ipjson.Writer) {
		for _, l := range links {
			statJSON(w, l)
		}
	})
	return nil
}
