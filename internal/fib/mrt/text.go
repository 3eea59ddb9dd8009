package mrt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// maxHops bounds the next hops of one route, as fib.MaxMembers does.
const maxHops = 256

// line reads one line of text into pending, and those that carry on with it: "nexthop …" of a multipath route.
func (r *Reader) line() error {
	s, err := r.readLine()
	if err != nil {
		return err
	}
	trimmed := strings.TrimSpace(s)
	if trimmed == "" || trimmed[0] == '#' {
		r.stats.Skipped++
		return nil
	}
	if strings.IndexByte(trimmed, '|') >= 0 {
		if err := r.pipes(trimmed); err != nil {
			return r.fail(false, err)
		}
		return nil
	}
	r.foreign = false
	e, err := r.route(trimmed)
	// Whatever became of the line, those that belong to it are read with it.
	for more := 0; ; {
		b, perr := r.br.Peek(1)
		if perr != nil || (b[0] != ' ' && b[0] != '\t') {
			break
		}
		start, record := r.start, r.stats.Records
		r.start = r.offset
		s, rerr := r.readLine()
		if rerr != nil {
			return rerr
		}
		w := strings.Fields(s)
		if len(w) == 0 {
			r.start, r.stats.Records = start, record+1
			continue
		}
		if more++; err == nil && more > maxHops {
			err = fmt.Errorf("more than %d next hops", maxHops)
		}
		if err == nil {
			if w[0] != "nexthop" {
				err = fmt.Errorf("line goes on with %q: want nexthop", short(w[0]))
			} else {
				err = r.hopWords(&e, w[1:])
			}
		}
		r.start = start
	}
	if err == nil {
		err = r.finish(&e)
	}
	if err != nil {
		return r.fail(false, err)
	}
	if r.opt.Peer.IsValid() && e.Peer != r.opt.Peer {
		r.stats.Others++
		return nil
	}
	r.pending = append(r.pending, e)
	return nil
}

// readLine returns the next line without its end.
func (r *Reader) readLine() (string, error) {
	b, err := r.br.ReadSlice('\n')
	if len(b) == 0 && err == io.EOF {
		return "", io.EOF
	}
	r.stats.Records++
	r.offset += int64(len(b))
	if err == bufio.ErrBufferFull {
		return "", r.fail(true, fmt.Errorf("a line of more than %d octets", MaxLine))
	}
	if err != nil && err != io.EOF {
		return "", r.fail(true, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// pipes reads a line of bgpdump -m (and -M): kind|time|what|peer|AS|prefix|path|origin|next hop|…
func (r *Reader) pipes(s string) error {
	f := strings.SplitN(s, "|", 10)
	if !strings.HasPrefix(f[0], "TABLE_DUMP") && !strings.HasPrefix(f[0], "BGP4MP") {
		return fmt.Errorf("%q: want a line of bgpdump -m, which begins with TABLE_DUMP2 or BGP4MP", short(f[0]))
	}
	if len(f) < 6 {
		return fmt.Errorf("%d fields: want at least 6", len(f))
	}
	var e Entry
	if t, err := strconv.ParseUint(f[1], 10, 32); err == nil { // bgpdump -M writes a date, which is not needed
		e.Time = uint32(t)
	}
	var err error
	if e.Peer, err = netip.ParseAddr(f[3]); err != nil {
		return fmt.Errorf("peer %q: want an address", short(f[3]))
	}
	e.Peer = e.Peer.Unmap().WithZone("")
	as, err := strconv.ParseUint(f[4], 10, 32)
	if err != nil {
		return fmt.Errorf("AS %q: want 0 to 4294967295", short(f[4]))
	}
	e.PeerAS = uint32(as)
	if r.opt.Peer.IsValid() && e.Peer != r.opt.Peer {
		r.stats.Others++
		return nil
	}
	if f[2] == "STATE" {
		if len(f) < 7 {
			return fmt.Errorf("%d fields: want 7", len(f))
		}
		if f[5] == "6" && f[6] != "6" {
			e.Kind = PeerDown
			r.pending = append(r.pending, e)
		}
		return nil
	}
	if e.Prefix, err = parsePrefix(f[5]); err != nil {
		return err
	}
	if f[2] == "B" && r.opt.Paths == First && r.last == e.Prefix { // of a table dump, where the paths of a prefix follow each other
		r.stats.Others++
		return nil
	}
	switch f[2] {
	case "W":
		e.Kind = Withdraw
		r.pending = append(r.pending, e)
	case "A", "B":
		if len(f) < 9 {
			return fmt.Errorf("%d fields: want at least 9", len(f))
		}
		hop, err := netip.ParseAddr(f[8])
		if err != nil {
			return fmt.Errorf("next hop %q: want an address", short(f[8]))
		}
		hop = hop.Unmap().WithZone("")
		if hop.IsUnspecified() || hop.IsMulticast() {
			r.stats.NoHop++
			return nil
		}
		if f[2] == "B" {
			r.last = e.Prefix
		}
		r.add(e, hop)
	default:
		return fmt.Errorf("%q: want A, B, W or STATE", short(f[2]))
	}
	return nil
}

// parsePrefix reads a prefix; an address alone is a host's.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil || a.Zone() != "" {
			return p, fmt.Errorf("prefix %q: want one such as 192.0.2.0/24 or 2001:db8::/32", short(s))
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p = p.Masked(); p.Addr().Is4In6() {
		return p, fmt.Errorf("prefix %q: want no IPv4 in IPv6", short(s))
	}
	return p, nil
}

// types of routes that a line of ip-route(8) may begin with. Those that are not for a FIB are passed over.
var lineTypes = map[string]bool{
	"unicast": true, "local": true, "blackhole": true, "unreachable": true, "prohibit": true, "throw": true,
	"broadcast": false, "anycast": false, "multicast": false, "nat": false,
}

// route reads the first line of a route.
func (r *Reader) route(s string) (Entry, error) {
	w := strings.Fields(strings.ReplaceAll(s, "\\", " ")) // ip -o joins lines with a backslash
	var e Entry
	if want, ok := lineTypes[w[0]]; ok {
		if e.Type = w[0]; !want {
			return e, fmt.Errorf("type %s: want unicast, local, blackhole, unreachable, prohibit, throw or lookup", w[0])
		}
		w = w[1:]
	}
	if len(w) == 0 {
		return e, errors.New("no prefix")
	}
	if w[0] != "default" {
		var err error
		if e.Prefix, err = parsePrefix(w[0]); err != nil {
			return e, err
		}
	}
	w = w[1:]
	// Words before the first "nexthop" are the route's, as are next hops given without that word.
	for len(w) > 0 {
		n := 0
		for n < len(w) && w[n] != "nexthop" {
			n++
		}
		if err := r.hopWords(&e, w[:n]); err != nil {
			return e, err
		}
		if w = w[n:]; len(w) > 0 {
			if w = w[1:]; len(w) == 0 {
				return e, errors.New("nexthop: want via or dev after it")
			}
		}
		if len(e.Hops) > maxHops {
			return e, fmt.Errorf("more than %d next hops", maxHops)
		}
	}
	return e, nil
}

// skipped words of ip-route(8) that say nothing about where packets go: those with a value, and those alone.
var (
	withValue = map[string]bool{"proto": true, "protocol": true, "scope": true, "src": true, "pref": true, "realm": true, "realms": true,
		"mtu": true, "advmss": true, "rtt": true, "rttvar": true, "reordering": true, "window": true, "cwnd": true, "initcwnd": true,
		"initrwnd": true, "ssthresh": true, "rto_min": true, "hoplimit": true, "features": true, "quickack": true, "congctl": true,
		"expires": true, "error": true, "nhid": true, "age": true, "users": true, "used": true, "ttl-propagate": true, "fastopen_no_cookie": true}
	alone = map[string]bool{"onlink": true, "linkdown": true, "dead": true, "pervasive": true, "offload": true, "trap": true, "rt_trap": true,
		"rt_offload": true, "rt_offload_failed": true, "offload_failed": true, "notify": true, "unresolved": true, "lock": true, "cache": true}
)

// hopWords reads the words about one next hop, if there are any, and those about the route.
func (r *Reader) hopWords(e *Entry, w []string) error {
	var h Hop
	for len(w) > 0 {
		word := w[0]
		w = w[1:]
		if alone[word] {
			continue
		}
		if len(w) == 0 {
			return fmt.Errorf("%q: want a value after it, or this is no word of a route", short(word))
		}
		v := w[0]
		if word == "mtu" && v == "lock" && len(w) > 1 {
			w = w[1:]
		}
		switch {
		case word == "via":
			if (v == "inet" || v == "inet6") && len(w) > 1 { // said when it is not the route's family
				r.foreign = true
				w, v = w[1:], w[1]
			}
			a, err := netip.ParseAddr(v)
			if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
				return fmt.Errorf("via %q: want a unicast address without a zone", short(v))
			}
			h.Gateway = a.Unmap()
		case word == "dev":
			if len(v) > 15 {
				return fmt.Errorf("dev %q: want a name of up to 15 octets", short(v))
			}
			h.Device = v
		case word == "weight":
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n < 1 || n > 256 {
				return fmt.Errorf("weight %q: want 1 to 256", short(v))
			}
			h.Weight = uint16(n)
		case word == "metric" || word == "table" || word == "lookup":
			n, err := strconv.ParseUint(v, 10, 32)
			if word == "table" && err != nil {
				if known, ok := map[string]uint64{"default": 253, "main": 254, "local": 255}[v]; ok {
					n, err = known, nil
				}
			}
			if err != nil || (word == "lookup" && n == 0) {
				return fmt.Errorf("%s %q: want a number up to 4294967295", word, short(v))
			}
			switch word {
			case "metric":
				e.Metric = uint32(n)
			case "lookup":
				e.Type, e.Table = "lookup", uint32(n)
			default:
				e.Table = uint32(n)
			}
		case !withValue[word]:
			return fmt.Errorf("%q: want a word of a route, such as via, dev, metric or weight", short(word))
		}
		w = w[1:]
	}
	if h.Gateway.IsValid() || h.Device != "" {
		e.Hops = append(e.Hops, h)
	} else if h.Weight != 0 {
		return errors.New("weight: want via or dev beside it")
	}
	return nil
}

// finish checks what can be checked only at the end of a route.
func (r *Reader) finish(e *Entry) error {
	if !e.Prefix.IsValid() { // "default"
		six, four := r.opt.IPv6, r.opt.IPv4
		for _, h := range e.Hops {
			if !four && !six && h.Gateway.IsValid() {
				six = h.Gateway.Is6() != r.foreign
				four = !six
			}
		}
		switch {
		case six:
			e.Prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		case four:
			e.Prefix = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		default:
			return errors.New("default: want 0.0.0.0/0 or ::/0, or the family said")
		}
	}
	switch e.Type {
	case "", "unicast", "local":
	default:
		for _, h := range e.Hops {
			if h.Gateway.IsValid() {
				return fmt.Errorf("via %v: want none with type %s", h.Gateway, e.Type)
			}
		}
		e.Hops = nil // "dev lo" is how the kernel shows them
	}
	return nil
}

// short cuts what is quoted in an error.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
