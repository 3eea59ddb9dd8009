package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Validate returns a *FieldError when FIBs cannot be as they are written: alone, with each other, or in any kernel.
func Validate(fibs []FIB) error {
	if len(fibs) > MaxFIBs {
		return &FieldError{"fibs", strconv.Itoa(len(fibs)), fmt.Sprintf("at most %d", MaxFIBs)}
	}
	ids, titles, devices := map[uint32]bool{}, map[string]bool{}, map[string]uint32{}
	ports := 0
	for _, f := range fibs {
		if err := f.validate(); err != nil {
			return err
		}
		if ids[f.ID] {
			return &FieldError{"id", strconv.FormatUint(uint64(f.ID), 10), "a number that no other FIB has"}
		}
		if titles[f.Title()] {
			return &FieldError{"name", f.Title(), "a name that no other FIB has"}
		}
		ids[f.ID], titles[f.Title()] = true, true
		if ports += len(f.Ports); ports > MaxPorts {
			return &FieldError{"ports", strconv.Itoa(ports), fmt.Sprintf("at most %d in all FIBs", MaxPorts)}
		}
		for _, p := range f.Ports {
			if in, twice := devices[p.Title()]; twice {
				return &FieldError{"device", p.Title(), fmt.Sprintf("a device in one FIB, once; it is in FIB %d too", in)}
			}
			devices[p.Title()] = f.ID
		}
	}
	return validateTogether(fibs, devices)
}

// validateTogether checks what names of different kinds must not do to each other.
func validateTogether(fibs []FIB, devices map[string]uint32) error {
	backends := map[uint32]Backend{}
	tags := map[string]string{}
	for _, f := range fibs {
		backends[f.ID] = f.Backend
	}
	for _, f := range fibs {
		if _, taken := devices[f.Title()]; taken && (f.Backend == VRF || f.Backend == Auto) {
			return &FieldError{"name", f.Title(), "another name than that of a port: the VRF device gets it"}
		}
		for _, p := range f.Ports {
			if p.VLAN == 0 {
				continue
			}
			if in, ok := devices[p.Parent]; ok && backends[in] == Netns {
				return &FieldError{"parent", p.Parent, fmt.Sprintf("a device that is not in a namespace; it is a port of FIB %d", in)}
			}
			tag := fmt.Sprintf("%s/%d", p.Parent, p.VLAN)
			if other := tags[tag]; other != "" {
				return &FieldError{"vlan", strconv.Itoa(p.VLAN), fmt.Sprintf("one subinterface a VLAN of %s; %s is it", p.Parent, other)}
			}
			tags[tag] = p.Title()
		}
	}
	return nil
}

func (f FIB) validate() error {
	switch {
	case f.ID == 0 || f.ID >= tableDefault && f.ID <= tableLocal:
		return &FieldError{"id", strconv.FormatUint(uint64(f.ID), 10), "1 to 4294967295, except 253 to 255, which are the kernel's default, main and local"}
	case !slices.Contains([]Backend{Auto, VRF, Rules, Netns}, f.Backend):
		return &FieldError{"backend", string(f.Backend), "vrf, rules, netns, or none for the first of them that works"}
	case len(f.DNS) > MaxDNS:
		return &FieldError{"dns", strconv.Itoa(len(f.DNS)), fmt.Sprintf("at most %d name servers", MaxDNS)}
	}
	if err := validName("name", f.Title()); err != nil {
		return err
	}
	for _, a := range f.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return &FieldError{"dns", a.String(), "an address of a name server"}
		}
	}
	for _, p := range f.Ports {
		if err := p.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (p Port) validate() error {
	if p.VLAN < 0 || p.VLAN > 4094 {
		return &FieldError{"vlan", strconv.Itoa(p.VLAN), "1 to 4094"}
	}
	if (p.VLAN != 0) != (p.Parent != "") {
		return &FieldError{"parent", p.Parent, "a device with a VLAN, none without"}
	}
	if p.Parent != "" {
		if err := validName("parent", p.Parent); err != nil {
			return err
		}
	}
	if err := validName("device", p.Title()); err != nil {
		return err
	}
	if p.Title() == "lo" || p.Parent == "lo" {
		return &FieldError{"device", "lo", "a device that leads somewhere"}
	}
	if p.Title() == p.Parent {
		return &FieldError{"device", p.Device, "another name than that of the parent"}
	}
	if len(p.Addresses) > MaxAddresses {
		return &FieldError{"addresses", strconv.Itoa(len(p.Addresses)), fmt.Sprintf("at most %d", MaxAddresses)}
	}
	seen := map[netip.Addr]bool{}
	for _, a := range p.Addresses {
		if err := validAddress(a); err != nil {
			return err
		}
		if seen[a.Addr()] {
			return &FieldError{"address", a.String(), "an address once a port"}
		}
		seen[a.Addr()] = true
	}
	return nil
}

func validAddress(p netip.Prefix) error {
	a := p.Addr()
	bad := !p.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || p.Bits() == 0
	if bad || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return &FieldError{"address", p.String(), "a unicast address and the length of its network, such as 192.0.2.1/24"}
	}
	return nil
}

// validName is dev_valid_name of net/core/dev.c, and what files and settings of that name need.
func validName(field, n string) error {
	bad := n == "" || len(n) > MaxName || n == "." || n == ".." || n == "all" || n == "default" || strings.ContainsAny(n, "/:%")
	for _, c := range []byte(n) {
		bad = bad || c <= ' ' || c >= 0x7f
	}
	if bad {
		return &FieldError{field, n, fmt.Sprintf("1 to %d printable ASCII characters without space, slash, colon or percent, and not all or default", MaxName)}
	}
	return nil
}
