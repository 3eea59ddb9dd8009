package setfib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
)

// maxAddresses bounds what a bind program compares with, by the length of a jump (15 bits; an IPv6 address takes five
// instructions).
const maxAddresses = 4096

// ruleFor reads from the devices what the cgroup of a FIB enforces.
func ruleFor(b binding.Binding, port string) (rule, error) {
	title := enter.Title(b)
	if b.Backend == binding.VRF {
		i, err := net.InterfaceByName(b.Device)
		if err != nil {
			return rule{}, fmt.Errorf("fib %s: its device %s is not in this network namespace: %w", title, b.Device, err)
		}
		r := rule{device: uint32(i.Index), ports: []uint32{uint32(i.Index)}}
		for _, name := range b.Ports {
			if p, err := net.InterfaceByName(name); err == nil { // one that is not there now is not in the VRF either
				r.ports = append(r.ports, uint32(p.Index))
			}
		}
		return r, nil
	}
	switch {
	case len(b.Ports) == 0:
		return rule{}, &enter.PortError{FIB: title, Port: port, Want: "a FIB with a port; give it one with: midplane fib port add"}
	case port != "" && !slices.Contains(b.Ports, port):
		return rule{}, &enter.PortError{FIB: title, Port: port, Want: fmt.Sprintf("one of %q", b.Ports)}
	case port == "" && len(b.Ports) == 1:
		port = b.Ports[0]
	}
	r := rule{mark: b.Mark, ports: []uint32{}}
	addrs := map[string][]netip.Addr{}
	count := 0
	for _, name := range b.Ports {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return rule{}, fmt.Errorf("fib %s: its port %s is not in this network namespace: %w", title, name, err)
		}
		if name == port {
			r.device = uint32(i.Index)
		}
		r.ports = append(r.ports, uint32(i.Index))
		l, err := i.Addrs()
		if err != nil {
			return rule{}, fmt.Errorf("fib %s: addresses of %s: %w", title, name, err)
		}
		for _, n := range l {
			p, err := netip.ParsePrefix(n.String())
			if err != nil || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			addrs[name] = append(addrs[name], p.Addr())
			count++
		}
		if len(addrs[name]) > 0 {
			slices.SortFunc(addrs[name], netip.Addr.Compare)
			r.order = append(r.order, name)
		}
	}
	if port != "" {
		r.order = nil
		return r, nil
	}
	if count > maxAddresses {
		return rule{}, fmt.Errorf("fib %s: its ports have %d addresses; programs run with up to %d, or bound to one port", title, count, maxAddresses)
	}
	r.addrs = addrs
	return r, nil
}

// enforce makes the programs of a rule the only ones of this package that are attached to a group. Those of others stay.
// A program that is there already with the same instructions is not touched.
func enforce(dir *os.File, r rule) error {
	// Two that start programs in a FIB at once do this in turn.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { _ = unix.Flock(int(dir.Fd()), unix.LOCK_UN) }()
	wanted := programs(r, true)
	for _, at := range attachments {
		want := slices.DeleteFunc(slices.Clone(wanted), func(p program) bool { return p.attach != at }) // one or none
		if err := enforceAt(dir, at, want, r); err != nil {
			return err
		}
	}
	return nil
}

func enforceAt(dir *os.File, at ebpf.AttachType, want []program, r rule) error {
	present, err := attached(dir, at)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range present {
			_ = p.program.Close()
		}
	}()
	if len(want) == 0 && len(present) == 0 || len(want) == 1 && len(present) == 1 && present[0].is(want[0], r) {
		return nil
	}
	var loaded *ebpf.Program
	if len(want) == 1 {
		if loaded, err = load(want[0], r); err != nil {
			return fmt.Errorf("load BPF program %s: %w", want[0].name, err)
		}
		defer loaded.Close()
	}
	// The first is replaced, which leaves no moment without; others are superfluous.
	for _, old := range present {
		if loaded != nil {
			err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: loaded, Attach: at, Flags: unix.BPF_F_ALLOW_MULTI, Anchor: link.ReplaceProgram(old.program)})
			loaded = nil
		} else {
			err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: old.program, Attach: at})
		}
		if err != nil {
			return err
		}
	}
	if loaded == nil {
		return nil
	}
	// With BPF_F_ALLOW_MULTI the programs of groups above and below this one run as well (systemd's, for instance).
	return link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: loaded, Attach: at, Flags: unix.BPF_F_ALLOW_MULTI})
}

func load(p program, r rule) (*ebpf.Program, error) {
	var before unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before) == nil && rlimit.RemoveMemlock() == nil { // needed before Linux 5.11
		// The limit is the caller's, and would be that of the program which he runs.
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before) }()
	}
	spec := &ebpf.ProgramSpec{Name: p.name, Type: p.kind, AttachType: p.attach, Instructions: p.code, License: "MIT"}
	l, err := ebpf.NewProgram(spec)
	if err == nil || r.addrs == nil || errors.Is(err, unix.EPERM) {
		return l, err
	}
	for _, old := range programs(r, false) { // before Linux 5.18
		if old.attach == p.attach {
			spec.Instructions = old.code
		}
	}
	return ebpf.NewProgram(spec)
}

// byteOrder is this machine's, for package asm, which does not know binary.NativeEndian.
var byteOrder = func() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}()

// attachment is a program of this package in a group.
type attachment struct {
	program *ebpf.Program
	tag     string // the kernel's hash of its instructions, constants among them
}

// is says whether the program is what would be attached: as written for the newest kernels, or for older ones.
func (a attachment) is(want program, r rule) bool {
	for _, p := range append([]program{want}, programs(r, false)...) {
		if p.attach != want.attach {
			continue
		}
		if err := p.code.Marshal(io.Discard, byteOrder); err != nil { // which turns names of jumps into distances
			return false
		}
		if same, err := p.code.HasTag(a.tag, byteOrder); err == nil && same {
			return true
		}
	}
	return false
}

// attached opens the programs of this package that are attached to a group.
func attached(dir *os.File, at ebpf.AttachType) ([]attachment, error) {
	q, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: at})
	if err != nil {
		return nil, fmt.Errorf("cgroup programs: %w", err)
	}
	var l []attachment
	for _, a := range q.Programs {
		p, err := ebpf.NewProgramFromID(a.ID)
		if err != nil {
			continue // it went meanwhile
		}
		if i, err := p.Info(); err == nil && strings.HasPrefix(i.Name, namePrefix) {
			l = append(l, attachment{p, i.Tag})
		} else {
			_ = p.Close()
		}
	}
	return l, nil
}
