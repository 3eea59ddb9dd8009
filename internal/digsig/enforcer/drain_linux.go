package enforcer

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/gate"
	"midplane/internal/digsig/lease"
	"midplane/internal/mono"
)

// drain does what the gate asks for. The caller holds mu; nothing in here waits.
func (w *worker) drain(now mono.Time) {
	for {
		a, ok := w.gate.Poll()
		if !ok {
			break
		}
		switch a.Kind {
		case gate.Answer:
			w.answer(a)
		case gate.Verify:
			w.verify(a)
		case gate.Judge:
			w.gate.Result(now, w.judgeAgain(a))
		case gate.Cancel:
			if f := w.entries[a.Key]; f != nil && f.cancel != nil {
				f.cancel()
			}
		case gate.Ask:
			if ev := w.events[a.ID]; ev != nil {
				ev.f.refs++
				go w.ask(*ev)
			}
		case gate.Mark:
			w.mark(a)
		case gate.Unmark:
			if f := w.entries[a.Key]; f != nil {
				w.unmark(f)
			}
		case gate.Flush:
			w.flush()
		case gate.Release:
			w.release(a.Key)
		case gate.Hold:
			w.hold(now, a)
		}
	}
	w.deadline()
}

// answer answers what was asked. What is denied is looked at and logged by another goroutine; the answer does not wait for
// the log, and the look is at a process that waits for the answer.
func (w *worker) answer(a gate.Action) {
	ev := w.events[a.ID]
	if ev == nil {
		return
	}
	w.open.Add(1)
	delete(w.events, a.ID)
	if a.Judge && a.Allow {
		w.reply(ev.id.Group, ev.id.FD, true)
		if w.cfg.Allowed && a.Why == gate.WhyVerdict {
			ev.f.refs++
			w.open.Add(1)
			go w.record(*ev, a, w.verdictOf(a.Key), nil)
		}
		w.open.Add(-1)
		w.drop(ev.f)
		if len(w.spare) < 64 {
			w.spare = append(w.spare, ev)
		}
		return
	}
	go w.record(*ev, a, w.verdictOf(a.Key), func() {
		if !a.Allow && a.Why == gate.WhyWriter && a.Op == gate.OpExec {
			w.replied(w.groups[ev.id.Group].DenyBusy(ev.id.FD))
			return
		}
		w.reply(ev.id.Group, ev.id.FD, a.Allow)
	})
}

func (w *worker) verdictOf(k gate.Key) *digsig.Verdict {
	f := w.entries[k]
	if f == nil || !f.judged {
		return nil
	}
	v := f.verdict
	return &v
}

// mark gives the kernel a verdict to keep. It must go on holding when this process is killed, so the supervisor gets a
// share in the lease first; without it there is no mark, and the next event is answered from what is known.
func (w *worker) mark(a gate.Action) {
	f := w.entries[a.Key]
	if f == nil {
		return
	}
	if f.leased && f.token == 0 && (a.Exec || a.Open) {
		w.tokens++
		w.linkMu.Lock()
		w.sendDrops()
		err := w.link.sendToken(msgHold, w.tokens, f.fd)
		w.linkMu.Unlock()
		if err != nil {
			w.nMarkFails.Add(1)
			return
		}
		f.token = w.tokens
	}
	if err := w.groups[f.group].Ignore(f.fd, a.Exec, a.Open); err != nil {
		w.nMarkFails.Add(1)
		w.unmark(f)
	}
}

// unmark takes a mark back. If that fails, all are taken back.
func (w *worker) unmark(f *file) {
	if err := w.groups[f.group].Ignore(f.fd, false, false); err != nil {
		w.nMarkFails.Add(1)
		w.flush()
	}
}

func (w *worker) flush() {
	for _, g := range w.groups {
		if err := g.Flush(); err != nil {
			// A kernel that cannot remove marks leaves nothing but to end: the supervisor denies and begins anew.
			panic("enforcer: marks cannot be removed: " + err.Error())
		}
		if err := g.IgnoreFile(self); err != nil {
			w.say("own mark: %v", err)
		}
	}
}

// release lets a file's lease go, and its descriptor when nobody else uses it.
func (w *worker) release(k gate.Key) {
	f := w.entries[k]
	if f == nil {
		return
	}
	delete(w.entries, k)
	f.released = true
	w.takeBack(f)
	if f.leased {
		lease.Release(f.fd)
		delete(w.leases, f.fd)
		f.leased = false
	}
	if f.cancel != nil {
		f.cancel()
	}
	if f.token != 0 {
		w.linkMu.Lock()
		w.drops = append(w.drops, f.token)
		w.sendDrops()
		w.linkMu.Unlock()
		f.token = 0
	}
	w.drop(f)
}

// sendDrops tells the supervisor what it need not hold any more. The caller holds linkMu.
func (w *worker) sendDrops() {
	for len(w.drops) > 0 {
		if w.link.sendToken(msgDrop, w.drops[0], -1) != nil {
			return // later
		}
		w.drops = w.drops[1:]
	}
}

// pin takes a lease on a file that can be written. The caller holds mu.
func (w *worker) pin(f *file) gate.Pin {
	if f.released || f.group == foreign {
		return gate.PinNone
	}
	if f.sealed || immutable(f.fd) {
		f.sealed = true
		return gate.PinImmutable
	}
	if f.leased {
		return gate.PinLease
	}
	w.leases[f.fd] = f // before, as it may break at once
	err := w.keeper.Take(f.fd)
	switch {
	case err == nil:
		f.leased = true
		return gate.PinLease
	case errors.Is(err, lease.ErrWriter):
		delete(w.leases, f.fd)
		return gate.PinWriter
	}
	delete(w.leases, f.fd)
	return gate.PinNone
}

// hold pins a data file and looks whether it still is one.
func (w *worker) hold(now mono.Time, a gate.Action) {
	ev := w.events[a.ID]
	if ev == nil {
		w.gate.Result(now, gate.Result{Key: a.Key, Job: a.Job, Failed: true})
		return
	}
	f := ev.f
	f.refs++
	w.entries[a.Key] = f
	r := gate.Result{Key: a.Key, Job: a.Job, Class: ev.class, Pin: w.pin(f)}
	var head [headSize]byte
	if n, ok := readNow(f.fd, head[:]); ok {
		r.Class = classOf(head[:n])
		w.gate.Result(now, r)
		return
	}
	f.refs++
	go func() {
		w.reading <- struct{}{}
		n, err := unix.Pread(f.fd, head[:], 0)
		<-w.reading
		r.Class, r.Failed = classOf(head[:max(n, 0)]), err != nil
		now := mono.Now()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.gate.Result(now, r)
		w.drain(now)
		w.drop(f)
	}()
}

// verify begins to verify a file.
func (w *worker) verify(a gate.Action) {
	f := w.entries[a.Key]
	ev := w.events[a.ID]
	if f == nil {
		if ev == nil {
			return
		}
		f = ev.f
		f.refs++
		w.entries[a.Key] = f
	}
	var tid int32
	if ev != nil {
		tid = ev.tid
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.refs++
	go w.verifyFile(ctx, f, a.Job, tid)
}

// judgeAgain judges known content by the lists in force.
func (w *worker) judgeAgain(a gate.Action) gate.Result {
	f := w.entries[a.Key]
	if f == nil || !f.judged {
		return gate.Result{Key: a.Key, Job: a.Job, Failed: true}
	}
	v := w.judge.Load()
	uses, until := usesOf(v, f)
	w.soon(until)
	w.hand(v, f, uses)
	return gate.Result{Key: a.Key, Job: a.Job, Uses: uses, Generation: v.Generation(), Pin: gate.PinLease}
}

// usesOf says what a file may be used for, and until when at least (zero: for ever).
func usesOf(v *digsig.Verifier, f *file) (uses gate.Uses, until time.Time) {
	now := time.Now()
	for _, u := range [...]struct {
		use  digsig.Use
		uses gate.Uses
	}{{digsig.UseExec, gate.MayExec}, {digsig.UseInterp, gate.MayInterp}, {digsig.UseLib, gate.MayLib}, {digsig.UseScript, gate.MayScript},
		{digsig.UseCheck, gate.MayCheck}, {digsig.UseOpen, gate.MayRead}} {
		d := v.RecheckRequest(f.verdict, digsig.Request{Use: u.use, At: now, Path: f.path})
		if good(d) {
			uses |= u.uses
		}
		if !d.Until.IsZero() && (until.IsZero() || d.Until.Before(until)) {
			until = d.Until
		}
	}
	return uses, until
}

// soon has everything judged again at a time. The caller holds mu.
func (w *worker) soon(until time.Time) {
	if !until.IsZero() && (w.until.IsZero() || until.Before(w.until)) {
		w.until = until
	}
}

// good says whether a verdict allows whatever the mode is.
func good(v digsig.Verdict) bool {
	return v.Allow && v.Reason != digsig.Permitted && v.Reason != digsig.Learning
}

// leaseBroken is called by the lease's thread.
func (w *worker) leaseBroken(fd int) {
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.leases[fd]; f != nil {
		w.written(f)
		w.gate.Break(now, f.key)
		w.drain(now)
	}
}

// written tells of a writer to what was found good: who has it mapped sees the new octets. The caller holds mu.
func (w *worker) written(f *file) {
	if f.judged && f.token != 0 {
		r := audit.Record{Type: "file", Path: f.path, Detail: "opened for writing while it was trusted; who has it mapped sees what is written", Generation: w.gate.Generation()}
		r.Digest, r.Name = hex.EncodeToString(f.verdict.Digest[:]), f.verdict.Name
		w.put(r)
	}
}

func (w *worker) leasesLost() {
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []gate.Key
	for fd, f := range w.leases {
		if lease.Broken(fd) {
			w.written(f)
			keys = append(keys, f.key)
		}
	}
	for _, k := range keys {
		w.gate.Break(now, k)
	}
	w.drain(now)
}

// record logs an answer, and gives it first if reply is set. The event's use of its file ends with it.
func (w *worker) record(ev event, a gate.Action, v *digsig.Verdict, reply func()) {
	defer w.open.Add(-1)
	r := audit.Record{Time: time.Now(), Type: "verdict", Verdict: "allow", Use: useOf(a.Uses), Mode: w.cfg.Mode, PID: int(ev.tid)}
	switch {
	case !a.Judge && a.Allow:
		r.Verdict = "would-deny"
	case !a.Allow:
		r.Verdict = "deny"
	}
	r.Path = pathOf(ev.f.fd)
	describe(&r, int(ev.tid))
	if reply != nil {
		reply()
	}
	w.mu.Lock()
	w.drop(ev.f)
	r.Mode, r.Generation = w.gate.Mode().String(), w.gate.Generation()
	w.mu.Unlock()
	r.Reason = a.Why.String()
	if v != nil {
		o := w.opinion(*v, a.Uses, r.Path)
		if a.Why == gate.WhyVerdict {
			r.Reason, r.Detail = o.Reason, o.Detail
		}
		r.Digest, r.Key, r.Name, r.Version = o.Digest, o.Key, o.Name, o.Version
	}
	if a.Why == gate.WhyVerdict && a.Uses == 0 {
		r.Use = map[gate.Op]string{gate.OpExec: "exec", gate.OpOpen: "open"}[a.Op]
	}
	w.put(r)
}
