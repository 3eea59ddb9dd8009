package digsig

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// onDisk makes a store with the lists given; empty ones are not there.
func onDisk(t *testing.T, key *Signer) *Store {
	t.Helper()
	dir := t.TempDir()
	pub, err := trustedFor(key, func(k *Key) { k.Comment = "store's" }).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, TrustDir, "a.pub"), pub)
	put(t, filepath.Join(dir, TrustDir, "README"), []byte("no key"))
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.StateDir = filepath.Join(t.TempDir(), "state")
	return s
}

func put(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// What was in force stays so over restarts, whatever older lists are put in its place, or none.
func TestStoreRemembers(t *testing.T) {
	key := testKey(t, 1)
	s := onDisk(t, key)
	load := func(words string) *Verifier {
		t.Helper()
		v, err := s.Load(now)
		if (err == nil) != (words == "") || (err != nil && !strings.Contains(err.Error(), words)) {
			t.Fatalf("%v: want an error with %q", err, words)
		}
		if err != nil && v == nil && words != "" && strings.Contains(err.Error(), "stays in force") {
			t.Fatal("no verifier")
		}
		return v
	}
	v := load("")
	if v.Revocations().Serial != 0 || v.Policy().Version != 0 || v.Generation() != 1 || v.Trust().Len() != 1 {
		t.Error("the empty store")
	}
	revocations, policy := filepath.Join(s.Dir, RevocationsFile), filepath.Join(s.Dir, PolicyFile)
	put(t, revocations, revoking(t, 5, key, nil))
	put(t, policy, policyOf(t, 3, key, nil))
	put(t, filepath.Join(s.Dir, ManifestDir, "a.mdm"), manifestOf(t, key, []byte("data")))
	v = load("")
	if v.Revocations().Serial != 5 || v.Policy().Version != 3 || len(v.Manifests()) != 1 {
		t.Error("the full store")
	}
	if err := s.Save(v, now); err != nil {
		t.Fatal(err)
	}
	if v = load(""); v.Generation() != 2 {
		t.Errorf("generation %d", v.Generation())
	}
	again, err := s.Reload(v, now)
	if err != nil || again.Generation() != 3 || again.manifests[0].list != v.manifests[0].list {
		t.Errorf("generation %d, %v", again.Generation(), err)
	}
	put(t, revocations, revoking(t, 4, key, nil))
	if v = load("revocations: older"); v.Revocations().Serial != 5 {
		t.Error("an older list is in force")
	}
	put(t, policy, policyOf(t, 2, key, nil))
	if v = load("policy: older"); v.Revocations().Serial != 5 || v.Policy().Version != 3 {
		t.Error("an older list is in force")
	}
	os.Remove(revocations)
	os.Remove(policy)
	if v = load("there was one"); v.Revocations().Serial != 5 || v.Policy().Version != 3 {
		t.Error("no list is in force")
	}
	put(t, policy, policyOf(t, 3, key, nil))
	put(t, revocations, revoking(t, 5, key, func(l *Revocations) { l.Digests[[32]byte{}] = "other" }))
	load("with its number")
	put(t, revocations, revoking(t, 6, testKey(t, 9), nil))
	load("not signed by a key that is trusted")
	put(t, revocations, []byte("nonsense"))
	load("not a DigSig envelope")
	put(t, revocations, revoking(t, 6, key, nil))
	if v = load(""); v.Revocations().Serial != 6 {
		t.Error("a newer list is not in force")
	}
	// So does a process that goes on, without the state directory.
	put(t, revocations, revoking(t, 2, key, nil))
	again, err = s.Reload(v, now)
	if !errors.Is(err, ErrOlder) || again.Revocations().Serial != 6 || again.Generation() != v.Generation()+1 {
		t.Errorf("%v", err)
	}
	put(t, revocations, revoking(t, 6, key, nil))
	// The time that was last known counts too.
	if err := s.Save(v, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := load("").State(now).Latest; !got.Equal(now.Add(time.Hour)) {
		t.Errorf("latest %s", got)
	}
	put(t, filepath.Join(s.StateDir, stateFile), []byte("{"))
	load("state.json")
}

// What a list revoked signs no other list, after a restart neither.
func TestStoreRemembersRevokedKeys(t *testing.T) {
	key, thief := testKey(t, 1), testKey(t, 2)
	s := onDisk(t, key)
	pub, err := trustedFor(thief, func(*Key) {}).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Dir, TrustDir, "b.pub"), pub)
	put(t, filepath.Join(s.Dir, PolicyFile), policyOf(t, 1, thief, nil))
	put(t, filepath.Join(s.Dir, RevocationsFile), revoking(t, 1, key, func(l *Revocations) { l.Keys[thief.KeyID()] = "stolen" }))
	if _, err := s.Load(now); !errors.Is(err, ErrUntrusted) { // the policy was never in force
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Dir, PolicyFile), policyOf(t, 1, key, nil))
	v, err := s.Load(now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(v, now); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Dir, RevocationsFile), revoking(t, 2, thief, nil))
	if _, err := s.Load(now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v: want ErrUntrusted", err)
	}
	if _, err := s.Reload(v, now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v: want ErrUntrusted", err)
	}
}

func TestStoreErrors(t *testing.T) {
	key := testKey(t, 1)
	if _, err := OpenStore(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("there is nothing")
	}
	for words, change := range map[string]func(s *Store){
		"b.pub: line 1": func(s *Store) { put(t, filepath.Join(s.Dir, TrustDir, "b.pub"), []byte("nonsense")) },
		"there twice": func(s *Store) {
			b, _ := os.ReadFile(filepath.Join(s.Dir, TrustDir, "a.pub"))
			put(t, filepath.Join(s.Dir, TrustDir, "b.pub"), b)
		},
		"more than":          func(s *Store) { put(t, filepath.Join(s.Dir, TrustDir, "b.pub"), make([]byte, maxKeyFile+1)) },
		"manifest 1":         func(s *Store) { put(t, filepath.Join(s.Dir, ManifestDir, "b.mdm"), []byte("nonsense")) },
		"domain policy":      func(s *Store) { put(t, filepath.Join(s.Dir, RevocationsFile), policyOf(t, 1, key, nil)) },
		"domain revocations": func(s *Store) { put(t, filepath.Join(s.Dir, ManifestDir, "b.mdm"), revoking(t, 1, key, nil)) },
		"changed after": func(s *Store) {
			b := manifestOf(t, key, []byte("data"))
			b[len(b)-1] ^= 1
			put(t, filepath.Join(s.Dir, ManifestDir, "b.mdm"), b)
		},
		"chmod o-w": func(s *Store) {
			if runtime.GOOS == "windows" {
				t.Skip("modes are not what they seem")
			}
			if err := os.Chmod(filepath.Join(s.Dir, TrustDir, "a.pub"), 0o666); err != nil {
				t.Fatal(err)
			}
		},
		"want chmod": func(s *Store) {
			if err := os.Chmod(filepath.Join(s.Dir, TrustDir), 0o777); err != nil {
				t.Fatal(err)
			}
		},
		"not a regular file": func(s *Store) { os.Mkdir(filepath.Join(s.Dir, PolicyFile), 0o755) },
	} {
		s := onDisk(t, key)
		change(s)
		if v, err := s.Load(now); err == nil || v != nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v: want an error with %q", err, words)
		}
	}
}

// A key that expires takes no list out of force that was in force before, and puts none into it.
func TestListsOfExpiredKeys(t *testing.T) {
	key := testKey(t, 1)
	trust := storeOf(t, trustedFor(key, func(k *Key) { k.NotAfter = now.Add(time.Hour) }))
	list := revoking(t, 1, key, nil)
	v := verifier(t, Config{Trust: trust, Revocations: list})
	later := now.Add(2 * time.Hour)
	if _, err := NewVerifier(Config{Trust: trust, Revocations: list, State: v.State(now), Now: later}); err != nil {
		t.Error(err)
	}
	if _, err := NewVerifier(Config{Trust: trust, Revocations: list, Now: later}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v: want ErrUntrusted", err)
	}
	if _, err := v.WithRevocations(revoking(t, 2, key, nil), later); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v: want ErrUntrusted", err)
	}
	// A list that revokes the key that signed it is taken, and is the last one.
	own, err := v.WithRevocations(revoking(t, 2, key, func(l *Revocations) { l.Keys[key.KeyID()] = "stolen" }), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.WithRevocations(revoking(t, 3, key, nil), now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v: want ErrUntrusted", err)
	}
}

// A manifest is revoked as a whole, by the digest of its body or by its name and version.
func TestManifestRevoked(t *testing.T) {
	key := testKey(t, 1)
	data := []byte("data")
	list := manifestOf(t, key, data)
	v := verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}})
	want(t, v.bytes(t, data, UseAny), Signed, "manifest")
	e, err := DecodeEnvelope(list)
	if err != nil {
		t.Fatal(err)
	}
	for r, change := range map[Reason]func(l *Revocations){
		Revoked:  func(l *Revocations) { l.Digests[sha256.Sum256(e.Body)] = "CVE" },
		Rollback: func(l *Revocations) { l.Below["some"] = Minimum{Version: 2, Why: "CVE"} },
		Signed:   func(l *Revocations) { l.Below["some"] = Minimum{Version: 1} },
	} {
		v, err := v.WithRevocations(revoking(t, 1, key, change), now)
		if err != nil {
			t.Fatal(err)
		}
		words := "CVE"
		if r == Signed {
			words = ""
		}
		want(t, v.bytes(t, data, UseAny), r, words)
	}
}

// The modes, and what the rules of a policy are for.
func TestPolicyInForce(t *testing.T) {
	key := testKey(t, 1)
	subject := [32]byte{7}
	unsigned := []byte("#!/bin/sh\n")
	for _, mode := range []Mode{Enforce, Permissive, Learn} {
		v := verifier(t, Config{Trust: trusting(t, key), Policy: policyOf(t, 1, key, func(p *Policy) {
			p.Mode = mode
			p.Exempt[subject] = "compiler"
			p.Protect = []string{"/etc/*"}
		})})
		got := v.bytes(t, unsigned, UseExec)
		switch mode {
		case Enforce:
			want(t, got, Unsigned, "")
		case Permissive:
			want(t, got, Permitted, "no signature")
		case Learn:
			want(t, got, Learning, "no signature")
		}
		if mode != Enforce && got.Cause != Unsigned {
			t.Errorf("cause %s", got.Cause)
		}
		q := Request{Use: UseLib, At: now, Subject: &subject}
		want(t, v.Check(t.Context(), errReader{}, 10, q), Exempt, "compiler")
		q = Request{Use: UseOpen, At: now, Path: "/home/x"}
		want(t, v.Check(t.Context(), errReader{}, 10, q), Unrestricted, "")
		if mode == Enforce {
			q.Path = "/etc/passwd"
			got := v.Check(t.Context(), errReader{}, 10, q)
			want(t, got, Unreadable, "fire")
			want(t, v.Recheck(got, UseExec, now), Unreadable, "not read")
		}
	}
}

// A verdict says until when it holds: where one signature suffices as long as that is good, where all must be as long as all.
func TestUntil(t *testing.T) {
	a, b := testKey(t, 1), p256Key(t)
	early, late := now.Add(time.Hour), now.Add(2*time.Hour)
	trust := storeOf(t, trustedFor(a, func(k *Key) { k.NotAfter = early }), trustedFor(b, func(k *Key) { k.NotAfter = late }))
	file := embed(t, smallELF(t), Template{}, a, b)
	for _, all := range []bool{false, true} {
		owner := testKey(t, 3)
		trust := storeOf(t, append(trust.Keys(), trustedFor(owner, func(*Key) {}))...)
		v := verifier(t, Config{Trust: trust, Policy: policyOf(t, 1, owner, func(p *Policy) { p.AllMustMatch = all })})
		verify := func(at time.Time) Verdict {
			return v.Verify(t.Context(), bytes.NewReader(file), int64(len(file)), UseExec, at)
		}
		got := verify(now)
		want(t, got, Signed, "")
		if got.Until.IsZero() || got.Until.After(late) || (all && !got.Until.Equal(early)) {
			t.Errorf("all %v: until %s", all, got.Until)
		}
		// Until then nothing changes, and what comes after it is as it must be.
		want(t, verify(got.Until.Add(-1)), Signed, "")
		r := Signed
		if all {
			r = Expired
		}
		want(t, verify(early), r, "")
		want(t, verify(late), Expired, "")
	}
}

// What runs in learn mode becomes a manifest with which it runs in enforce mode.
func TestLearner(t *testing.T) {
	key := testKey(t, 1)
	trust := trusting(t, key)
	v := verifier(t, Config{Trust: trust, Policy: policyOf(t, 1, key, func(p *Policy) { p.Mode = Learn })})
	script, elf, bad := []byte("#!/bin/sh\n"), smallELF(t), []byte("revoked")
	v, err := v.WithRevocations(revoking(t, 1, key, func(l *Revocations) {
		l.Digests[v.bytes(t, bad, UseAny).File] = "CVE"
	}), now)
	if err != nil {
		t.Fatal(err)
	}
	var l Learner
	for _, c := range []struct {
		b    []byte
		use  Use
		take bool
	}{{script, UseExec, true}, {elf, UseExec, true}, {elf, UseInterp, true}, {bad, UseAny, false}, {bad, UseOpen, false}} {
		if got := l.Add(v.bytes(t, c.b, c.use), "/usr/bin/x\n"); got != c.take {
			t.Errorf("%s: %v", c.use, got)
		}
	}
	entries, refused := l.Proposal()
	if len(entries) != 2 || refused != 1 {
		t.Fatalf("%v, %d refused", entries, refused)
	}
	list, err := SignManifest(ManifestHeader{Name: "learned", Issued: now}, entries, key)
	if err != nil {
		t.Fatal(err)
	}
	v = verifier(t, Config{Trust: trust, Manifests: [][]byte{list}})
	want(t, v.bytes(t, script, UseExec), Signed, "")
	want(t, v.bytes(t, elf, UseExec), Signed, "")
	want(t, v.bytes(t, elf, UseInterp), Signed, "")
	want(t, v.bytes(t, elf, UseModule), RoleMissing, "module")
}
