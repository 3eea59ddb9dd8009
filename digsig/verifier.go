package digsig

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/manifest"
	"midplane/internal/digsig/policy"
	"midplane/internal/digsig/revoke"
)

// Content is a file to be verified. *os.File, *bytes.Reader and *io.SectionReader are such.
type Content = io.ReaderAt

// State is what must outlive a restart, so that older lists and a clock that was set back are seen. The caller keeps it;
// Store does so in a directory. The zero value is that of a new machine.
type State struct {
	Policy         uint64    // version
	PolicySum      [32]byte  // SHA-256 of its body
	Revocations    uint64    // serial
	RevocationsSum [32]byte  // SHA-256 of its body
	Latest         time.Time // the latest time that is known to have been
	Generation     uint64
}

// Config is what a Verifier is made of. Octets that it refers to belong to the Verifier from then on and must not change;
// above all they must not be a mapping of a file that somebody can write to.
type Config struct {
	Trust       *TrustStore // nil: nobody is trusted
	Manifests   [][]byte    // envelopes of DomainManifest; those of keys that are not trusted count as UnknownKey
	Revocations []byte      // envelope of DomainRevocations; nil: nothing is revoked
	Policy      []byte      // envelope of DomainPolicy; nil: the zero Policy
	State       State
	Now         time.Time // for the validity of the keys that signed the lists
}

// Verifier is an immutable snapshot of trust, manifests, revocations and policy, with a generation. It is safe for
// concurrent use, starts no goroutine that outlives a call, and is replaced whole: see Store.Load and the methods With….
type Verifier struct {
	trust       *TrustStore
	manifests   []signedManifest
	files       []reference // of all manifests, in ascending order
	revocations *Revocations
	policy      *Policy
	state       State
	floor       time.Time
	generation  uint64
	config      Config
}

type signedManifest struct {
	raw  []byte
	list *Manifest
	env  *Envelope
	sum  [32]byte // SHA-256 of its body
	good map[KeyID]bool
}

// reference is the place of a file in a manifest, by the first octets of its digest.
type reference struct {
	prefix      uint64
	list, index uint32
}

// ListError says which list was not taken, and why; the verifier that there is stays in force.
type ListError struct {
	List string // "revocations", "policy", or "manifest" and its place
	Err  error
}

// Error implements error.
func (e *ListError) Error() string { return e.List + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ListError) Unwrap() error { return e.Err }

// Causes of ListErrors.
var (
	ErrOlder     = errors.New("older than the one in force")
	ErrOther     = errors.New("not the one in force, but with its number")
	ErrUntrusted = errors.New("not signed by a key that is trusted for it")
	ErrMissing   = errors.New("there was one, and now there is none")
)

// NewVerifier makes a Verifier. It fails with a *ListError when a list is not good: not well-formed, not signed by a trusted
// key for that purpose that is valid at c.Now, or older than State says.
func NewVerifier(c Config) (*Verifier, error) { return newVerifier(c, nil, nil) }

// newVerifier takes over the manifests of an older Verifier that are the same octets. What was revoked before, by prior, may
// not sign another list.
func newVerifier(c Config, old *Verifier, prior *Revocations) (*Verifier, error) {
	if prior == nil {
		prior = &Revocations{}
	}
	v := &Verifier{trust: c.Trust, revocations: prior, policy: &Policy{}, state: c.State, floor: c.State.Latest, config: c}
	if v.trust == nil {
		v.trust, _ = NewTrustStore()
	}
	if err := v.loadRevocations(c); err != nil {
		return nil, &ListError{"revocations", err}
	}
	if err := v.loadPolicy(c); err != nil {
		return nil, &ListError{"policy", err}
	}
	for i, b := range c.Manifests {
		m, err := v.loadManifest(b, old)
		if err != nil {
			return nil, &ListError{fmt.Sprintf("manifest %d", i+1), err}
		}
		v.manifests = append(v.manifests, m)
	}
	v.index(old)
	v.generation = c.State.Generation + 1
	v.state.Generation = v.generation
	v.state.Latest = v.floor
	return v, nil
}

// open decodes the envelope of a list and checks its signatures. A list that was in force before stays so when its key
// expires or is revoked: something must be in force until there is another.
func (v *Verifier) open(b []byte, d Domain, known [32]byte, now time.Time) (body []byte, sum [32]byte, err error) {
	env, err := envelope.Decode(b)
	if err != nil {
		return nil, sum, err
	}
	if env.Domain != d {
		return nil, sum, fmt.Errorf("it is of domain %s: want %s", env.Domain, d)
	}
	sum = sha256.Sum256(env.Body)
	f := v.signatures(env, verifyAll(env, v.trust), nil, v.clock(now))
	stays := sum == known && (f.reason == Expired || f.reason == Revoked)
	if f.reason != Signed && !stays {
		return nil, sum, fmt.Errorf("%w: %s", ErrUntrusted, f.detail)
	}
	return env.Body, sum, nil
}

// newer says whether a list may replace the one that State tells of.
func newer(number, had uint64, sum, known [32]byte) error {
	if number < had {
		return fmt.Errorf("%w: %d, and %d is in force", ErrOlder, number, had)
	}
	if number == had && sum != known {
		return fmt.Errorf("%w: %d", ErrOther, number)
	}
	return nil
}

func (v *Verifier) loadRevocations(c Config) error {
	if c.Revocations == nil {
		if c.State.Revocations > 0 {
			return fmt.Errorf("%w: serial %d", ErrMissing, c.State.Revocations)
		}
		v.revocations = &Revocations{}
		return nil
	}
	body, sum, err := v.open(c.Revocations, DomainRevocations, c.State.RevocationsSum, c.Now)
	if err != nil {
		return err
	}
	list, err := revoke.Decode(body)
	if err != nil {
		return err
	}
	if err := newer(list.Serial, c.State.Revocations, sum, c.State.RevocationsSum); err != nil {
		return err
	}
	v.revocations = list
	v.state.Revocations, v.state.RevocationsSum = list.Serial, sum
	v.later(list.Issued)
	return nil
}

func (v *Verifier) loadPolicy(c Config) error {
	if c.Policy == nil {
		if c.State.Policy > 0 {
			return fmt.Errorf("%w: version %d", ErrMissing, c.State.Policy)
		}
		return nil
	}
	body, sum, err := v.open(c.Policy, DomainPolicy, c.State.PolicySum, c.Now)
	if err != nil {
		return err
	}
	p, err := policy.Decode(body)
	if err != nil {
		return err
	}
	if err := newer(p.Version, c.State.Policy, sum, c.State.PolicySum); err != nil {
		return err
	}
	v.policy = p
	v.state.Policy, v.state.PolicySum = p.Version, sum
	v.later(p.Issued)
	return nil
}

func (v *Verifier) loadManifest(b []byte, old *Verifier) (m signedManifest, err error) {
	if m = old.same(b); m.list == nil {
		m.raw = b
		if m.env, err = envelope.Decode(b); err != nil {
			return m, err
		}
		if m.env.Domain != DomainManifest {
			return m, fmt.Errorf("it is of domain %s: want %s", m.env.Domain, DomainManifest)
		}
		if m.list, err = manifest.Decode(m.env.Body); err != nil {
			return m, err
		}
		m.sum = sha256.Sum256(m.env.Body)
	}
	m.good = verifySum(m.env, m.sum, v.trust)
	for k, good := range m.good {
		if !good {
			return m, fmt.Errorf("the signature by key %s does not fit: it was changed after it was signed", v.trust.Key(k))
		}
	}
	return m, nil
}

// same returns the manifest that was made of the very octets, or none.
func (v *Verifier) same(b []byte) signedManifest {
	if v != nil && len(b) > 0 {
		for _, m := range v.manifests {
			if len(m.raw) == len(b) && &m.raw[0] == &b[0] {
				return m
			}
		}
	}
	return signedManifest{}
}

// index makes one sorted list of the files of all manifests.
func (v *Verifier) index(old *Verifier) {
	if old != nil && slices.EqualFunc(v.manifests, old.manifests, func(a, b signedManifest) bool { return a.list == b.list }) {
		v.files = old.files
		return
	}
	n := 0
	for _, m := range v.manifests {
		n += m.list.Len()
	}
	v.files = make([]reference, 0, n)
	for i, m := range v.manifests {
		for j := range m.list.Len() {
			d := m.list.DigestAt(j)
			v.files = append(v.files, reference{binary.BigEndian.Uint64(d[:]), uint32(i), uint32(j)})
		}
	}
	slices.SortFunc(v.files, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.list, b.list), cmp.Compare(a.index, b.index))
	})
}

// listed calls use for each manifest that lists a digest, until it returns false. It does not allocate.
func (v *Verifier) listed(digest *[32]byte, use func(m *signedManifest, index int) bool) {
	prefix := binary.BigEndian.Uint64(digest[:])
	lo, hi := 0, len(v.files)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if v.files[mid].prefix < prefix {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for _, r := range v.files[lo:] {
		if r.prefix != prefix {
			return
		}
		m := &v.manifests[r.list]
		if m.list.DigestAt(int(r.index)) == *digest && !use(m, int(r.index)) {
			return
		}
	}
}

// later makes a time that a trusted key has signed the lower bound of the clock.
func (v *Verifier) later(t time.Time) {
	if t.After(v.floor) {
		v.floor = t
	}
}

func (v *Verifier) with(change func(*Config), now time.Time) (*Verifier, error) {
	c := v.config
	c.State, c.Now = v.state, now
	change(&c)
	return newVerifier(c, v, v.revocations)
}

// WithRevocations returns a Verifier with another revocation list. now is the clock's time.
func (v *Verifier) WithRevocations(b []byte, now time.Time) (*Verifier, error) {
	return v.with(func(c *Config) { c.Revocations = b }, now)
}

// WithPolicy returns a Verifier with another policy. now is the clock's time.
func (v *Verifier) WithPolicy(b []byte, now time.Time) (*Verifier, error) {
	return v.with(func(c *Config) { c.Policy = b }, now)
}

// WithManifests returns a Verifier with other manifests. now is the clock's time.
func (v *Verifier) WithManifests(b [][]byte, now time.Time) (*Verifier, error) {
	return v.with(func(c *Config) { c.Manifests = b }, now)
}

// WithTrust returns a Verifier that trusts others. now is the clock's time.
func (v *Verifier) WithTrust(t *TrustStore, now time.Time) (*Verifier, error) {
	return v.with(func(c *Config) { c.Trust = t }, now)
}

// Generation returns the number of the snapshot; it grows with each.
func (v *Verifier) Generation() uint64 { return v.generation }

// Policy returns the policy in force. It must not be changed.
func (v *Verifier) Policy() *Policy { return v.policy }

// Revocations returns the list in force. It must not be changed.
func (v *Verifier) Revocations() *Revocations { return v.revocations }

// Trust returns the keys.
func (v *Verifier) Trust() *TrustStore { return v.trust }

// Manifests returns the manifests, whoever signed them.
func (v *Verifier) Manifests() []*Manifest {
	var all []*Manifest
	for _, m := range v.manifests {
		all = append(all, m.list)
	}
	return all
}

// State returns what to keep for the next start, when the clock shows now.
func (v *Verifier) State(now time.Time) State {
	s := v.state
	s.Latest = v.clock(now).UTC()
	return s
}

// Request is what a Verifier is asked.
type Request struct {
	Use     Use
	At      time.Time // the clock's time; one before the latest that is known counts as that
	Path    string    // as it was opened, for the policy's rules about paths; empty: unknown
	Subject *[32]byte // SHA-256 of the whole program that asks, for the policy's rules about programs; nil: unknown

	Signature []byte  // envelope from beside the file; nil: none. It is not kept
	Carrier   Carrier // where it was: InXattr or Detached
}

// Verify says whether a file of the given size may be used so at a time. It reads the file once in big blocks, after the few
// parts of it that lead to an embedded signature; it needs no privilege. ctx ends it early (Unreadable).
func (v *Verifier) Verify(ctx context.Context, file Content, size int64, use Use, at time.Time) Verdict {
	return v.Check(ctx, file, size, Request{Use: use, At: at})
}

// Check is Verify with all that a policy may want to know.
func (v *Verifier) Check(ctx context.Context, file Content, size int64, q Request) Verdict {
	out := Verdict{Use: q.Use, Generation: v.generation, Size: size}
	if size < 0 {
		return v.deny(out, NotRegular, fmt.Sprintf("size %d", size))
	}
	if need, exempt := v.need(q, 0); need == 0 {
		return v.unrestricted(out, exempt)
	}
	if limit := v.policy.Limit(); uint64(size) > limit {
		return v.deny(out, TooBig, fmt.Sprintf("%d octets, and the policy's max-size is %d", size, limit))
	}
	e, err := v.gather(ctx, file, size, q.Signature, q.Carrier)
	if err != nil {
		return v.deny(out, Unreadable, err.Error())
	}
	return v.judge(e, q)
}

// Recheck renews a verdict for the same content without reading it: for another use, at another time, by other lists. The
// verdict must come from a Verifier, not necessarily this one; one that was made without reading the content is Unreadable
// then, unless nothing is wanted.
func (v *Verifier) Recheck(old Verdict, use Use, at time.Time) Verdict {
	return v.RecheckRequest(old, Request{Use: use, At: at})
}

// RecheckRequest is Recheck with all that a policy may want to know. The signature of the request is not looked at.
func (v *Verifier) RecheckRequest(old Verdict, q Request) Verdict {
	out := Verdict{Use: q.Use, Generation: v.generation, Size: old.Size, evidence: old.evidence}
	if need, exempt := v.need(q, 0); need == 0 {
		return v.unrestricted(out, exempt)
	}
	if old.evidence == nil {
		return v.deny(out, Unreadable, "the content was not read")
	}
	if limit := v.policy.Limit(); uint64(old.evidence.size) > limit {
		return v.deny(out, TooBig, fmt.Sprintf("%d octets, and the policy's max-size is %d", old.evidence.size, limit))
	}
	return v.judge(old.evidence, q)
}

func (v *Verifier) need(q Request, k Kind) (Role, string) {
	return v.policy.Need(policy.Question{Use: q.Use, Path: q.Path, Subject: q.Subject, Kind: k})
}
