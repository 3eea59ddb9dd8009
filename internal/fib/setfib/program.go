package setfib

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// rule is what the cgroup of a FIB enforces on sockets.
type rule struct {
	device uint32                  // what each socket is bound to; 0: nothing
	mark   uint32                  // what each socket is marked with; 0: nothing
	ports  []uint32                // if not nil, the only devices that packets come from and go to
	addrs  map[string][]netip.Addr // if not nil, which addresses a socket may be bound to, by the port that it is bound to then
	order  []string                // keys of addrs, in order
}

// program is one BPF program of a cgroup.
type program struct {
	name   string // the kernel's for it; up to 15 octets
	kind   ebpf.ProgramType
	attach ebpf.AttachType
	code   asm.Instructions
}

// attachments are the places where programs of this package can be.
var attachments = []ebpf.AttachType{
	ebpf.AttachCGroupInetSockCreate, ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress, ebpf.AttachCGroupInet4Bind, ebpf.AttachCGroupInet6Bind,
}

// namePrefix begins the names of this package's programs.
const namePrefix = "mpfib_"

// Offsets in the contexts of programs, from linux/bpf.h.
const (
	sockDevice   = 0  // struct bpf_sock: bound_dev_if
	sockProtocol = 12 // protocol
	sockMark     = 16 // mark

	skbMark   = 8  // struct __sk_buff: mark
	skbDevice = 40 // ifindex

	addrIP4  = 4  // struct bpf_sock_addr: user_ip4, in network order
	addrIP6  = 8  // user_ip6, four words in network order
	addrPort = 24 // user_port, in network order
)

const (
	ipprotoMPTCP   = 262
	solSocket      = 1
	soBindToDevice = 25
	eAddrNotAvail  = 99
	loopback       = 1 // ifindex of lo in every network namespace (net/core/dev.c: LOOPBACK_IFINDEX)
)

// programs returns what enforces a rule. With setsErrno a refused bind fails with EADDRNOTAVAIL (bpf_set_retval, Linux
// 5.18), else with EPERM.
func programs(r rule, setsErrno bool) []program {
	all := []program{{namePrefix + "sock", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, sockCreate(r)}}
	if r.ports != nil {
		all = append(all, program{namePrefix + "out", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, filter(r, false)})
	}
	if r.ports != nil && r.mark != 0 {
		all = append(all, program{namePrefix + "in", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, filter(r, true)})
	}
	if r.addrs != nil {
		all = append(all,
			program{namePrefix + "bind4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Bind, bind4(r, setsErrno)},
			program{namePrefix + "bind6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Bind, bind6(r, setsErrno)})
	}
	return all
}

// sockCreate binds and marks each new socket. Multipath TCP is refused: its further subflows are sockets of the kernel,
// for which the program does not run (net/ipv4/af_inet.c, inet_create: if (!kern)).
func sockCreate(r rule) asm.Instructions {
	c := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, sockProtocol, asm.Word),
		asm.JEq.Imm(asm.R2, ipprotoMPTCP, "deny"),
	}
	for _, f := range []struct {
		offset int16
		value  uint32
	}{{sockDevice, r.device}, {sockMark, r.mark}} {
		if f.value != 0 {
			c = append(c, asm.Mov.Imm32(asm.R2, int32(f.value)), asm.StoreMem(asm.R1, f.offset, asm.R2, asm.Word))
		}
	}
	c = append(c, verdict("allow", 1)...)
	return append(c, verdict("deny", 0)...)
}

// filter lets packets pass that come from, or go to, a port of the FIB, or are of the FIB's own sockets over loopback:
// those have its mark. It holds for sockets that are not bound, for programs that may change the mark, and for datagrams
// that name another device (IP_PKTINFO, which does not heed what the socket is bound to: net/ipv4/udp.c, udp_sendmsg).
func filter(r rule, ingress bool) asm.Instructions {
	c := asm.Instructions{asm.LoadMem(asm.R2, asm.R1, skbDevice, asm.Word)}
	for _, p := range r.ports {
		c = append(c, asm.JEq.Imm(asm.R2, int32(p), "allow"))
	}
	if ingress {
		c = append(c,
			asm.JNE.Imm(asm.R2, loopback, "deny"),
			asm.LoadMem(asm.R2, asm.R1, skbMark, asm.Word),
			asm.JEq.Imm32(asm.R2, int32(r.mark), "allow"))
	} else {
		c = append(c, asm.JEq.Imm(asm.R2, loopback, "allow"))
	}
	c = append(c, verdict("deny", 0)...)
	return append(c, verdict("allow", 1)...)
}

// bind4 decides about bind(2) to an IPv4 address, in a FIB with several ports. An address of a port binds the socket to
// the port, so that what it accepts is the port's; with port number 0 it is allowed only, as clients need. All
// addresses at once are for clients only.
func bind4(r rule, setsErrno bool) asm.Instructions {
	c := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, addrPort, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, addrIP4, asm.Word),
	}
	c = append(c, choose4(r)...)
	return append(c, bindEnd(r, setsErrno)...)
}

// choose4 jumps by the IPv4 address in R2 and the number in R7.
func choose4(r rule) asm.Instructions {
	c := asm.Instructions{
		asm.JNE.Imm(asm.R2, 0, "specific").WithSymbol("ipv4"),
		asm.JEq.Imm(asm.R7, 0, "allow"),
		asm.Ja.Label("deny"),
		asm.Mov.Reg(asm.R3, asm.R2).WithSymbol("specific"),
		asm.And.Imm(asm.R3, word([]byte{0xff, 0, 0, 0})),
		asm.JEq.Imm32(asm.R3, word([]byte{127, 0, 0, 0}), "allow"), // loopback
		asm.And.Imm(asm.R3, word([]byte{0xf0, 0, 0, 0})),
		asm.JEq.Imm32(asm.R3, word([]byte{0xe0, 0, 0, 0}), "allow"), // multicast: the filters keep others out
	}
	for _, port := range r.order {
		for _, a := range r.addrs[port] {
			if a.Is4() {
				b := a.As4()
				c = append(c, asm.JEq.Imm32(asm.R2, word(b[:]), "port_"+port))
			}
		}
	}
	return append(c, asm.Ja.Label("deny"))
}

// bind6 is bind4 for IPv6 addresses, and for IPv4 ones in IPv6.
func bind6(r rule, setsErrno bool) asm.Instructions {
	c := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, addrPort, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, addrIP6, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, addrIP6+4, asm.Word),
		asm.LoadMem(asm.R4, asm.R6, addrIP6+8, asm.Word),
		asm.LoadMem(asm.R5, asm.R6, addrIP6+12, asm.Word),
	}
	skip := func(next string, want ...int32) { // goes to next unless R2… are want
		for i, w := range want {
			c = append(c, asm.JNE.Imm32(asm.R2+asm.Register(i), w, next))
		}
	}
	begin := func(symbol string) { c = append(c, asm.Mov.Reg(asm.R0, asm.R2).WithSymbol(symbol)) }
	skip("mapped", 0, 0, 0, 0)
	c = append(c, asm.JEq.Imm(asm.R7, 0, "allow"), asm.Ja.Label("deny"))
	begin("mapped")
	skip("loop6", 0, 0, word([]byte{0, 0, 0xff, 0xff}))
	c = append(c, asm.Mov.Reg(asm.R2, asm.R5), asm.Ja.Label("ipv4"))
	begin("loop6")
	skip("link6", 0, 0, 0, word([]byte{0, 0, 0, 1}))
	c = append(c, asm.Ja.Label("allow"))
	begin("link6") // fe80::/10 goes with a device (sin6_scope_id), ff00::/8 is multicast; the filters keep others out
	c = append(c,
		asm.And.Imm(asm.R0, word([]byte{0xff, 0xc0, 0, 0})),
		asm.JEq.Imm32(asm.R0, word([]byte{0xfe, 0x80, 0, 0}), "allow"),
		asm.And.Imm(asm.R0, word([]byte{0xff, 0, 0, 0})),
		asm.JEq.Imm32(asm.R0, word([]byte{0xff, 0, 0, 0}), "allow"))
	n := 0
	for _, port := range r.order {
		for _, a := range r.addrs[port] {
			if !a.Is6() || a.IsLinkLocalUnicast() {
				continue
			}
			b := a.As16()
			next := "next" + strconv.Itoa(n)
			n++
			skip(next, word(b[0:]), word(b[4:]), word(b[8:]), word(b[12:]))
			c = append(c, asm.Ja.Label("port_"+port))
			begin(next)
		}
	}
	c = append(c, asm.Ja.Label("deny"))
	c = append(c, choose4(r)...)
	return append(c, bindEnd(r, setsErrno)...)
}

// bindEnd is the end of both: to bind the socket at R6 to a port unless the number in R7 is 0, and the verdicts.
func bindEnd(r rule, setsErrno bool) asm.Instructions {
	var c asm.Instructions
	for _, port := range r.order {
		var name [16]byte // IFNAMSIZ
		copy(name[:15], port)
		c = append(c,
			asm.JEq.Imm(asm.R7, 0, "allow").WithSymbol("port_"+port),
			asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[:8])), asm.DWord),
			asm.StoreMem(asm.RFP, -16, asm.R2, asm.DWord),
			asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[8:])), asm.DWord),
			asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, solSocket),
			asm.Mov.Imm(asm.R3, soBindToDevice),
			asm.Mov.Reg(asm.R4, asm.RFP),
			asm.Add.Imm(asm.R4, -16),
			asm.Mov.Imm(asm.R5, int32(len(name))),
			asm.FnSetsockopt.Call(),
			asm.JSLT.Imm(asm.R0, 0, "deny"),
			asm.Ja.Label("allow"))
	}
	if setsErrno {
		c = append(c, asm.Mov.Imm(asm.R1, -eAddrNotAvail).WithSymbol("deny"), asm.FnSetRetval.Call())
		c = append(c, verdict("", 0)...)
	} else {
		c = append(c, verdict("deny", 0)...)
	}
	return append(c, verdict("allow", 1)...)
}

// verdict ends a program: 1 allows, 0 denies.
func verdict(symbol string, value int32) asm.Instructions {
	first := asm.Mov.Imm(asm.R0, value)
	if symbol != "" {
		first = first.WithSymbol(symbol)
	}
	return asm.Instructions{first, asm.Return()}
}

// word is how a program sees four octets in network order.
func word(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }
