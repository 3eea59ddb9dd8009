// Package manifest is the codec of manifests: one signed list of the digests of many files, sorted, so that one file is
// found among 100,000 in some 17 comparisons. The layout is in docs/digsig.md.
package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"midplane/internal/digsig/envelope"
)

// Bounds.
const (
	MaxEntries = 1 << 21
	maxNames   = 1 << 26 // octets of all names

	headerSize = 40
	entrySize  = 88
	flagVerity = 1
)

// Header is what a manifest says of itself and so of every file in it.
type Header struct {
	Name    string    // of the package or collection; may be empty
	Version uint64    // grows with each manifest of that name
	Issued  time.Time // whole seconds
	Expires time.Time // zero: never
}

// Entry is one file. Its size, kind, roles, name, version and digests are those of envelope.Statement.
type Entry struct {
	Digest  [32]byte // SHA-256 of the whole file
	Size    uint64
	Kind    envelope.Kind
	Roles   envelope.Role
	Name    string
	Version uint64
	Verity  *[32]byte
}

// Manifest is a decoded manifest: a view of its octets, which must not change. It is safe for concurrent use.
type Manifest struct {
	Header
	entries []byte
	names   []byte
}

// Append encodes a manifest. Entries are sorted; those with one digest become one, with the roles of all, the least name and
// the highest version. Entries itself is left as it is.
func Append(b []byte, h Header, entries []Entry) ([]byte, error) {
	if err := envelope.CheckName(h.Name); err != nil {
		return b, fmt.Errorf("manifest: %w", err)
	}
	if err := envelope.CheckTimes(h.Issued, h.Expires); err != nil {
		return b, fmt.Errorf("manifest: %w", err)
	}
	list, err := merge(entries)
	if err != nil {
		return b, err
	}
	if n := len(list); n == 0 || n > MaxEntries {
		return b, fmt.Errorf("manifest of %d files: want 1 to %d", n, MaxEntries)
	}
	var names int
	for i := range list {
		names += len(list[i].Name)
	}
	if names > maxNames {
		return b, fmt.Errorf("manifest with %d octets of names: want at most %d", names, maxNames)
	}
	b = slices.Grow(b, headerSize+len(h.Name)+len(list)*entrySize+names)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	b = binary.BigEndian.AppendUint32(b, uint32(names))
	b = binary.BigEndian.AppendUint64(b, h.Version)
	b = envelope.AppendTime(b, h.Issued)
	b = envelope.AppendTime(b, h.Expires)
	b = append(b, byte(len(h.Name)), 0, 0, 0, 0, 0, 0, 0)
	b = append(b, h.Name...)
	at := uint32(0)
	for i := range list {
		b = list[i].append(b, at)
		at += uint32(len(list[i].Name))
	}
	for i := range list {
		b = append(b, list[i].Name...)
	}
	return b, nil
}

func (e *Entry) append(b []byte, at uint32) []byte {
	b = append(b, e.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Size)
	b = binary.BigEndian.AppendUint64(b, e.Version)
	var flags byte
	var verity [32]byte
	if e.Verity != nil {
		flags, verity = flagVerity, *e.Verity
	}
	b = append(b, byte(e.Kind), byte(e.Roles), flags, byte(len(e.Name)))
	b = binary.BigEndian.AppendUint32(b, at)
	return append(b, verity[:]...)
}

func merge(entries []Entry) ([]Entry, error) {
	list := slices.Clone(entries)
	slices.SortFunc(list, func(a, b Entry) int {
		if c := bytes.Compare(a.Digest[:], b.Digest[:]); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	out := list[:0]
	for _, e := range list {
		if err := e.validate(); err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		if len(out) > 0 && out[len(out)-1].Digest == e.Digest {
			was := &out[len(out)-1]
			if was.Size != e.Size || was.Kind != e.Kind {
				return nil, fmt.Errorf("manifest: %q and %q have one digest but not one size and kind", was.Name, e.Name)
			}
			if was.Verity != nil && e.Verity != nil && *was.Verity != *e.Verity {
				return nil, fmt.Errorf("manifest: %q and %q have one digest but two fs-verity digests", was.Name, e.Name)
			}
			was.Roles |= e.Roles
			was.Version = max(was.Version, e.Version)
			if was.Verity == nil {
				was.Verity = e.Verity
			}
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

func (e *Entry) validate() error {
	if e.Kind < envelope.KindELF || e.Kind > envelope.KindFile {
		return fmt.Errorf("%q: %s: want elf, script or file", e.Name, e.Kind)
	}
	if e.Roles == 0 || e.Roles&^envelope.AllRoles != 0 {
		return fmt.Errorf("%q: roles %s: want one or more of %s", e.Name, e.Roles, envelope.AllRoles)
	}
	return envelope.CheckName(e.Name)
}

var errShort = errors.New("manifest is cut off")

// Decode reads a manifest that fills b and checks every entry, once. The manifest refers to b.
func Decode(b []byte) (*Manifest, error) {
	if len(b) < headerSize {
		return nil, errShort
	}
	count, names, name := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:])), uint64(b[32])
	m := &Manifest{Header: Header{Version: binary.BigEndian.Uint64(b[8:]), Issued: envelope.TimeOf(b[16:]), Expires: envelope.TimeOf(b[24:])}}
	if count == 0 || count > MaxEntries {
		return nil, fmt.Errorf("manifest of %d files: want 1 to %d", count, MaxEntries)
	}
	if names > maxNames {
		return nil, fmt.Errorf("manifest with %d octets of names: want at most %d", names, maxNames)
	}
	if [7]byte(b[33:40]) != [7]byte{} {
		return nil, errors.New("manifest: a reserved octet is not zero")
	}
	if want := headerSize + name + count*entrySize + names; uint64(len(b)) != want {
		return nil, fmt.Errorf("manifest of %d octets: want %d", len(b), want)
	}
	m.Name = string(b[headerSize : headerSize+name])
	m.entries = b[headerSize+name:][:count*entrySize]
	m.names = b[headerSize+name+count*entrySize:]
	if err := envelope.CheckName(m.Name); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := envelope.CheckTimes(m.Issued, m.Expires); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	at := uint64(0)
	for i := range m.Len() {
		e := m.raw(i)
		if i > 0 && bytes.Compare(m.raw(i - 1)[:32], e[:32]) >= 0 {
			return nil, fmt.Errorf("manifest: file %d is not in ascending order", i)
		}
		if uint64(binary.BigEndian.Uint32(e[52:])) != at || uint64(e[51]) > names-at {
			return nil, fmt.Errorf("manifest: the name of file %d is not where it must be", i)
		}
		if e[50]&^flagVerity != 0 || (e[50] == 0 && [32]byte(e[56:]) != [32]byte{}) {
			return nil, fmt.Errorf("manifest: a reserved part of file %d is not zero", i)
		}
		at += uint64(e[51])
		entry := m.At(i)
		if err := entry.validate(); err != nil {
			return nil, fmt.Errorf("manifest: file %d: %w", i, err)
		}
	}
	if at != names {
		return nil, errors.New("manifest: names that belong to no file")
	}
	return m, nil
}

// Len returns how many files there are.
func (m *Manifest) Len() int { return len(m.entries) / entrySize }

func (m *Manifest) raw(i int) []byte { return m.entries[i*entrySize:][:entrySize] }

// At returns a file by its place in the order of digests.
func (m *Manifest) At(i int) Entry {
	b := m.raw(i)
	e := Entry{
		Digest: [32]byte(b), Size: binary.BigEndian.Uint64(b[32:]), Version: binary.BigEndian.Uint64(b[40:]),
		Kind: envelope.Kind(b[48]), Roles: envelope.Role(b[49]),
	}
	at := binary.BigEndian.Uint32(b[52:])
	e.Name = string(m.names[at : at+uint32(b[51])])
	if b[50]&flagVerity != 0 {
		e.Verity = (*[32]byte)(slices.Clone(b[56:]))
	}
	return e
}

// DigestAt returns the digest of a file by its place.
func (m *Manifest) DigestAt(i int) [32]byte { return [32]byte(m.raw(i)) }

// SizeAt returns the size of a file by its place.
func (m *Manifest) SizeAt(i int) uint64 { return binary.BigEndian.Uint64(m.raw(i)[32:]) }

// Find returns the place of a digest. It does not allocate.
func (m *Manifest) Find(digest *[32]byte) (int, bool) {
	lo, hi := 0, m.Len()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(m.raw(mid)[:32], digest[:]); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

// Named returns the place of the first file for whose name f returns true. It goes through all of them, and the octets that f
// gets must not be kept.
func (m *Manifest) Named(f func(name []byte) bool) (int, bool) {
	at := 0
	for i := range m.Len() {
		end := at + int(m.raw(i)[51])
		if f(m.names[at:end]) {
			return i, true
		}
		at = end
	}
	return 0, false
}

// All returns every file in the order of digests.
func (m *Manifest) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range m.Len() {
			if !yield(m.At(i)) {
				return
			}
		}
	}
}

// Statement returns what a file's entry says, in the form of one signed alone.
func (m *Manifest) Statement(e Entry) *envelope.Statement {
	return &envelope.Statement{
		Digest: e.Digest, Size: e.Size, Kind: e.Kind, Name: e.Name, Version: e.Version, Roles: e.Roles, Verity: e.Verity,
		Issued: m.Issued, Expires: m.Expires,
	}
}
