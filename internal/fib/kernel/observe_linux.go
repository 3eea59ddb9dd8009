package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/plan"
)

// observe looks at what is there.
func (k *Kernel) observe(n plan.Needs) (*plan.Kernel, error) {
	o := &plan.Kernel{Spaces: map[string]map[string]plan.Link{}, Settings: map[plan.Path]string{}, Through: map[string][][]byte{}}
	home, err := k.space("")
	if err != nil {
		return nil, err
	}
	names, err := home.links(&o.Links, true)
	if err != nil {
		return nil, err
	}
	if o.Rules, err = home.rt.rules(); err != nil {
		return nil, err
	}
	if o.Routes, err = home.rt.setupRoutes(func(i int) string { return names[i] }); err != nil {
		return nil, err
	}
	index := map[string]int{}
	for i, n := range names {
		index[n] = i
	}
	for _, d := range n.Devices {
		if index[d] == 0 {
			continue
		}
		if o.Through[d], _, err = home.rt.through(index[d]); err != nil {
			return nil, err
		}
	}
	for _, name := range n.Spaces {
		s, err := k.space(name)
		if errors.Is(err, fs.ErrNotExist) {
			// A crash between the file and the namespace that it holds leaves the file, which is to be finished or removed.
			if _, err := os.Lstat(k.spacePath(name)); err == nil {
				o.Spaces[name] = map[string]plan.Link{}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		var links map[string]plan.Link
		if _, err := s.links(&links, false); err != nil {
			return nil, err
		}
		o.Spaces[name] = links
	}
	paths := n.Settings
	for _, pattern := range n.Patterns {
		err := home.in(func() error {
			files, err := filepath.Glob(filepath.Join(procSys, pattern))
			for _, f := range files {
				paths = append(paths, plan.Path{Name: strings.TrimPrefix(f, procSys+"/")})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return o, k.settings(paths, o)
}

const procSys = "/proc/sys"

// settings reads settings. One that is not there, or that this namespace does not have, is left out.
func (k *Kernel) settings(paths []plan.Path, o *plan.Kernel) error {
	bySpace := map[string][]string{}
	for _, p := range paths {
		bySpace[p.Space] = append(bySpace[p.Space], p.Name)
	}
	for name, l := range bySpace {
		if name != "" && len(o.Spaces[name]) == 0 {
			continue
		}
		s, err := k.space(name)
		if err != nil {
			return err
		}
		err = s.in(func() error {
			for _, p := range l {
				b, err := os.ReadFile(filepath.Join(procSys, p))
				if isAny(err, unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP) { // addr_gen_mode of devices without IPv6, for one
					continue
				}
				if err != nil {
					return err
				}
				o.Settings[plan.Path{Space: name, Name: p}] = strings.TrimSpace(string(b))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// retry does a dump of package netlink again when it was interrupted by changes.
func retry[T any](f func() ([]T, error)) ([]T, error) {
	var l []T
	var err error
	for range dumpTries {
		if l, err = f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return l, err
}

// links looks at all devices of a namespace, and at classifiers if asked to. It returns their names by index.
func (s *space) links(to *map[string]plan.Link, classifiers bool) (map[int]string, error) {
	links, err := retry(s.h.LinkList)
	if err != nil {
		return nil, err
	}
	addresses, err := s.rt.addresses()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	*to = map[string]plan.Link{}
	for _, l := range links {
		a := l.Attrs()
		p := plan.Link{Kind: l.Type(), Up: a.RawFlags&unix.IFF_UP != 0, Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0, Master: names[a.MasterIndex], Alias: a.Alias, Group: a.Group}
		switch l := l.(type) {
		case *netlink.Vrf:
			p.Table = l.Table
		case *netlink.Vlan:
			p.VLAN = l.VlanId
			if a.NetNsID < 0 {
				p.Parent = names[a.ParentIndex]
			}
		}
		for _, addr := range addresses[a.Index] {
			if addr.Label == a.Name {
				addr.Label = ""
			}
			p.Addresses = append(p.Addresses, addr)
		}
		(*to)[a.Name] = p
	}
	if classifiers {
		err = s.marks(*to, names)
	}
	return names, err
}
