package tipctool

import (
	"strings"

	"midplane/internal/api"
)

var mediaCmd = &command{name: "media", short: "show or change the defaults of media", sub: []*command{
	{name: "get", short: "show one default of a medium", sub: []*command{
		mediaGet(api.Priority), mediaGet(api.Tolerance), mediaGet(api.Window), mediaGet(api.MTU),
	}},
	{name: "list", short: "list media", run: listNames("media", api.Control.Media, func(m api.Medium) string { return m.Name })},
	{name: "set", short: "change one default of a medium", sub: []*command{
		mediaSet(api.Priority), mediaSet(api.Tolerance), mediaSet(api.Window), mediaSet(api.MTU),
	}},
}}

// medium parses "media MEDIA".
func (c *call) medium(p api.Property) (string, error) {
	media := keyval("media")
	if err := c.options(media); err != nil {
		return "", err
	}
	if !media.set {
		return "", c.usagef("missing media")
	}
	if p == api.MTU && media.val != "udp" {
		return "", c.usagef("mtu is a setting of udp only")
	}
	return media.val, nil
}

func mediaGet(p api.Property) *command {
	return &command{name: string(p), short: "show the default " + string(p), args: "media MEDIA", run: func(c *call) error {
		name, err := c.medium(p)
		if err != nil {
			return err
		}
		all, err := c.control().Media(c.ctx)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.Name == name {
				c.one(string(p), m.Get(p))
				return nil
			}
		}
		return &api.Error{Code: api.NotFound, Message: "no medium " + name}
	}}
}

func mediaSet(p api.Property) *command {
	return &command{name: string(p), short: "set the default " + string(p), args: strings.ToUpper(string(p)) + " media MEDIA", run: func(c *call) error {
		v, err := c.propertyValue(p)
		if err != nil {
			return err
		}
		name, err := c.medium(p)
		if err != nil {
			return err
		}
		return c.control().SetMedium(c.ctx, api.PropertySet{Name: name, Property: p, Value: v})
	}}
}
