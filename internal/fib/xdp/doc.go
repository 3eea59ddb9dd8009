// Package xdp forwards packets in XDP by the FIB image that the daemon writes: the program in bpf/ finds the FIB of
// (link, VLAN), looks the destination up in it, and sends the frame on to the neighbour, all before the kernel makes a
// packet of it. What it cannot do goes to the kernel unchanged, and a counter per FIB and [Reason] says why.
//
// A [Forwarder] owns the program's maps. The image is one of them: [Forwarder.Memory] is where the fib package writes.
// All are pinned in a bpffs, so the forwarder keeps running while the daemon restarts: [Open] finds it there, and
// replaces the program in one step.
//
// What the kernel must have: the program hands packets over for whatever needs ICMP (TTL, too big, no route), for local
// delivery, and for the first packet to a neighbour that is missing. The kernel then decides by the routing table that
// it has for the port's FIB, so that table must not lead elsewhere than the FIB: the back ends' unreachable default
// (internal/fib/kernel) sees to it for tables that are not mirrored into the kernel.
//
// VLAN tags must be in the frame: a network card that strips them (ethtool -K DEVICE rxvlan off) hides them from XDP, and
// so does a veth whose peer is the parent of a VLAN device with hardware tagging (ethtool -K PEER txvlan off).
// A frame that is redirected also loses the note that its checksum is still to be computed: a veth whose peer sends such
// frames needs ethtool -K PEER tx off.
package xdp

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64 -type port_key -type port -type device -type neighbour_key -type neighbour -type stat forward bpf/forward.c -- -O2 -Wall -Werror -Wno-parentheses -mcpu=v3 -I/usr/include/x86_64-linux-gnu
