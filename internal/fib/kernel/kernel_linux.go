package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/binding"
	"midplane/internal/fib/kernel/plan"
)

// Kernel is the kernel side of all FIBs of a network namespace; see API for its methods.
type Kernel struct {
	config Config
	netns  uint64   // inode of home
	lock   *os.File // held while the record is ours

	mu     sync.Mutex // one thing at a time
	rec    plan.Record
	spaces map[string]*space
	probed map[Backend]error
	closed bool

	resolver resolver

	change sync.Mutex // guards what follows
	fibs   []FIB      // as last applied
	byID   map[uint32]FIB
	watch  chan struct{} // closed and made anew when fibs has changed
}

// Open begins the use of the record. Errors: fib.ErrInUse while another process, or another Kernel of this one, uses it;
// *fib.FieldError when it is of another namespace or broken; *sys.UnsupportedError.
func Open(c Config) (*Kernel, error) {
	if c.Dir == "" {
		c.Dir = binding.DefaultDir()
	}
	if c.NetnsDir == "" {
		c.NetnsDir = defaultNetnsDir
	}
	k := &Kernel{config: c, spaces: map[string]*space{}, probed: map[Backend]error{}, watch: make(chan struct{})}
	var err error
	if k.netns, err = inode(k.home()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if k.lock, err = lockFile(filepath.Join(c.Dir, "kernel.lock")); err != nil {
		return nil, err
	}
	if err := k.load(); err != nil {
		_ = k.lock.Close()
		return nil, err
	}
	k.remember(k.rec.FIBs)
	return k, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &fib.OpError{Op: "open", What: path, Err: fib.ErrInUse}
		}
		return nil, err
	}
	return f, nil
}

// errClosed is what a Kernel says after Close.
var errClosed = fmt.Errorf("the kernel side of FIBs is closed: %w", os.ErrClosed)

// Close implements API.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	k.closeSpaces()
	k.changed(nil)
	k.resolver.mu.Lock()
	defer k.resolver.mu.Unlock()
	k.resolver.clear()
	return k.lock.Close()
}

// FIBs implements API.
func (k *Kernel) FIBs() []FIB {
	k.change.Lock()
	defer k.change.Unlock()
	return slices.Clone(k.fibs)
}

func (k *Kernel) changed(fibs []FIB) {
	k.change.Lock()
	defer k.change.Unlock()
	if reflect.DeepEqual(k.fibs, fibs) {
		return
	}
	k.resolver.mu.Lock()
	k.resolver.clear() // namespaces may be others
	k.resolver.mu.Unlock()
	k.remember(fibs)
	close(k.watch)
	k.watch = make(chan struct{})
}

// remember keeps what was applied. The caller holds k.change, or is alone.
func (k *Kernel) remember(fibs []FIB) {
	k.fibs, k.byID = fibs, map[uint32]FIB{}
	for _, f := range fibs {
		k.byID[f.ID] = f
	}
}

// Apply implements API.
func (k *Kernel) Apply(ctx context.Context, fibs []FIB) (Report, error) {
	if err := fieldError(plan.Validate(fibs)); err != nil {
		return Report{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return Report{}, errClosed
	}
	fibs, err := k.resolve(fibs)
	if err != nil {
		return Report{}, err
	}
	return k.converge(ctx, fibs, false)
}

// resolve gives each FIB a back end that works, and ports their names.
func (k *Kernel) resolve(fibs []FIB) ([]FIB, error) {
	l := slices.Clone(fibs)
	now := map[uint32]Backend{}
	for _, f := range k.rec.FIBs {
		now[f.ID] = f.Backend
	}
	for i := range l {
		f := &l[i]
		f.Ports = slices.Clone(f.Ports)
		for j := range f.Ports {
			f.Ports[j].Device = f.Ports[j].Title()
		}
		if f.Backend == Auto {
			if old, ok := now[f.ID]; ok {
				f.Backend = old
				continue
			}
			if err := k.first(f); err != nil {
				return nil, err
			}
		}
		if err := k.works(f.Backend); err != nil {
			return nil, err
		}
	}
	return l, fieldError(plan.Validate(l))
}

// first gives a FIB the first back end that works.
func (k *Kernel) first(f *FIB) error {
	var all error
	for _, b := range backends {
		err := k.works(b)
		if err == nil {
			f.Backend = b
			return nil
		}
		all = errors.Join(all, fmt.Errorf("back end %s: %w", b, err))
	}
	return all
}

// fieldError makes an error of the core one of the API.
func fieldError(err error) error {
	var f *plan.FieldError
	if errors.As(err, &f) {
		return &fib.FieldError{Field: f.Field, Value: f.Value, Want: f.Want}
	}
	return err
}

// maxRounds bounds how often it is looked whether all is as it should be. Two suffice, three when the kernel adds things by
// itself; more means that somebody else changes things meanwhile.
const maxRounds = 8

// converge makes it so.
func (k *Kernel) converge(ctx context.Context, fibs []FIB, lenient bool) (Report, error) {
	var report Report
	defer k.closeSpaces()
	for range maxRounds {
		o, err := k.observe(plan.Need(fibs, k.rec))
		if err != nil {
			return report, err
		}
		p, err := plan.Make(fibs, k.rec, o, lenient)
		if err != nil {
			return report, fieldError(err)
		}
		report.Missing = p.Missing
		for _, s := range p.Orphans {
			if !slices.Contains(report.Orphans, s) {
				report.Orphans = append(report.Orphans, s)
			}
		}
		if len(p.Ops) == 0 {
			return report, k.settle(p.After)
		}
		if err := k.begin(p.Before); err != nil {
			return report, err
		}
		for _, op := range p.Ops {
			if err := ctx.Err(); err != nil {
				return report, err
			}
			if err := k.act(op); err != nil {
				return report, err
			}
			report.Operations = append(report.Operations, op.String())
		}
		k.rec = p.Done()
	}
	return report, fmt.Errorf("the kernel does not settle after %d rounds: something else changes what FIBs are made of; last: %s", maxRounds, report.Operations[len(report.Operations)-1])
}

// begin puts on record what is going to be, and takes the bindings away of what is going to change.
func (k *Kernel) begin(before plan.Record) error {
	if err := k.save(before); err != nil {
		return err
	}
	old, _ := binding.Load(k.config.Dir) // a broken file is replaced
	k.rec = before
	now := map[uint32]binding.Binding{}
	for _, b := range k.bindings(before.FIBs) {
		now[b.FIB] = b
	}
	count := len(old)
	kept := slices.DeleteFunc(old, func(b binding.Binding) bool { return !reflect.DeepEqual(b, now[b.FIB]) })
	if len(kept) == count {
		return nil
	}
	return k.saveBindings(kept)
}

// settle puts on record what is, and how it is entered.
func (k *Kernel) settle(after plan.Record) error {
	if err := k.saveBindings(k.bindings(after.FIBs)); err != nil {
		return err
	}
	if err := k.save(after); err != nil {
		return err
	}
	k.rec = after
	k.changed(after.FIBs)
	return nil
}

func (k *Kernel) bindings(fibs []FIB) []binding.Binding {
	var l []binding.Binding
	for _, f := range fibs {
		b := binding.Binding{FIB: f.ID, Name: f.Name, Backend: binding.Backend(f.Backend)}
		for _, p := range f.Ports {
			b.Ports = append(b.Ports, p.Title())
		}
		slices.Sort(b.Ports)
		for _, a := range f.DNS {
			b.DNS = append(b.DNS, a.String())
		}
		switch f.Backend {
		case VRF:
			b.Device = f.Title()
		case Rules:
			b.Mark = f.ID
		case Netns:
			b.Netns = k.spacePath(f.Title())
		}
		l = append(l, b)
	}
	return l
}

func (k *Kernel) saveBindings(l []binding.Binding) error {
	if len(l) == 0 {
		return binding.Remove(k.config.Dir)
	}
	return binding.Save(k.config.Dir, l)
}

// Remove implements API.
func (k *Kernel) Remove(ctx context.Context) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return Report{}, errClosed
	}
	return k.converge(ctx, nil, false)
}

// Recover implements API.
func (k *Kernel) Recover(ctx context.Context) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return Report{}, errClosed
	}
	adopted := slices.Clone(k.rec.FIBs)
	orphans, err := k.strays()
	if err != nil {
		return Report{}, err
	}
	r, err := k.converge(ctx, adopted, true)
	r.Orphans = append(orphans, r.Orphans...)
	for _, f := range adopted {
		r.Adopted = append(r.Adopted, f.ID)
	}
	return r, err
}

// strays removes what no record says anything about and a Plan does not see: mirrored routes of other tables, and namespaces.
func (k *Kernel) strays() ([]string, error) {
	defer k.closeSpaces()
	var found []string
	known := map[uint32]bool{}
	for _, l := range [][]FIB{k.rec.FIBs, k.rec.Leaving} {
		for _, f := range l {
			known[f.ID] = true
		}
	}
	s, err := k.space("")
	if err != nil {
		return nil, err
	}
	tables := map[uint32]bool{}
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		err := s.rt.routes(f, 0, ProtocolRoute, func() {}, func(b []byte) error {
			r, err := decodeSetup(b, func(int) string { return "" })
			if !known[r.Table] {
				tables[r.Table] = true
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for t := range tables {
		if err := s.flush(t); err != nil {
			return nil, err
		}
		found = append(found, fmt.Sprintf("routes of table %d", t))
	}
	lost, err := k.straySpaces()
	return append(found, lost...), err
}

// straySpaces brings the devices home that are in namespaces of ours that are not on record, and removes those.
func (k *Kernel) straySpaces() ([]string, error) {
	entries, err := os.ReadDir(k.config.NetnsDir)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		if slices.Contains(k.rec.Spaces, name) {
			continue
		}
		s, err := k.space(name)
		if err != nil {
			continue // somebody else's, or none
		}
		var links map[string]plan.Link
		if _, err := s.links(&links, false); err != nil || links["lo"].Alias != k.mine(name) {
			continue
		}
		for device, l := range links {
			if l.Loopback {
				continue
			}
			err := k.act(plan.Op{Verb: plan.Move, Space: name, Device: device})
			if err != nil && !isAny(err, unix.EINVAL) { // each namespace has tunnel devices that cannot leave it
				return found, err
			}
		}
		if err := k.delSpace(name); err != nil {
			return found, err
		}
		found = append(found, "namespace "+name)
	}
	return found, nil
}

// mine is what the loopback device of a namespace is called besides: whose namespace it is.
func (k *Kernel) mine(name string) string {
	return fmt.Sprintf("%s%s of %d", plan.AliasPrefix, name, k.netns)
}

// fib returns a FIB that was applied.
func (k *Kernel) fib(id fib.ID) (FIB, error) {
	k.change.Lock()
	defer k.change.Unlock()
	if f, ok := k.byID[uint32(id)]; ok {
		return f, nil
	}
	return FIB{}, &fib.OpError{Op: "find", What: "fib " + id.String(), Err: fib.ErrNotFound}
}

func masked(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() }
