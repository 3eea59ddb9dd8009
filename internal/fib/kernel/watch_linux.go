package kernel

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"midplane/internal/fib/kernel/neigh"
)

// watcher is one WatchNeighbours.
type watcher struct {
	k       *Kernel
	f       func(NeighEvent)
	entries map[neigh.Key]Neighbour // what f was told
	synced  bool
	notices chan notice
}

// notice is what a reader has read.
type notice struct {
	from    *listener
	message netlink.Message
	err     error
}

// listener is a subscription in one namespace, and which FIB its devices are in.
type listener struct {
	c    *netlink.Conn
	fibs map[uint32]uint32 // by interface index
	stop chan struct{}
	done chan struct{}
}

// watchBuffer is how many octets of changes the kernel keeps while f works.
const watchBuffer = 1 << 20

// watchAgain is the pause after a failure, for one that lasts: a namespace that is about to go, for one.
const watchAgain = 50 * time.Millisecond

// WatchNeighbours implements API.
func (k *Kernel) WatchNeighbours(ctx context.Context, f func(NeighEvent)) error {
	w := &watcher{k: k, f: f, entries: map[neigh.Key]Neighbour{}, notices: make(chan notice)}
	for {
		if err := w.run(ctx); err != nil {
			return err
		}
	}
}

// run watches until the FIBs change, or until the kernel has dropped something; then all is looked at anew.
func (w *watcher) run(ctx context.Context) error {
	w.k.change.Lock()
	fibs, changed := w.k.fibs, w.k.watch
	w.k.change.Unlock()
	listeners, err := w.listen(fibs)
	defer func() {
		for _, l := range listeners {
			l.close()
		}
	}()
	if err == nil {
		err = w.refresh(listeners, fibs)
	}
	if err != nil {
		select { // what failed may be what just changes
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			return nil
		case <-time.After(watchAgain):
		}
		if errors.Is(err, os.ErrNotExist) || isAny(err, unix.ENODEV, unix.ENOENT) {
			return nil
		}
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			return nil
		case n := <-w.notices:
			if n.err != nil {
				if isAny(n.err, unix.ENOBUFS) {
					return nil
				}
				return n.err
			}
			if err := w.notice(n); err != nil {
				return err
			}
		}
	}
}

// listen subscribes in each namespace that has ports.
func (w *watcher) listen(fibs []FIB) (map[string]*listener, error) {
	all := map[string]*listener{}
	for _, f := range fibs {
		if len(f.Ports) == 0 {
			continue
		}
		name := ""
		if f.Backend == Netns {
			name = f.Title()
		}
		s, err := w.k.visitSpace(f)
		if err != nil {
			return all, err
		}
		if all[name] == nil {
			l, err := w.subscribe(s)
			if err != nil {
				s.close()
				return all, err
			}
			all[name] = l
		}
		for _, p := range f.Ports {
			if index, err := w.k.index(s, f, p.Title()); err == nil {
				all[name].fibs[index] = f.ID
			}
		}
		s.close()
	}
	return all, nil
}

func (w *watcher) subscribe(s *space) (*listener, error) {
	config := netlink.Config{Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}
	if s.ns != nil {
		config.NetNS = int(s.ns.Fd())
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &config)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(watchBuffer) // a smaller one is looked at anew more often
	l := &listener{c: c, fibs: map[uint32]uint32{}, stop: make(chan struct{}), done: make(chan struct{})}
	go l.read(w.notices)
	return l, nil
}

func (l *listener) read(to chan<- notice) {
	defer close(l.done)
	for {
		messages, err := l.c.Receive()
		if err != nil {
			messages = append(messages, netlink.Message{})
			err = cause(err)
		}
		for _, m := range messages {
			select {
			case to <- notice{l, m, err}:
			case <-l.stop:
				return
			}
		}
		if err != nil && !isAny(err, unix.ENOBUFS) {
			return
		}
	}
}

func (l *listener) close() {
	close(l.stop)
	_ = l.c.Close()
	<-l.done
}

// refresh looks at all neighbours and tells the difference.
func (w *watcher) refresh(listeners map[string]*listener, fibs []FIB) error {
	now := map[neigh.Key]Neighbour{}
	for _, f := range fibs {
		if len(f.Ports) == 0 {
			continue
		}
		name := ""
		if f.Backend == Netns {
			name = f.Title()
		}
		l := listeners[name]
		if l == nil {
			continue
		}
		if err := w.dump(f, l, now); err != nil {
			return err
		}
	}
	for k := range w.entries {
		if _, still := now[k]; !still {
			w.tell(neigh.Gone, Neighbour{Key: k})
		}
	}
	for _, n := range now {
		w.tell(neigh.Set, n)
	}
	if !w.synced {
		w.synced = true
		w.f(NeighEvent{Type: neigh.Synced})
	}
	return nil
}

func (w *watcher) dump(f FIB, l *listener, to map[neigh.Key]Neighbour) error {
	s, err := w.k.visitSpace(f)
	if err != nil {
		return err
	}
	defer s.close()
	for index, id := range l.fibs {
		if id != f.ID {
			continue
		}
		all, err := s.rt.neighbours(index)
		if err != nil {
			return err
		}
		for _, n := range all {
			n.FIB = id
			to[n.Key] = n
		}
	}
	return nil
}

func (w *watcher) notice(n notice) error {
	h := n.message.Header.Type
	if h != unix.RTM_NEWNEIGH && h != unix.RTM_DELNEIGH {
		return nil
	}
	e, ok, err := decodeNeighbour(n.message.Data)
	if err != nil {
		return err
	}
	id, port := n.from.fibs[e.Device]
	if !ok || !port {
		return nil
	}
	e.FIB = id
	if h == unix.RTM_DELNEIGH || e.State == 0 {
		w.tell(neigh.Gone, Neighbour{Key: e.Key})
	} else {
		w.tell(neigh.Set, e)
	}
	return nil
}

// tell tells what has changed.
func (w *watcher) tell(t neigh.EventType, e Neighbour) {
	old, known := w.entries[e.Key]
	switch {
	case t == neigh.Gone && !known, t == neigh.Set && known && old == e:
		return
	case t == neigh.Gone:
		delete(w.entries, e.Key)
	default:
		w.entries[e.Key] = e
	}
	w.f(NeighEvent{Type: t, Entry: e})
}
