//go:build unix

package digsig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/elfsig/elftest"
	"midplane/internal/digsig/envelope"
)

// Cases 1 to 19 of the reference, as far as a library can have them.
func TestCases(t *testing.T) {
	key, stranger, hardware := testKey(t, 1), testKey(t, 2), p256Key(t)
	v := verifier(t, Config{Trust: trusting(t, key, hardware)})
	every := elftest.Every(program)
	plain := every["64le"].Bytes
	signed := embed(t, plain, Template{Name: "prog", Version: 5}, key)
	image := elftest.Parse(signed)
	flip := func(at int, bit byte) []byte {
		b := slices.Clone(signed)
		b[at] ^= bit
		return b
	}

	t.Run("1 intact", func(t *testing.T) {
		for name, m := range every {
			for _, s := range []*Signer{key, hardware} {
				b := embed(t, m.Bytes, Template{Name: "prog"}, s)
				if got := v.bytes(t, b, UseExec); !got.Allow || got.Carrier != Embedded || got.Kind != KindELF {
					t.Errorf("%s, %s: %s", name, s.Public().Alg(), got)
				}
			}
		}
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Skip(err)
		}
		want(t, v.bytes(t, embed(t, self, Template{}, key), UseExec), Signed, "by key")
	})
	t.Run("2 unsigned", func(t *testing.T) {
		for _, m := range every {
			want(t, v.bytes(t, m.Bytes, UseExec), Unsigned, "no signature")
		}
		want(t, v.bytes(t, []byte("#!/bin/sh\n"), UseScript), Unsigned, "no signature")
	})
	t.Run("3 text", func(t *testing.T) {
		want(t, v.bytes(t, flip(int(image.Section(1, "sh_offset")), 1), UseExec), Broken, "changed after it was signed")
	})
	t.Run("4 entry", func(t *testing.T) { want(t, v.bytes(t, flip(24, 1), UseExec), Broken, "changed") })
	t.Run("5 program headers", func(t *testing.T) {
		want(t, v.bytes(t, flip(image.Phoff+image.Phentsize()+4, 2), UseExec), Broken, "changed") // flags: writable
		want(t, v.bytes(t, flip(int(image.Section(2, "sh_offset")), 1), UseExec), Broken, "changed")
	})
	t.Run("6 sections, symbols, padding", func(t *testing.T) {
		want(t, v.bytes(t, flip(image.Shoff+image.Shentsize()+8, 1), UseExec), Broken, "changed")
		want(t, v.bytes(t, flip(int(image.Section(4, "sh_offset")), 1), UseExec), Broken, "changed")
		want(t, v.bytes(t, flip(len(plain), 1), UseExec), Broken, "changed")     // between what was and what was appended
		want(t, v.bytes(t, flip(len(plain)+100, 1), UseExec), Broken, "changed") // padding up to the page
	})
	t.Run("7 appended", func(t *testing.T) {
		for _, n := range []int{1, 4, 1024, elfsig.NoteSize, 5000} {
			want(t, v.bytes(t, append(slices.Clone(signed), make([]byte, n)...), UseExec), Broken, "not at the end")
		}
	})
	t.Run("8 signature and zeros", func(t *testing.T) {
		slot := len(signed) - elfsig.SlotSize
		for at := slot; at < len(signed); at++ {
			if got := v.bytes(t, flip(at, 0x10), UseExec); got.Allow {
				t.Fatalf("octet %d of the slot: %s", at-slot, got)
			}
		}
		want(t, v.bytes(t, flip(len(signed)-1, 1), UseExec), Broken, "not zero")
		empty := slices.Clone(signed)
		clear(empty[slot:])
		want(t, v.bytes(t, empty, UseExec), Broken, "not a DigSig envelope")
	})
	t.Run("9 signature of another file", func(t *testing.T) {
		other := program
		other.Text = bytes.Repeat([]byte{0x90}, 12)
		b := embed(t, elftest.Build(other).Bytes, Template{Name: "prog", Version: 5}, key)
		copy(b[len(b)-elfsig.SlotSize:], signed[len(signed)-elfsig.SlotSize:])
		want(t, v.bytes(t, b, UseExec), Broken, "changed")
	})
	t.Run("10 two notes", func(t *testing.T) {
		b := elftest.Parse(slices.Clone(signed))
		b.SetSection(3, "sh_name", b.Section(b.Shnum-1, "sh_name"))
		want(t, v.bytes(t, b.Bytes, UseExec), Broken, "there are 2")
	})
	t.Run("11 overlaps and overflows", func(t *testing.T) {
		b := elftest.Parse(slices.Clone(signed))
		b.SetSegment(1, "p_filesz", uint64(len(signed)))
		want(t, v.bytes(t, b.Bytes, UseExec), Broken, "overlaps segment")
		b = elftest.Parse(slices.Clone(signed))
		b.SetSection(1, "sh_offset", math.MaxUint64)
		want(t, v.bytes(t, b.Bytes, UseExec), Broken, "no section table leads")
		// bsign's hazard: a section with the note's name somewhere in the code, of its own size.
		b = elftest.Parse(slices.Clone(plain))
		names := append(slices.Clone(b.Bytes), elfsig.SectionName+"\x00"...)
		b.Bytes = names
		b.SetSection(b.Strtab, "sh_offset", uint64(len(plain)))
		b.SetSection(b.Strtab, "sh_size", uint64(len(elfsig.SectionName)+1))
		b.SetSection(1, "sh_name", 0)
		b.SetSection(1, "sh_type", 7)
		b.SetSection(1, "sh_flags", 0)
		b.SetSection(1, "sh_addralign", 4)
		want(t, v.bytes(t, b.Bytes, UseExec), Broken, "octets: want")
		again := embed(t, b.Bytes, Template{}, key)
		want(t, v.bytes(t, again, UseExec), Signed, "")
		again[image.Section(1, "sh_offset")] ^= 1
		want(t, v.bytes(t, again, UseExec), Broken, "changed")
	})
	t.Run("12 unknown key, other purpose", func(t *testing.T) {
		want(t, v.bytes(t, embed(t, plain, Template{}, stranger), UseExec), UnknownKey, "not trusted")
		for what, c := range map[string]struct {
			change func(*Key)
			words  string
		}{
			"purpose": {func(k *Key) { k.Purposes = PurposeRevocations }, "may sign revocations"},
			"kind":    {func(k *Key) { k.Kinds = []Kind{KindScript} }, "kind elf"},
			"roles":   {func(k *Key) { k.Roles = RoleLib }, "roles exec"},
			"name":    {func(k *Key) { k.Names = []string{"prog?"} }, `name "prog"`},
		} {
			v := verifier(t, Config{Trust: storeOf(t, trustedFor(key, c.change))})
			t.Log(what)
			want(t, v.bytes(t, signed, UseExec), WrongPurpose, c.words)
		}
		// A signature of one domain is none of another.
		body, err := (&Statement{Kind: KindFile, Roles: RoleData, Issued: now}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := seal(DomainManifest, body, []*Signer{key})
		if err != nil {
			t.Fatal(err)
		}
		e, err := envelope.Decode(manifest)
		if err != nil {
			t.Fatal(err)
		}
		e.Domain = DomainContent
		moved, err := e.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got := v.Check(t.Context(), bytes.NewReader(nil), 0, Request{Use: UseAny, At: now, Signature: moved, Carrier: Detached})
		want(t, got, Broken, "does not fit")
		got = v.Check(t.Context(), bytes.NewReader(nil), 0, Request{Use: UseAny, At: now, Signature: manifest, Carrier: Detached})
		want(t, got, Broken, "domain manifest")
	})
	t.Run("13 time", func(t *testing.T) {
		b := embed(t, plain, Template{Issued: now, Expires: now.Add(time.Hour)}, key)
		at := func(v *Verifier, b []byte, at time.Time) Verdict {
			return v.Verify(t.Context(), bytes.NewReader(b), int64(len(b)), UseExec, at)
		}
		got := at(v, b, now)
		want(t, got, Signed, "")
		if !got.Until.Equal(now.Add(time.Hour)) {
			t.Errorf("until %s", got.Until)
		}
		want(t, at(v, b, now.Add(time.Hour-1)), Signed, "")
		want(t, at(v, b, now.Add(time.Hour)), Expired, "was valid until")
		want(t, at(v, b, now.Add(-1)), NotYetValid, "valid from")
		old := verifier(t, Config{Trust: storeOf(t, trustedFor(key, func(k *Key) { k.NotAfter = now.Add(time.Minute) }))})
		want(t, at(old, b, now), Signed, "")
		want(t, at(old, b, now.Add(time.Minute)), Expired, "key")
		next := verifier(t, Config{Trust: storeOf(t, trustedFor(key, func(k *Key) { k.NotBefore = now.Add(time.Minute) }))})
		want(t, at(next, b, now), NotYetValid, "key")
		want(t, at(next, b, now.Add(time.Minute)), Signed, "")
		// The clock was set back; the state, or a signed list, knows better.
		set := verifier(t, Config{Trust: trusting(t, key), State: State{Latest: now.Add(2 * time.Hour)}})
		want(t, at(set, b, now), Expired, "")
		list := revoking(t, 1, key, func(l *Revocations) { l.Issued = now.Add(3 * time.Hour) })
		want(t, at(verifier(t, Config{Trust: trusting(t, key), Revocations: list}), b, now), Expired, "")
		if got := set.State(now).Latest; !got.Equal(now.Add(2 * time.Hour)) {
			t.Errorf("latest %s", got)
		}
		if got := set.State(now.Add(9 * time.Hour)).Latest; !got.Equal(now.Add(9 * time.Hour)) {
			t.Errorf("latest %s", got)
		}
	})
	t.Run("14 revoked", func(t *testing.T) {
		was := v.bytes(t, signed, UseExec)
		want(t, was, Signed, "")
		for what, change := range map[string]func(*Revocations){
			"signed digest": func(l *Revocations) { l.Digests[was.Digest] = "CVE" },
			"file digest":   func(l *Revocations) { l.Digests[was.File] = "CVE" },
			"key":           func(l *Revocations) { l.Keys[key.KeyID()] = "CVE" },
		} {
			by := hardware
			now, err := v.WithRevocations(revoking(t, 1, by, change), now)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(what)
			want(t, now.bytes(t, signed, UseExec), Revoked, "CVE")
			again := now.Recheck(was, UseExec, was.Issued.Add(time.Hour))
			want(t, again, Revoked, "CVE")
			if again.Generation != was.Generation+1 {
				t.Errorf("generation %d after %d", again.Generation, was.Generation)
			}
		}
	})
	t.Run("15 rollback", func(t *testing.T) {
		for version, r := range map[uint64]Reason{4: Signed, 5: Signed, 6: Rollback} {
			v, err := v.WithRevocations(revoking(t, 1, key, func(l *Revocations) { l.Below["prog"] = Minimum{Version: version, Why: "CVE"} }), now)
			if err != nil {
				t.Fatal(err)
			}
			want(t, v.bytes(t, signed, UseExec), r, "")
		}
	})
	t.Run("16 older list", func(t *testing.T) {
		first, second, other := revoking(t, 1, key, nil), revoking(t, 2, key, nil), revoking(t, 2, key, func(l *Revocations) { l.Digests[[32]byte{}] = "" })
		v, err := v.WithRevocations(second, now)
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct {
			list []byte
			err  error
		}{"older": {first, ErrOlder}, "other": {other, ErrOther}, "none": {nil, ErrMissing}, "same": {second, nil}} {
			if _, err := v.WithRevocations(c.list, now); !errors.Is(err, c.err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if v.Revocations().Serial != 2 {
			t.Error("the list in force is another")
		}
	})
	t.Run("17 algorithms", func(t *testing.T) {
		slot := len(signed) - elfsig.SlotSize
		for alg := range 256 {
			b := slices.Clone(signed)
			b[slot+16] = byte(alg)
			switch got := v.bytes(t, b, UseExec); {
			case alg == int(Ed25519):
				want(t, got, Signed, "")
			case alg == 0:
				want(t, got, Broken, "algorithm 0")
			default:
				want(t, got, BadAlgorithm, "key")
			}
		}
		// The same octets as a key of the other algorithm are another key.
		if a, err := NewPublicKey(ECDSAP256, hardware.Public().Raw()); err != nil || a.ID() == key.KeyID() {
			t.Error(err)
		}
	})
	t.Run("18 truncated", func(t *testing.T) {
		for n := range signed {
			if got := v.bytes(t, signed[:n], UseExec); got.Allow || got.Reason == UnknownKey {
				t.Fatalf("cut to %d octets: %s", n, got)
			}
		}
	})
	t.Run("19 section tables", func(t *testing.T) {
		for what, change := range map[string]func(m *elftest.Image){
			"none": func(m *elftest.Image) {
				m.SetHeader("e_shoff", 0)
				m.SetHeader("e_shnum", 0)
				m.SetHeader("e_shstrndx", 0)
			},
			"reserved": func(m *elftest.Image) { m.SetHeader("e_shnum", 0xff00) },
			"4 GB":     func(m *elftest.Image) { m.SetSection(1, "sh_size", math.MaxUint32) },
		} {
			b := elftest.Parse(slices.Clone(signed))
			change(b)
			t.Log(what)
			want(t, v.bytes(t, b.Bytes, UseExec), Broken, "no section table leads")
			b = elftest.Parse(slices.Clone(plain))
			change(b)
			if got := v.bytes(t, b.Bytes, UseExec); got.Allow || (got.Reason != Malformed && got.Reason != Unsigned) {
				t.Error(got)
			}
			// A manifest may list it nevertheless: it has no more to say than that these octets are good.
			list := manifestOf(t, key, b.Bytes)
			want(t, verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}}).bytes(t, b.Bytes, UseAny), Signed, "manifest")
		}
	})
}

// endless pretends to be a sparse file and counts what is read of it.
type endless struct {
	head []byte
	read int64
}

func (e *endless) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(e.head)) {
		copy(b, e.head[off:])
	}
	e.read += int64(len(b))
	return len(b), nil
}

// Case 54: what is huge, empty, or no file at all is denied without being waited for.
func TestStrangeFiles(t *testing.T) {
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	r := &endless{head: elftest.Build(program).Bytes}
	want(t, v.Verify(t.Context(), r, 10<<30, UseExec, now), TooBig, "max-size")
	if r.read > 1<<20 {
		t.Errorf("%d octets were read", r.read)
	}
	want(t, v.Verify(t.Context(), r, math.MaxInt64, UseExec, now), TooBig, "max-size")
	want(t, v.bytes(t, nil, UseExec), Unsigned, "")
	want(t, v.Verify(t.Context(), r, -1, UseExec, now), NotRegular, "")
	small := policyOf(t, 1, key, func(p *Policy) { p.MaxSize = 100 })
	want(t, verifier(t, Config{Trust: trusting(t, key), Policy: small}).bytes(t, make([]byte, 101), UseExec), TooBig, "100")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, v.Verify(ctx, r, 1<<30, UseExec, now), Unreadable, "canceled")
	want(t, v.Verify(t.Context(), bytes.NewReader(make([]byte, 10)), 20, UseExec, now), Unreadable, "EOF")
	want(t, v.Verify(t.Context(), errReader{}, 20, UseExec, now), Unreadable, "on fire")

	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse")
	if err := os.WriteFile(sparse, r.head, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 10<<30); err != nil {
		t.Skip(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	q := Request{Use: UseExec, At: now}
	want(t, v.VerifyFile(t.Context(), sparse, q), TooBig, "")
	want(t, v.VerifyFile(t.Context(), fifo, q), NotRegular, "")
	want(t, v.VerifyFile(t.Context(), dir, q), NotRegular, "")
	want(t, v.VerifyFile(t.Context(), "/dev/zero", q), NotRegular, "")
	want(t, v.VerifyFile(t.Context(), filepath.Join(dir, "nothing"), q), Unreadable, "no such file")
}

// A file that changes while it is read is not what either of its states says.
func TestChangesWhileRead(t *testing.T) {
	key := testKey(t, 1)
	v := verifier(t, Config{Trust: trusting(t, key)})
	b := embed(t, elftest.Build(program).Bytes, Template{}, key)
	r := &changing{b: b, slot: int64(len(b) - elfsig.SlotSize)}
	want(t, v.Verify(t.Context(), r, int64(len(b)), UseExec, now), Unreadable, "changes while it is read")
}

// changing gives another slot when it is read for the second time.
type changing struct {
	b    []byte
	slot int64
	seen bool
}

func (c *changing) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, c.b[off:])
	if off == c.slot {
		if c.seen {
			b[700] ^= 1
		}
		c.seen = true
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
