package rtnl

import "net/netip"

// Route is what a message about a route says. Metrics and the encapsulations are parts of the decoded input; Paths is
// reused by the next message that is decoded into the same Route.
type Route struct {
	Dst      netip.Prefix // masked
	Src      netip.Prefix // the zero Prefix: any source. IPv6 only; lookups by source are not FIB lookups
	Table    uint32
	Priority uint32 // the metric: of several routes to Dst the lowest counts (IPv6: 0 is 1024)
	NextHop  uint32 // id of a next-hop object, 0: Paths alone say where
	PrefSrc  netip.Addr
	TOS      uint8 // IPv4
	Protocol uint8
	Scope    uint8
	Type     uint8
	Flags    uint32
	Paths    []Path // one, or those of RTA_MULTIPATH; none with types that drop
	Metrics  []byte // RTA_METRICS, not looked into
}

// Path is one way that a route leads.
type Path struct {
	Gateway   netip.Addr // of either family; the zero Addr: on the link
	Device    uint32     // interface index, 0 not given
	Weight    uint16     // 1 to 256
	Flags     uint8      // PathDead, …
	EncapType uint16     // 0: none. One that is not 0 needs what a FIB has not (MPLS, SRv6, …)
	Encap     []byte     // RTA_ENCAP, not looked into
}

// DecodeRoute decodes the payload of NewRoute or DelRoute (struct rtmsg and its attributes) into r, whose Paths are
// reused. After an error r is not defined. It allocates only for errors and when Paths has to grow.
func DecodeRoute(b []byte, r *Route) error {
	if len(b) < routeSize {
		return refuse(BadSize, "struct rtmsg", len(b), "12 octets")
	}
	f, dstLen, srcLen := b[0], int(b[1]), int(b[2])
	*r = Route{TOS: b[3], Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7], Flags: order.Uint32(b[8:]), Paths: r.Paths[:0]}
	bits := 32
	switch f {
	case FamilyIPv4:
	case FamilyIPv6:
		bits = 128
	default:
		return refuse(BadFamily, "rtm_family", int(f), "AF_INET or AF_INET6")
	}
	if dstLen > bits {
		return refuse(BadPrefix, "rtm_dst_len", dstLen, "a prefix length of the family")
	}
	if srcLen > bits {
		return refuse(BadPrefix, "rtm_src_len", srcLen, "a prefix length of the family")
	}
	var dst, src netip.Addr
	var multipath []byte
	one := Path{Weight: 1}
	for b = b[routeSize:]; len(b) > 0; {
		t, v, rest, err := attr(b)
		if err != nil {
			return err
		}
		b = rest
		switch t {
		case rtaDst:
			err = address(v, f, "RTA_DST", &dst)
		case rtaSrc:
			err = address(v, f, "RTA_SRC", &src)
		case rtaPriority:
			err = u32(v, "RTA_PRIORITY", &r.Priority)
		case rtaPrefSrc:
			err = address(v, f, "RTA_PREFSRC", &r.PrefSrc)
		case rtaMetrics:
			r.Metrics = v
		case rtaMultipath:
			multipath = v
		case rtaTable:
			err = u32(v, "RTA_TABLE", &r.Table)
		case rtaNHID:
			err = u32(v, "RTA_NH_ID", &r.NextHop)
		default:
			err = one.attr(t, v, f)
		}
		if err != nil {
			return err
		}
	}
	var err error
	if r.Dst, err = prefix(dst, dstLen, f, "rtm_dst_len"); err != nil {
		return err
	}
	if srcLen > 0 {
		if r.Src, err = prefix(src, srcLen, f, "rtm_src_len"); err != nil {
			return err
		}
	}
	if multipath != nil {
		return decodePaths(multipath, f, r)
	}
	if one.Device != 0 || one.Gateway.IsValid() || one.EncapType != 0 || len(one.Encap) > 0 {
		one.Flags = uint8(r.Flags) // rtm_flags of a route of one path holds those of the path (fib_dump_info)
		r.Paths = append(r.Paths, one)
	}
	return nil
}

// prefix makes the prefix of an address, which may lack when there is nothing of it.
func prefix(a netip.Addr, bits int, f uint8, field string) (netip.Prefix, error) {
	if !a.IsValid() {
		if bits > 0 {
			return netip.Prefix{}, refuse(BadPrefix, field, bits, "an address with it")
		}
		a = netip.IPv4Unspecified()
		if f == FamilyIPv6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

// attr takes an attribute of a path; others it leaves alone.
func (p *Path) attr(t int, v []byte, f uint8) error {
	switch t {
	case rtaOIF:
		return u32(v, "RTA_OIF", &p.Device)
	case rtaGateway:
		return address(v, f, "RTA_GATEWAY", &p.Gateway)
	case rtaVia:
		return via(v, &p.Gateway)
	case rtaEncapType:
		return u16(v, "RTA_ENCAP_TYPE", &p.EncapType)
	case rtaEncap:
		p.Encap = v
	}
	return nil
}

// decodePaths reads the value of RTA_MULTIPATH: a chain of struct rtnexthop, each with attributes.
func decodePaths(b []byte, f uint8, r *Route) error {
	for len(b) > 0 {
		if len(b) < pathSize {
			return refuse(BadAttribute, "octets after the paths", len(b), "none")
		}
		n := int(order.Uint16(b))
		if n < pathSize || n > len(b) {
			return refuse(BadAttribute, "rtnh_len", n, "8 to what is left of RTA_MULTIPATH")
		}
		if len(r.Paths) == MaxPaths {
			return refuse(TooMany, "paths", MaxPaths+1, "256 at most")
		}
		p := Path{Flags: b[2], Weight: uint16(b[3]) + 1, Device: order.Uint32(b[4:])}
		for a := b[pathSize:n]; len(a) > 0; {
			t, v, rest, err := attr(a)
			if err != nil {
				return err
			}
			if t != rtaOIF {
				if err = p.attr(t, v, f); err != nil {
					return err
				}
			}
			a = rest
		}
		r.Paths = append(r.Paths, p)
		b = b[min(align(n), len(b)):]
	}
	if len(r.Paths) == 1 && r.Paths[0].Weight == 1 { // as without RTA_MULTIPATH
		r.Flags |= uint32(r.Paths[0].Flags)
		r.Paths[0].Flags = uint8(r.Flags)
	}
	return nil
}

// AppendRoute appends a message about a route: h.Type is NewRoute or DelRoute. Fields that are zero are left out. On
// an error b is returned as it was. Errors: *Error for a Dst that is not valid, weights out of range and too many paths.
func AppendRoute(b []byte, h Header, r *Route) ([]byte, error) {
	if !r.Dst.IsValid() {
		return b, refuse(BadPrefix, "Dst", 0, "a valid prefix")
	}
	if len(r.Paths) > MaxPaths {
		return b, refuse(TooMany, "paths", len(r.Paths), "256 at most")
	}
	f, old := family(r.Dst.Addr()), b
	table := r.Table
	if table > 255 {
		table = TableCompat
	}
	srcLen := 0
	if r.Src.IsValid() {
		srcLen = r.Src.Bits()
	}
	b, at := begin(b, h)
	b = append(b, f, byte(r.Dst.Bits()), byte(srcLen), r.TOS, byte(table), r.Protocol, r.Scope, r.Type)
	flags := r.Flags
	single := len(r.Paths) == 1 && r.Paths[0].Weight <= 1
	if single {
		flags |= uint32(r.Paths[0].Flags)
	}
	b = order.AppendUint32(b, flags)
	if r.Dst.Bits() > 0 {
		b = appendAddr(b, rtaDst, r.Dst.Addr())
	}
	if srcLen > 0 {
		b = appendAddr(b, rtaSrc, r.Src.Addr())
	}
	b = appendU32(b, rtaTable, r.Table)
	if r.Priority != 0 {
		b = appendU32(b, rtaPriority, r.Priority)
	}
	if r.PrefSrc.IsValid() {
		b = appendAddr(b, rtaPrefSrc, r.PrefSrc)
	}
	if r.NextHop != 0 {
		b = appendU32(b, rtaNHID, r.NextHop)
	}
	if len(r.Metrics) > 0 {
		b = appendAttr(b, rtaMetrics, r.Metrics)
	}
	if single {
		b = r.Paths[0].append(b, f)
		if d := r.Paths[0].Device; d != 0 {
			b = appendU32(b, rtaOIF, d)
		}
	} else if len(r.Paths) > 0 {
		var open int
		b, open = openAttr(b, rtaMultipath)
		for i := range r.Paths {
			p := &r.Paths[i]
			if p.Weight > 256 {
				return old, refuse(BadValue, "weight", int(p.Weight), "1 to 256")
			}
			start := len(b)
			b = append(b, 0, 0, p.Flags, byte(max(p.Weight, 1)-1))
			b = order.AppendUint32(b, p.Device)
			b = p.append(b, f)
			if err := closeAttr(b, start); err != nil {
				return old, err
			}
		}
		if err := closeAttr(b, open); err != nil {
			return old, err
		}
	}
	return end(b, at), nil
}

// append writes the attributes of a path, but the device.
func (p *Path) append(b []byte, f uint8) []byte {
	switch {
	case !p.Gateway.IsValid():
	case family(p.Gateway) == f:
		b = appendAddr(b, rtaGateway, p.Gateway)
	default:
		var at int
		b, at = openAttr(b, rtaVia)
		b = order.AppendUint16(b, uint16(family(p.Gateway)))
		b = append(b, p.Gateway.AsSlice()...)
		_ = closeAttr(b, at)
		b = append(b, 0, 0)
	}
	if p.EncapType != 0 {
		b = appendU16(b, rtaEncapType, p.EncapType)
	}
	if len(p.Encap) > 0 {
		b = appendAttr(b, rtaEncap, p.Encap)
	}
	return b
}

// AppendRouteDump appends the request for all routes of a family (FamilyUnspec: of all) and table (0: of all). The
// kernel heeds the table when the socket has NETLINK_GET_STRICT_CHK set (Linux 4.20), and sends all without.
func AppendRouteDump(b []byte, seq uint32, family uint8, table uint32) []byte {
	b, at := begin(b, Header{Type: GetRoute, Flags: FlagRequest | FlagDump, Seq: seq})
	low := table
	if low > 255 {
		low = TableUnspec
	}
	b = append(b, family, 0, 0, 0, byte(low), 0, 0, 0, 0, 0, 0, 0)
	if table != 0 {
		b = appendU32(b, rtaTable, table)
	}
	return end(b, at)
}
