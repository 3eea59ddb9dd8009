package bpflsm

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/verity/enrol"
)

// The bits of struct settings.flags (bpf/state.h).
const (
	denyAnonymous = 1 << iota
	checkModules
	guardState
	denyPtrace
)

// change rewrites the settings. The caller holds mu, or nobody else has the gate yet.
func (g *Gate) change(f func(*lsmSettings)) error {
	s, err := g.settings()
	if err != nil {
		return err
	}
	f(&s)
	if err := g.maps.Policy.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("bpflsm: set the policy: %w", err)
	}
	return nil
}

func (g *Gate) settings() (s lsmSettings, err error) {
	if err := g.maps.Policy.Lookup(uint32(0), &s); err != nil {
		return s, fmt.Errorf("bpflsm: read the policy: %w", err)
	}
	return s, nil
}

// SetPolicy puts a policy in force, at once and for all. One that would keep this very program from running again, so
// that nobody could change the policy any more, is refused with *LockoutError unless force says to go on.
func (g *Gate) SetPolicy(p Policy, force bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.Mode == Enforce && !force {
		if err := g.lockout(p.Guard); err != nil {
			return err
		}
	}
	var flags uint32
	for bit, on := range map[uint32]bool{denyAnonymous: p.Anonymous, checkModules: p.Modules, guardState: p.Guard, denyPtrace: p.Ptrace} {
		if on {
			flags |= bit
		}
	}
	return g.change(func(s *lsmSettings) { s.Mode, s.Flags = uint32(p.Mode), flags })
}

// lockout says whether the running program would be allowed again. Only fs-verity counts: a verdict of user space would
// need somebody to give it.
func (g *Gate) lockout(guard bool) error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("bpflsm: %w", err)
	}
	defer f.Close()
	program, _ := os.Readlink("/proc/self/exe")
	bad := func(lack string) error { return &LockoutError{Program: program, Lack: lack} }
	d, err := enrol.Measure(f)
	if err != nil {
		return bad(err.Error())
	}
	sum, ok := d.SHA256()
	if !ok {
		return bad("its fs-verity is not by SHA-256")
	}
	grant, err := g.Granted(Digest{Verity, sum})
	switch {
	case err != nil:
		return err
	case grant.Roles&envelope.RoleExec == 0:
		return bad("its fs-verity digest " + d.String() + " is not granted the role exec")
	case guard && !grant.Manager:
		return bad("it is not granted to be a manager")
	}
	return nil
}

// Policy returns what is in force.
func (g *Gate) Policy() (Policy, error) {
	s, err := g.settings()
	return policyOf(s), err
}

func policyOf(s lsmSettings) Policy {
	return Policy{
		Mode: Mode(s.Mode), Anonymous: s.Flags&denyAnonymous != 0, Modules: s.Flags&checkModules != 0,
		Guard: s.Flags&guardState != 0, Ptrace: s.Flags&denyPtrace != 0,
	}
}

// Allow adds grants, or gives those that there are other roles. Each holds as soon as it is made.
func (g *Gate) Allow(grants ...Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := g.settings()
	if err != nil {
		return err
	}
	return g.put(grants, s.Floor)
}

func (g *Gate) put(grants []Grant, generation uint64) error {
	for i := range grants {
		d := &grants[i]
		if d.Kind != Verity && d.Kind != Content {
			return fmt.Errorf("bpflsm: a grant for kind %v: want fs-verity or content", d.Kind)
		}
		err := g.maps.Allowed.Put(&lsmDigest{Kind: uint32(d.Kind), Sum: d.Sum}, &lsmGrant{Generation: generation, Roles: d.bits()})
		if err != nil {
			return fmt.Errorf("bpflsm: allow %v, grant %d of %d: %w (room is for %d)", d.Digest, i+1, len(grants), err, g.maps.Allowed.MaxEntries())
		}
	}
	return nil
}

// Revoke takes grants away, those that there are. What already runs goes on; its next mapping does not.
func (g *Gate) Revoke(digests ...Digest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range digests {
		if err := g.drop(lsmDigest{Kind: uint32(d.Kind), Sum: d.Sum}); err != nil {
			return fmt.Errorf("bpflsm: revoke %v: %w", d, err)
		}
	}
	return nil
}

// Replace makes grants the only ones. Those of before hold until it has all of the new ones, and what is among both never
// lacks; then all others end in one step. It returns the new generation. There must be room for both; when it fails
// before that step, all is as it was.
func (g *Gate) Replace(grants []Grant) (generation uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := g.settings()
	if err != nil {
		return 0, err
	}
	before, err := g.all()
	if err != nil {
		return 0, err
	}
	generation = s.Floor + 1
	if err := g.put(grants, generation); err != nil {
		return 0, errors.Join(err, g.restore(before, generation))
	}
	if err := g.change(func(s *lsmSettings) { s.Floor = generation }); err != nil {
		return 0, errors.Join(err, g.restore(before, generation))
	}
	now, err := g.all()
	for key, value := range now {
		if value.Generation < generation {
			err = errors.Join(err, g.drop(key))
		}
	}
	if err != nil {
		return generation, fmt.Errorf("bpflsm: sweep what no longer holds: %w", err)
	}
	return generation, nil
}

// all returns what the map has, whether it counts or not.
func (g *Gate) all() (map[lsmDigest]lsmGrant, error) {
	m := map[lsmDigest]lsmGrant{}
	var key lsmDigest
	var value lsmGrant
	entries := g.maps.Allowed.Iterate()
	for entries.Next(&key, &value) {
		m[key] = value
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("bpflsm: list grants: %w", err)
	}
	return m, nil
}

// restore undoes what put did with a generation.
func (g *Gate) restore(before map[lsmDigest]lsmGrant, generation uint64) error {
	now, err := g.all()
	for key, value := range now {
		if value.Generation != generation {
			continue
		}
		if old, was := before[key]; was {
			err = errors.Join(err, g.maps.Allowed.Put(&key, &old))
		} else {
			err = errors.Join(err, g.drop(key))
		}
	}
	if err != nil {
		return fmt.Errorf("bpflsm: put grants back: %w", err)
	}
	return nil
}

func (g *Gate) drop(key lsmDigest) error {
	if err := g.maps.Allowed.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// SetOverlays names the overlays, by the device that stat(2) gives for their mount points, whose layers are all watched by
// fanotify. It replaces those that were named before.
func (g *Gate) SetOverlays(devices []uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	want := map[uint32]bool{}
	for _, d := range devices {
		want[unix.Major(d)<<20|unix.Minor(d)] = true
	}
	var gone []uint32
	var key, value uint32
	entries := g.maps.Overlays.Iterate()
	for entries.Next(&key, &value) {
		if !want[key] {
			gone = append(gone, key)
		}
		delete(want, key)
	}
	err := entries.Err()
	for _, key := range gone {
		if e := g.maps.Overlays.Delete(key); !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, e)
		}
	}
	for key := range want {
		err = errors.Join(err, g.maps.Overlays.Put(key, uint32(1)))
	}
	if err != nil {
		return fmt.Errorf("bpflsm: name overlays: %w", err)
	}
	return nil
}

// Granted returns what a digest is granted; the zero Grant but for the digest when it is nothing.
func (g *Gate) Granted(d Digest) (Grant, error) {
	var v lsmGrant
	err := g.maps.Allowed.Lookup(&lsmDigest{Kind: uint32(d.Kind), Sum: d.Sum}, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Grant{Digest: d}, nil
	}
	if err != nil {
		return Grant{Digest: d}, fmt.Errorf("bpflsm: %w", err)
	}
	return Grant{Digest: d, Roles: envelope.Role(v.Roles & uint32(envelope.AllRoles)), Manager: v.Roles&managerRole != 0}, nil
}

// Status returns policy and counters.
func (g *Gate) Status() (Status, error) {
	s, err := g.settings()
	if err != nil {
		return Status{}, err
	}
	st := Status{Policy: policyOf(s), Generation: s.Floor}
	grants, err := g.all()
	if err != nil {
		return st, err
	}
	for _, v := range grants {
		if v.Generation >= s.Floor {
			st.Grants++
		}
	}
	var each []uint64
	sum := func() (n uint64) {
		for _, v := range each {
			n += v
		}
		return n
	}
	for h := range st.Counters {
		for r := range st.Counters[h] {
			if err := g.maps.Counters.Lookup(uint32(h*reasons+r), &each); err != nil {
				return st, fmt.Errorf("bpflsm: counters: %w", err)
			}
			st.Counters[h][r] = sum()
		}
	}
	if err := g.maps.Lost.Lookup(uint32(0), &each); err != nil {
		return st, fmt.Errorf("bpflsm: counters: %w", err)
	}
	st.Lost = sum()
	return st, nil
}
