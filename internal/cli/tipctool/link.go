package tipctool

import (
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
)

var linkCmd = &command{name: "link", short: "show or change links", sub: []*command{
	{name: "get", short: "show one setting of a link", sub: []*command{
		linkGet(api.Priority), linkGet(api.Tolerance), linkGet(api.Window),
		{name: "broadcast", short: "show how multicast messages travel", run: broadcastGet},
	}},
	{name: "list", short: "list links", run: linkList},
	{name: "set", short: "change one setting of a link", sub: []*command{
		linkSet(api.Priority), linkSet(api.Tolerance), linkSet(api.Window),
		{name: "broadcast", short: "choose how multicast messages travel", args: "{ BROADCAST | REPLICAST | AUTOSELECT [ratio PERCENT] | ratio PERCENT }",
			long: "BROADCAST uses the broadcast link only, REPLICAST a copy for each destination node, and AUTOSELECT replicates\nup to PERCENT of the cluster's nodes and broadcasts above.", run: broadcastSet},
	}},
	{name: "statistics", short: "show or reset counters", sub: []*command{
		{name: "reset", short: "set the counters of a link to zero", args: "link LINK", run: statReset},
		{name: "show", short: "show the counters of links", args: "[link { LINK | SUBSTRING | all }]", run: statShow},
	}},
	{name: "monitor", short: "show or change neighbour monitoring", sub: []*command{
		{name: "set", short: "change monitoring", sub: []*command{{name: "threshold", short: "cluster size above which only a ring of neighbours is monitored", args: "SIZE", run: monitorSet}}},
		{name: "get", short: "show settings", sub: []*command{{name: "threshold", short: "show the threshold", run: monitorGet}}},
		{name: "list", short: "list the monitored nodes", args: "[" + bearerID + "]", run: monitorList},
		{name: "summary", short: "show the state of monitoring", run: monitorSummary},
	}},
}}

// linkName takes "link LINK", which is all that is left.
func (c *call) linkName() (string, error) {
	link := keyval("link")
	if err := c.options(link); err != nil {
		return "", err
	}
	if !link.set {
		return "", c.usagef("missing link")
	}
	return link.val, nil
}

func linkList(c *call) error {
	if err := c.done(); err != nil {
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
	return &command{name: string(p), short: "show a link's " + string(p), args: "link LINK", run: func(c *call) error {
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
	return &command{name: string(p), short: "set a link's " + string(p), args: strings.ToUpper(string(p)) + " link LINK", run: func(c *call) error {
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
			return c.usagef("%s and %s exclude each other", b.Method, m.key)
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
		return c.usagef("missing method or ratio")
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
