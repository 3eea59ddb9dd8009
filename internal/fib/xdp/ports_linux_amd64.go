package xdp

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"midplane/internal/fib/image"
	"midplane/internal/sys"
)

var errClosed = errors.New("the forwarder is closed")

// descriptor finds a FIB in the image: the word of its descriptor.
func (f *Forwarder) descriptor(fib uint32) (word uint32, err error) {
	mem := f.Memory()
	h := atomic.LoadUint64(&mem[image.HeaderFIBs])
	dir, n := uint64(image.Lo(h)), uint64(image.Hi(h))
	for at := dir; at < dir+n*image.DescWords && at+image.DescWords <= uint64(len(mem)); at += image.DescWords {
		if atomic.LoadUint64(&mem[at+image.DescID]) == image.Pair(fib, image.DescInUse) {
			return uint32(at), nil
		}
	}
	return 0, &FieldError{"fib", strconv.FormatUint(uint64(fib), 10), "one that is in the image"}
}

// counters returns the index of a FIB's counters; 0 is for no FIB. Those of a FIB that has no port any more last until
// the room is needed.
func (f *Forwarder) counters(fib uint32) (uint32, error) {
	if i := f.stats[fib]; i != 0 {
		return i, nil
	}
	taken := make([]uint32, f.cfg.FIBs+1) // by which FIB
	for fib, i := range f.stats {
		taken[i] = fib
	}
	live := map[uint32]bool{}
	for _, p := range f.ports {
		live[p.FIB] = true
	}
	for _, mayTake := range []func(uint32) bool{func(old uint32) bool { return old == 0 }, func(old uint32) bool { return !live[old] }} {
		for i := 1; i < len(taken); i++ {
			if old := taken[i]; mayTake(old) {
				delete(f.stats, old)
				f.stats[fib] = uint32(i)
				return uint32(i), nil
			}
		}
	}
	return 0, &FieldError{"fibs", strconv.Itoa(len(live) + 1), fmt.Sprintf("up to %d that have ports", f.cfg.FIBs)}
}

// Ports returns the ports in the order of their devices.
func (f *Forwarder) Ports() []Port {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.ports), func(a, b Port) int { return cmp.Compare(a.Device, b.Device) })
}

// SetPorts makes these the ports: it attaches the program to links that have ports and detaches it from those that have
// none any more, and brings devices and neighbours in line with the kernel's (Sync). FIBs must be in the image; call it
// again after a FIB was removed and made again. Ports that stay do not lose a packet, also if their FIB changes.
// Errors: *FieldError; *sys.UnsupportedError when a driver has no XDP. After an error the ports that could be set are.
func (f *Forwarder) SetPorts(ports []Port) error {
	if err := f.setPorts(ports, f.attach); err != nil {
		return err
	}
	return f.Sync()
}

func (f *Forwarder) setPorts(ports []Port, attach func(uint32) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	want, err := checkPorts(ports, f.cfg.Ports)
	if err != nil {
		return err
	}
	desired, links := map[uint32]Port{}, map[uint32]bool{}
	for _, p := range want {
		if _, err := f.descriptor(p.FIB); err != nil {
			return err
		}
		desired[p.Device], links[p.Link] = p, true
	}
	var errs []error
	for device, p := range f.ports {
		if d := desired[device]; d.Link != p.Link || d.Outer != p.Outer || d.Inner != p.Inner {
			errs = append(errs, f.removePort(p))
		}
	}
	for index := range f.links {
		if !links[index] {
			errs = append(errs, f.detach(index))
		}
	}
	for _, p := range want {
		if f.links[p.Link] == nil {
			if err := attach(p.Link); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, f.putPort(p))
	}
	if f.waiting && errors.Join(errs...) == nil {
		errs = append(errs, f.switchOver())
	}
	return errors.Join(errs...)
}

func (p Port) key() forwardPortKey {
	return forwardPortKey{Ifindex: p.Link, Outer: uint16(p.Outer), Inner: uint16(p.Inner)}
}

// putPort adds a port, or changes its FIB. Its device is down until its state is set.
func (f *Forwarder) putPort(p Port) error {
	desc, err := f.descriptor(p.FIB)
	if err != nil {
		return err
	}
	stat, err := f.counters(p.FIB)
	if err != nil {
		return err
	}
	slot, known := f.slots[p.Device]
	if !known {
		if slot, err = f.freeSlot(); err != nil {
			return err
		}
		if err := f.objs.Devices.Put(uint32(slot), forwardDevice{Ifindex: p.Device, Outer: uint16(p.Outer), Inner: uint16(p.Inner)}); err != nil {
			return fmt.Errorf("device %d: %w", p.Device, err)
		}
		if err := f.objs.Links.Put(uint32(slot), p.Link); err != nil {
			return errors.Join(fmt.Errorf("link %d as a target: %w", p.Link, err), f.objs.Devices.Put(uint32(slot), forwardDevice{}))
		}
		f.slots[p.Device] = slot
	}
	if old, ok := f.ports[p.Device]; ok && old.FIB != p.FIB {
		// Neighbours of the old FIB go before the port is another's; Sync brings them back under the new one.
		if err := f.dropNeighbours(p.Device); err != nil {
			return err
		}
	}
	v := forwardPort{Desc: desc, Fib: p.FIB, Stat: stat, Slot: slot}
	var d forwardDevice
	if err := f.objs.Devices.Lookup(uint32(slot), &d); err != nil {
		return err
	}
	v.Mac = d.Mac
	if err := f.objs.Ports.Put(p.key(), v); err != nil {
		return fmt.Errorf("port %d: %w", p.Device, err)
	}
	f.ports[p.Device] = p
	return f.changed()
}

// changed makes all that the program remembers about ports, devices and neighbours void. It comes after each change.
func (f *Forwarder) changed() error {
	f.generation++
	if err := f.objs.Generation.Put(uint32(0), f.generation); err != nil {
		return fmt.Errorf("generation: %w", err)
	}
	return nil
}

func (f *Forwarder) freeSlot() (uint16, error) {
	used := map[uint16]bool{}
	for _, s := range f.slots {
		used[s] = true
	}
	for s := range f.cfg.Ports {
		if !used[uint16(s)] {
			return uint16(s), nil
		}
	}
	return 0, &FieldError{"ports", strconv.Itoa(len(f.ports) + 1), fmt.Sprintf("up to %d", f.cfg.Ports)}
}

// removePort takes a port away: first nothing comes in by it any more, then nothing goes out.
func (f *Forwarder) removePort(p Port) error {
	slot := uint32(f.slots[p.Device])
	for _, err := range []error{
		ignore(f.objs.Ports.Delete(p.key()), ebpf.ErrKeyNotExist),
		f.objs.Devices.Put(slot, forwardDevice{}),
		ignore(f.objs.Links.Delete(slot), ebpf.ErrKeyNotExist),
		f.dropNeighbours(p.Device),
	} {
		if err != nil {
			return fmt.Errorf("remove port %d: %w", p.Device, err)
		}
	}
	delete(f.ports, p.Device)
	delete(f.slots, p.Device)
	return f.changed()
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

func (f *Forwarder) linkPath(index uint32) string {
	return filepath.Join(f.cfg.Dir, linkPrefix+strconv.FormatUint(uint64(index), 10))
}

func (f *Forwarder) attach(index uint32) error {
	flags := map[Mode][]link.XDPAttachFlags{
		Native: {link.XDPDriverMode}, Generic: {link.XDPGenericMode}, Auto: {link.XDPDriverMode, link.XDPGenericMode},
	}[f.cfg.Mode]
	var l link.Link
	var err error
	for _, fl := range flags {
		if l, err = link.AttachXDP(link.XDPOptions{Program: f.objs.MidplaneForward, Interface: int(index), Flags: fl}); err == nil {
			break
		}
	}
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		return &sys.UnsupportedError{Feature: fmt.Sprintf("XDP in the driver of interface %d (mode generic works with every driver)", index), Err: err}
	case errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("interface %d has an XDP program already (see: bpftool net): %w", index, err)
	case err != nil:
		return fmt.Errorf("attach to interface %d: %w", index, err)
	}
	if f.cfg.Dir != "" {
		if err := l.Pin(f.linkPath(index)); err != nil {
			return errors.Join(fmt.Errorf("pin the link of interface %d: %w", index, err), l.Close())
		}
	}
	f.links[index] = l
	return nil
}

func (f *Forwarder) detach(index uint32) error {
	l := f.links[index]
	delete(f.links, index)
	errs := []error{l.Detach()} // also when another process holds it
	if f.cfg.Dir != "" {
		errs = append(errs, l.Unpin())
	}
	if err := errors.Join(append(errs, l.Close())...); err != nil {
		return fmt.Errorf("detach from interface %d: %w", index, err)
	}
	return nil
}

// SetDevice sets the state of a port's interface; the next packet sees it. Interfaces that are no ports are ignored.
func (f *Forwarder) SetDevice(d Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return errors.Join(f.drain(), f.setDevice(d))
}

func (f *Forwarder) setDevice(d Device) error {
	p, ok := f.ports[d.Index]
	if !ok {
		return nil
	}
	slot := f.slots[d.Index]
	v := forwardDevice{Ifindex: d.Index, Mtu: d.MTU, Mac: d.MAC, Outer: uint16(p.Outer), Inner: uint16(p.Inner)}
	if d.Up {
		v.Up = 1
	}
	var old forwardDevice
	if err := f.objs.Devices.Lookup(uint32(slot), &old); err != nil {
		return err
	}
	if old == v {
		return nil
	}
	if err := f.objs.Devices.Put(uint32(slot), v); err != nil {
		return fmt.Errorf("device %d: %w", d.Index, err)
	}
	var port forwardPort
	if err := f.objs.Ports.Lookup(p.key(), &port); err != nil {
		return fmt.Errorf("port %d: %w", d.Index, err)
	}
	if port.Mac != d.MAC {
		port.Mac = d.MAC
		if err := f.objs.Ports.Put(p.key(), port); err != nil {
			return fmt.Errorf("port %d: %w", d.Index, err)
		}
	}
	return f.changed()
}

func (k NeighbourKey) key() forwardNeighbourKey {
	a := k.Addr.As16()
	return forwardNeighbourKey{Hi: binary.BigEndian.Uint64(a[:8]), Lo: binary.BigEndian.Uint64(a[8:]), Fib: k.FIB, Ifindex: k.Device}
}

func keyOf(k forwardNeighbourKey) NeighbourKey {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], k.Hi)
	binary.BigEndian.PutUint64(a[8:], k.Lo)
	return NeighbourKey{FIB: k.Fib, Device: k.Ifindex, Addr: netip.AddrFrom16(a).Unmap()}
}

// SetNeighbour adds a neighbour or changes its MAC address; the next packet sees it. The FIB must be that of the port
// Device. Errors: *FieldError; one that wraps syscall.E2BIG when the table is full: its packets go by the kernel.
func (f *Forwarder) SetNeighbour(n Neighbour) error {
	if err := n.validate(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	p, ok := f.ports[n.Device]
	if !ok || p.FIB != n.FIB {
		return &FieldError{"neighbour device", strconv.Itoa(int(n.Device)), fmt.Sprintf("a port of fib %d", n.FIB)}
	}
	return errors.Join(f.drain(), f.setNeighbour(n))
}

func (f *Forwarder) setNeighbour(n Neighbour) error {
	slot := f.slots[n.Device]
	v := forwardNeighbour{MacSlot: uint64(slot) << 48}
	for i, b := range n.MAC {
		v.MacSlot |= uint64(b) << (8 * i)
	}
	var old forwardNeighbour
	if err := f.objs.Neighbours.Lookup(n.key(), &old); err == nil && old.MacSlot == v.MacSlot {
		return nil
	}
	if err := f.objs.Neighbours.Put(n.key(), v); err != nil {
		return fmt.Errorf("neighbour %s on %d: %w", n.Addr, n.Device, err)
	}
	return f.changed()
}

// DeleteNeighbour removes a neighbour; the next packet to it goes to the kernel. It is no error when there is none.
func (f *Forwarder) DeleteNeighbour(k NeighbourKey) error {
	if err := k.validate(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return errors.Join(f.drain(), f.deleteNeighbour(k))
}

func (f *Forwarder) deleteNeighbour(k NeighbourKey) error {
	err := f.objs.Neighbours.Delete(k.key())
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("neighbour %s on %d: %w", k.Addr, k.Device, err)
	}
	return f.changed()
}

// Neighbours returns what the forwarder knows, in the order of FIB, device and address.
func (f *Forwarder) Neighbours() ([]Neighbour, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	return f.neighbours()
}

func (f *Forwarder) neighbours() ([]Neighbour, error) {
	var l []Neighbour
	var key forwardNeighbourKey
	var value forwardNeighbour
	it := f.objs.Neighbours.Iterate()
	for it.Next(&key, &value) {
		n := Neighbour{NeighbourKey: keyOf(key)}
		for i := range n.MAC {
			n.MAC[i] = byte(value.MacSlot >> (8 * i))
		}
		l = append(l, n)
	}
	slices.SortFunc(l, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(a.FIB, b.FIB), cmp.Compare(a.Device, b.Device), a.Addr.Compare(b.Addr))
	})
	return l, it.Err()
}

func (f *Forwarder) dropNeighbours(device uint32) error {
	l, err := f.neighbours()
	if err != nil {
		return err
	}
	for _, n := range l {
		if n.Device == device {
			if err := f.deleteNeighbour(n.NeighbourKey); err != nil {
				return err
			}
		}
	}
	return nil
}
