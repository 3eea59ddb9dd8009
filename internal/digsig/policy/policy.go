// Package policy is the codec of policies, and decides by them what a file that was or was not found good may be used for.
package policy

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

// Mode says what happens to what is not good.
type Mode uint8

// Modes.
const (
	Enforce    Mode = iota // it does not run
	Permissive             // it runs, and the verdict says why it would not
	Learn                  // as Permissive, and the caller collects what ran for a manifest
)

var modeNames = []string{"enforce", "permissive", "learn"}

// String returns the name.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "mode " + strconv.Itoa(int(m))
}

// ParseMode is the reverse of String.
func ParseMode(s string) (Mode, error) {
	if i := slices.Index(modeNames, s); i >= 0 {
		return Mode(i), nil
	}
	return 0, fmt.Errorf("mode %q: want %s", s, strings.Join(modeNames, ", "))
}

// Bounds and defaults.
const (
	DefaultMaxSize = 2 << 30 // octets
	MaxRules       = 1 << 16
)

// Policy is a policy. The zero value, with which a verifier begins that has no other, enforces, wants one good signature,
// and has no rules. It is immutable once it is used, and then safe for concurrent use.
type Policy struct {
	Version      uint64    // grows with each policy; a verifier takes no lower one. 0: the built-in one
	Issued       time.Time // whole seconds
	Mode         Mode
	AllMustMatch bool                     // of several signatures by trusted keys every one must be good; else one suffices
	MaxSize      uint64                   // octets of the biggest file that is read; 0: DefaultMaxSize
	Exempt       map[[32]byte]string      // subjects, by the digest of their program, that only read; the value is what it is
	Interpreters map[[32]byte]Interpreter // by the digest of the program
	Protect      []string                 // patterns (*, ?) of paths whose files must be signed with the role data to be read
}

// Interpreter is a rule for a program that runs scripts.
type Interpreter struct {
	Indirect bool     // it may be run through #! only, whatever its roles are
	Scripts  []string // patterns (*, ?) of paths that, when it opens them, must be signed with the role script
}

const head = "midplane digsig policy 1"

// Limit returns the biggest size that is read.
func (p *Policy) Limit() uint64 {
	if p.MaxSize == 0 {
		return DefaultMaxSize
	}
	return p.MaxSize
}

// Append encodes the policy.
func (p *Policy) Append(b []byte) ([]byte, error) {
	if p.Version == 0 {
		return b, fmt.Errorf("policy: version 0: want 1 or more")
	}
	if err := envelope.CheckTimes(p.Issued, time.Time{}); err != nil {
		return b, fmt.Errorf("policy: %w", err)
	}
	if p.Mode > Learn {
		return b, fmt.Errorf("policy: %s: want enforce, permissive or learn", p.Mode)
	}
	if n := len(p.Exempt) + len(p.Interpreters) + len(p.Protect); n > MaxRules {
		return b, fmt.Errorf("policy: %d rules: want at most %d", n, MaxRules)
	}
	var lines []string
	add := func(words []string, quoted ...string) error {
		for _, q := range quoted {
			if err := envelope.CheckName(q); err != nil {
				return fmt.Errorf("policy: %s: %w", words[0], err)
			}
			words = append(words, text.Quote(q))
		}
		lines = append(lines, strings.Join(words, " "))
		return nil
	}
	for d, what := range p.Exempt {
		if err := add([]string{"exempt", hex.EncodeToString(d[:])}, what); err != nil {
			return b, err
		}
	}
	for d, i := range p.Interpreters {
		if !slices.IsSorted(i.Scripts) || len(slices.Compact(slices.Clone(i.Scripts))) != len(i.Scripts) {
			return b, fmt.Errorf("policy: interpreter: patterns are not sorted, or there twice")
		}
		if err := add([]string{"interpreter", hex.EncodeToString(d[:]), map[bool]string{true: "indirect", false: "direct"}[i.Indirect]}, i.Scripts...); err != nil {
			return b, err
		}
	}
	for _, s := range p.Protect {
		if err := add([]string{"protect"}, s); err != nil {
			return b, err
		}
	}
	slices.Sort(lines)
	if len(slices.Compact(slices.Clone(lines))) != len(lines) {
		return b, fmt.Errorf("policy: a rule is there twice")
	}
	b = fmt.Appendf(b, "%s\nversion %d\nissued %s\nmode %s\nsignatures %s\nmax-size %d\n", head, p.Version,
		p.Issued.UTC().Format(time.RFC3339), p.Mode, map[bool]string{true: "all", false: "any"}[p.AllMustMatch], p.Limit())
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	return b, nil
}

// Parse reads a policy as people write it: lines in any order, with comments and empty lines. What is not given keeps its
// default.
func Parse(b []byte) (*Policy, error) {
	p := &Policy{Exempt: map[[32]byte]string{}, Interpreters: map[[32]byte]Interpreter{}}
	seen := map[string]bool{}
	err := text.Lines(b, head, func(f []string) error { return p.line(f, seen) })
	if err != nil {
		return nil, err
	}
	slices.Sort(p.Protect)
	return p, nil
}

func (p *Policy) line(f []string, seen map[string]bool) (err error) {
	if len(p.Exempt)+len(p.Interpreters)+len(p.Protect) >= MaxRules {
		return fmt.Errorf("more than %d rules", MaxRules)
	}
	switch rule := f[0]; rule {
	case "exempt":
		if len(f) != 3 {
			return fmt.Errorf(`exempt: want exempt HEX "what it is"`)
		}
		d, err := text.ParseDigest(f[1])
		if err != nil {
			return err
		}
		if _, twice := p.Exempt[d]; twice {
			return fmt.Errorf("exempt %s: there twice", f[1])
		}
		p.Exempt[d] = f[2]
		return nil
	case "interpreter":
		if len(f) < 3 || (f[2] != "direct" && f[2] != "indirect") {
			return fmt.Errorf(`interpreter: want interpreter HEX direct|indirect "pattern"…`)
		}
		d, err := text.ParseDigest(f[1])
		if err != nil {
			return err
		}
		if _, twice := p.Interpreters[d]; twice {
			return fmt.Errorf("interpreter %s: there twice", f[1])
		}
		scripts := slices.Clone(f[3:])
		slices.Sort(scripts)
		p.Interpreters[d] = Interpreter{Indirect: f[2] == "indirect", Scripts: scripts}
		return nil
	case "protect":
		if len(f) != 2 {
			return fmt.Errorf(`protect: want protect "pattern"`)
		}
		p.Protect = append(p.Protect, f[1])
		return nil
	}
	if len(f) != 2 || seen[f[0]] {
		return fmt.Errorf("%.40q: want, once, version, issued, mode, signatures or max-size with a value; exempt, interpreter, protect", strings.Join(f, " "))
	}
	seen[f[0]] = true
	switch field, v := f[0], f[1]; field {
	case "version":
		if p.Version, err = strconv.ParseUint(v, 10, 64); err != nil || p.Version == 0 {
			return fmt.Errorf("version %q: want a number above 0", v)
		}
	case "issued":
		if p.Issued, err = time.Parse(time.RFC3339, v); err != nil {
			return fmt.Errorf("issued %q: want a time like 2027-01-31T12:00:00Z", v)
		}
		p.Issued = p.Issued.UTC()
	case "mode":
		p.Mode, err = ParseMode(v)
	case "signatures":
		if v != "any" && v != "all" {
			return fmt.Errorf("signatures %q: want any or all", v)
		}
		p.AllMustMatch = v == "all"
	case "max-size":
		if p.MaxSize, err = strconv.ParseUint(v, 10, 63); err != nil || p.MaxSize == 0 {
			return fmt.Errorf("max-size %q: want octets, 1 or more", v)
		}
	default:
		return fmt.Errorf("%.40q: want version, issued, mode, signatures, max-size, exempt, interpreter or protect", field)
	}
	return err
}

// Decode decodes the body of a signed policy, which has one form only.
func Decode(b []byte) (*Policy, error) {
	return text.Canonical("policy", b, Parse)
}
