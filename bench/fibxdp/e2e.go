//go:build linux && amd64

package main

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"midplane/bench/internal/stat"
)

func (b *bench) dir() string { return b.pins }

// endToEnd sends the same frames through the forwarder and through the kernel: g0 -> r0, routed, r1 -> s0.
func (b *bench) endToEnd(rounds, frames int) error {
	var ours, kernel []float64
	for range rounds {
		n, err := b.throughXDP(frames)
		if err != nil {
			return err
		}
		ours = append(ours, n)
		if n, err = b.throughKernel(frames); err != nil {
			return err
		}
		kernel = append(kernel, n)
	}
	fmt.Printf("\nIPv4 end to end over veth: generator, router and sink on one core, medians of %d rounds of %d packets of 64 octets\n", rounds, frames)
	fmt.Printf("%-40s %9.0f packets/s\n%-40s %9.0f packets/s\n%-40s %8.1fx  goal 2x\n", "midplane", stat.Median(ours), "the kernel's forwarding", stat.Median(kernel), "ratio", stat.Median(ours)/stat.Median(kernel))
	return nil
}

func (b *bench) attach(p *ebpf.Program, index uint32) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: p, Interface: int(index), Flags: link.XDPDriverMode})
}

// generate sends frames and returns how many a second came out, by a counter of what arrives.
func (b *bench) generate(frames int, arrived func() (uint64, error)) (float64, error) {
	before, err := arrived()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	const live = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	if _, err := b.o.Generate4.Run(&ebpf.RunOptions{Data: frame4(b.mac), Repeat: uint32(frames), Flags: live, BatchSize: 64}); err != nil {
		return 0, fmt.Errorf("generator: %w", err)
	}
	took := time.Since(start)
	after, err := arrived()
	if err != nil {
		return 0, err
	}
	for last := before; after != last; { // what is still under way
		last = after
		time.Sleep(10 * time.Millisecond)
		if after, err = arrived(); err != nil {
			return 0, err
		}
		if after != last {
			took = time.Since(start)
		}
	}
	if n := after - before; n < uint64(frames)*9/10 {
		return 0, fmt.Errorf("only %d of %d frames arrived", n, frames)
	}
	return float64(after-before) / took.Seconds(), nil
}

func (b *bench) throughXDP(frames int) (float64, error) {
	s, err := b.attach(b.o.Sink, b.end)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return b.generate(frames, func() (n uint64, err error) {
		var perCPU []uint64
		err = b.o.Seen.Lookup(uint32(0), &perCPU)
		for _, c := range perCPU {
			n += c
		}
		return n, err
	})
}

// throughKernel takes our program off; frames that are redirected into a veth need some program there. The sink has
// none: the kernel would have to copy each packet for it. It drops them as they are for another host.
func (b *bench) throughKernel(frames int) (float64, error) {
	if err := b.f.SetPorts(nil); err != nil {
		return 0, err
	}
	defer b.f.SetPorts(b.ports())
	p, err := b.attach(b.o.Pass, b.in)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return b.generate(frames, func() (uint64, error) {
		l, err := netlink.LinkByIndex(int(b.end))
		if err != nil {
			return 0, err
		}
		return l.Attrs().Statistics.RxPackets, nil
	})
}
