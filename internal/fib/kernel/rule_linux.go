package kernel

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

// Attributes and actions of rules (include/uapi/linux/fib_rules.h).
const (
	fraIif               = 3
	fraPriority          = 6
	fraMark              = 10
	fraSuppressIfgroup   = 13
	fraSuppressPrefixlen = 14
	fraTable             = 15
	fraMask              = 16
	fraOif               = 17
	fraL3mdev            = 19
	fraProtocol          = 21

	sizeofRuleHdr   = 12
	actionToTable   = 1
	flagIifDetached = 0x8  // the device does not exist now
	flagOifDetached = 0x10 // likewise
	none            = 0xffffffff
)

func ruleHeader(family plan.Family) []byte {
	return append([]byte{byte(family)}, make([]byte, sizeofRuleHdr-1)...)
}

func encodeRule(family plan.Family, r plan.Rule) ([]byte, error) {
	h := ruleHeader(family)
	h[7] = actionToTable
	return encode(h, func(e *netlink.AttributeEncoder) {
		e.Uint32(fraPriority, r.Priority)
		e.Uint8(fraProtocol, r.Protocol)
		if r.L3mdev {
			e.Uint8(fraL3mdev, 1)
		} else {
			e.Uint32(fraTable, r.Table)
		}
		if r.Iif != "" {
			e.String(fraIif, r.Iif)
		}
		if r.Oif != "" {
			e.String(fraOif, r.Oif)
		}
		if r.Mask != 0 {
			e.Uint32(fraMark, r.Mark)
			e.Uint32(fraMask, r.Mask)
		}
		if r.Suppress != 0 {
			e.Uint32(fraSuppressIfgroup, r.Suppress)
		}
	})
}

func decodeRule(body []byte) (plan.Rule, error) {
	if len(body) < sizeofRuleHdr {
		return plan.Rule{}, errShort
	}
	r := plan.Rule{Table: uint32(body[4])}
	flags := binary.NativeEndian.Uint32(body[8:])
	r.Other = body[1] != 0 || body[2] != 0 || body[3] != 0 || body[7] != actionToTable || flags&^(flagIifDetached|flagOifDetached) != 0
	err := attributes(body, sizeofRuleHdr, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case fraPriority:
			r.Priority = d.Uint32()
		case fraTable:
			r.Table = d.Uint32()
		case fraIif:
			r.Iif = d.String()
		case fraOif:
			r.Oif = d.String()
		case fraMark:
			r.Mark = d.Uint32()
		case fraMask:
			r.Mask = d.Uint32()
		case fraL3mdev:
			r.L3mdev = d.Uint8() != 0
		case fraProtocol:
			r.Protocol = d.Uint8()
		case fraSuppressIfgroup:
			if g := d.Uint32(); g == 0 {
				r.Other = true
			} else if g != none {
				r.Suppress = g
			}
		case fraSuppressPrefixlen:
			r.Other = r.Other || d.Uint32() != none
		default:
			r.Other = true
		}
	})
	if r.L3mdev {
		r.Table = 0
	}
	return r, err
}

// rules dumps the rules of each family that the kernel has rules for.
func (r *rtnl) rules() (map[plan.Family][]plan.Rule, error) {
	m := map[plan.Family][]plan.Rule{}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6, plan.MR4, plan.MR6} {
		l := []plan.Rule{}
		err := r.dump(unix.RTM_GETRULE, ruleHeader(f), func() { l = l[:0] }, func(body []byte) error {
			if len(body) > 0 && body[0] != byte(f) {
				return nil // a kernel without this family's rules answers with those of all
			}
			rule, err := decodeRule(body)
			l = append(l, rule)
			return err
		})
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(l) > 0 { // there always is one where there is a family
			m[f] = l
		}
	}
	return m, nil
}
