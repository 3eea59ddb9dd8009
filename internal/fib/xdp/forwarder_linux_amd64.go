package xdp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
)

// slack is what the image's map has behind the image; see bpf/image.h.
const slack = 64<<10 + 4096

// Forwarder is the program and its maps. Methods are safe for concurrent use. It belongs to the network namespace of
// the thread that opened it, and SetPorts must be called in that namespace too.
type Forwarder struct {
	cfg  Config
	objs forwardObjects
	mem  []byte // the mapped image

	mu         sync.Mutex
	links      map[uint32]link.Link // by the link's index
	ports      map[uint32]Port      // by Device
	slots      map[uint32]uint16    // in the map of devices, by Device
	stats      map[uint32]uint32    // index of counters, by FIB
	generation uint64
	waiting    bool // Config.Fresh: the links still run the old program
	watch      *watch
	handle     *netlink.Handle
	asker      *asker
	closed     bool
}

// Open makes a forwarder, or takes over the one that is pinned below cfg.Dir: its ports, neighbours, counters and image
// are as they were, and the links run this program from then on, without a packet lost. Errors: *FieldError;
// *sys.UnsupportedError for what the kernel lacks; one that says so when the sizes of the pinned one are others.
func Open(cfg Config) (_ *Forwarder, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	if err := Probe(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift RLIMIT_MEMLOCK: %w", err)
	}
	fresh := false
	if cfg.Dir != "" {
		if fresh, err = prepareDir(cfg.Dir); err != nil {
			return nil, err
		}
	}
	f := &Forwarder{cfg: cfg, links: map[uint32]link.Link{}, ports: map[uint32]Port{}, slots: map[uint32]uint16{}, stats: map[uint32]uint32{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			if fresh {
				err = errors.Join(err, Remove(cfg.Dir))
			}
		}
	}()
	if err := f.load(); err != nil {
		return nil, err
	}
	if f.handle, err = netlink.NewHandle(syscall.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if f.watch, err = newWatch(); err != nil {
		return nil, err
	}
	if f.asker, err = newAsker(); err != nil {
		return nil, err
	}
	f.mem, err = syscall.Mmap(f.objs.Image.FD(), 0, cfg.Image+slack, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the image: %w", err)
	}
	if err := f.objs.Generation.Lookup(uint32(0), &f.generation); err != nil {
		return nil, err
	}
	if err := f.changed(); err != nil { // never 0, which unused memory has
		return nil, err
	}
	if cfg.Dir != "" {
		if err := f.adopt(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// load loads the program with this configuration's constants and the pinned maps.
func (f *Forwarder) load() error {
	spec, err := loadForward()
	if err != nil {
		return err
	}
	c := f.cfg
	spec.Maps[forwardMapImage].ValueSize = uint32(c.Image + slack)
	for _, m := range []string{forwardMapPorts, forwardMapDevices, forwardMapLinks} {
		spec.Maps[m].MaxEntries = uint32(c.Ports)
	}
	spec.Maps[forwardMapNeighbours].MaxEntries = uint32(c.Neighbours)
	spec.Maps[forwardMapStats].MaxEntries = uint32(c.FIBs) + 1
	drops := uint32(0)
	if c.MissDrops {
		drops = 1
	}
	for v, value := range map[string]any{
		forwardVarImageMask: uint64(c.Image - 8), forwardVarHashSeed: c.Seed, forwardVarAskAgain: uint64(c.AskAgain), forwardVarMissDrops: drops,
	} {
		if err := spec.Variables[v].Set(value); err != nil {
			return fmt.Errorf("constant %s: %w", v, err)
		}
	}
	opts := &ebpf.CollectionOptions{}
	if c.Dir != "" {
		opts.Maps.PinPath = c.Dir
		for _, m := range []string{
			forwardMapImage, forwardMapPorts, forwardMapDevices, forwardMapLinks, forwardMapNeighbours, forwardMapStats, forwardMapAsked, forwardMapMisses, forwardMapGeneration,
		} {
			if !c.Fresh || (m != forwardMapImage && m != forwardMapPorts) {
				spec.Maps[m].Pinning = ebpf.PinByName
			}
		}
	}
	err = spec.LoadAndAssign(&f.objs, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return fmt.Errorf("the forwarder that is pinned in %s has other sizes; remove it first: %w", c.Dir, err)
	}
	if err != nil {
		return fmt.Errorf("load the XDP program: %w", err)
	}
	return nil
}

// adopt finds what a forwarder before this one left running.
func (f *Forwarder) adopt() error {
	paths, err := filepath.Glob(filepath.Join(f.cfg.Dir, linkPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		l, index, err := openLink(path)
		if err != nil {
			return err
		}
		if index == 0 { // its interface is gone
			if err := errors.Join(l.Unpin(), l.Close()); err != nil {
				return err
			}
			continue
		}
		f.links[index] = l
		if f.cfg.Fresh {
			continue
		}
		if err := l.Update(f.objs.MidplaneForward); err != nil {
			return fmt.Errorf("replace the program of %s: %w", path, err)
		}
	}
	ports := f.objs.Ports
	if f.cfg.Fresh {
		f.waiting = true
		ports, err = ebpf.LoadPinnedMap(filepath.Join(f.cfg.Dir, forwardMapPorts), nil)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer ports.Close()
	}
	var key forwardPortKey
	var value forwardPort
	for it := ports.Iterate(); ; {
		if !it.Next(&key, &value) {
			return it.Err()
		}
		var d forwardDevice
		if err := f.objs.Devices.Lookup(uint32(value.Slot), &d); err != nil {
			return err
		}
		f.ports[d.Ifindex] = Port{Device: d.Ifindex, Link: key.Ifindex, Outer: Tag(key.Outer), Inner: Tag(key.Inner), FIB: value.Fib}
		f.slots[d.Ifindex] = value.Slot
		f.stats[value.Fib] = value.Stat
	}
}

// openLink loads a pinned link; index is 0 when its interface is gone.
func openLink(path string) (l link.Link, index uint32, err error) {
	l, err = link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	if x := info.XDP(); x != nil {
		index = x.Ifindex
	}
	return l, index, nil
}

// switchOver ends the time of two programs: each link runs the new one, and the pins are those of the new image.
func (f *Forwarder) switchOver() error {
	for index, l := range f.links {
		if err := l.Update(f.objs.MidplaneForward); err != nil {
			return fmt.Errorf("replace the program of interface %d: %w", index, err)
		}
	}
	for name, m := range map[string]*ebpf.Map{forwardMapImage: f.objs.Image, forwardMapPorts: f.objs.Ports} {
		path := filepath.Join(f.cfg.Dir, name)
		if err := os.Remove(path + nextSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := errors.Join(m.Pin(path+nextSuffix), os.Rename(path+nextSuffix, path)); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	f.waiting = false
	return nil
}

// Memory returns the image: what is stored in it the next packet sees. It is zero when the forwarder is new. It belongs
// to the Forwarder and is unmapped by Close.
func (f *Forwarder) Memory() []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(f.mem))), f.cfg.Image/8)
}

// Close lets go of the forwarder. If it is pinned it goes on forwarding; else it ends.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var errs []error
	for _, l := range f.links {
		errs = append(errs, l.Close())
	}
	if f.watch != nil {
		errs = append(errs, f.watch.close())
	}
	if f.asker != nil {
		errs = append(errs, f.asker.close())
	}
	if f.handle != nil {
		f.handle.Close()
	}
	if f.mem != nil {
		errs = append(errs, syscall.Munmap(f.mem))
	}
	if f.objs.Image != nil {
		errs = append(errs, f.objs.Close())
	}
	return errors.Join(errs...)
}

// Remove ends the forwarder that is pinned in dir: it detaches its links and removes all that Open made. A daemon that
// has it open must Close it. It is no error when there is none.
func Remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if isLink(e.Name()) {
			l, index, err := openLink(path)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if index != 0 {
				errs = append(errs, l.Detach())
			}
			errs = append(errs, l.Unpin(), l.Close())
		} else if isMap(e.Name()) {
			errs = append(errs, os.Remove(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return releaseDir(dir)
}
