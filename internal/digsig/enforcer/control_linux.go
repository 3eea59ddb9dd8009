package enforcer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/fanotify"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gate"
)

// Bounds of the control socket.
const (
	maxClients = 32
	maxRequest = 64 << 10
)

// serve answers on the control socket, which the supervisor holds.
func (w *worker) serve() {
	// A descriptor of its own: an os.File closes its descriptor when it is collected, and this one goes on to others.
	fd, err := unix.FcntlInt(uintptr(w.control), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.say("control socket: %v", err)
		return
	}
	f := os.NewFile(uintptr(fd), "control")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		w.say("control socket: %v", err)
		return
	}
	places := make(chan struct{}, maxClients)
	for {
		c, err := l.Accept()
		if err != nil {
			w.say("control socket: %v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		select {
		case places <- struct{}{}:
			go func() {
				defer func() { <-places }()
				w.client(c.(*net.UnixConn))
			}()
		default:
			_ = json.NewEncoder(c).Encode(reply{Err: fmt.Sprintf("%d others talk to the enforcer", maxClients)})
			c.Close()
		}
	}
}

func (w *worker) client(c *net.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	say := func(r reply) error { return json.NewEncoder(c).Encode(r) }
	if err := root(c); err != nil {
		_ = say(reply{Err: err.Error()})
		return
	}
	r := bufio.NewReaderSize(c, maxRequest)
	line, err := r.ReadSlice('\n')
	if err != nil {
		_ = say(reply{Err: "want one line of JSON"})
		return
	}
	var q request
	if err := json.Unmarshal(line, &q); err != nil {
		_ = say(reply{Err: err.Error()})
		return
	}
	_ = c.SetDeadline(time.Time{})
	if q.Op == "events" {
		w.follow(c)
		return
	}
	a, err := w.do(q)
	if err != nil {
		a = reply{Err: err.Error()}
		var no *refused
		if errors.As(err, &no) {
			a.Check = no.check
		}
	}
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_ = say(a)
	if q.Op == "stop" && err == nil {
		_ = w.send(msgStop, nil)
	}
}

// root says who may talk: the files' modes say so already.
func root(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return e
	}
	if err == nil && cred.Uid != 0 {
		err = errors.New("only root may control the enforcer")
	}
	return err
}

func (w *worker) do(q request) (a reply, err error) {
	switch q.Op {
	case "status":
		a.Status = w.status()
	case "mode":
		err = w.command(q.Mode)
	case "reload":
		a.Reload, err = w.reloadStore(q.Force)
	case "explain":
		a.Explain = w.explain(q.Path)
	case "check":
		a.Check, err = w.check(w.judge.Load())
	case "stop":
	default:
		err = fmt.Errorf("op %q: want status, mode, reload, explain, check, events or stop", q.Op)
	}
	return a, err
}

// follow writes records as they come, until the client ends.
func (w *worker) follow(c *net.UnixConn) {
	s := w.log.Subscribe(1024)
	defer s.Cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = c.Read(b[:])
	}()
	e := json.NewEncoder(c)
	if e.Encode(reply{}) != nil { // it listens from here on
		return
	}
	for {
		select {
		case r, ok := <-s.C:
			if !ok {
				return
			}
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if e.Encode(reply{Event: &r}) != nil {
				return
			}
		case <-gone:
			return
		}
	}
}

func (w *worker) status() *Status {
	v, info := w.judge.Load(), w.info.Load()
	s := &Status{
		Mode: w.mode().String(), Why: info.why, Generation: v.Generation(), Policy: v.Policy().Version, Revocations: v.Revocations().Serial,
		Keys: v.Trust().Len(), Manifests: len(v.Manifests()), StoreError: info.storeError, LastGood: info.lastGood,
		Supervisor: info.supervisor, Worker: int(w.pid), Started: w.started, Marks: *w.marks.Load(), Earlier: w.earlier.Load(),
		Tier: gaps.TierFanotify,
	}
	if w.glass == "off" {
		s.Mode, s.Why = "off", "kernel command line"
	}
	w.mu.Lock()
	s.Stats.Gate = w.gate.Stats()
	w.mu.Unlock()
	s.Stats.Audit = w.log.Stats()
	s.Stats.Events, s.Stats.Own, s.Stats.Gone = w.nEvents.Load(), w.nOwn.Load(), w.nGone.Load()
	s.Stats.Unopened, s.Stats.Overflows, s.Stats.MarkFails = w.nUnopened.Load(), w.nOverflows.Load(), w.nMarkFails.Load()
	s.Stats.Enrolled, s.Kernel = w.nEnrolled.Load(), w.kernelStatus()
	if r := w.gaps.Load(); r != nil {
		s.Tier, s.NotHigher = r.Tier, r.Why
		s.Gaps = append(s.Gaps, r.Gaps...)
	}
	s.Gaps = append(s.Gaps, w.ownGaps(v, info)...)
	return s
}

// ownGaps are those of this enforcer's way and configuration, besides those of the kernel.
func (w *worker) ownGaps(v *digsig.Verifier, info *report) []gaps.Gap {
	var all []gaps.Gap
	add := func(open bool, text, cure string, cases ...int) {
		if open {
			all = append(all, gaps.Gap{Cases: cases, Text: text, Cure: cure})
		}
	}
	if w.glass == "off" {
		add(true, "nothing is enforced: the kernel's command line says so", "boot without midplane.digsig=off")
	}
	w.mu.Lock()
	bpf := w.lsmReady
	w.mu.Unlock()
	add(!bpf && info.supervisor.Guardian != "guardian", "supervisor and worker killed in the same moment open the gate", "run midplane-digsig-guardian.service too", 48)
	add(!bpf, "an execution that stands still between its permission and the kernel's denial of writing for longer than "+w.cfg.Gate.Grace.String()+" can be overtaken by a writer",
		"a longer grace; tier fs-verity", 33)
	indirect := false
	for _, i := range v.Policy().Interpreters {
		indirect = indirect || i.Indirect
	}
	at := w.unwatchedOverlay()
	add(bpf && at != "", "signed programs on an overlay are denied when not all its layers are on file systems that are watched ("+at+")", "layers on file systems that are mounted where the enforcer sees them", 29, 30)
	add(bpf && w.overlays(), "what runs from an overlay is decided by fanotify, not in the kernel", "programs on other file systems", 48)
	add(indirect, "an interpreter that may be run through #! only can be run directly by a process that just failed to execute a signed script of it", "tier bpf-lsm", 41)
	add(w.cfg.NoOpen, "libraries are not checked, nor files given to ld.so", "the configuration without no-open", 20, 21, 22)
	add(w.cfg.Remote, "content on FUSE and network file systems can change after it was verified", "the configuration without remote", 27)
	add(len(w.cfg.Mounts) > 0, "only the named file systems are watched", "no list of mounts in the configuration", 27, 30)
	for _, m := range *w.marks.Load() {
		add(!bpf && m.Err != "", "the file system at "+m.Mount+" is not watched: "+m.Err, "unmount it, or mount it noexec", 27)
	}
	return all
}

// known returns the verdict on content that is pinned.
func (w *worker) known(dev, ino uint64) (digsig.Verdict, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.entries[gate.Key{Dev: dev, Ino: ino}]
	if f == nil || !f.judged || !f.leased && !f.sealed {
		return digsig.Verdict{}, false
	}
	return f.verdict, true
}

// explain says what would be decided about a file.
func (w *worker) explain(path string) *Explanation {
	e := &Explanation{Path: path, Verdicts: map[string]Opinion{}, Watched: "not watched"}
	v := w.judge.Load()
	first := v.VerifyFile(context.Background(), path, digsig.Request{Use: digsig.UseExec, At: time.Now()})
	e.Verdicts[digsig.UseExec.String()] = opinionOf(first)
	for _, u := range []digsig.Use{digsig.UseInterp, digsig.UseLib, digsig.UseScript, digsig.UseCheck, digsig.UseOpen} {
		e.Verdicts[u.String()] = opinionOf(v.RecheckRequest(first, digsig.Request{Use: u, At: time.Now(), Path: path}))
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		w.mu.Lock()
		_, _, e.Cached = w.gate.Known(gate.Key{Dev: st.Dev, Ino: st.Ino})
		w.mu.Unlock()
		dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
		for _, m := range *w.marks.Load() {
			if m.Dev == dev && m.Err == "" && m.Place != fanotify.Skip.String() {
				e.Watched = m.Place
			}
		}
	}
	return e
}
