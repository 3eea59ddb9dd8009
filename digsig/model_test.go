package digsig

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/elfsig/elftest"
	"midplane/internal/digsig/envelope"

	"pgregory.net/rapid"
)

// world is everything that a verdict depends on, as plain values.
type world struct {
	trusted  []*Key
	revoked  *Revocations
	policy   *Policy
	listed   map[[32]byte]ManifestEntry
	listedBy *Signer
	at       time.Time
}

// naive decides the slow and obvious way: the whole file in memory, debug/elf to read it, every rule written out once more.
func (w *world) naive(b []byte, use Use) bool {
	ok := w.naiveGood(b, use)
	return ok || w.policy.Mode != Enforce
}

func (w *world) naiveGood(b []byte, use Use) bool {
	type claim struct {
		st *Statement
		ok bool
	}
	var claims []claim
	file := sha256.Sum256(b)
	signed := file
	if f, err := elf.NewFile(bytes.NewReader(b)); err == nil {
		s := f.Section(elfsig.SectionName)
		if s != nil && s.Offset+s.Size == uint64(len(b)) && s.Size == elfsig.NoteSize {
			zeroed := slices.Clone(b)
			slot := zeroed[len(b)-elfsig.SlotSize:]
			payload := slices.Clone(slot)
			clear(slot)
			signed = sha256.Sum256(zeroed)
			if env, rest, err := envelope.DecodePrefix(payload); err == nil && len(bytes.Trim(rest, "\x00")) == 0 {
				if st, err := envelope.DecodeStatement(env.Body); err == nil && st.Digest == signed {
					claims = append(claims, claim{st, w.naiveSigners(env, DomainContent, st)})
				}
			}
		}
	}
	if e, ok := w.listed[file]; ok {
		st := &Statement{Digest: file, Size: e.Size, Kind: e.Kind, Name: e.Name, Version: e.Version, Roles: e.Roles, Issued: now.Add(-time.Hour)}
		key := w.key(w.listedBy.KeyID())
		claims = append(claims, claim{st, key != nil && w.naiveKey(key, PurposeManifest, st)})
	}
	if _, bad := w.revoked.Digests[file]; bad {
		return false
	}
	if _, bad := w.revoked.Digests[signed]; bad {
		return false
	}
	for _, c := range claims {
		if !c.ok || c.st.Size != uint64(len(b)) || w.at.Before(c.st.Issued) || (!c.st.Expires.IsZero() && !w.at.Before(c.st.Expires)) {
			continue
		}
		if m, ok := w.revoked.Below[c.st.Name]; ok && c.st.Version < m.Version {
			continue
		}
		roles := c.st.Roles
		if (w.policy.Interpreters[file].Indirect || w.policy.Interpreters[signed].Indirect) && roles&RoleExec != 0 {
			roles = roles&^RoleExec | RoleInterp
		}
		allowed := map[Use]Role{UseExec: RoleExec, UseInterp: RoleExec | RoleInterp, UseLib: RoleExec | RoleLib | RoleInterp | RoleModule, UseModule: RoleModule, UseCheck: RoleExec, UseScript: RoleScript, UseAny: AllRoles}
		if roles&allowed[use] != 0 {
			return true
		}
	}
	return false
}

func (w *world) key(id KeyID) *Key {
	for _, k := range w.trusted {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

func (w *world) naiveKey(k *Key, p Purpose, st *Statement) bool {
	_, revoked := w.revoked.Keys[k.ID()]
	return !revoked && k.Purposes&p != 0 && st.Roles&^k.Roles == 0 && !w.at.Before(k.NotBefore) && (k.NotAfter.IsZero() || w.at.Before(k.NotAfter))
}

func (w *world) naiveSigners(env *Envelope, d Domain, st *Statement) bool {
	good, bad := 0, 0
	for _, s := range env.Signatures {
		k := w.key(s.Key)
		if k == nil {
			continue
		}
		if !k.Public.Verify(envelope.Message(d, s.Alg, s.Key, envelope.Signers(env.Signatures), uint64(len(env.Body)), sha256.Sum256(env.Body)), s.Sig) {
			return false
		}
		if w.naiveKey(k, PurposeContent, st) {
			good++
		} else {
			bad++
		}
	}
	return good > 0 && (bad == 0 || !w.policy.AllMustMatch)
}

// Verifier says what the slow reference says, and a verdict that is renewed says what a new one would, whatever trust, lists,
// policy, time and use were when it was made.
func TestAgainstNaive(t *testing.T) {
	signers := []*Signer{testKey(t, 1), testKey(t, 2), p256Key(t)}
	owner := testKey(t, 100) // of lists
	files := [][]byte{elftest.Build(program).Bytes}
	for i, m := range elftest.Every(program) {
		files = append(files, embed(t, m.Bytes, Template{Name: "a", Version: 3}, signers[0]))
		files = append(files, embed(t, m.Bytes, Template{Name: "b", Version: 4, Roles: RoleLib, Expires: now.Add(time.Hour)}, signers[1], signers[2]))
		files = append(files, embed(t, m.Bytes, Template{Name: i, Roles: RoleExec | RoleInterp}, signers...))
	}
	for _, b := range slices.Clone(files) {
		x := slices.Clone(b)
		x[len(x)/2] ^= 1
		files = append(files, x)
	}
	rapid.Check(t, func(t *rapid.T) {
		list := manifestOf2(t, signers, files)
		one, two := someWorld(t, signers, owner, list), someWorld(t, signers, owner, list)
		v1, v2 := one.verifier(t, owner, list.raw), two.verifier(t, owner, list.raw)
		b := files[rapid.IntRange(0, len(files)-1).Draw(t, "file")]
		uses := []Use{UseExec, UseInterp, UseLib, UseModule, UseCheck, UseAny, UseScript}
		use1, use2 := rapid.SampledFrom(uses).Draw(t, "use"), rapid.SampledFrom(uses).Draw(t, "other use")
		verify := func(v *Verifier, use Use, at time.Time) Verdict {
			return v.Verify(t.Context(), bytes.NewReader(b), int64(len(b)), use, at)
		}
		first := verify(v1, use1, one.at)
		if want := one.naive(b, use1); first.Allow != want {
			t.Fatalf("%s: the reference says %v", first, want)
		}
		fresh, again := verify(v2, use2, two.at), v2.Recheck(first, use2, two.at)
		if want := two.naive(b, use2); fresh.Allow != want {
			t.Fatalf("%s: the reference says %v", fresh, want)
		}
		fresh.evidence, again.evidence = nil, nil
		if fmt.Sprintf("%+v", fresh) != fmt.Sprintf("%+v", again) {
			t.Fatalf("renewed %+v, new %+v", again, fresh)
		}
	})
}

func (w *world) verifier(t *rapid.T, owner *Signer, list []byte) *Verifier {
	keys := append(slices.Clone(w.trusted), &Key{Public: owner.Public(), Purposes: PurposeRevocations | PurposePolicy})
	trust, err := NewTrustStore(keys...)
	if err != nil {
		t.Fatal(err)
	}
	revocations, err := SignRevocations(w.revoked, owner)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := SignPolicy(w.policy, owner)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(Config{Trust: trust, Manifests: [][]byte{list}, Revocations: revocations, Policy: policy, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type someManifest struct {
	raw     []byte
	entries map[[32]byte]ManifestEntry
	by      *Signer
}

var manifests struct {
	sync.Mutex
	made []someManifest
}

// manifestOf2 returns one of a few manifests, which are made once.
func manifestOf2(t *rapid.T, signers []*Signer, files [][]byte) someManifest {
	manifests.Lock()
	defer manifests.Unlock()
	for i := len(manifests.made); i < 2*len(signers); i++ {
		m := someManifest{entries: map[[32]byte]ManifestEntry{}, by: signers[i/2]}
		var entries []ManifestEntry
		for j, b := range files {
			if j%3 == i%3 {
				st, err := StatementOf(t.Context(), bytes.NewReader(b), int64(len(b)), Template{Name: "m", Version: uint64(j % 4), Issued: now})
				if err != nil {
					t.Fatal(err)
				}
				entries = append(entries, EntryOf(st))
				m.entries[st.Digest] = EntryOf(st)
			}
		}
		var err error
		if m.raw, err = SignManifest(ManifestHeader{Issued: now.Add(-time.Hour)}, entries, m.by); err != nil {
			t.Fatal(err)
		}
		manifests.made = append(manifests.made, m)
	}
	return manifests.made[rapid.IntRange(0, len(manifests.made)-1).Draw(t, "manifest")]
}

func someWorld(t *rapid.T, signers []*Signer, owner *Signer, list someManifest) *world {
	w := &world{
		revoked:  &Revocations{Serial: 1, Issued: now.Add(-time.Hour), Digests: map[[32]byte]string{}, Keys: map[KeyID]string{}, Below: map[string]Minimum{}},
		policy:   &Policy{Version: 1, Issued: now.Add(-time.Hour), Exempt: map[[32]byte]string{}, Interpreters: map[[32]byte]Interpreter{}},
		listed:   list.entries,
		listedBy: list.by,
		at:       now.Add(time.Duration(rapid.IntRange(-1, 2).Draw(t, "hours")) * time.Hour).Add(-time.Second),
	}
	if w.at.Before(now.Add(-time.Hour)) {
		w.at = now.Add(-time.Hour) // the lists say that it is later
	}
	digests := []([32]byte){{1}}
	for d := range list.entries {
		digests = append(digests, d)
	}
	slices.SortFunc(digests, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, s := range signers {
		if rapid.IntRange(0, 3).Draw(t, "trusted") == 0 {
			continue
		}
		k := &Key{Public: s.Public(), Purposes: AllPurposes, Roles: AllRoles}
		switch rapid.IntRange(0, 9).Draw(t, "key") {
		case 0:
			k.Purposes = PurposeManifest
		case 1:
			k.Roles = RoleExec
		case 2:
			k.NotAfter = now
		case 3:
			k.NotBefore = now
		case 4:
			w.revoked.Keys[k.ID()] = "drawn"
		}
		w.trusted = append(w.trusted, k)
	}
	if rapid.IntRange(0, 3).Draw(t, "revoke") == 0 {
		w.revoked.Digests[rapid.SampledFrom(digests).Draw(t, "revoked")] = "drawn"
	}
	if rapid.Bool().Draw(t, "minimum") {
		w.revoked.Below[rapid.SampledFrom([]string{"a", "b", "m"}).Draw(t, "name")] = Minimum{Version: rapid.Uint64Range(1, 5).Draw(t, "version")}
	}
	if rapid.IntRange(0, 3).Draw(t, "indirect") == 0 {
		w.policy.Interpreters[rapid.SampledFrom(digests).Draw(t, "interpreter")] = Interpreter{Indirect: true, Scripts: []string{}}
	}
	w.policy.AllMustMatch = rapid.Bool().Draw(t, "all")
	if rapid.IntRange(0, 7).Draw(t, "mode") == 0 {
		w.policy.Mode = Permissive
	}
	return w
}

// One Verifier answers many at once.
func TestConcurrently(t *testing.T) {
	key := testKey(t, 1)
	b := embed(t, elftest.Build(program).Bytes, Template{}, key)
	v := verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{manifestOf(t, key, []byte("data"))}})
	first := v.bytes(t, b, UseExec)
	parallel(200, func(i int) {
		if got := v.bytes(t, b, UseExec); !got.Allow {
			t.Error(got)
		}
		if got := v.bytes(t, []byte("data"), UseAny); !got.Allow {
			t.Error(got)
		}
		if got := v.Recheck(first, UseLib, now); !got.Allow {
			t.Error(got)
		}
	})
}
