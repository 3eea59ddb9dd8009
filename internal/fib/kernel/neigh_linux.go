package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/kernel/neigh"
	"midplane/internal/fib/kernel/plan"
)

const sizeofNdmsg = 12 // struct ndmsg

// Attributes and flags of neighbours (include/uapi/linux/neighbour.h).
const (
	ndaDst     = 1
	ndaLladdr  = 2
	ndaIfindex = 8
	ntfUse     = 0x01
	ntfProxy   = 0x08
	ntfRouter  = 0x80
)

func neighHeader(f plan.Family, index uint32, state neigh.State, flags uint8) []byte {
	b := make([]byte, sizeofNdmsg)
	b[0], b[10] = byte(f), flags
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint16(b[8:], uint16(state))
	return b
}

func encodeNeighbour(index uint32, ip netip.Addr, mac *MAC, state neigh.State, flags uint8) ([]byte, error) {
	return encode(neighHeader(familyOf(ip), index, state, flags), func(e *netlink.AttributeEncoder) {
		e.Bytes(ndaDst, ip.AsSlice())
		if mac != nil {
			e.Bytes(ndaLladdr, mac[:])
		}
	})
}

// decodeNeighbour reads a neighbour; ok is false for what is none to us: multicast, proxies, links that are not Ethernet.
func decodeNeighbour(body []byte) (e Neighbour, ok bool, err error) {
	if len(body) < sizeofNdmsg {
		return e, false, errShort
	}
	f := plan.Family(body[0])
	e.Device = binary.NativeEndian.Uint32(body[4:])
	e.State = neigh.State(binary.NativeEndian.Uint16(body[8:]))
	e.Router = body[10]&ntfRouter != 0
	var mac []byte
	err = attributes(body, sizeofNdmsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case ndaDst:
			e.IP = address(d)
		case ndaLladdr:
			mac = d.Bytes()
		}
	})
	ok = (f == plan.IPv4 || f == plan.IPv6) && e.IP.IsValid() && !e.IP.IsMulticast() && e.IP != netip.AddrFrom4([4]byte{255, 255, 255, 255}) &&
		body[10]&ntfProxy == 0
	if e.State.Usable() {
		ok = ok && len(mac) == len(e.MAC)
		copy(e.MAC[:], mac)
	}
	return e, ok, err
}

// neighbours dumps the neighbours of a device, or of all with 0.
func (r *rtnl) neighbours(index uint32) ([]Neighbour, error) {
	var l []Neighbour
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		var part []Neighbour
		body, err := encode(neighHeader(f, 0, 0, 0), func(e *netlink.AttributeEncoder) {
			if index != 0 {
				e.Uint32(ndaIfindex, index)
			}
		})
		if err != nil {
			return nil, err
		}
		err = r.dump(unix.RTM_GETNEIGH, body, func() { part = nil }, func(body []byte) error {
			n, ok, err := decodeNeighbour(body)
			if ok && (index == 0 || n.Device == index) && n.State != 0 {
				part = append(part, n)
			}
			return err
		})
		if isAny(err, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, err
		}
		l = append(l, part...)
	}
	return l, nil
}

// neighbourState is the state of one neighbour, 0 if there is none.
func (r *rtnl) neighbourState(index uint32, ip netip.Addr) (neigh.State, error) {
	body, err := encodeNeighbour(index, ip, nil, 0, 0)
	if err != nil {
		return 0, err
	}
	l, err := r.c.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: body})
	switch {
	case isAny(err, unix.ENOENT):
		return 0, nil
	case isAny(err, unix.EOPNOTSUPP): // before Linux 5.0: all of them
		all, err := r.neighbours(index)
		for _, n := range all {
			if n.IP == ip {
				return n.State, nil
			}
		}
		return 0, err
	case err != nil:
		return 0, cause(err)
	}
	var state neigh.State
	for _, m := range l {
		n, _, err := decodeNeighbour(m.Data)
		if err != nil {
			return 0, err
		}
		state = n.State
	}
	return state, nil
}

// visit is a short stay in a FIB's namespace. It does not use k.mu, so it does not wait for an Apply.
func (k *Kernel) visit(id fib.ID, f func(s *space, fib FIB) error) error {
	fb, err := k.fib(id)
	if err != nil {
		return err
	}
	s, err := k.visitSpace(fb)
	if err != nil {
		return err
	}
	defer s.close()
	return f(s, fb)
}

func (k *Kernel) visitSpace(f FIB) (*space, error) {
	path := k.config.Netns
	if f.Backend == Netns {
		path = k.spacePath(f.Title())
	}
	if path == "" {
		return newSpace(nil)
	}
	ns, err := openSpace(path)
	if err != nil {
		return nil, err
	}
	s, err := newSpace(ns)
	if err != nil {
		_ = ns.Close()
	}
	return s, err
}

// index finds a port's interface index.
func (k *Kernel) index(s *space, f FIB, device string) (uint32, error) {
	if !slices.ContainsFunc(f.Ports, func(p Port) bool { return p.Title() == device }) {
		return 0, &fib.FieldError{Field: "device", Value: device, Want: fmt.Sprintf("a port of FIB %d", f.ID)}
	}
	l, err := s.h.LinkByName(device)
	if err != nil {
		return 0, &fib.OpError{Op: "find", What: "device " + device, Err: errors.Join(fib.ErrNotFound, err)}
	}
	return uint32(l.Attrs().Index), nil
}

// Neighbours implements API.
func (k *Kernel) Neighbours(id fib.ID, device string) ([]Neighbour, error) {
	var all []Neighbour
	err := k.visit(id, func(s *space, f FIB) error {
		for _, p := range f.Ports {
			if device != "" && p.Title() != device {
				continue
			}
			index, err := k.index(s, f, p.Title())
			if err != nil {
				return err
			}
			l, err := s.rt.neighbours(index)
			if err != nil {
				return err
			}
			for _, n := range l {
				n.FIB = f.ID
				all = append(all, n)
			}
		}
		if device != "" {
			_, err := k.index(s, f, device)
			return err
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Neighbour) int { return neigh.Compare(a.Key, b.Key) })
	return all, err
}

// SetNeighbour implements API.
func (k *Kernel) SetNeighbour(id fib.ID, device string, ip netip.Addr, mac MAC, permanent bool) error {
	return k.writeNeighbour(id, device, ip, &mac, permanent, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

// AddNeighbour implements API.
func (k *Kernel) AddNeighbour(id fib.ID, device string, ip netip.Addr, mac MAC, permanent bool) error {
	err := k.writeNeighbour(id, device, ip, &mac, permanent, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if !isAny(err, unix.EEXIST) {
		return err
	}
	l, err := k.Neighbours(id, device)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(l, func(n Neighbour) bool { return n.IP == ip && n.State.Usable() }) {
		return &fib.OpError{Op: "add", What: "neighbour " + ip.String(), Err: fib.ErrExists}
	}
	return k.SetNeighbour(id, device, ip, mac, permanent) // there only is a question that was not answered
}

func (k *Kernel) writeNeighbour(id fib.ID, device string, ip netip.Addr, mac *MAC, permanent bool, flags uint16) error {
	if err := neighbourAddress(ip); err != nil {
		return err
	}
	if *mac == (MAC{}) || mac[0]&1 != 0 {
		return &fib.FieldError{Field: "mac", Value: mac.String(), Want: "the Ethernet address of one station"}
	}
	state := neigh.Reachable
	if permanent {
		state = neigh.Permanent
	}
	return k.neighbour(id, device, func(s *space, index uint32) error {
		b, err := encodeNeighbour(index, ip, mac, state, 0)
		if err != nil {
			return err
		}
		return s.rt.do(unix.RTM_NEWNEIGH, flags, b)
	})
}

func (k *Kernel) neighbour(id fib.ID, device string, f func(s *space, index uint32) error) error {
	return k.visit(id, func(s *space, fb FIB) error {
		index, err := k.index(s, fb, device)
		if err != nil {
			return err
		}
		return f(s, index)
	})
}

func neighbourAddress(ip netip.Addr) error {
	if !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" || ip.IsMulticast() || ip.IsUnspecified() || ip.IsLoopback() {
		return &fib.FieldError{Field: "address", Value: ip.String(), Want: "a unicast address without a zone"}
	}
	return nil
}

// DeleteNeighbour implements API.
func (k *Kernel) DeleteNeighbour(id fib.ID, device string, ip netip.Addr) error {
	if err := neighbourAddress(ip); err != nil {
		return err
	}
	err := k.neighbour(id, device, func(s *space, index uint32) error { return s.deleteNeighbour(index, ip) })
	if isAny(err, unix.ENOENT) {
		return &fib.OpError{Op: "delete", What: "neighbour " + ip.String(), Err: fib.ErrNotFound}
	}
	return err
}

func (s *space) deleteNeighbour(index uint32, ip netip.Addr) error {
	b, err := encodeNeighbour(index, ip, nil, 0, 0)
	if err != nil {
		return err
	}
	return s.rt.do(unix.RTM_DELNEIGH, 0, b)
}

// FlushNeighbours implements API.
func (k *Kernel) FlushNeighbours(id fib.ID, device string, all bool) (int, error) {
	l, err := k.Neighbours(id, device)
	if err != nil {
		return 0, err
	}
	count := 0
	err = k.visit(id, func(s *space, _ FIB) error {
		for _, n := range l {
			if n.State&neigh.NoARP != 0 || n.State&neigh.Permanent != 0 && !all {
				continue
			}
			switch err := s.deleteNeighbour(n.Device, n.IP); {
			case err == nil:
				count++
			case !isAny(err, unix.ENOENT):
				return err
			}
		}
		return nil
	})
	return count, err
}
