package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"midplane/fib"
	"midplane/internal/fib/service/spec"
)

// FIBConfig says what FIBs a daemon runs. The zero value, with Enabled, is none but those of the state directory.
type FIBConfig struct {
	Enabled bool
	State   string // state directory; "": DefaultFIBState
	Run     string // directory of the record of the kernel side; "": that which midplane fib exec reads
	NoSync  bool   // do not wait for the disk
	Backend string // of FIBs that do not say one: "auto", "vrf", "rules", "netns" or "none"; "": auto for root, else none
	Forward string // "xdp": packets are forwarded by XDP; "" or "none": by the kernel
	Mode    string // of XDP: "native", "generic" or "auto", which is ""
	BPF     string // where the forwarder is pinned; "": DefaultBPF
	// ImageSize is the memory of the tables, octets: a power of two from 64 KiB to 512 MiB with XDP. 0: 64 MiB with XDP,
	// else fib.DefaultSize. It is taken as it is needed.
	ImageSize int
	Seed      uint64 // of the flow hash: machines one after the other should have different ones (package flowhash)
	Ops       []spec.Op
}

// fibFile is the table [fib] of the configuration file. Its keys are the key words of midplane fib.
type fibFile struct {
	State   string        `toml:"state"`
	Run     string        `toml:"run"`
	Forward string        `toml:"forward"`
	Mode    string        `toml:"mode"`
	BPF     string        `toml:"bpf"`
	Size    int64         `toml:"size"`
	Seed    int64         `toml:"seed"`
	Sync    *bool         `toml:"sync"`
	Backend string        `toml:"backend"`
	Table   []fibTable    `toml:"table"`
	NextHop []fibNextHop  `toml:"nexthop"`
	Port    []fibPort     `toml:"port"`
	Neigh   []fibNeigh    `toml:"neigh"`
	Route   []fibRoute    `toml:"route"`
	Feed    []fibFeedFile `toml:"feed"`
}

type fibTable struct {
	ID      int64    `toml:"id"`
	Name    string   `toml:"name"`
	Backend string   `toml:"backend"`
	DNS     []string `toml:"dns"`
	Forward bool     `toml:"forward"`
	Kernel  string   `toml:"kernel"`
}

type fibPort struct {
	Dev   string   `toml:"dev"`
	FIB   string   `toml:"fib"`
	Link  string   `toml:"link"`
	VLAN  int64    `toml:"vlan"`
	Addr  []string `toml:"addr"`
	NoDAD bool     `toml:"nodad"`
}

type fibHop struct {
	Via    string `toml:"via"`
	Dev    string `toml:"dev"`
	Weight int64  `toml:"weight"`
}

type fibNextHop struct {
	ID    int64  `toml:"id"`
	Type  string `toml:"type"`
	Proto string `toml:"proto"`
	Via   string `toml:"via"`
	Dev   string `toml:"dev"`
	Group []struct {
		ID     int64 `toml:"id"`
		Weight int64 `toml:"weight"`
	} `toml:"group"`
}

type fibNeigh struct {
	FIB     string `toml:"fib"`
	Address string `toml:"address"`
	LLAddr  string `toml:"lladdr"`
	Dev     string `toml:"dev"`
}

type fibRoute struct {
	FIB     string   `toml:"fib"`
	Prefix  string   `toml:"prefix"`
	Type    string   `toml:"type"`
	Proto   string   `toml:"proto"`
	Via     string   `toml:"via"`
	Dev     string   `toml:"dev"`
	NHID    int64    `toml:"nhid"`
	Lookup  string   `toml:"lookup"`
	NextHop []fibHop `toml:"nexthop"`
}

type fibFeedFile struct {
	Name   string            `toml:"name"`
	Kind   string            `toml:"kind"`
	FIB    string            `toml:"fib"`
	Params map[string]string `toml:"params"`
}

// reader turns text into values, and keeps the first error.
type reader struct{ err error }

func (r *reader) fail(field, value, want string) {
	if r.err == nil {
		r.err = &fib.FieldError{Field: field, Value: value, Want: want}
	}
}

func (r *reader) number(field string, n, most int64) uint32 {
	if n < 0 || n > most {
		r.fail(field, fmt.Sprint(n), fmt.Sprint("0 to ", most))
		return 0
	}
	return uint32(n)
}

func (r *reader) addr(field, s string) (a netip.Addr) {
	if s == "" {
		return a
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		r.fail(field, s, "an IPv4 or IPv6 address")
	}
	return a
}

func (r *reader) prefix(field, s string) netip.Prefix {
	if s == "default" {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		r.fail(field, s, "a prefix, such as 192.0.2.0/24")
	}
	return p
}

func (r *reader) hop(via, dev string, weight int64) spec.Hop {
	return spec.Hop{Gateway: r.addr("via", via), Dev: dev, Weight: int(r.number("weight", weight, fib.MaxWeight))}
}

// config turns the file's table into operations, in an order in which each has what it needs.
func (f *fibFile) config() (FIBConfig, error) {
	c := FIBConfig{Enabled: true, State: f.State, Run: f.Run, NoSync: f.Sync != nil && !*f.Sync, Backend: f.Backend, Forward: f.Forward, Mode: f.Mode, BPF: f.BPF, ImageSize: int(f.Size), Seed: uint64(f.Seed)}
	if f.Seed < 0 {
		return c, &fib.FieldError{Field: "fib.seed", Value: fmt.Sprint(f.Seed), Want: "a number from 0"}
	}
	add := func(kind string, i int, op spec.Op, r *reader) error {
		err := r.err
		if err == nil {
			err = op.Check()
		}
		if err != nil {
			return fmt.Errorf("fib.%s %d: %w", kind, i+1, err)
		}
		c.Ops = append(c.Ops, op)
		return nil
	}
	for i, t := range f.Table {
		r := &reader{}
		v := &spec.FIB{ID: fib.ID(r.number("id", t.ID, 1<<32-1)), Name: t.Name, Backend: t.Backend, Forward: t.Forward, Kernel: t.Kernel}
		for _, s := range t.DNS {
			v.DNS = append(v.DNS, r.addr("dns", s))
		}
		if v.ID == 0 {
			r.fail("id", "", "a number: FIBs of the configuration file have a fixed one")
		}
		if err := add("table", i, spec.Op{Do: spec.FIBAdd, NewFIB: v}, r); err != nil {
			return c, err
		}
	}
	for i, p := range f.Port {
		r := &reader{}
		v := &spec.Port{Dev: p.Dev, Parent: p.Link, VLAN: uint16(r.number("vlan", p.VLAN, 4094)), NoDAD: p.NoDAD}
		for _, s := range p.Addr {
			v.Addrs = append(v.Addrs, r.prefix("addr", s))
		}
		if err := add("port", i, spec.Op{Do: spec.PortAdd, FIB: p.FIB, Port: v}, r); err != nil {
			return c, err
		}
	}
	for i, n := range f.NextHop {
		r := &reader{}
		v := &spec.NextHop{ID: r.number("id", n.ID, 1<<32-1), Type: n.Type, Proto: n.Proto}
		if n.Dev != "" || n.Via != "" {
			h := r.hop(n.Via, n.Dev, 0)
			v.Hop = &h
		}
		for _, m := range n.Group {
			v.Group = append(v.Group, spec.GroupMember{ID: r.number("group", m.ID, 1<<32-1), Weight: int(r.number("weight", m.Weight, fib.MaxWeight))})
		}
		if err := add("nexthop", i, spec.Op{Do: spec.NextHopAdd, NextHop: v}, r); err != nil {
			return c, err
		}
	}
	for i, n := range f.Neigh {
		r := &reader{}
		v := &spec.Neigh{Dst: r.addr("address", n.Address), Dev: n.Dev, LLAddr: n.LLAddr}
		if err := add("neigh", i, spec.Op{Do: spec.NeighAdd, FIB: n.FIB, Neigh: v}, r); err != nil {
			return c, err
		}
	}
	for i, t := range f.Route {
		r := &reader{}
		v := &spec.Route{Dst: r.prefix("prefix", t.Prefix), Type: t.Type, Proto: t.Proto, NHID: r.number("nhid", t.NHID, 1<<32-1), Table: t.Lookup}
		if t.Lookup != "" {
			v.Type = spec.Lookup
		}
		if t.Via != "" || t.Dev != "" {
			v.Hops = append(v.Hops, r.hop(t.Via, t.Dev, 0))
		}
		for _, h := range t.NextHop {
			v.Hops = append(v.Hops, r.hop(h.Via, h.Dev, max(h.Weight, 1)))
		}
		if err := add("route", i, spec.Op{Do: spec.RouteAdd, FIB: t.FIB, Route: v}, r); err != nil {
			return c, err
		}
	}
	for i, t := range f.Feed {
		v := &spec.Feed{Name: t.Name, Kind: t.Kind, FIB: t.FIB, Params: t.Params}
		if err := add("feed", i, spec.Op{Do: spec.FeedAdd, Feed: v}, &reader{}); err != nil {
			return c, err
		}
	}
	return c, c.validate()
}

func (c FIBConfig) validate() error {
	if c.Forward != "" && c.Forward != "none" && c.Forward != "xdp" {
		return &fib.FieldError{Field: "fib.forward", Value: c.Forward, Want: "xdp or none"}
	}
	if m := c.Mode; m != "" && m != "auto" && m != "native" && m != "generic" {
		return &fib.FieldError{Field: "fib.mode", Value: m, Want: "auto, native or generic"}
	}
	if c.Forward == "xdp" && c.Backend == spec.None {
		return &fib.FieldError{Field: "fib.forward", Value: c.Forward, Want: "a back end other than none with it: packets that XDP cannot forward go to the kernel"}
	}
	if c.ImageSize < 0 || c.ImageSize > 1<<40 {
		return &fib.FieldError{Field: "fib.size", Value: fmt.Sprint(c.ImageSize), Want: "octets"}
	}
	switch c.Backend {
	case "", "auto", spec.VRF, spec.Rules, spec.Netns, spec.None:
		return nil
	}
	return &fib.FieldError{Field: "fib.backend", Value: c.Backend, Want: "auto, vrf, rules, netns or none"}
}

// DefaultFIBState is the state directory unless configured: /var/lib/midplane/fib for root, else midplane/fib below
// $XDG_STATE_HOME or ~/.local/state.
func DefaultFIBState() (string, error) {
	if os.Getuid() == 0 {
		return "/var/lib/midplane/fib", nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "midplane", "fib"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("state directory of FIBs: %w: choose one with --fib-state", err)
	}
	return filepath.Join(home, ".local", "state", "midplane", "fib"), nil
}
