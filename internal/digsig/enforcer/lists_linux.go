package enforcer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/gate"
	"midplane/internal/mono"
)

// goodDir is the copy of a store that was in force, within the state directory: what a worker begins with when the store
// cannot be read any more.
const goodDir = "enforced"

// load reads the store. If it is not good, what was in force before is, if there is such.
func (w *worker) load() (*digsig.Verifier, error) {
	store, err := digsig.OpenStore(w.cfg.Dir)
	if err == nil {
		store.StateDir = w.cfg.StateDir
		var v *digsig.Verifier
		if v, err = store.Load(time.Now()); v != nil {
			w.store = store
			if err != nil {
				w.inform(func(r *report) { r.storeError = err.Error() })
			}
			return v, w.keepGood(v)
		}
	}
	if w.first {
		return nil, err
	}
	kept := &digsig.Store{Dir: filepath.Join(w.cfg.StateDir, goodDir), StateDir: w.cfg.StateDir}
	v, bad := kept.Load(time.Now())
	if v == nil {
		// Nothing is allowed then. The gate stays shut, whatever became of the files.
		w.inform(func(r *report) { r.storeError = errors.Join(err, bad).Error() })
		if v, bad = digsig.NewVerifier(digsig.Config{Now: time.Now()}); bad != nil {
			return nil, bad
		}
	}
	w.inform(func(r *report) { r.storeError, r.lastGood = err.Error(), true })
	w.store = &digsig.Store{Dir: w.cfg.Dir, StateDir: w.cfg.StateDir}
	return v, nil
}

// keepGood remembers a store that is in force. That it cannot (a full disk) is told, and nothing else.
func (w *worker) keepGood(v *digsig.Verifier) error {
	err := w.store.Save(v, time.Now())
	if err == nil {
		err = copyStore(w.cfg.Dir, filepath.Join(w.cfg.StateDir, goodDir))
	}
	if err != nil {
		w.inform(func(r *report) { r.storeError = "the lists in force could not be remembered: " + err.Error() })
		w.say("remember the lists in force: %v", err)
	}
	return nil
}

// copyStore makes a copy of a store's files; there is the old copy or the new one.
func copyStore(from, to string) error {
	next := to + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	for _, dir := range []string{digsig.TrustDir, digsig.ManifestDir, ""} {
		if err := os.MkdirAll(filepath.Join(next, dir), 0o700); err != nil {
			return err
		}
		list, err := os.ReadDir(filepath.Join(from, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range list {
			if !e.Type().IsRegular() || dir == "" && e.Name() != digsig.RevocationsFile && e.Name() != digsig.PolicyFile {
				continue
			}
			b, err := os.ReadFile(filepath.Join(from, dir, e.Name()))
			if err == nil {
				err = os.WriteFile(filepath.Join(next, dir, e.Name()), b, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(next, to)
}

// install puts lists in force: what comes next is judged by them, also what has a mark.
func (w *worker) install(v *digsig.Verifier) {
	ready := w.rejudge(v)
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge.Store(v)
	if w.lsm != nil {
		if err := w.replace(v, ready); err != nil {
			w.say("the kernel's grants are those of the lists before: %v", err)
		}
	}
	w.rules.Store(rulesOf(v.Policy()))
	w.gate.SetGeneration(now, v.Generation())
	w.setMode(v)
	w.drain(now)
}

// setMode puts the mode in force that counts: the kernel's command line, a command, the configuration, the policy. The
// caller holds mu.
func (w *worker) setMode(v *digsig.Verifier) {
	info := w.info.Load()
	name, why := v.Policy().Mode.String(), "policy"
	switch {
	case w.glass == "permissive":
		name, why = w.glass, "kernel command line"
	case info.command != "":
		name, why = info.command, "command"
	case w.cfg.Mode != "":
		name, why = w.cfg.Mode, "configuration"
	}
	w.gate.SetMode(modes[name])
	w.inform(func(r *report) { r.why = why })
	if err := w.kernelPolicy(); err != nil {
		w.say("the kernel's mode: %v", err)
	}
}

var modes = map[string]gate.Mode{"enforce": gate.Enforce, "permissive": gate.Permissive, "learn": gate.Learn}

// inform changes what Status tells.
func (w *worker) inform(change func(*report)) {
	for {
		old := w.info.Load()
		next := *old
		change(&next)
		if w.info.CompareAndSwap(old, &next) {
			return
		}
	}
}

// command sets the mode by hand; empty is the policy's again.
func (w *worker) command(mode string) error {
	if _, ok := modes[mode]; mode != "" && !ok {
		return fmt.Errorf("mode %q: want enforce, permissive, learn, or nothing for the policy's", mode)
	}
	w.reload.Lock()
	defer w.reload.Unlock()
	if w.glass != "" && mode != "" {
		return fmt.Errorf("the kernel's command line says midplane.digsig=%s", w.glass)
	}
	if err := w.send(msgMode, []byte(mode)); err != nil {
		return fmt.Errorf("the supervisor, which is to remember it, does not listen: %w", err)
	}
	w.inform(func(r *report) { r.command = mode })
	w.mu.Lock()
	w.setMode(w.judge.Load())
	now := w.gate.Mode()
	w.mu.Unlock()
	w.put(audit.Record{Type: "mode", Mode: now.String(), Detail: "by command"})
	return nil
}

// refused is a reload that would lock out what runs.
type refused struct{ check *CheckReport }

func (r *refused) Error() string {
	n, first := 0, Denied{}
	for _, d := range r.check.Denied {
		if !d.Wanted {
			if n == 0 {
				first = d
			}
			n++
		}
	}
	return fmt.Sprintf("refused: %d files that run now would be denied, the first is %s (%s: %s); force takes it all the same", n, first.Path, first.Reason, first.Detail)
}

// reloadStore takes what is in the store now.
func (w *worker) reloadStore(force bool) (*Reload, error) {
	w.reload.Lock()
	defer w.reload.Unlock()
	store, err := digsig.OpenStore(w.cfg.Dir)
	if err != nil {
		return nil, err
	}
	store.StateDir = w.cfg.StateDir
	old := w.judge.Load()
	v, err := store.Reload(old, time.Now())
	if v == nil {
		w.put(audit.Record{Type: "reload", Verdict: "deny", Detail: err.Error()})
		return nil, err
	}
	out := &Reload{Generation: v.Generation()}
	if err != nil {
		out.Kept = err.Error()
	}
	// Nothing about the others changed: a revocation works at once.
	if !sameButRevocations(old, v) && !force && w.glass == "" && w.wouldEnforce(v) {
		was, err := w.check(old)
		if err != nil {
			return nil, err
		}
		if out.Check, err = w.check(v); err != nil {
			return nil, err
		}
		if locks(was, out.Check) {
			w.put(audit.Record{Type: "reload", Verdict: "deny", Detail: (&refused{out.Check}).Error()})
			return nil, &refused{out.Check}
		}
	}
	w.store = store
	w.install(v)
	w.inform(func(r *report) { r.storeError, r.lastGood = out.Kept, false })
	_ = w.keepGood(v)
	w.put(audit.Record{Type: "reload", Verdict: "allow", Generation: v.Generation(), Mode: w.mode().String(),
		Detail: fmt.Sprintf("policy %d, revocations %d, %d keys, %d manifests", v.Policy().Version, v.Revocations().Serial, v.Trust().Len(), len(v.Manifests()))})
	return out, nil
}

// locks says whether something that runs, and was allowed, would be denied though nobody revoked it.
func locks(was, is *CheckReport) bool {
	before := map[string]bool{}
	for _, d := range was.Denied {
		before[d.Use+" "+d.Path] = true
	}
	for _, d := range is.Denied {
		if !d.Wanted && !before[d.Use+" "+d.Path] {
			return true
		}
	}
	return false
}

func (w *worker) wouldEnforce(v *digsig.Verifier) bool {
	if c := w.info.Load().command; c != "" {
		return c == "enforce"
	}
	if w.cfg.Mode != "" {
		return w.cfg.Mode == "enforce"
	}
	return v.Policy().Mode == digsig.Enforce
}

// sameButRevocations says whether two snapshots differ in revocations only.
func sameButRevocations(a, b *digsig.Verifier) bool {
	now := time.Unix(0, 0)
	x, y := a.State(now), b.State(now)
	return x.PolicySum == y.PolicySum && reflect.DeepEqual(a.Trust(), b.Trust()) && reflect.DeepEqual(a.Manifests(), b.Manifests())
}
