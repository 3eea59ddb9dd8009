package enforcer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gaps/probe"
	"midplane/internal/digsig/gate"
	"midplane/internal/digsig/verity/enrol"
)

// maxVerity bounds how many fs-verity digests are known; the gate in the kernel has room for twice as many, as Replace
// needs.
const maxVerity = 1 << 16

// enrolled is what was found out about a content that fs-verity keeps as it is.
type enrolled struct {
	verdict digsig.Verdict
	path    string
}

// raise begins to put the highest tier in force that the configuration wants and this kernel carries. The error is of tier
// bpf-lsm when it was asked for by name and nothing was enforced before.
func (w *worker) raise() error {
	if w.cfg.Tier == TierFanotify {
		w.lower(errors.New("the configuration wants no higher one"))
		return nil
	}
	err := w.attach()
	switch {
	case err == nil:
		go w.denials()
	case w.cfg.Tier == TierBPF && w.first:
		return fmt.Errorf("tier %s: %w", TierBPF, err)
	default:
		w.lower(err)
	}
	go w.collect()
	return nil
}

// lower goes on without the gate in the kernel, and removes one that was left there. That is the machine's, and no matter
// of an enforcer for some file systems.
func (w *worker) lower(why error) {
	if len(w.cfg.Mounts) == 0 {
		if err := detach(); err != nil {
			why = fmt.Errorf("%w; and the programs in the kernel cannot be removed: %w", why, err)
		}
	}
	w.say("tier %s is not in force: %v", gaps.TierBPF, why)
	w.inform(func(r *report) { r.noBPF = why.Error() })
}

// attach makes the gate in the kernel or takes over the one that there is. Until collect is through it does as before, a
// new one nothing.
func (w *worker) attach() error {
	if w.cfg.Tier == TierVerity {
		return errors.New("the configuration wants no higher one")
	}
	if err := bpflsm.Probe(); err != nil {
		return err
	}
	switch {
	case len(w.cfg.Mounts) > 0:
		return errors.New("it is for the whole machine, and the configuration names file systems (Mounts)")
	case w.cfg.NoOpen:
		return errors.New("it needs verdicts about libraries, which the configuration does not want (NoOpen)")
	case w.cfg.Remote:
		return errors.New("it denies what is on FUSE and network file systems, which the configuration allows (Remote)")
	}
	if _, err := ownGrant(); err != nil {
		return err
	}
	if w.cfg.Tier != TierBPF {
		if at := w.unwatchedOverlay(); at != "" {
			return fmt.Errorf("what runs from an overlay is decided by its layers, and of the one at %s they are not all watched; tier %s by name denies it", at, TierBPF)
		}
	}
	g, err := bpflsm.Attach(bpflsm.Config{Grants: 2 * maxVerity})
	if err == nil {
		// Whoever gave the verdicts about content may have ended before it took back one that a writer has ended.
		err = g.ForgetAll()
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.lsm = g
	w.mu.Unlock()
	w.nameOverlays()
	return nil
}

// unwatchedOverlay returns where an overlay is mounted that nobody decides about.
func (w *worker) unwatchedOverlay() string {
	for _, m := range *w.marks.Load() {
		if m.Type == "overlay" && m.Err != "" {
			return m.Mount
		}
	}
	return ""
}

// overlays says whether there are some that fanotify decides about.
func (w *worker) overlays() bool {
	return slices.ContainsFunc(*w.marks.Load(), func(m Marked) bool { return m.Type == "overlay" && m.Err == "" })
}

// nameOverlays tells the kernel which overlays have layers that are all watched: what runs from them is decided by fanotify.
func (w *worker) nameOverlays() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lsm == nil {
		return
	}
	var devices []uint64
	for _, m := range *w.marks.Load() {
		var major, minor uint32
		if m.Type != "overlay" || m.Err != "" || len(m.layers) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(m.Dev, "%d:%d", &major, &minor); err == nil {
			devices = append(devices, unix.Mkdev(major, minor))
		}
	}
	if err := w.lsm.SetOverlays(devices); err != nil {
		w.say("overlays: %v", err)
	}
}

// ownGrant lets this program itself be started again when nobody is there to give a verdict about it.
func ownGrant() (bpflsm.Grant, error) {
	f, err := os.Open(self)
	if err != nil {
		return bpflsm.Grant{}, err
	}
	defer f.Close()
	name, _ := os.Readlink(self)
	d, err := enrol.Measure(f)
	if err != nil {
		return bpflsm.Grant{}, fmt.Errorf("%s, without which nobody could answer, must be enrolled (midplane digsig enrol %s): %w", name, filepath.Dir(name), err)
	}
	sum, ok := d.SHA256()
	if !ok {
		return bpflsm.Grant{}, fmt.Errorf("%s: its fs-verity is not by SHA-256", name)
	}
	return bpflsm.Grant{Digest: bpflsm.Digest{Kind: bpflsm.Verity, Sum: sum}, Roles: digsig.RoleExec, Manager: true}, nil
}

// collect looks at what is enrolled, and then lets the kernel decide.
func (w *worker) collect() {
	roots := w.cfg.Enrolled
	if len(roots) == 0 {
		roots = []string{"/usr", "/opt"}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				w.enrolled(path)
			}
			return nil // what is gone or cannot be read is nobody's grant
		})
		if err != nil {
			w.say("look for what is enrolled: %v", err)
		}
	}
	w.reload.Lock()
	defer w.reload.Unlock()
	v := w.judge.Load()
	ready := w.rejudge(v)
	w.mu.Lock()
	g := w.lsm
	var err error
	if g != nil {
		if err = w.replace(v, ready); err == nil {
			w.lsmReady = true
			err = w.kernelPolicy()
		}
		if err != nil {
			w.lsm, w.lsmReady = nil, false
		}
	}
	w.mu.Unlock()
	if err != nil {
		w.lower(errors.Join(err, g.Close()))
	}
	w.probe()
}

// enrolled judges a file that has fs-verity.
func (w *worker) enrolled(path string) {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st) != nil || st.Attributes&unix.STATX_ATTR_VERITY == 0 {
		return
	}
	r := enrol.File(context.Background(), path, enrol.Config{Verifier: w.judge.Load(), Scan: true})
	if sum, ok := r.Digest.SHA256(); ok {
		w.remember(bpflsm.Digest{Kind: bpflsm.Verity, Sum: sum}, r.Verdict, path)
	}
}

// remember keeps a verdict about what fs-verity keeps as it is.
func (w *worker) remember(d bpflsm.Digest, v digsig.Verdict, path string) {
	if v.File == [32]byte{} {
		return // it was not read
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.verity) < maxVerity {
		w.verity[d] = enrolled{v, path}
	}
}

// borrow makes a file of a descriptor that stays somebody else's. It must be closed.
func borrow(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(n), strconv.Itoa(fd)), nil
}

// measure returns the digest of a file that has fs-verity by SHA-256.
func (w *worker) measure(fd int) (d bpflsm.Digest, ok bool) {
	var st unix.Statx_t
	if w.cfg.Tier == TierFanotify || unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st) != nil || st.Attributes&unix.STATX_ATTR_VERITY == 0 {
		return d, false
	}
	f, err := borrow(fd)
	if err != nil {
		return d, false
	}
	defer f.Close()
	m, err := enrol.Measure(f)
	if err != nil {
		return d, false
	}
	sum, ok := m.SHA256()
	return bpflsm.Digest{Kind: bpflsm.Verity, Sum: sum}, ok
}

// enrolledVerdict is the verdict about a file with fs-verity whose content was read before; none that a signature
// elsewhere could make better.
func (w *worker) enrolledVerdict(v *digsig.Verifier, d bpflsm.Digest, q digsig.Request) (digsig.Verdict, bool) {
	w.mu.Lock()
	e, ok := w.verity[d]
	w.mu.Unlock()
	if !ok {
		return digsig.Verdict{}, false
	}
	out := v.RecheckRequest(e.verdict, q)
	ok = good(out) || out.Reason == digsig.RoleMissing || out.Cause == digsig.RoleMissing
	if ok {
		w.nEnrolled.Add(1)
	}
	return out, ok
}

// rolesOf are the roles that the kernel is told: the uses that the policy allows, and whether it is a good module.
func rolesOf(v *digsig.Verifier, uses gate.Uses, verdict digsig.Verdict, path string) (r digsig.Role) {
	if good(v.RecheckRequest(verdict, digsig.Request{Use: digsig.UseModule, At: time.Now(), Path: path})) {
		r = digsig.RoleModule
	}
	for _, u := range [...]struct {
		use  gate.Uses
		role digsig.Role
	}{{gate.MayExec, digsig.RoleExec}, {gate.MayLib, digsig.RoleLib}, {gate.MayScript, digsig.RoleScript}, {gate.MayInterp, digsig.RoleInterp}} {
		if uses&u.use != 0 {
			r |= u.role
		}
	}
	return r
}

// hand gives the kernel a verdict about a file under its lease. The caller holds mu; it waits for nothing. What fails
// leaves the file denied there.
func (w *worker) hand(v *digsig.Verifier, f *file, uses gate.Uses) {
	if w.lsm == nil || f.handedGen == v.Generation() && f.handed == uses {
		return
	}
	f.handed, f.handedGen = uses, v.Generation()
	if err := w.handTo(f, rolesOf(v, uses, f.verdict, f.path)); err != nil {
		w.nUnhanded.Add(1)
		if uses != 0 {
			w.say("the kernel takes no verdict about %s: %v", f.path, err)
		}
	}
}

func (w *worker) handTo(f *file, roles digsig.Role) error {
	h, err := borrow(f.fd)
	if err != nil {
		return err
	}
	defer h.Close()
	if d, ok := w.measure(f.fd); ok {
		if own, err := ownGrant(); err == nil && own.Digest == d {
			return nil
		}
		if roles == 0 {
			return w.lsm.Revoke(d)
		}
		return w.lsm.Allow(bpflsm.Grant{Digest: d, Roles: roles})
	}
	if roles == 0 {
		return w.lsm.Forget(h)
	}
	sum := f.verdict.File
	if err := w.lsm.Begin(h); err != nil {
		return err
	}
	if err := w.lsm.Allow(bpflsm.Grant{Digest: bpflsm.Digest{Kind: bpflsm.Content, Sum: sum}, Roles: roles}); err != nil {
		return errors.Join(err, w.lsm.Forget(h))
	}
	if !f.told {
		f.told = true
		w.told[sum]++
	}
	return w.lsm.Commit(h, sum)
}

// takeBack ends the kernel's verdict about a file before its lease goes: a writer that waits for the lease has passed the
// programs already. The caller holds mu.
func (w *worker) takeBack(f *file) {
	if !f.told || w.lsm == nil {
		return
	}
	f.told = false
	sum := f.verdict.File
	var gone error
	if w.told[sum]--; w.told[sum] == 0 {
		delete(w.told, sum)
		gone = w.lsm.Revoke(bpflsm.Digest{Kind: bpflsm.Content, Sum: sum})
	}
	h, err := borrow(f.fd)
	if err == nil {
		err = w.lsm.Forget(h)
		h.Close()
	}
	if err != nil {
		// It cannot be left: all go, and the others come again.
		err = errors.Join(err, w.lsm.ForgetAll())
		v := w.judge.Load()
		for _, o := range w.entries {
			if o.told {
				err = errors.Join(err, w.handTo(o, rolesOf(v, o.handed, o.verdict, o.path)))
			}
		}
	}
	if err = errors.Join(err, gone); err != nil {
		w.say("a verdict in the kernel: %v", err)
	}
}

// judged is what lists that are about to be in force say about what is known.
type judged struct {
	verity map[bpflsm.Digest]digsig.Role
	files  map[*file]fileJudged
}

type fileJudged struct {
	uses  gate.Uses
	roles digsig.Role
}

// rejudge judges everything that the kernel knows by v, while answers go on.
func (w *worker) rejudge(v *digsig.Verifier) judged {
	j := judged{map[bpflsm.Digest]digsig.Role{}, map[*file]fileJudged{}}
	w.mu.Lock()
	if w.lsm == nil {
		w.mu.Unlock()
		return j
	}
	known := make(map[bpflsm.Digest]enrolled, len(w.verity))
	for d, e := range w.verity {
		known[d] = e
	}
	files := map[*file]enrolled{}
	for _, f := range w.entries {
		if f.judged {
			files[f] = enrolled{f.verdict, f.path}
		}
	}
	w.mu.Unlock()
	for d, e := range known {
		uses, until := usesOf(v, &file{verdict: e.verdict, path: e.path})
		j.verity[d] = rolesOf(v, uses, e.verdict, e.path)
		w.mu.Lock()
		w.soonKernel(until)
		w.mu.Unlock()
	}
	for f, e := range files {
		uses, _ := usesOf(v, &file{verdict: e.verdict, path: e.path})
		j.files[f] = fileJudged{uses, rolesOf(v, uses, e.verdict, e.path)}
	}
	return j
}

// replace exchanges what the kernel allows. Content that is not in ready is judged when it is asked for again. The caller
// holds mu.
func (w *worker) replace(v *digsig.Verifier, ready judged) error {
	own, err := ownGrant()
	if err != nil {
		return err
	}
	all := map[bpflsm.Digest]bpflsm.Grant{}
	add := func(d bpflsm.Digest, roles digsig.Role) {
		if roles != 0 {
			all[d] = bpflsm.Grant{Digest: d, Roles: roles | all[d].Roles}
		}
	}
	for d, roles := range ready.verity {
		add(d, roles)
	}
	for f, is := range ready.files {
		if f.told {
			add(bpflsm.Digest{Kind: bpflsm.Content, Sum: f.verdict.File}, is.roles)
			f.handed, f.handedGen = is.uses, v.Generation()
		}
	}
	all[own.Digest] = own
	list := make([]bpflsm.Grant, 0, len(all))
	for _, g := range all {
		list = append(list, g)
	}
	_, err = w.lsm.Replace(list)
	return err
}

// kernelPolicy puts the mode in force in the kernel too. The caller holds mu.
func (w *worker) kernelPolicy() error {
	if w.lsm == nil || !w.lsmReady {
		return nil
	}
	p := w.cfg.kernel()
	p.Mode = bpflsm.Permissive
	if w.gate.Mode() == gate.Enforce {
		p.Mode = bpflsm.Enforce
	}
	return w.lsm.SetPolicy(p, false)
}

// soonKernel has the enrolled files judged again at a time. The caller holds mu.
func (w *worker) soonKernel(until time.Time) {
	if until.IsZero() || !w.lsmUntil.IsZero() && w.lsmUntil.Before(until) {
		return
	}
	w.lsmUntil = until
	if w.lsmTimer != nil {
		w.lsmTimer.Stop()
	}
	w.lsmTimer = time.AfterFunc(time.Until(until), func() {
		w.reload.Lock()
		defer w.reload.Unlock()
		w.mu.Lock()
		w.lsmUntil = time.Time{}
		w.mu.Unlock()
		v := w.judge.Load()
		ready := w.rejudge(v)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.lsm != nil {
			if err := w.replace(v, ready); err != nil {
				w.say("the kernel's grants: %v", err)
			}
		}
	})
}

// denials logs what the kernel denied by itself.
func (w *worker) denials() {
	w.mu.Lock()
	g := w.lsm
	w.mu.Unlock()
	d, err := g.Denials()
	if err != nil {
		w.say("%v", err)
		return
	}
	defer d.Close()
	for {
		e, err := d.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			w.say("%v", err)
			time.Sleep(time.Second)
			continue
		}
		uid := int(e.UID)
		r := audit.Record{Time: time.Now(), Type: "verdict", Verdict: "deny", Use: e.Hook.String(), Reason: e.Reason.String(), Detail: "in the kernel",
			Path: e.Path, PID: e.PID, PPID: e.Parent, UID: &uid, Exe: e.Command, Mode: e.Mode.String()}
		if e.Mode != bpflsm.Enforce {
			r.Verdict = "would-deny"
		}
		if e.Digest.Kind != bpflsm.None {
			r.Digest = hex.EncodeToString(e.Digest.Sum[:])
		}
		w.put(r)
	}
}

// probe finds out the gaps of this kernel with what is in force.
func (w *worker) probe() {
	h, err := probe.Host()
	if err != nil {
		w.say("probe of the kernel: %v", err)
		return
	}
	w.probing.Lock()
	defer w.probing.Unlock()
	k := w.cfg.kernel()
	s := gaps.Settings{DenyAnonymous: k.Anonymous, Modules: k.Modules, GuardBPF: k.Guard, GuardPtrace: k.Ptrace}
	w.mu.Lock()
	inForce := w.lsmReady
	w.mu.Unlock()
	if w.cfg.Tier == TierFanotify {
		s.Highest = gaps.TierFanotify
	} else if !inForce {
		s.Highest = gaps.TierVerity
	}
	r := gaps.Decide(h, s)
	if !inForce && len(r.Why) > 0 {
		why := w.info.Load().noBPF
		if why == "" {
			why = "it is being prepared"
		}
		r.Why[len(r.Why)-1] = fmt.Sprintf("no tier %v: %s", gaps.TierBPF, why)
	}
	w.gaps.Store(&r)
}

// kernelStatus is what the gate in the kernel does, nil without one.
func (w *worker) kernelStatus() *Kernel {
	w.mu.Lock()
	g, ready := w.lsm, w.lsmReady
	w.mu.Unlock()
	if g == nil || !ready {
		return nil
	}
	s, err := g.Status()
	if err != nil {
		return &Kernel{Mode: "unknown: " + err.Error()}
	}
	return &Kernel{Mode: s.Policy.Mode.String(), Grants: s.Grants, Denied: s.Counters.Denied(), Lost: s.Lost, Unhanded: w.nUnhanded.Load()}
}

// detach removes the gate in the kernel, if there is one.
func detach() error {
	if _, err := os.Stat(bpflsm.DefaultPins); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	g, err := bpflsm.Open(bpflsm.Config{})
	if errors.Is(err, bpflsm.ErrNotAttached) {
		return os.RemoveAll(bpflsm.DefaultPins)
	}
	if err != nil {
		return err
	}
	return g.Remove()
}

// detachAnew has the program itself, run anew, remove the gate in the kernel: it is a manager of a guarded gate then,
// which this process need not be.
func detachAnew(c *Config, log *slog.Logger) {
	if _, err := os.Stat(bpflsm.DefaultPins); c.Keep || len(c.Mounts) > 0 || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.Dir = append(environ(), roleVariable+"=detach"), "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		log.Error("the programs in the kernel stay: they cannot be removed", "err", err, "output", string(out))
	}
}
