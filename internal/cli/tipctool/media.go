package tipctool

import (
	"strings"

	"midplane/internal/api"
)

var mediaCmd = &command{Name: "media", Short: "show or change the defaults of media", Sub: []*command{
	{Name: "get", Short: "show one default of a medium", Sub: []*command{
		mediaGet(api.Priority), mediaGet(api.Tolerance), mediaGet(api.Window), mediaGet(api.MTU),
	}},
	{Name: "list", Short: "list media", Run: listNames("media", api.Control.Media, func(m api.Medium) string { return m.Name })},
	{Name: "set", Short: "change one default of a medium", Sub: []*command{
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
		return "", c.Wrongf("missing media")
	}
	if p == api.MTU && media.val != "udp" {
		return "", c.Wrongf("mtu is a setting of udp only")
	}
	return media.val, nil
}

func mediaGet(p api.Property) *command {
	return &command{Name: string(p), Short: "show the default " + string(p), Args: "media MEDIA", Run: func(c *call) error {
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
	return &command{Name: string(p), Short: "set the default " + string(p), Args: strings.ToUpper(string(p)) + " media MEDIA", Run: func(c *call) error {
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
