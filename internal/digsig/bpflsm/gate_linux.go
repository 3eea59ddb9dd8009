package bpflsm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// DefaultPins is where the maps and links of the machine's gate are pinned.
const DefaultPins = "/sys/fs/bpf/midplane-digsig"

// Config says where a gate is. The zero value is the machine's.
type Config struct {
	Pins   string // directory in a bpffs, whose parent exists; default DefaultPins
	Grants int    // room for so many; default 65536. It is that of the first Attach until Remove
}

func (c Config) withDefaults() Config {
	if c.Pins == "" {
		c.Pins = DefaultPins
	}
	return c
}

// Gate is the pinned programs and their maps. Methods are safe for concurrent use; those that change something block
// each other. The gate goes on when the Gate is closed.
type Gate struct {
	pins string
	maps lsmMaps
	mu   sync.Mutex // of who changes grants, policy and generation
}

// Attach makes the gate, or replaces the programs of the one that there is: its maps stay, and at every moment at least
// one set of programs decides. A gate that is new does nothing until SetPolicy. The calling process is a manager from
// then on. Errors: *sys.UnsupportedError for what the kernel lacks; those of the file system; one that says so when the
// pinned maps are of another version.
func Attach(c Config) (_ *Gate, err error) {
	c = c.withDefaults()
	if err := Probe(); err != nil {
		return nil, err
	}
	if err := needBPFFS(filepath.Dir(c.Pins)); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("bpflsm: lift RLIMIT_MEMLOCK: %w", err)
	}
	mapDir := filepath.Join(c.Pins, "maps")
	if err := os.MkdirAll(mapDir, 0o700); err != nil {
		return nil, fmt.Errorf("bpflsm: %w", err)
	}
	old, err := linkDirs(c.Pins)
	if err != nil {
		return nil, err
	}
	coll, err := load(mapDir, c.Grants)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	g := &Gate{pins: c.Pins}
	if err := coll.Assign(&g.maps); err != nil {
		return nil, fmt.Errorf("bpflsm: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	next := 1
	if len(old) > 0 {
		next = old[len(old)-1] + 1
	}
	dir := linkDir(c.Pins, next)
	if err := attachAll(coll.Programs, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := g.note(mapDir, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for _, n := range old {
		if err := os.RemoveAll(linkDir(c.Pins, n)); err != nil {
			return nil, fmt.Errorf("bpflsm: the programs of before, which still decide beside the new ones: %w", err)
		}
	}
	return g, nil
}

// load loads the programs onto the maps that are pinned, or onto new ones that are then.
func load(mapDir string, grants int) (*ebpf.Collection, error) {
	spec, err := loadLsm()
	if err != nil {
		return nil, fmt.Errorf("bpflsm: %w", err)
	}
	for name, m := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			m.Pinning = ebpf.PinByName
		}
	}
	if grants > 0 {
		spec.Maps[lsmMapAllowed].MaxEntries = uint32(grants)
	}
	if info, err := pinnedSize(filepath.Join(mapDir, lsmMapAllowed)); err == nil {
		spec.Maps[lsmMapAllowed].MaxEntries = info
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: mapDir}})
	switch {
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return nil, fmt.Errorf("bpflsm: the maps in %s are of another version of this program; remove the gate with that one: %w", mapDir, err)
	case err != nil:
		return nil, fmt.Errorf("bpflsm: load: %w", err)
	}
	return coll, nil
}

func pinnedSize(path string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	return m.MaxEntries(), nil
}

// attachAll attaches each program and pins its link. The order is that of the names: nothing depends on it, as without
// a policy none of them does anything.
func attachAll(programs map[string]*ebpf.Program, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("bpflsm: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		l, err := link.AttachLSM(link.LSMOptions{Program: programs[name]})
		if err != nil {
			return fmt.Errorf("bpflsm: attach %s: %w", name, err)
		}
		err = l.Pin(filepath.Join(dir, name))
		if err := errors.Join(err, l.Close()); err != nil {
			return fmt.Errorf("bpflsm: pin %s: %w", name, err)
		}
	}
	return nil
}

func linkDir(pins string, n int) string { return filepath.Join(pins, "links-"+strconv.Itoa(n)) }

// linkDirs returns the numbers of the directories with links, in order.
func linkDirs(pins string) ([]int, error) {
	entries, err := os.ReadDir(pins)
	if err != nil {
		return nil, fmt.Errorf("bpflsm: %w", err)
	}
	var all []int
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), "links-"); ok {
			if n, err := strconv.Atoi(s); err == nil {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// note tells the programs what they guard, and that this process may change it.
func (g *Gate) note(dirs ...string) error {
	for _, m := range []*ebpf.Map{
		g.maps.Allowed, g.maps.Counters, g.maps.Events, g.maps.Guarded, g.maps.Local, g.maps.Lost, g.maps.Overlays, g.maps.Pins, g.maps.Policy, g.maps.Tasks, g.maps.Verdicts,
	} {
		info, err := m.Info()
		if err != nil {
			return fmt.Errorf("bpflsm: %w", err)
		}
		id, ok := info.ID()
		if !ok {
			return errors.New("bpflsm: the kernel gives maps no number")
		}
		if err := g.maps.Guarded.Put(uint32(id), uint32(1)); err != nil {
			return fmt.Errorf("bpflsm: guard a map: %w", err)
		}
	}
	for _, magic := range local {
		if err := g.maps.Local.Put(magic, uint32(1)); err != nil {
			return fmt.Errorf("bpflsm: %w", err)
		}
	}
	var dev uint64
	for _, dir := range append(dirs, g.pins) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return fmt.Errorf("bpflsm: %s: %w", dir, err)
		}
		dev = st.Dev
		if err := g.maps.Pins.Put(st.Ino, uint32(1)); err != nil {
			return fmt.Errorf("bpflsm: guard %s: %w", dir, err)
		}
	}
	err := g.change(func(s *lsmSettings) { s.PinsDev = unix.Major(dev)<<20 | unix.Minor(dev) })
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("bpflsm: pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	if err := g.maps.Tasks.Put(int32(pidfd), lsmTask{Manager: 1}); err != nil {
		return fmt.Errorf("bpflsm: make this process a manager: %w", err)
	}
	return nil
}

// Open opens the gate that there is, without changing its programs. Where it is guarded, only a manager can. The error
// is ErrNotAttached when there is none.
func Open(c Config) (_ *Gate, err error) {
	c = c.withDefaults()
	dirs, err := linkDirs(c.Pins)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(dirs) == 0 {
		return nil, fmt.Errorf("%w under %s", ErrNotAttached, c.Pins)
	}
	if err != nil {
		return nil, err
	}
	g := &Gate{pins: c.Pins}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	for name, m := range map[string]**ebpf.Map{
		lsmMapAllowed: &g.maps.Allowed, lsmMapCounters: &g.maps.Counters, lsmMapEvents: &g.maps.Events, lsmMapGuarded: &g.maps.Guarded,
		lsmMapLocal: &g.maps.Local, lsmMapLost: &g.maps.Lost, lsmMapOverlays: &g.maps.Overlays, lsmMapPins: &g.maps.Pins, lsmMapPolicy: &g.maps.Policy, lsmMapTasks: &g.maps.Tasks, lsmMapVerdicts: &g.maps.Verdicts,
	} {
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(c.Pins, "maps", name), nil); err != nil {
			return nil, fmt.Errorf("bpflsm: %s: %w", name, err)
		}
	}
	return g, nil
}

// Close lets go of the gate, which goes on.
func (g *Gate) Close() error { return g.maps.Close() }

// Remove ends the gate: its policy first, then its programs and maps. Nothing remains.
func (g *Gate) Remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.change(func(s *lsmSettings) { s.Mode, s.Flags = 0, 0 }); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(g.pins), g.Close())
}
