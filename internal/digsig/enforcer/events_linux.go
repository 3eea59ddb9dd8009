package enforcer

import (
	"errors"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/fanotify"
	"midplane/internal/digsig/gate"
	"midplane/internal/mono"
)

// local and foreign are the two groups.
const (
	local = iota
	foreign
)

// read reads the events of a group, on a thread of its own. It opens nothing, reads nothing that is not in memory and
// waits for nothing but events, so that the enforcer never waits for itself. Until begun is closed it answers the
// enforcer's own questions only, and keeps the others.
func (w *worker) read(group uint8, begun <-chan struct{}) {
	runtime.LockOSThread()
	g := w.groups[group]
	beat := w.cfg.Watchdog / 5
	var last time.Time
	var buf fanotify.Buffer
	var kept []fanotify.Event
	early := true
	for {
		wait := int(beat / time.Millisecond)
		if early {
			wait = 5
		}
		if w.draining.Load() {
			return
		}
		ready, err := g.Wait(w.stop, wait)
		if err != nil {
			w.say("events: %v", err)
		}
		if now := time.Now(); group == local && now.Sub(last) >= beat {
			last = now
			_ = w.send(msgBeat, nil)
		}
		if early {
			select {
			case <-begun:
				early = false
				for _, ev := range kept {
					w.handle(group, ev)
				}
				kept = nil
			default:
			}
		}
		if !ready || w.draining.Load() {
			continue
		}
		more, err := g.Read(&buf)
		if err != nil {
			w.nUnopened.Add(1)
			continue
		}
		if !more {
			continue
		}
		err = buf.Events(func(ev fanotify.Event) {
			w.nEvents.Add(1)
			switch {
			case unix.Tgkill(int(w.pid), int(ev.TID), 0) == nil || unix.Tgkill(int(w.boss.Load()), int(ev.TID), 0) == nil:
				w.nOwn.Add(1)
				w.reply(group, ev.FD, true)
				unix.Close(int(ev.FD))
			case early:
				kept = append(kept, ev)
			default:
				w.handle(group, ev)
			}
		}, func() { w.nOverflows.Add(1) })
		if err != nil {
			w.say("events: %v", err)
		}
	}
}

func (w *worker) reply(group uint8, fd int32, allow bool) {
	w.replied(w.groups[group].Answer(fd, allow))
}

func (w *worker) replied(err error) {
	if errors.Is(err, fanotify.ErrGone) {
		w.nGone.Add(1)
	} else if err != nil {
		w.say("answer: %v", err)
	}
}

// handle takes one event of somebody else.
func (w *worker) handle(group uint8, ev fanotify.Event) {
	op := gate.OpOpen
	if ev.Exec {
		op = gate.OpExec
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ev.FD), &st); err != nil {
		w.reply(group, ev.FD, op == gate.OpOpen)
		unix.Close(int(ev.FD))
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		w.reply(group, ev.FD, op == gate.OpOpen) // the kernel executes no others
		unix.Close(int(ev.FD))
		return
	}
	q := gate.Request{ID: gate.ID{Group: group, FD: ev.FD}, Key: gate.Key{Dev: st.Dev, Ino: st.Ino}, Op: op, Task: ev.TID, Size: st.Size}
	if op == gate.OpExec {
		w.request(q)
		return
	}
	r := w.rules.Load()
	if r.guards {
		q.Guarded = r.match(pathOf(int(ev.FD)))
		q.Aliased = q.Guarded || st.Nlink > 1
	}
	if w.cfg.NoOpen || st.Size == 0 {
		w.request(q)
		return
	}
	var head [headSize]byte
	if n, ok := readNow(int(ev.FD), head[:]); ok {
		q.Class = classOf(head[:n])
		w.request(q)
		return
	}
	// The file's beginning is not in memory: whoever waits for the disk, it is not this thread.
	w.open.Add(1)
	go func() {
		defer w.open.Add(-1)
		w.reading <- struct{}{}
		n, err := unix.Pread(int(ev.FD), head[:], 0)
		<-w.reading
		q.Class = classOf(head[:max(n, 0)])
		if err != nil {
			q.Class = gate.ClassData // who opened it cannot read it either
		}
		w.request(q)
	}()
}

// readNow reads the beginning of a file if it is in memory.
func readNow(fd int, b []byte) (int, bool) {
	n, err := unix.Preadv2(fd, [][]byte{b}, 0, unix.RWF_NOWAIT)
	if errors.Is(err, unix.EOPNOTSUPP) && inMemory(fd) {
		n, err = unix.Pread(fd, b, 0)
	}
	return max(n, 0), err == nil && n > 0
}

// inMemory says whether a file system has no disk.
func inMemory(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && (uint32(fs.Type) == unix.TMPFS_MAGIC || uint32(fs.Type) == unix.RAMFS_MAGIC)
}

func (w *worker) request(q gate.Request) {
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	ev := w.newEvent()
	*ev = event{id: q.ID, op: q.Op, tid: q.Task, class: q.Class, f: &file{key: q.Key, fd: int(q.ID.FD), group: q.ID.Group, refs: 1}}
	w.events[q.ID] = ev
	w.gate.Request(now, q)
	w.drain(now)
}

func (w *worker) newEvent() *event {
	if n := len(w.spare); n > 0 {
		ev := w.spare[n-1]
		w.spare = w.spare[:n-1]
		return ev
	}
	return new(event)
}

// drop gives up one use of a file. The caller holds mu.
func (w *worker) drop(f *file) {
	if f.refs--; f.refs == 0 {
		unix.Close(f.fd)
	}
}

func pathOf(fd int) string {
	var b [unix.PathMax]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}
