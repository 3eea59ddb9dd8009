package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
	"midplane/internal/sys"
)

// backends are in the order of preference: what gives the same with less comes first.
var backends = []Backend{VRF, Rules, Netns}

// Probe implements API.
func (k *Kernel) Probe() []Probed {
	k.mu.Lock()
	defer k.mu.Unlock()
	var l []Probed
	for _, b := range backends {
		delete(k.probed, b)
		l = append(l, Probed{b, k.works(b)})
	}
	return l
}

// works tries a back end, once. What is lacking is not remembered: it may be one modprobe away.
func (k *Kernel) works(b Backend) error {
	if err, known := k.probed[b]; known {
		return err
	}
	err := map[Backend]func() error{VRF: probeVRF, Rules: probeRules, Netns: k.probeNetns}[b]()
	if err == nil {
		k.probed[b] = nil
	}
	return err
}

func unsupported(feature, kernel string, err error) error {
	return &sys.UnsupportedError{Feature: feature, MinKernel: kernel, Err: err}
}

// inNew runs f in a new network namespace, which ends with it.
func inNew(f func(s *space) error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return unsupported("making network namespaces (CONFIG_NET_NS, CAP_SYS_ADMIN)", "3.0", err)
		}
		rt, err := dial(nil)
		if err != nil {
			return err
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			rt.close()
			return err
		}
		s := &space{rt: rt, h: h}
		defer s.close()
		return f(s)
	})
}

func probeVRF() error {
	return inNew(func(s *space) error {
		err := s.h.LinkAdd(&netlink.Vrf{LinkAttrs: attrs("probe"), Table: 1})
		if err != nil {
			return unsupported("a VRF device (CONFIG_NET_VRF)", "4.8", err)
		}
		return nil
	})
}

func probeRules() error {
	return inNew(func(s *space) error {
		for _, r := range []plan.Rule{{Priority: 1, Table: math.MaxUint32, Iif: "probe"}, {Priority: 1, Table: 1, Mark: 1, Mask: math.MaxUint32}} {
			r.Protocol = ProtocolSetup
			b, err := encodeRule(plan.IPv4, r)
			if err != nil {
				return err
			}
			if err := s.rt.do(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b); err != nil {
				return unsupported("a policy rule (CONFIG_IP_MULTIPLE_TABLES)", "4.17", err)
			}
		}
		lo, err := s.h.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := s.setMark(lo, 1); err != nil {
			return unsupported("a classifier that marks packets (CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS, CAP_BPF)", "4.5", err)
		}
		return nil
	})
}

// probeName is no name of a FIB: it is too long for one.
const probeName = "midplane-probe-of-namespaces"

func (k *Kernel) probeNetns() error {
	name := fmt.Sprintf("%s-%d", probeName, unix.Getpid())
	err := k.addSpace(name)
	if err == nil {
		f, oerr := openSpace(k.spacePath(name))
		if err = oerr; err == nil {
			_ = f.Close()
		}
	}
	if derr := k.delSpace(name); err == nil {
		err = derr
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) || isAny(err, unix.EINVAL, unix.ENOSYS) {
		return unsupported("a named network namespace (CONFIG_NET_NS, CAP_SYS_ADMIN)", "3.8", err)
	}
	return err
}
