package kernel

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

// What comes in by a port of back end rules is marked with its FIB, so that what the kernel answers by itself (SYN-ACK,
// RST, echo reply, ICMP errors) is looked up in the FIB. The mark is set by a classifier of one instruction, behind which
// others on the port come as before.

// classifierName begins the name of ours; the mark follows.
const classifierName = "midplane-fib-"

const (
	classifierPriority = 1
	offsetMark         = 8  // of mark in struct __sk_buff
	actUnspec          = -1 // TC_ACT_UNSPEC: the next classifier decides
)

func loadClassifier(mark uint32) (*ebpf.Program, error) {
	_ = rlimit.RemoveMemlock() // needed before 5.11; what lacks then shows in the load
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "midplane_fib", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{
			asm.LoadImm(asm.R2, int64(mark), asm.DWord),
			asm.StoreMem(asm.R1, offsetMark, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, actUnspec),
			asm.Return(),
		},
	})
}

func (s *space) setMark(l netlink.Link, mark uint32) error {
	p, err := loadClassifier(mark)
	if err != nil {
		return fmt.Errorf("load the classifier: %w", err)
	}
	defer p.Close()
	q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := s.h.QdiscAdd(q); err != nil && !isAny(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	return s.h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: classifierPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: p.FD(), Name: fmt.Sprintf("%s%d", classifierName, mark), DirectAction: true,
	})
}

// clearMark removes our classifier, and clsact too if that is wanted and nobody else uses it.
func (s *space) clearMark(l netlink.Link, clsact bool) error {
	own, others, err := s.classifiers(l)
	if err != nil {
		return err
	}
	for _, f := range own {
		if err := s.h.FilterDel(f); err != nil && !isAny(err, unix.ENOENT, unix.EINVAL) {
			return err
		}
	}
	if !clsact || others > 0 {
		return nil
	}
	q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := s.h.QdiscDel(q); err != nil && !isAny(err, unix.ENOENT, unix.EINVAL) {
		return err
	}
	return nil
}

func (s *space) classifiers(l netlink.Link) (own []*netlink.BpfFilter, others int, err error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := retry(func() ([]netlink.Filter, error) { return s.h.FilterList(l, parent) })
		if err != nil {
			return nil, 0, err
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && markOf(b.Name) != 0 && parent == netlink.HANDLE_MIN_INGRESS {
				own = append(own, b)
			} else {
				others++
			}
		}
	}
	return own, others, nil
}

func markOf(name string) uint32 {
	var mark uint32
	if n, err := fmt.Sscanf(name, classifierName+"%d", &mark); n != 1 || err != nil {
		return 0
	}
	return mark
}

// marks finds clsact and our classifiers.
func (s *space) marks(links map[string]plan.Link, names map[int]string) error {
	qdiscs, err := retry(func() ([]netlink.Qdisc, error) { return s.h.QdiscList(nil) })
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Type() != "clsact" {
			continue
		}
		index := q.Attrs().LinkIndex
		l := links[names[index]]
		l.Clsact = true
		device := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}} // only its index is used
		own, _, err := s.classifiers(device)
		if err != nil && !isAny(err, unix.ENODEV, unix.EINVAL) {
			return err
		}
		for _, f := range own {
			l.Mark = markOf(f.Name)
		}
		links[names[index]] = l
	}
	return nil
}
