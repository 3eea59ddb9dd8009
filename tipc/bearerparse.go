package tipc

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// BearerFields is a bearer as configuration files and command lines describe it: texts and numbers by the key words of
// the tipc tool. Bearer makes the typed value of it.
type BearerFields struct {
	Media      string   `toml:"media"`
	Name       string   `toml:"name"`
	Device     string   `toml:"device"`
	LocalIP    string   `toml:"localip"`
	LocalPort  int      `toml:"localport"`
	RemoteIP   []string `toml:"remoteip"` // unicast peers; a port may follow: 10.0.0.2:6118
	RemotePort int      `toml:"remoteport"`
	Group      string   `toml:"group"`
	MTU        int      `toml:"mtu"`
	Domain     string   `toml:"domain"`
	Priority   *int     `toml:"priority"`
	Tolerance  int      `toml:"tolerance"` // milliseconds
	Window     int      `toml:"window"`
	Capture    string   `toml:"capture"` // file to copy all packets to
}

// ParseBearer parses the form that command lines take: a medium and settings, "udp,name=u1,localip=10.0.0.1" or
// "eth,device=eth0". The settings are those of BearerFields; remoteip may be repeated. A wrong one gives a
// *FieldError.
func ParseBearer(s string) (Bearer, error) {
	media, rest, _ := strings.Cut(s, ",")
	f := BearerFields{Media: media}
	for rest != "" {
		var item string
		item, rest, _ = strings.Cut(rest, ",")
		key, value, ok := strings.Cut(item, "=")
		if !ok || value == "" {
			return nil, fieldError("bearer", item, "KEY=VALUE")
		}
		if err := f.set(key, value); err != nil {
			return nil, err
		}
	}
	return f.Bearer()
}

func (f *BearerFields) set(key, value string) error {
	number := func(p *int) error {
		n, err := strconv.Atoi(value)
		if err != nil {
			return fieldError(key, value, "a number")
		}
		*p = n
		return nil
	}
	switch key {
	case "name":
		f.Name = value
	case "device":
		f.Device = value
	case "localip":
		f.LocalIP = value
	case "localport":
		return number(&f.LocalPort)
	case "remoteip":
		f.RemoteIP = append(f.RemoteIP, value)
	case "remoteport":
		return number(&f.RemotePort)
	case "group":
		f.Group = value
	case "mtu":
		return number(&f.MTU)
	case "domain":
		f.Domain = value
	case "priority":
		f.Priority = new(int)
		return number(f.Priority)
	case "tolerance":
		return number(&f.Tolerance)
	case "window":
		return number(&f.Window)
	case "capture":
		f.Capture = value
	default:
		return fieldError("bearer", key, "name, device, localip, localport, remoteip, remoteport, group, mtu, domain, priority, tolerance, window or capture")
	}
	return nil
}

// Bearer returns the typed and validated value. Errors are *FieldError.
func (f BearerFields) Bearer() (Bearer, error) {
	set := BearerSettings{Tolerance: time.Duration(f.Tolerance) * time.Millisecond, Window: f.Window, Capture: f.Capture}
	if f.Priority != nil {
		if set.Priority = *f.Priority; set.Priority == 0 {
			set.Priority = LowestPriority
		} else if set.Priority < 0 {
			return nil, fieldError("priority", *f.Priority, "0 to 31")
		}
	}
	if f.Domain != "" {
		d, err := ParseNodeAddr(f.Domain)
		if err != nil {
			return nil, fieldError("domain", f.Domain, "Z.C.0 or Z.0.0")
		}
		set.Domain = d
	}
	var b Bearer
	switch f.Media {
	case "udp":
		u, err := f.udp(set)
		if err != nil {
			return nil, err
		}
		b = u
	case "eth":
		for key, given := range map[string]bool{"name": f.Name != "", "localip": f.LocalIP != "", "localport": f.LocalPort != 0,
			"remoteip": len(f.RemoteIP) > 0, "remoteport": f.RemotePort != 0, "group": f.Group != "", "mtu": f.MTU != 0} {
			if given {
				return nil, fieldError(key, "", "it left out: an eth bearer has no such setting")
			}
		}
		b = Ethernet{Device: f.Device, BearerSettings: set}
	default:
		return nil, fieldError("media", f.Media, "udp or eth")
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

func (f BearerFields) udp(set BearerSettings) (UDP, error) {
	u := UDP{Name: f.Name, Device: f.Device, LocalPort: f.LocalPort, RemotePort: f.RemotePort, MTU: f.MTU, BearerSettings: set}
	var err error
	if f.LocalIP != "" {
		if u.LocalIP, err = netip.ParseAddr(f.LocalIP); err != nil {
			return u, fieldError("localip", f.LocalIP, "an IPv4 or IPv6 address")
		}
	}
	if f.Group != "" {
		if u.Group, err = netip.ParseAddr(f.Group); err != nil {
			return u, fieldError("group", f.Group, "a multicast address")
		}
	}
	port := f.RemotePort
	if port == 0 {
		port = DefaultUDPPort
	}
	if port < 0 || port > 65535 {
		return u, fieldError("remoteport", port, "a UDP port, 1 to 65535")
	}
	for _, r := range f.RemoteIP {
		ap, err := netip.ParseAddrPort(r)
		if err != nil {
			ip, err := netip.ParseAddr(r)
			if err != nil {
				return u, fieldError("remoteip", r, "an IPv4 or IPv6 address, with a port if it is not remoteport")
			}
			ap = netip.AddrPortFrom(ip, uint16(port))
		}
		if ap.Addr().IsMulticast() && len(f.RemoteIP) == 1 && f.Group == "" {
			u.Group, u.RemotePort = ap.Addr(), int(ap.Port())
			return u, nil
		}
		u.Remotes = append(u.Remotes, ap)
	}
	return u, nil
}
