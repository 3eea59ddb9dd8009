package setfib

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
	"pgregory.net/rapid"
)

// machine runs the instructions that programs of this package have, on a context. It knows nothing else.
type machine struct {
	t       rapid.TB
	context []byte
	stack   [512]byte
	reg     [11]uint64
	device  string // what bpf_setsockopt bound the socket to
	errno   int32  // of bpf_set_retval
}

// Where the machine has the context and the stack.
const (
	contextBase = 1 << 32
	stackTop    = 2<<32 + 512
)

func (m *machine) memory(at uint64) []byte {
	if at >= stackTop-512 && at < stackTop {
		return m.stack[at-(stackTop-512):]
	}
	if at < contextBase || at >= contextBase+uint64(len(m.context)) {
		m.t.Fatalf("access to %#x", at)
	}
	return m.context[at-contextBase:]
}

func (m *machine) run(code asm.Instructions) uint64 {
	symbols := map[string]int{}
	for i, in := range code {
		if s := in.Symbol(); s != "" {
			symbols[s] = i
		}
	}
	m.reg[asm.R1], m.reg[asm.RFP] = contextBase, stackTop
	e := binary.NativeEndian
	for pc := 0; ; pc++ {
		in := code[pc]
		dst, imm := &m.reg[in.Dst], uint64(in.Constant)
		src := imm
		if in.OpCode.Source() == asm.RegSource {
			src = m.reg[in.Src]
		}
		jump := func(yes bool) {
			if !yes {
				return
			}
			to, ok := symbols[in.Reference()]
			if !ok || to <= pc { // no loops
				m.t.Fatalf("%d: jump to %q", pc, in.Reference())
			}
			pc = to - 1
		}
		switch class := in.OpCode.Class(); {
		case in.OpCode.IsDWordLoad():
			*dst = imm
		case class == asm.LdXClass:
			*dst = uint64(e.Uint32(m.memory(m.reg[in.Src] + uint64(in.Offset))))
		case class == asm.StXClass && in.OpCode.Size() == asm.DWord:
			e.PutUint64(m.memory(*dst+uint64(in.Offset)), m.reg[in.Src])
		case class == asm.StXClass:
			e.PutUint32(m.memory(*dst+uint64(in.Offset)), uint32(m.reg[in.Src]))
		case class == asm.ALU64Class && in.OpCode.ALUOp() == asm.Mov:
			*dst = src
		case class == asm.ALUClass && in.OpCode.ALUOp() == asm.Mov:
			*dst = uint64(uint32(src))
		case class == asm.ALU64Class && in.OpCode.ALUOp() == asm.And:
			*dst &= src
		case class == asm.ALU64Class && in.OpCode.ALUOp() == asm.Add:
			*dst += src
		case in.OpCode.JumpOp() == asm.Call:
			m.call(asm.BuiltinFunc(in.Constant))
		case in.OpCode.JumpOp() == asm.Exit:
			return m.reg[asm.R0]
		case in.OpCode.JumpOp() == asm.Ja:
			jump(true)
		case class == asm.Jump32Class && in.OpCode.JumpOp() == asm.JEq:
			jump(uint32(*dst) == uint32(src))
		case class == asm.Jump32Class && in.OpCode.JumpOp() == asm.JNE:
			jump(uint32(*dst) != uint32(src))
		case in.OpCode.JumpOp() == asm.JEq:
			jump(*dst == src)
		case in.OpCode.JumpOp() == asm.JNE:
			jump(*dst != src)
		case in.OpCode.JumpOp() == asm.JSLT:
			jump(int64(*dst) < int64(src))
		default:
			m.t.Fatalf("%d: %v is not known", pc, in)
		}
	}
}

func (m *machine) call(f asm.BuiltinFunc) {
	switch f {
	case asm.FnSetsockopt:
		name := m.memory(m.reg[asm.R4])[:m.reg[asm.R5]]
		if m.reg[asm.R1] != contextBase || m.reg[asm.R2] != solSocket || m.reg[asm.R3] != soBindToDevice || len(name) != 16 {
			m.t.Fatalf("bpf_setsockopt(%v)", m.reg[1:6])
		}
		m.device = string(name[:slices.Index(name, 0)])
	case asm.FnSetRetval:
		m.errno = int32(m.reg[asm.R1])
	default:
		m.t.Fatalf("call of %v", f)
	}
	m.reg[asm.R0] = 0
	for r := asm.R1; r <= asm.R5; r++ {
		m.reg[r] = 0xdead // lost over a call
	}
}

// mayBind says in plain words what bind4 and bind6 decide.
func mayBind(r rule, a netip.Addr, number uint16) (device string, ok bool) {
	a = a.Unmap()
	if a.IsUnspecified() {
		return "", number == 0
	}
	if a.IsLoopback() || a.IsMulticast() || (a.Is6() && a.IsLinkLocalUnicast()) {
		return "", true
	}
	for port, l := range r.addrs {
		if slices.Contains(l, a) {
			if number == 0 {
				return "", true
			}
			return port, true
		}
	}
	return "", false
}

var anyAddr = rapid.Custom(func(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "known") {
		return netip.MustParseAddr(rapid.SampledFrom([]string{
			"0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1", "::2", "224.0.0.1", "239.255.255.255", "240.0.0.1", "223.255.255.255", "255.255.255.255", "128.0.0.1",
			"::ffff:0.0.0.0", "::ffff:127.0.0.1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "::fffe:1.2.3.4", "0:0:0:1::", "::1:0:0", "::198.51.100.1",
		}).Draw(t, "address"))
	}
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "octets")
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		a, _ := netip.AddrFromSlice(b[:4])
		return a
	case 1:
		a, _ := netip.AddrFromSlice(b[:4])
		return netip.AddrFrom16(a.As16())
	}
	return netip.AddrFrom16([16]byte(b))
})

func TestBindProgramsDecideAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rule{addrs: map[string][]netip.Addr{}}
		taken := map[netip.Addr]bool{}
		for i := range rapid.IntRange(1, 3).Draw(t, "ports") {
			port := fmt.Sprintf("eth%d.%d", i, 100*i)
			for _, a := range rapid.SliceOfN(anyAddr, 1, 4).Draw(t, port) {
				// A port has addresses that a host can have, and each only once here.
				if a = a.Unmap(); !taken[a] && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsLoopback() {
					taken[a] = true
					r.addrs[port] = append(r.addrs[port], a)
				}
			}
			if len(r.addrs[port]) > 0 {
				r.order = append(r.order, port)
			}
		}
		a := anyAddr.Draw(t, "bind to")
		if all := slices.Concat(r.addrs["eth0.0"], r.addrs["eth1.100"], r.addrs["eth2.200"]); len(all) > 0 && rapid.Bool().Draw(t, "own") {
			a = rapid.SampledFrom(all).Draw(t, "bind to own")
		}
		number := rapid.SampledFrom([]uint16{0, 1, 80, 256, 65535}).Draw(t, "number")
		setsErrno := rapid.Bool().Draw(t, "setsErrno")

		m := &machine{t: t, context: make([]byte, 72)}
		binary.BigEndian.PutUint16(m.context[addrPort:], number)
		code := bind6(r, setsErrno)
		if a.Is4() {
			b := a.As4()
			copy(m.context[addrIP4:], b[:])
			code = bind4(r, setsErrno)
		} else {
			b := a.As16()
			copy(m.context[addrIP6:], b[:])
		}
		got := m.run(code)
		device, ok := mayBind(r, a, number)
		if (got == 1) != ok || got > 1 || m.device != device {
			t.Fatalf("bind to %v:%d: %d at %q, want %v at %q", a, number, got, m.device, ok, device)
		}
		if wantErrno := !ok && setsErrno; (m.errno == -eAddrNotAvail) != wantErrno {
			t.Fatalf("bind to %v:%d: %d and error %d", a, number, got, m.errno)
		}
	})
}

func TestSockCreateBindsAndMarks(t *testing.T) {
	for _, r := range []rule{{device: 7}, {device: 7, mark: 10}, {mark: 0xffffff01}, {}} {
		for protocol, want := range map[uint32]uint64{0: 1, 6: 1, 17: 1, ipprotoMPTCP: 0} {
			m := &machine{t: t, context: make([]byte, 80)}
			binary.NativeEndian.PutUint32(m.context[sockProtocol:], protocol)
			if got := m.run(sockCreate(r)); got != want {
				t.Errorf("%+v, protocol %d: %d", r, protocol, got)
			}
			device, mark := binary.NativeEndian.Uint32(m.context[sockDevice:]), binary.NativeEndian.Uint32(m.context[sockMark:])
			if want == 1 && (device != r.device || mark != r.mark) {
				t.Errorf("%+v: bound to %d, marked %d", r, device, mark)
			}
		}
	}
}

func TestFilterKeepsToThePorts(t *testing.T) {
	r := rule{mark: 0xfffffff0, ports: []uint32{3, 4}}
	for _, c := range []struct {
		device, mark uint32
		in, out      uint64
	}{
		{3, 0, 1, 1}, {4, 99, 1, 1}, {5, 0, 0, 0}, {5, 0xfffffff0, 0, 0}, {2, 0xfffffff0, 0, 0},
		{loopback, 0xfffffff0, 1, 1}, {loopback, 0, 0, 1}, {loopback, 0xf0, 0, 1},
	} {
		for i, want := range []uint64{c.in, c.out} {
			m := &machine{t: t, context: make([]byte, 192)}
			binary.NativeEndian.PutUint32(m.context[skbDevice:], c.device)
			binary.NativeEndian.PutUint32(m.context[skbMark:], c.mark)
			if got := m.run(filter(r, i == 0)); got != want {
				t.Errorf("device %d, mark %#x, ingress %v: %d, want %d", c.device, c.mark, i == 0, got, want)
			}
		}
	}
}

func TestProgramsAreThoseOfTheRule(t *testing.T) {
	for _, c := range []struct {
		r    rule
		want int
	}{{rule{device: 1}, 1}, {rule{device: 1, ports: []uint32{1, 2}}, 2}, {rule{mark: 1, ports: []uint32{2}}, 3}, {rule{mark: 1, ports: []uint32{2, 3}, addrs: map[string][]netip.Addr{}}, 5}} {
		l := programs(c.r, true)
		if len(l) != c.want {
			t.Errorf("%+v: %d programs, want %d", c.r, len(l), c.want)
		}
		for _, p := range l {
			if !slices.Contains(attachments, p.attach) || len(p.name) > 15 {
				t.Errorf("program %s at %v", p.name, p.attach)
			}
		}
	}
}
