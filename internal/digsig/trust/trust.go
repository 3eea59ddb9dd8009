// Package trust holds the public keys that are trusted, and for what.
package trust

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/text"
)

// Purpose is a set of domains that a key may sign in.
type Purpose uint8

// Purposes.
const (
	Content     Purpose = 1 << iota // statements embedded in files, or beside them
	Manifest                        // manifests
	Revocations                     // revocation lists
	Policy                          // policies

	AllPurposes = Content | Manifest | Revocations | Policy
)

var purposeNames = []string{"content", "manifest", "revocations", "policy"}

// String returns the names with commas between them.
func (p Purpose) String() string {
	var s []string
	for i, name := range purposeNames {
		if p&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	if s == nil {
		return "none"
	}
	return strings.Join(s, ",")
}

// ParsePurposes is the reverse of String.
func ParsePurposes(s string) (p Purpose, err error) {
	for word := range strings.SplitSeq(s, ",") {
		i := slices.Index(purposeNames, word)
		if i < 0 {
			return 0, fmt.Errorf("purpose %q: want %s", word, strings.Join(purposeNames, ", "))
		}
		p |= 1 << i
	}
	return p, nil
}

// PurposeOf returns the purpose that signing in a domain needs.
func PurposeOf(d envelope.Domain) Purpose {
	switch d {
	case envelope.Content:
		return Content
	case envelope.Manifest:
		return Manifest
	case envelope.Revocations:
		return Revocations
	case envelope.Policy:
		return Policy
	}
	return 0
}

// Key is a public key and what it is trusted for. The zero values of Kinds, Names, NotBefore and NotAfter limit nothing;
// Purposes and Roles must be given.
type Key struct {
	Public    *envelope.PublicKey
	Comment   string // whose it is
	Purposes  Purpose
	Kinds     []envelope.Kind // of files
	Roles     envelope.Role   // that files may get; what is signed for more is refused whole
	Names     []string        // patterns (*, ?) of names that statements may have
	NotBefore time.Time
	NotAfter  time.Time // from then on it is not valid
}

// ID returns the key's name.
func (k *Key) ID() envelope.KeyID { return k.Public.ID() }

// String returns the beginning of the id and the comment, for messages.
func (k *Key) String() string {
	s := k.ID().String()[:16]
	if k.Comment != "" {
		s += " (" + k.Comment + ")"
	}
	return s
}

// MaySign says whether the key is for files of a kind, with these roles and that name, in words when it is not.
func (k *Key) MaySign(kind envelope.Kind, roles envelope.Role, name string) error {
	if len(k.Kinds) > 0 && !slices.Contains(k.Kinds, kind) {
		return fmt.Errorf("key %s is not for files of kind %s", k, kind)
	}
	if extra := roles &^ k.Roles; extra != 0 {
		return fmt.Errorf("key %s may not give the roles %s", k, extra)
	}
	if len(k.Names) > 0 && !slices.ContainsFunc(k.Names, func(p string) bool { return text.Match(p, name) }) {
		return fmt.Errorf("key %s is not for the name %q", k, name)
	}
	return nil
}

const head = "midplane digsig key 1"

// MarshalText writes the key file.
func (k *Key) MarshalText() ([]byte, error) {
	if err := k.validate(); err != nil {
		return nil, err
	}
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	line(head)
	line("algorithm", k.Public.Alg().String())
	line("public", base64.StdEncoding.EncodeToString(k.Public.Raw()))
	line("id", k.ID().String())
	if k.Comment != "" {
		line("comment", text.Quote(k.Comment))
	}
	line("purposes", k.Purposes.String())
	for _, kind := range k.Kinds {
		line("kind", kind.String())
	}
	if k.Roles != 0 {
		line("roles", k.Roles.String())
	}
	for _, name := range k.Names {
		line("name", text.Quote(name))
	}
	if !k.NotBefore.IsZero() {
		line("not-before", k.NotBefore.UTC().Format(time.RFC3339))
	}
	if !k.NotAfter.IsZero() {
		line("not-after", k.NotAfter.UTC().Format(time.RFC3339))
	}
	return []byte(b.String()), nil
}

func (k *Key) validate() error {
	if k.Public == nil {
		return errors.New("a key file without algorithm and public")
	}
	if k.Purposes == 0 {
		return fmt.Errorf("a key without purposes: want one or more of %s", AllPurposes)
	}
	if k.Purposes&(Content|Manifest) != 0 && k.Roles == 0 {
		return fmt.Errorf("a key for files without roles: want one or more of %s", envelope.AllRoles)
	}
	if !k.NotAfter.IsZero() && !k.NotAfter.After(k.NotBefore) {
		return fmt.Errorf("not-after %s: want a time after not-before", k.NotAfter.Format(time.RFC3339))
	}
	for _, s := range append([]string{k.Comment}, k.Names...) {
		if err := envelope.CheckName(s); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalText reads a key file.
func (k *Key) UnmarshalText(b []byte) error {
	var alg envelope.Alg
	var raw []byte
	var id string
	*k = Key{}
	seen := map[string]bool{}
	err := text.Lines(b, head, func(f []string) (err error) {
		if len(f) != 2 {
			return fmt.Errorf("%.40q: want a field and its value", f[0])
		}
		field, v := f[0], f[1]
		if seen[field] && field != "kind" && field != "name" {
			return fmt.Errorf("%s: given twice", field)
		}
		seen[field] = true
		switch field {
		case "algorithm":
			alg, err = envelope.ParseAlg(v)
		case "public":
			if raw, err = base64.StdEncoding.Strict().DecodeString(v); err != nil {
				err = fmt.Errorf("public %.20q…: want base64", v)
			}
		case "id":
			id = v
		case "comment":
			k.Comment = v
		case "purposes":
			k.Purposes, err = ParsePurposes(v)
		case "kind":
			var kind envelope.Kind
			kind, err = envelope.ParseKind(v)
			k.Kinds = append(k.Kinds, kind)
		case "roles":
			k.Roles, err = envelope.ParseRoles(v)
		case "name":
			k.Names = append(k.Names, v)
		case "not-before":
			k.NotBefore, err = parseTime(field, v)
		case "not-after":
			k.NotAfter, err = parseTime(field, v)
		default:
			return fmt.Errorf("%.40q: want algorithm, public, id, comment, purposes, kind, roles, name, not-before or not-after", field)
		}
		return err
	})
	if err != nil {
		return err
	}
	if alg == 0 || raw == nil {
		return errors.New("a key file without algorithm and public")
	}
	if k.Public, err = envelope.NewPublicKey(alg, raw); err != nil {
		return err
	}
	if id != "" && id != k.ID().String() {
		return fmt.Errorf("id %.20q…: the key's is %s", id, k.ID())
	}
	return k.validate()
}

func parseTime(field, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%s %q: want a time like 2027-01-31T12:00:00Z", field, s)
	}
	return t.UTC(), nil
}

// Store is an immutable set of keys, safe for concurrent use.
type Store struct{ keys map[envelope.KeyID]*Key }

// NewStore makes a store. The keys belong to it then.
func NewStore(keys ...*Key) (*Store, error) {
	s := &Store{map[envelope.KeyID]*Key{}}
	for _, k := range keys {
		if err := k.validate(); err != nil {
			return nil, err
		}
		if s.keys[k.ID()] != nil {
			return nil, fmt.Errorf("key %s: there twice", k)
		}
		s.keys[k.ID()] = k
	}
	return s, nil
}

// Key returns a key, or nil.
func (s *Store) Key(id envelope.KeyID) *Key { return s.keys[id] }

// Len returns how many keys there are.
func (s *Store) Len() int { return len(s.keys) }

// Keys returns the keys in the order of their ids. They must not be changed.
func (s *Store) Keys() []*Key {
	var all []*Key
	for _, k := range s.keys {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *Key) int { return strings.Compare(a.ID().String(), b.ID().String()) })
	return all
}
