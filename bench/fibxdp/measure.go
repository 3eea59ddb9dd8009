//go:build linux && amd64

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"midplane/bench/internal/stat"
	"midplane/fib"
	"midplane/internal/fib/image"
	"midplane/internal/fib/xdp"
)

const (
	fibID     = 10
	gateways  = 500
	mainTable = 254
)

type bench struct {
	f        *xdp.Forwarder
	o        benchObjects
	in, out  uint32 // the router's links r0 and r1
	mac      []byte // of r0
	v4, v6   []netip.Prefix
	hops     []int // next hop of each prefix, IPv4's first
	gen, end uint32
	pins     string
	set      *fib.Set
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func batch(lines []string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w\n%s", err, out)
	}
	return nil
}

func gateway4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(1 + i/200), byte(1 + i%200)})
}
func gateway6(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:18::1:%x", i+1)) }
func gatewayMAC(i int) [6]byte  { return [6]byte{2, 0, 0, 18, byte(i >> 8), byte(i)} }

func measure(rounds, repeat, frames int, only string) error {
	b := &bench{}
	var err error
	if b.v4, b.v6, err = prefixes(); err != nil {
		return err
	}
	fmt.Printf("%d IPv4 and %d IPv6 prefixes, %d next hops, %d destinations, each in a prefix drawn uniformly\n", len(b.v4), len(b.v6), gateways, nKeys)
	if err := b.network(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fibxdp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.pins = dir + "/pins"
	defer xdp.Remove(b.pins)
	if b.f, err = xdp.Open(xdp.Config{Dir: b.pins, Image: 64 << 20, Mode: xdp.Native}); err != nil {
		return err
	}
	defer b.f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for range len(b.v4) + len(b.v6) {
		b.hops = append(b.hops, r.IntN(gateways))
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"our image", b.image}, {"programs", b.load}, {"the kernel's table", b.kernel}, {"LPM_TRIE", b.tries},
	} {
		start := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Printf("  %s: %.1f s\n", step.what, time.Since(start).Seconds())
	}
	defer b.o.Close()
	if err := b.keys(r); err != nil {
		return err
	}
	if only != "e2e" {
		if err := b.lookups(rounds, repeat); err != nil {
			return err
		}
	}
	if only != "lookup" {
		return b.endToEnd(rounds, frames)
	}
	return nil
}

// network makes generator g0 - r0, and r1 - s0 sink.
func (b *bench) network() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0); err != nil {
		return err
	}
	_ = run("sysctl", "-w", "net.ipv4.neigh.default.gc_thresh3=16384", "net.ipv6.neigh.default.gc_thresh3=16384", "net.ipv6.route.max_size=2000000")
	lines := []string{"link set lo up", "link add r0 type veth peer name g0", "link add r1 type veth peer name s0"}
	for _, l := range []string{"g0", "r0", "r1", "s0"} {
		lines = append(lines, "link set "+l+" addrgenmode none up")
	}
	lines = append(lines, "addr add 198.19.0.1/24 dev r0", "addr add fd00:19::1/64 dev r0 nodad", "addr add 198.18.0.1/16 dev r1", "addr add fd00:18::1/64 dev r1 nodad")
	for i := range gateways {
		m := gatewayMAC(i)
		mac := net.HardwareAddr(m[:]).String()
		lines = append(lines, fmt.Sprintf("neigh add %s lladdr %s dev r1 nud permanent", gateway4(i), mac), fmt.Sprintf("neigh add %s lladdr %s dev r1 nud permanent", gateway6(i), mac))
	}
	if err := batch(lines); err != nil {
		return err
	}
	for name, index := range map[string]*uint32{"r0": &b.in, "r1": &b.out, "g0": &b.gen, "s0": &b.end} {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		*index = uint32(i.Index)
		if name == "r0" {
			b.mac = i.HardwareAddr
		}
	}
	return nil
}

func (b *bench) image() error {
	var err error
	if b.set, err = fib.New(&fib.Config{Memory: b.f.Memory(), MaxFIBs: 1024}); err != nil {
		return err
	}
	t, err := b.set.Create(fibID, "bench")
	if err != nil {
		return err
	}
	ids := make([]fib.NextHopID, 2*gateways)
	for i := range gateways {
		for f, gw := range []netip.Addr{gateway4(i), gateway6(i)} {
			if ids[f*gateways+i], err = b.set.AddNextHop(fib.NextHop{Type: fib.Unicast, Gateway: gw, Device: b.out}); err != nil {
				return err
			}
		}
	}
	err = t.Replace(func(yield func(fib.Route) bool) {
		for i, p := range slices.Concat(b.v4, b.v6) {
			hop := b.hops[i]
			if p.Addr().Is6() {
				hop += gateways
			}
			if !yield(fib.Route{Prefix: p, NextHop: ids[hop]}) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return b.f.SetPorts(b.ports())
}

func (b *bench) ports() []xdp.Port {
	return []xdp.Port{{Device: b.in, FIB: fibID}, {Device: b.out, FIB: fibID}}
}

// descriptor finds the FIB in the image.
func (b *bench) descriptor() uint32 {
	mem := b.f.Memory()
	at := image.Lo(mem[image.HeaderFIBs])
	for mem[at+image.DescID] != image.Pair(fibID, image.DescInUse) {
		at += image.DescWords
	}
	return at
}

func (b *bench) load() error {
	spec, err := loadBench()
	if err != nil {
		return err
	}
	opts := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	for _, name := range []string{"image", "ports", "devices", "links", "neighbours", "stats", "asked", "misses", "generation"} {
		m, err := ebpf.LoadPinnedMap(b.dir()+"/"+name, nil)
		if err != nil {
			return err
		}
		opts.MapReplacements[name] = m
		spec.Maps[name].ValueSize, spec.Maps[name].MaxEntries = m.ValueSize(), m.MaxEntries()
	}
	mac := append(slices.Clone(b.mac), 0, 0)
	for name, v := range map[string]any{
		"image_mask": uint64(len(b.f.Memory())*8 - 8), "ask_again": uint64(time.Second), "in_index": b.in, "out_index": b.gen, "fib_desc": b.descriptor(),
		"table": uint32(mainTable), "router_mac": binary.LittleEndian.Uint64(mac),
	} {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := spec.LoadAndAssign(&b.o, opts); err != nil {
		return fmt.Errorf("%+v", err)
	}
	for _, i := range []uint32{b.in, b.out} {
		if err := b.o.ByIndex.Put(i, i); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) kernel() error {
	h, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for i, p := range slices.Concat(b.v4, b.v6) {
		gw := gateway4(b.hops[i])
		if p.Addr().Is6() {
			gw = gateway6(b.hops[i])
		}
		r := netlink.Route{
			LinkIndex: int(b.out), Gw: gw.AsSlice(), Protocol: syscall.RTPROT_STATIC,
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		}
		if err := h.RouteAdd(&r); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (b *bench) tries() error {
	var k4 []benchLpm4
	var k6 []benchLpm6
	var n4, n6 []uint32
	for i, p := range b.v4 {
		k4, n4 = append(k4, benchLpm4{Bits: uint32(p.Bits()), Addr: p.Addr().As4()}), append(n4, uint32(b.hops[i]))
	}
	for i, p := range b.v6 {
		k6, n6 = append(k6, benchLpm6{Bits: uint32(p.Bits()), Addr: p.Addr().As16()}), append(n6, uint32(b.hops[len(b.v4)+i]))
	}
	if _, err := b.o.Trie4.BatchUpdate(k4, n4, nil); err != nil {
		return err
	}
	if _, err := b.o.Trie6.BatchUpdate(k6, n6, nil); err != nil {
		return err
	}
	for i := range gateways {
		if err := b.o.Vias.Put(uint32(i), benchVia{Dmac: gatewayMAC(i), Smac: [6]byte(b.mac), Slot: b.out}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) keys(r *rand.Rand) error {
	index := make([]uint32, nKeys)
	k4, k6 := make([]benchKey4, nKeys), make([]benchKey6, nKeys)
	header := frame4(b.mac)[14:34]
	for i := range index {
		index[i] = uint32(i)
		a := within(r, b.v4[r.IntN(len(b.v4))]).As4()
		copy(header[16:], a[:])
		header[10], header[11] = 0, 0
		var c [2]byte
		binary.BigEndian.PutUint16(c[:], checksum(header))
		k4[i] = benchKey4{Addr: binary.LittleEndian.Uint32(a[:]), Check: binary.LittleEndian.Uint16(c[:])}
		d := within(r, b.v6[r.IntN(len(b.v6))]).As16()
		k6[i] = benchKey6{Hi: binary.LittleEndian.Uint64(d[:8]), Lo: binary.LittleEndian.Uint64(d[8:])}
	}
	if _, err := b.o.Keys4.BatchUpdate(index, k4, nil); err != nil {
		return err
	}
	_, err := b.o.Keys6.BatchUpdate(index, k6, nil)
	return err
}

type contest struct {
	title string
	base  *ebpf.Program
	progs []entry
	frame []byte
}

type entry struct {
	name string
	p    *ebpf.Program
	want uint32 // what it returns
	goal float64
}

func (b *bench) lookups(rounds, repeat int) error {
	o := &b.o
	const drop, redirect = 1, 4
	for _, c := range []contest{
		{"IPv4, lookup alone (address to next hop)", o.Base4, []entry{
			{"midplane", o.LookupOurs4, drop, 0}, {"bpf_fib_lookup", o.LookupKernel4, drop, 8}, {"bpf_fib_lookup, table given", o.LookupKernelDirect4, drop, 8},
			{"bpf_fib_lookup and neighbour", o.LookupKernelNeighbour4, drop, 8}, {"LPM_TRIE", o.LookupTrie4, drop, 15}}, frame4(b.mac)},
		{"IPv4, forwarding (frame ready for the next link)", o.Base4, []entry{
			{"midplane", o.ForwardOurs4, redirect, 0}, {"bpf_fib_lookup", o.ForwardKernel4, redirect, 8}, {"LPM_TRIE", o.ForwardTrie4, redirect, 15}}, frame4(b.mac)},
		{"IPv6, lookup alone", o.Base6, []entry{
			{"midplane", o.LookupOurs6, drop, 0}, {"bpf_fib_lookup", o.LookupKernel6, drop, 0}, {"bpf_fib_lookup, table given", o.LookupKernelDirect6, drop, 0},
			{"bpf_fib_lookup and neighbour", o.LookupKernelNeighbour6, drop, 0}, {"LPM_TRIE", o.LookupTrie6, drop, 0}}, frame6(b.mac)},
		{"IPv6, forwarding", o.Base6, []entry{
			{"midplane", o.ForwardOurs6, redirect, 0}, {"bpf_fib_lookup", o.ForwardKernel6, redirect, 0}, {"LPM_TRIE", o.ForwardTrie6, redirect, 0}}, frame6(b.mac)},
	} {
		if err := b.contest(c, rounds, repeat); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
	}
	return nil
}

func (b *bench) contest(c contest, rounds, repeat int) error {
	all := append([]entry{{"empty program", b.o.Empty, 1, 0}, {"program that only takes the next key", c.base, 1, 0}}, c.progs...)
	times := make([][]float64, len(all))
	for round := range rounds + 1 {
		for i, e := range all {
			if err := b.o.Hits.Set(uint64(0)); err != nil {
				return err
			}
			ret, d, err := e.p.Benchmark(c.frame, repeat, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			var hits uint64
			if err := b.o.Hits.Get(&hits); err != nil {
				return err
			}
			if ret != e.want || (i > 1 && e.want == 1 && hits < uint64(repeat)*99/100) {
				return fmt.Errorf("%s: returned %d, %d of %d found: it does not do its work", e.name, ret, hits, repeat)
			}
			if round > 0 { // the first warms up
				times[i] = append(times[i], float64(d.Nanoseconds()))
			}
		}
	}
	fmt.Printf("\n%s, medians of %d rounds of %d packets\n%-40s %9s %16s %16s %9s %9s\n", c.title, rounds, repeat, "", "ns", "net of empty", "net of key", "ratio", "ratio")
	ours := stat.Median(times[2])
	for i, e := range all {
		m := stat.Median(times[i])
		fmt.Printf("%-40s %9.0f", e.name, m)
		if i > 1 {
			fmt.Printf(" %16.0f %16.0f", m-stat.Median(times[0]), m-stat.Median(times[1]))
		}
		if i > 2 {
			fmt.Printf(" %8.1fx %8.1fx", (m-stat.Median(times[0]))/(ours-stat.Median(times[0])), (m-stat.Median(times[1]))/(ours-stat.Median(times[1])))
			if e.goal > 0 {
				fmt.Printf("  goal %.0fx", e.goal)
			}
		}
		fmt.Println()
	}
	return nil
}
