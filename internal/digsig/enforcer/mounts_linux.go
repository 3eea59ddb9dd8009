package enforcer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/fanotify"
	"midplane/internal/mountinfo"
)

// scanEvery is how often mounts of other mount namespaces are looked for: nothing tells of those.
const scanEvery = time.Second

// seen names a mount as it was found. Numbers of file systems and mounts are given anew, so a file system is marked
// again whenever any of this is new; marking twice changes nothing.
type seen struct {
	namespace string
	id        int
	dev, kind string
}

// marker marks file systems as they come.
type marker struct {
	w    *worker
	done map[seen]Marked
}

// markAll marks what is mounted now. Those that the configuration names must all be there; a local file system that
// cannot be marked is told in Status.
func (w *worker) markAll() error {
	if len(w.cfg.Mounts) > 0 {
		return w.markNamed()
	}
	m := &marker{w, map[seen]Marked{}}
	if err := m.scan("self", ""); err != nil {
		return err
	}
	m.others()
	m.publish()
	return nil
}

func (w *worker) markNamed() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	mounts, err := mountinfo.Parse(string(text))
	if err != nil {
		return err
	}
	var all []Marked
	for _, path := range w.cfg.Mounts {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
		dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
		// On btrfs the files' device is not the mount's: then the mount is found by its path.
		i := slices.IndexFunc(mounts, func(m mountinfo.Mount) bool { return m.Dev == dev })
		if i < 0 {
			i = slices.IndexFunc(mounts, func(m mountinfo.Mount) bool { return m.Point == filepath.Clean(path) })
		}
		if i < 0 {
			return fmt.Errorf("mount %s: no mount has device %s", path, dev)
		}
		one := Marked{Mount: path, Dev: mounts[i].Dev, Type: mounts[i].Type}
		if err := w.markOne(&one, path); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
		all = append(all, one)
	}
	w.marks.Store(&all)
	return nil
}

// markOne marks the file system of a path.
func (w *worker) markOne(m *Marked, path string) error {
	place := fanotify.PlaceOf(m.Type)
	m.Place = place.String()
	group := w.groups[local]
	switch place {
	case fanotify.Skip:
		return nil
	case fanotify.Foreign:
		group = w.groups[foreign]
	}
	return group.MarkFileSystem(path, place, !w.cfg.NoOpen)
}

// scan marks what a process of a mount namespace sees.
func (m *marker) scan(pid, namespace string) error {
	text, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return err
	}
	mounts, err := mountinfo.Parse(string(text))
	if err != nil {
		return err
	}
	now := map[seen]bool{}
	for _, mt := range mounts {
		k := seen{namespace, mt.ID, mt.Dev, mt.Type}
		now[k] = true
		if old, ok := m.done[k]; ok && old.Err == "" {
			continue
		}
		one := Marked{Mount: mt.Point, Dev: mt.Dev, Type: mt.Type, Namespace: namespace, layers: mt.Layers()}
		path := mt.Point
		if namespace != "" {
			path = "/proc/" + pid + "/root" + mt.Point
		}
		if err := m.mark(&one, path, mt.Dev); err != nil {
			one.Err = err.Error()
		}
		if old, ok := m.done[k]; !ok || old.Err != one.Err {
			m.tell(one)
		}
		m.done[k] = one
	}
	for k := range m.done {
		if k.namespace == namespace && !now[k] {
			delete(m.done, k)
		}
	}
	return nil
}

// mark marks a mount, if its path leads to it: another mount may lie over it, which is in the list as well.
func (m *marker) mark(one *Marked, path, dev string) error {
	if fanotify.PlaceOf(one.Type) == fanotify.Skip {
		one.Place = fanotify.Skip.String()
		return nil
	}
	if fanotify.PlaceOf(one.Type) != fanotify.Foreign { // asking a dead server for its attributes takes for ever
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		if here := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)); here != dev && one.Type != "btrfs" {
			if m.marked(dev) {
				one.Place = "through another mount"
				return nil
			}
			return errors.New("another mount lies over it")
		}
	}
	return m.w.markOne(one, path)
}

// marked says whether a file system is marked by another of its mounts.
func (m *marker) marked(dev string) bool {
	for k, one := range m.done {
		if k.dev == dev && one.Err == "" && one.Place != fanotify.Skip.String() {
			return true
		}
	}
	return false
}

func (m *marker) tell(one Marked) {
	if one.Place == fanotify.Skip.String() || m.w.log == nil {
		return
	}
	r := audit.Record{Type: "mount", Verdict: "allow", Path: one.Mount, Detail: one.Type + " " + one.Dev + " " + one.Place}
	if one.Err != "" {
		r.Verdict, r.Detail = "deny", one.Type+" "+one.Dev+": "+one.Err
	}
	m.w.put(r)
}

// others marks what is mounted in other mount namespaces, containers' and sandboxes'.
func (m *marker) others() {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return
	}
	list, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	known := map[string]bool{own: true}
	for _, e := range list {
		if c := e.Name()[0]; c < '0' || c > '9' {
			continue
		}
		ns, err := os.Readlink("/proc/" + e.Name() + "/ns/mnt")
		if err != nil || known[ns] {
			continue
		}
		if m.scan(e.Name(), ns) == nil {
			known[ns] = true
		}
	}
	for k := range m.done {
		if k.namespace != "" && !known[k.namespace] {
			delete(m.done, k)
		}
	}
}

func (m *marker) publish() {
	all := make([]Marked, 0, len(m.done))
	for _, one := range m.done {
		if one.Err == "" {
			one.Err = m.unseen(one.layers)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Marked) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Mount, b.Mount)
	})
	m.w.marks.Store(&all)
	m.w.nameOverlays()
}

// unseen says which layer of an overlay is on no file system that is watched: what is executed from it is not seen.
func (m *marker) unseen(layers []string) string {
	for _, dir := range layers {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil || !m.marked(fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))) {
			return "its layer " + dir + " is on no file system that is watched"
		}
	}
	return ""
}

// watchMounts marks what is mounted later: in this mount namespace as soon as the kernel tells, in others within
// scanEvery.
func (w *worker) watchMounts() {
	if len(w.cfg.Mounts) > 0 || w.glass == "off" {
		return
	}
	m := &marker{w, map[seen]Marked{}}
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.put(audit.Record{Type: "mount", Verdict: "deny", Detail: "new mounts are not seen: " + err.Error()})
		return
	}
	defer unix.Close(fd)
	for {
		if err := m.scan("self", ""); err != nil {
			w.put(audit.Record{Type: "mount", Verdict: "deny", Detail: err.Error()})
		}
		m.others()
		m.publish()
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		_, _ = unix.Poll(p, int(scanEvery/time.Millisecond))
	}
}

// watchSelf looks whether the enforcer's program was replaced, by an upgrade: the new one gets the mark that lets it be
// started while nobody answers, if it is signed.
func (w *worker) watchSelf() {
	path, err := os.Readlink(self)
	if err != nil {
		return
	}
	path = strings.TrimSuffix(path, " (deleted)")
	var marked unix.Stat_t
	_ = unix.Stat(self, &marked)
	for {
		time.Sleep(scanEvery)
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Dev == marked.Dev && st.Ino == marked.Ino {
			continue
		}
		marked = st
		e := w.explain(path)
		if o := e.Verdicts["exec"]; !o.Allow {
			w.put(audit.Record{Type: "worker", Verdict: "deny", Path: path, Reason: o.Reason, Detail: "the enforcer's program was replaced by one that may not run: " + o.Detail})
			continue
		}
		for _, g := range w.groups {
			if err := g.IgnoreFile(path); err != nil {
				w.say("mark of the new program: %v", err)
			}
		}
		w.put(audit.Record{Type: "worker", Verdict: "allow", Path: path, Detail: "the enforcer's program was replaced; the new one starts with the enforcer"})
	}
}
