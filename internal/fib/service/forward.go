package service

import (
	"cmp"
	"slices"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// Forwarder forwards the packets that come in by the ports of FIBs, by the same image that the tables are in.
type Forwarder interface {
	// SetPorts makes these the ports. After an error those that could be set are.
	SetPorts([]ForwardPort) error
	// Packets counts what became of the packets of a FIB, by reason.
	Packets(fib.ID) (map[string]uint64, error)
}

// ForwardPort is a port as a forwarder needs it.
type ForwardPort struct {
	Device       uint32 // interface index
	Link         uint32 // index of the device that its frames are on; 0: itself
	Outer, Inner uint16 // VLAN tags that they have there, 0: none; with TagAD for one of 802.1ad
	FIB          fib.ID
}

// TagAD marks tags of 802.1ad in a ForwardPort.
const TagAD = 0x8000

// forwards says whether the forwarder serves a FIB: what it cannot do itself it leaves to the kernel, so there must be a
// kernel side, and in this namespace.
func (s *Service) forwards(f *fibState) bool {
	if s.forward == nil || s.kern == nil || f.Backend == spec.None || f.Backend == spec.Netns {
		return false
	}
	backend, _ := s.kern.Bound(f.ID)
	return backend != "" && backend != spec.Netns
}

// setForward tells the forwarder the ports. Those whose device is not there are left out until it comes. s.mu is held.
func (s *Service) setForward() error {
	if s.forward == nil {
		return nil
	}
	var l []ForwardPort
	for key, p := range s.ports {
		f := s.fibs[p.fib]
		index, ok := s.links.Index(p.fib, key)
		if !ok || !s.forwards(f) {
			continue
		}
		fp := ForwardPort{Device: index, FIB: p.fib}
		fp.Link, fp.Outer, fp.Inner = s.links.Tags(p.fib, key)
		l = append(l, fp)
	}
	slices.SortFunc(l, func(a, b ForwardPort) int { return cmp.Compare(a.Device, b.Device) })
	if slices.Equal(l, s.forwarded) {
		return nil
	}
	err := s.forward.SetPorts(l)
	if s.forwarded = l; err != nil {
		s.forwarded = nil
	}
	return err
}
