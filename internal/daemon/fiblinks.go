package daemon

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"midplane/fib"
)

// fibLinks are the devices of the host's namespace and of those that FIBs are. It lists a namespace's devices when it does
// not know a name, and when it was told that something changed.
type fibLinks struct {
	list func(netns string) ([]device, error) // "" is the host's

	mu     sync.Mutex
	spaces map[fib.ID]string
	known  map[string]*devices
}

type device struct {
	name  string
	index uint32
	addrs []netip.Prefix

	link uint32 // of a VLAN: the device that carries it
	tag  uint16
}

type devices struct {
	read  time.Time
	index map[string]uint32
	name  map[uint32]string
	all   map[uint32]device
}

// linksAge is how long a list is believed when a name is not in it: a burst of questions is one listing.
const linksAge = 2 * time.Millisecond

func newFIBLinks() *fibLinks {
	return &fibLinks{list: listDevices, spaces: map[fib.ID]string{}, known: map[string]*devices{}}
}

// setSpaces says which FIBs are namespaces, by file.
func (l *fibLinks) setSpaces(spaces map[fib.ID]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !maps.Equal(spaces, l.spaces) {
		l.spaces = spaces
	}
	clear(l.known)
}

// forget makes the next question list again.
func (l *fibLinks) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.known)
}

// of returns the devices of a FIB's namespace; fresh when has is false for what is known.
func (l *fibLinks) of(id fib.ID, has func(*devices) bool) *devices {
	space := l.spaces[id]
	d := l.known[space]
	if d != nil && (has(d) || time.Since(d.read) < linksAge) {
		return d
	}
	d = &devices{read: time.Now(), index: map[string]uint32{}, name: map[uint32]string{}, all: map[uint32]device{}}
	all, _ := l.list(space) // a namespace that cannot be looked into has no devices, for now
	for _, dev := range all {
		d.index[dev.name], d.name[dev.index], d.all[dev.index] = dev.index, dev.name, dev
	}
	l.known[space] = d
	return d
}

// Index implements service.Links.
func (l *fibLinks) Index(id fib.ID, device string) (uint32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(id, func(d *devices) bool { return d.index[device] != 0 })
	i, ok := d.index[device]
	return i, ok
}

// Name implements service.Links.
func (l *fibLinks) Name(id fib.ID, index uint32) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(id, func(d *devices) bool { return d.name[index] != "" })
	return d.name[index]
}

// Addrs implements service.Links.
func (l *fibLinks) Addrs(id fib.ID, device string) []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(id, func(d *devices) bool { return d.index[device] != 0 })
	return d.all[d.index[device]].addrs
}

// Tags implements service.Links.
func (l *fibLinks) Tags(id fib.ID, device string) (link uint32, outer, inner uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(id, func(d *devices) bool { return d.index[device] != 0 })
	dev := d.all[d.index[device]]
	if dev.link == 0 {
		return 0, 0, 0
	}
	if below := d.all[dev.link]; below.link != 0 {
		return below.link, below.tag, dev.tag
	}
	return dev.link, dev.tag, 0
}
