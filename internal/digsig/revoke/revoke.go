// Package revoke is the codec of revocation lists: what is no longer good although it was signed.
package revoke

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/text"
)

// MaxEntries bounds a list.
const MaxEntries = 1 << 20

// List is a revocation list. It is immutable once it is used, and then safe for concurrent use.
type List struct {
	Serial  uint64    // grows with each list; a verifier takes no lower one
	Issued  time.Time // whole seconds
	Digests map[[32]byte]string
	Keys    map[envelope.KeyID]string // values are the reasons, which may be empty
	Below   map[string]Minimum        // by name
}

// Minimum is the least version of a name that is good.
type Minimum struct {
	Version uint64
	Why     string
}

const head = "midplane digsig revocations 1"

// Len returns how many entries there are.
func (l *List) Len() int { return len(l.Digests) + len(l.Keys) + len(l.Below) }

// Append encodes the list: lines in their order, entries sorted.
func (l *List) Append(b []byte) ([]byte, error) {
	if l.Serial == 0 {
		return b, fmt.Errorf("revocations: serial 0: want 1 or more")
	}
	if err := envelope.CheckTimes(l.Issued, time.Time{}); err != nil {
		return b, fmt.Errorf("revocations: %w", err)
	}
	if l.Len() > MaxEntries {
		return b, fmt.Errorf("revocations: %d entries: want at most %d", l.Len(), MaxEntries)
	}
	var lines []string
	add := func(why string, words ...string) error {
		lines = append(lines, strings.Join(append(words, text.Quote(why)), " "))
		return envelope.CheckName(why)
	}
	for d, why := range l.Digests {
		if err := add(why, "digest", hex.EncodeToString(d[:])); err != nil {
			return b, fmt.Errorf("revocations: reason: %w", err)
		}
	}
	for k, why := range l.Keys {
		if err := add(why, "key", k.String()); err != nil {
			return b, fmt.Errorf("revocations: reason: %w", err)
		}
	}
	for name, m := range l.Below {
		if err := envelope.CheckName(name); err != nil || name == "" || m.Version == 0 {
			return b, fmt.Errorf("revocations: name %q below %d: want a name and a version above 0", name, m.Version)
		}
		if err := add(m.Why, "name", text.Quote(name), "below", strconv.FormatUint(m.Version, 10)); err != nil {
			return b, fmt.Errorf("revocations: reason: %w", err)
		}
	}
	slices.Sort(lines)
	b = fmt.Appendf(b, "%s\nserial %d\nissued %s\n", head, l.Serial, l.Issued.UTC().Format(time.RFC3339))
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	return b, nil
}

// Parse reads a list as people write it: lines in any order, with comments and empty lines.
func Parse(b []byte) (*List, error) {
	l := &List{Digests: map[[32]byte]string{}, Keys: map[envelope.KeyID]string{}, Below: map[string]Minimum{}}
	err := text.Lines(b, head, func(f []string) (err error) {
		if l.Len() >= MaxEntries {
			return fmt.Errorf("more than %d entries", MaxEntries)
		}
		why := f[len(f)-1]
		switch {
		case f[0] == "serial" && len(f) == 2 && l.Serial == 0:
			if l.Serial, err = strconv.ParseUint(f[1], 10, 64); err != nil || l.Serial == 0 {
				return fmt.Errorf("serial %q: want a number above 0", f[1])
			}
		case f[0] == "issued" && len(f) == 2 && l.Issued.IsZero():
			if l.Issued, err = time.Parse(time.RFC3339, f[1]); err != nil {
				return fmt.Errorf("issued %q: want a time like 2027-01-31T12:00:00Z", f[1])
			}
			l.Issued = l.Issued.UTC()
		case f[0] == "digest" && len(f) == 3:
			d, err := text.ParseDigest(f[1])
			if err != nil {
				return err
			}
			if _, twice := l.Digests[d]; twice {
				return fmt.Errorf("digest %s: there twice", f[1])
			}
			l.Digests[d] = why
		case f[0] == "key" && len(f) == 3:
			k, err := envelope.ParseKeyID(f[1])
			if err != nil {
				return err
			}
			if _, twice := l.Keys[k]; twice {
				return fmt.Errorf("key %s: there twice", k)
			}
			l.Keys[k] = why
		case f[0] == "name" && len(f) == 5 && f[2] == "below":
			v, err := strconv.ParseUint(f[3], 10, 64)
			if err != nil || v == 0 {
				return fmt.Errorf("below %q: want a number above 0", f[3])
			}
			if _, twice := l.Below[f[1]]; twice {
				return fmt.Errorf("name %q: there twice", f[1])
			}
			l.Below[f[1]] = Minimum{v, why}
		default:
			return fmt.Errorf(`%.40q: want, once, serial N and issued TIME; digest HEX "reason", key HEX "reason", name "NAME" below N "reason"`, strings.Join(f, " "))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Decode decodes the body of a signed list, which has one form only.
func Decode(b []byte) (*List, error) {
	return text.Canonical("revocations", b, Parse)
}
