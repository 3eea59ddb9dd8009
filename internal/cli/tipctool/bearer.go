package tipctool

import (
	"strings"

	"midplane/internal/api"
	"midplane/internal/cli/ipjson"
	"midplane/tipc"
)

const bearerID = "media { udp name NAME | eth device DEVICE }"

var bearerCmd = &command{Name: "bearer", Short: "show or change bearers", Sub: []*command{
	{Name: "add", Short: "add a unicast remote to a UDP bearer", Args: "media udp name NAME remoteip IP [remoteport PORT]", Run: bearerAdd},
	{Name: "disable", Short: "disable a bearer: its links go down", Args: bearerID, Run: bearerDisable},
	{Name: "enable", Short: "enable a bearer: neighbours are looked for on it",
		Args: "[domain DOMAIN] [priority PRIORITY] media\n         { udp name NAME { localip IP | device DEVICE } [localport PORT] [remoteip IP] [remoteport PORT] | eth device DEVICE }",
		Long: "Ports default to 6118. Without remoteip the neighbours are found by multicast. PRIORITY is 0 to 31.", Run: bearerEnable},
	{Name: "get", Short: "show one setting of a bearer", Sub: []*command{
		bearerGet(api.Priority), bearerGet(api.Tolerance), bearerGet(api.Window), bearerGet(api.MTU),
		{Name: "media", Short: "show a UDP setting", Args: "udp name NAME { localip | localport | remoteip | remoteport }", Run: bearerGetUDP},
	}},
	{Name: "list", Short: "list bearers", Run: listNames("bearer", api.Control.Bearers, func(b api.Bearer) string { return b.Name })},
	{Name: "set", Short: "change one setting of a bearer", Sub: []*command{
		bearerSet(api.Priority), bearerSet(api.Tolerance), bearerSet(api.Window), bearerSet(api.MTU),
	}},
}}

// bearerName makes the unique name "media:identifier" from the options, for the media that the command knows.
func (c *call) bearerName(media, name, device *option) (string, error) {
	if !media.set {
		return "", c.Wrongf("missing media")
	}
	id := device
	switch media.val {
	case "udp":
		id = name
	case "eth", "ib":
	default:
		return "", c.Wrongf("media %q: want udp, eth or ib", media.val)
	}
	if !id.set {
		return "", c.Wrongf("missing %s of the %s bearer", id.key, media.val)
	}
	return media.val + ":" + id.val, nil
}

func bearerAdd(c *call) error {
	media, name, ip, port := keyval("media"), keyval("name"), keyval("remoteip"), keyval("remoteport")
	if err := c.options(media, name, ip, port); err != nil {
		return err
	}
	if media.set && media.val != "udp" {
		return c.Wrongf("media %q: only udp bearers take remotes", media.val)
	}
	bearer, err := c.bearerName(media, name, keyval("device"))
	if err != nil {
		return err
	}
	if !ip.set {
		return c.Wrongf("missing remoteip")
	}
	if _, err := c.ip("remoteip", ip.val); err != nil {
		return err
	}
	p, err := c.port(port)
	if err != nil {
		return err
	}
	return c.control().AddRemote(c.ctx, api.BearerRemote{Name: bearer, RemoteIP: ip.val, RemotePort: p})
}

// bearerID takes a bearer's key words, which are all that is left, and makes its name of them.
func (c *call) bearerID() (bearer string, err error) {
	media, name, device := keyval("media"), keyval("name"), keyval("device")
	if err := c.options(media, name, device); err != nil {
		return "", err
	}
	return c.bearerName(media, name, device)
}

// bearerWith is bearerID for a bearer that has property p.
func (c *call) bearerWith(p api.Property) (bearer string, err error) {
	bearer, err = c.bearerID()
	if err == nil && p == api.MTU && !strings.HasPrefix(bearer, "udp:") {
		err = c.Wrongf("mtu is a setting of udp bearers only")
	}
	return bearer, err
}

func bearerDisable(c *call) error {
	bearer, err := c.bearerID()
	if err != nil {
		return err
	}
	return c.control().DisableBearer(c.ctx, bearer)
}

func bearerEnable(c *call) error {
	media, name, device := keyval("media"), keyval("name"), keyval("device")
	domain, prio := keyval("domain"), keyval("priority")
	lip, lport, rip, rport := keyval("localip"), keyval("localport"), keyval("remoteip"), keyval("remoteport")
	if err := c.options(media, name, device, domain, prio, lip, lport, rip, rport); err != nil {
		return err
	}
	if _, err := c.bearerName(media, name, device); err != nil {
		return err
	}
	b := api.BearerEnable{Media: media.val, Name: name.val, Device: device.val}
	if domain.set {
		d, err := tipc.ParseNodeAddr(domain.val)
		if err != nil {
			return c.Wrongf("domain: %v", err)
		}
		b.Domain = d
	}
	if prio.set {
		n, err := c.number("priority", prio.val, 31)
		if err != nil {
			return err
		}
		b.Priority = &n
	}
	if media.val != "udp" {
		for _, o := range []*option{name, lip, lport, rip, rport} {
			if o.set {
				return c.Wrongf("%s is for udp bearers only", o.key)
			}
		}
		return c.control().EnableBearer(c.ctx, b)
	}
	if lip.set == device.set {
		return c.Wrongf("a udp bearer needs localip IP or device DEVICE, and not both")
	}
	var err error
	if lip.set {
		if _, err = c.ip("localip", lip.val); err != nil {
			return err
		}
	}
	if rip.set {
		r, err := c.ip("remoteip", rip.val)
		if err != nil {
			return err
		}
		if l, e := c.ip("localip", lip.val); e == nil && l.Unmap().Is4() != r.Unmap().Is4() {
			return c.Wrongf("localip %s and remoteip %s are of different IP versions", lip.val, rip.val)
		}
	}
	b.LocalIP, b.RemoteIP = lip.val, rip.val
	if b.LocalPort, err = c.port(lport); err != nil {
		return err
	}
	if b.RemotePort, err = c.port(rport); err != nil {
		return err
	}
	return c.control().EnableBearer(c.ctx, b)
}

// bearer finds one enabled bearer by its name.
func (c *call) bearer(name string) (api.Bearer, error) {
	all, err := c.control().Bearers(c.ctx)
	if err != nil {
		return api.Bearer{}, err
	}
	for _, b := range all {
		if b.Name == name {
			return b, nil
		}
	}
	return api.Bearer{}, &api.Error{Code: api.NotFound, Message: "no bearer " + name}
}

func bearerGet(p api.Property) *command {
	return &command{Name: string(p), Short: "show a bearer's " + string(p), Args: bearerID, Run: func(c *call) error {
		id, err := c.bearerWith(p)
		if err != nil {
			return err
		}
		b, err := c.bearer(id)
		if err != nil {
			return err
		}
		c.one(string(p), b.Get(p))
		return nil
	}}
}

func bearerGetUDP(c *call) error {
	media, name := keyval("media"), keyval("name")
	lip, lport, rip, rport := key("localip"), key("localport"), key("remoteip"), key("remoteport")
	c.Args = append([]string{"media"}, c.Args...) // the word was taken as the command's name
	if err := c.options(media, name, lip, lport, rip, rport); err != nil {
		return err
	}
	if media.set && media.val != "udp" {
		return c.Wrongf("media %q has no settings of its own", media.val)
	}
	id, err := c.bearerName(media, name, keyval("device"))
	if err != nil {
		return err
	}
	if !lip.set && !lport.set && !rip.set && !rport.set {
		return c.Wrongf("missing localip, localport, remoteip or remoteport")
	}
	b, err := c.bearer(id)
	if err != nil {
		return err
	}
	switch u := b.UDP; {
	case u == nil:
		return &api.Error{Code: api.Internal, Message: id + " has no UDP settings"}
	case lip.set:
		c.one(lip.key, u.LocalIP)
	case lport.set:
		c.one(lport.key, uint32(u.LocalPort))
	case rport.set:
		c.one(rport.key, uint32(u.RemotePort))
	case len(u.Remotes) > 0:
		c.answer(func() { c.printf("%s\n", strings.Join(u.Remotes, "\n")) }, func(w *ipjson.Writer) {
			for _, r := range u.Remotes {
				w.BeginObject()
				w.Field(rip.key, r)
				w.EndObject()
			}
		})
	default:
		c.one(rip.key, u.RemoteIP)
	}
	return nil
}

func bearerSet(p api.Property) *command {
	return &command{Name: string(p), Short: "set a bearer's " + string(p), Args: strings.ToUpper(string(p)) + " " + bearerID, Run: func(c *call) error {
		v, err := c.propertyValue(p)
		if err != nil {
			return err
		}
		id, err := c.bearerWith(p)
		if err != nil {
			return err
		}
		return c.control().SetBearer(c.ctx, api.PropertySet{Name: id, Property: p, Value: v})
	}}
}

// propertyValue takes the value of a property from the command line. Its range is the node's to check.
func (c *call) propertyValue(p api.Property) (uint32, error) {
	s, err := c.Word("value of " + string(p))
	if err != nil {
		return 0, err
	}
	return c.number(string(p), s, 1<<32-1)
}
