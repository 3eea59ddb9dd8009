package service

import (
	"net"
	"sync"
	"time"

	"midplane/fib"
)

// HostLinks are the devices of this process's network namespace, for all FIBs. It asks the system again when it does not
// know a name, once in a while.
type HostLinks struct {
	mu     sync.Mutex
	read   time.Time
	byName map[string]uint32
	names  map[uint32]string
}

// NewHostLinks returns them.
func NewHostLinks() *HostLinks { return &HostLinks{} }

// linksAge is how long a list of devices is believed when a name is not in it.
const linksAge = 2 * time.Millisecond

// Index implements Links.
func (l *HostLinks) Index(_ fib.ID, device string) (uint32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.byName[device]; ok {
		return i, true
	}
	l.refresh(false)
	i, ok := l.byName[device]
	return i, ok
}

// Name implements Links.
func (l *HostLinks) Name(_ fib.ID, index uint32) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.names[index]; ok {
		return n
	}
	l.refresh(false)
	return l.names[index]
}

// Refresh reads the list again.
func (l *HostLinks) Refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh(true)
}

func (l *HostLinks) refresh(now bool) {
	if !now && time.Since(l.read) < linksAge {
		return
	}
	all, err := net.Interfaces()
	l.read = time.Now()
	if err != nil {
		return
	}
	l.byName, l.names = make(map[string]uint32, len(all)), make(map[uint32]string, len(all))
	for _, i := range all {
		l.byName[i.Name], l.names[uint32(i.Index)] = uint32(i.Index), i.Name
	}
}
