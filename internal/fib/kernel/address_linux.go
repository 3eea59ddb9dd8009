package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

const (
	sizeofIfaddrmsg = 8
	ifaPriority     = 9 // IFA_RT_PRIORITY
	// keptFlags are the flags of an address that somebody sets and that are not known by another name.
	keptFlags = unix.IFA_F_HOMEADDRESS | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_MANAGETEMPADDR
)

// addresses dumps the addresses of all devices, by interface index.
func (r *rtnl) addresses() (map[int][]plan.Address, error) {
	m := map[int][]plan.Address{}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		part := map[int][]plan.Address{}
		h := make([]byte, sizeofIfaddrmsg)
		h[0] = byte(f)
		err := r.dump(unix.RTM_GETADDR, h, func() { clear(part) }, func(body []byte) error {
			index, a, err := decodeAddress(body)
			part[index] = append(part[index], a)
			return err
		})
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, l := range part {
			m[i] = append(m[i], l...)
		}
	}
	return m, nil
}

func decodeAddress(body []byte) (int, plan.Address, error) {
	if len(body) < sizeofIfaddrmsg {
		return 0, plan.Address{}, errShort
	}
	bits, flags, index := int(body[1]), uint32(body[2]), int(binary.NativeEndian.Uint32(body[4:]))
	a := plan.Address{Scope: body[3]}
	var local, remote netip.Addr
	err := attributes(body, sizeofIfaddrmsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.IFA_ADDRESS:
			remote = address(d)
		case unix.IFA_LOCAL:
			local = address(d)
		case unix.IFA_BROADCAST:
			a.Broadcast = address(d)
		case unix.IFA_LABEL:
			a.Label = d.String()
		case unix.IFA_FLAGS:
			flags = d.Uint32()
		case ifaPriority:
			a.Metric = d.Uint32()
		}
	})
	if !local.IsValid() {
		local = remote
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	if remote != local {
		a.Peer = netip.PrefixFrom(remote, bits)
		a.Prefix = netip.PrefixFrom(local, local.BitLen())
	}
	a.NoPrefixRoute = flags&unix.IFA_F_NOPREFIXROUTE != 0
	a.Dynamic = flags&unix.IFA_F_PERMANENT == 0
	a.Flags = flags & keptFlags
	return index, a, err
}

func address(d *netlink.AttributeDecoder) netip.Addr {
	a, _ := netip.AddrFromSlice(d.Bytes())
	return a
}

func encodeAddress(index int, device string, a plan.Address) ([]byte, error) {
	p, flags := a.Prefix, a.Flags|unix.IFA_F_PERMANENT
	if a.Peer.IsValid() {
		p = netip.PrefixFrom(a.Peer.Addr(), a.Peer.Bits())
	}
	if a.NoPrefixRoute {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if a.NoDAD && p.Addr().Is6() {
		flags |= unix.IFA_F_NODAD
	}
	h := make([]byte, sizeofIfaddrmsg)
	h[0], h[1], h[3] = byte(familyOf(p.Addr())), byte(p.Bits()), a.Scope
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return encode(h, func(e *netlink.AttributeEncoder) {
		e.Bytes(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice())
		e.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
		if a.Broadcast.IsValid() {
			e.Bytes(unix.IFA_BROADCAST, a.Broadcast.AsSlice())
		}
		if p.Addr().Is4() {
			label := a.Label
			if label == "" {
				label = device
			}
			e.String(unix.IFA_LABEL, label)
		}
		e.Uint32(unix.IFA_FLAGS, flags)
		if a.Metric != 0 {
			e.Uint32(ifaPriority, a.Metric)
		}
	})
}

func familyOf(a netip.Addr) plan.Family {
	if a.Is4() {
		return plan.IPv4
	}
	return plan.IPv6
}
