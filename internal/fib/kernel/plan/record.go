package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Record is what is kept over a crash: what was found and has to come back, and what was made and does not say so
// itself. Rules and routes say it by their protocol. It is written before anything of it is done.
type Record struct {
	FIBs     []FIB             `json:"fibs,omitempty"`     // what shall be
	Leaving  []FIB             `json:"leaving,omitempty"`  // what was, and may still be in part
	Links    map[string]uint32 `json:"links,omitempty"`    // devices that were made, and for which FIB
	Spaces   []string          `json:"spaces,omitempty"`   // namespaces that were made
	Parked   map[string]Parked `json:"parked,omitempty"`   // ports as they were, by device
	Settings map[string]string `json:"settings,omitempty"` // of home, below /proc/sys, as they were
	// Asked are addresses that were asked for, by device: they go when they are not asked for any more, even if others stay.
	Asked map[string][]netip.Prefix `json:"asked,omitempty"`
}

// Validate returns a *FieldError for a record that Make cannot have made: names in it become names of files.
func (r Record) Validate() error {
	if err := Validate(r.FIBs); err != nil {
		return err
	}
	for _, s := range r.Spaces {
		if err := validName("spaces", s); err != nil {
			return err
		}
	}
	for d := range r.Links {
		if err := validName("links", d); err != nil {
			return err
		}
	}
	for d := range r.Parked {
		if err := validName("parked", d); err != nil {
			return err
		}
	}
	for p := range r.Settings {
		if !strings.HasPrefix(p, "net/") || strings.Contains(p, "..") {
			return &FieldError{"settings", p, "a setting below net"}
		}
	}
	return nil
}

func (r Record) clone() Record {
	return Record{
		slices.Clone(r.FIBs), slices.Clone(r.Leaving), clone(r.Links), slices.Clone(r.Spaces), clone(r.Parked), clone(r.Settings), clone(r.Asked),
	}
}

// clone never returns nil, so that the copy can be added to.
func clone[K comparable, V any](m map[K]V) map[K]V {
	c := maps.Clone(m)
	if c == nil {
		c = map[K]V{}
	}
	return c
}

// Parked is a device as it was before it became a port.
type Parked struct {
	Up        bool      `json:"up,omitempty"`
	Addresses []Address `json:"addresses,omitempty"` // except those of the IPv6 link and those with a lifetime
	Routes    [][]byte  `json:"routes,omitempty"`    // that other programs have set through it: bodies of RTM_NEWROUTE
	Clsact    bool      `json:"clsact,omitempty"`
	Group     uint32    `json:"group,omitempty"`
	Parent    bool      `json:"parent,omitempty"` // it is no port; a VLAN needed it up
}

// Empty says that nothing is left to do or to bring back.
func (r Record) Empty() bool {
	return len(r.FIBs) == 0 && len(r.Leaving) == 0 && len(r.Links) == 0 && len(r.Spaces) == 0 && len(r.Parked) == 0 && len(r.Settings) == 0
}
