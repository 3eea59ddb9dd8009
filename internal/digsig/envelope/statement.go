package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Role is a set of things that a file may be used for.
type Role uint8

// Roles.
const (
	RoleExec   Role = 1 << iota // run as a program
	RoleLib                     // mapped as a shared library
	RoleScript                  // run through #!, or read by an interpreter
	RoleInterp                  // run as PT_INTERP or as the program of a #! line, and only so unless RoleExec is there too
	RoleData                    // read; must not change
	RoleModule                  // loaded into the kernel

	AllRoles = RoleExec | RoleLib | RoleScript | RoleInterp | RoleData | RoleModule
)

var roleNames = []string{"exec", "lib", "script", "interp", "data", "module"}

// String returns the names, with commas between them.
func (r Role) String() string {
	var s []string
	for i, name := range roleNames {
		if r&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	if extra := r &^ AllRoles; extra != 0 {
		s = append(s, fmt.Sprintf("%#x", uint8(extra)))
	}
	if s == nil {
		return "none"
	}
	return strings.Join(s, ",")
}

// ParseRoles is the reverse of String; names in any order.
func ParseRoles(s string) (r Role, err error) {
	for word := range strings.SplitSeq(s, ",") {
		i := -1
		for j, name := range roleNames {
			if word == name {
				i = j
			}
		}
		if i < 0 {
			return 0, fmt.Errorf("role %q: want %s", word, strings.Join(roleNames, ", "))
		}
		r |= 1 << i
	}
	return r, nil
}

// Kind is what sort of file was signed.
type Kind uint8

// Kinds.
const (
	KindELF    Kind = 1
	KindScript Kind = 2 // begins with #!
	KindFile   Kind = 3 // anything else
)

// String returns the name.
func (k Kind) String() string {
	switch k {
	case KindELF:
		return "elf"
	case KindScript:
		return "script"
	case KindFile:
		return "file"
	}
	return "kind " + strconv.Itoa(int(k))
}

// ParseKind is the reverse of String.
func ParseKind(s string) (Kind, error) {
	for _, k := range []Kind{KindELF, KindScript, KindFile} {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind %q: want elf, script or file", s)
}

// Statement is what the holder of a key says about a file.
type Statement struct {
	Digest  [32]byte  // SHA-256 of the content; of an ELF with an embedded signature: with the signature's slot read as zeros
	Size    uint64    // octets
	Kind    Kind      //
	Name    string    // of the program or package (CheckName); may be empty
	Version uint64    // grows with each release of Name; revocation lists may name the least that is good
	Roles   Role      // at least one
	Verity  *[32]byte // fs-verity digest (SHA-256, blocks of 4,096, no salt); never in an embedded statement. nil: none
	Issued  time.Time // whole seconds; not valid before
	Expires time.Time // whole seconds; not valid from then on. Zero: never
}

// MaxName bounds names, in octets.
const MaxName = 255

const (
	statementSize = 68
	flagVerity    = 1
)

// maxTime is the year 9999's end, what RFC 3339 can write.
const maxTime = 253402300799

// Validate returns an error that names the field that has no encoding.
func (s *Statement) Validate() error {
	if s.Kind < KindELF || s.Kind > KindFile {
		return fmt.Errorf("statement: %s: want elf, script or file", s.Kind)
	}
	if s.Roles == 0 || s.Roles&^AllRoles != 0 {
		return fmt.Errorf("statement: roles %s: want one or more of %s", s.Roles, AllRoles)
	}
	if err := CheckName(s.Name); err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	return CheckTimes(s.Issued, s.Expires)
}

// CheckTimes says whether two times are whole seconds from 1970 to 9999 and in order; expires may be zero.
func CheckTimes(issued, expires time.Time) error {
	if u := issued.Unix(); u <= 0 || u > maxTime || issued.Nanosecond() != 0 {
		return fmt.Errorf("issued %s: want whole seconds after 1970", issued.Format(time.RFC3339Nano))
	}
	if expires.IsZero() {
		return nil
	}
	if u := expires.Unix(); u > maxTime || expires.Nanosecond() != 0 || !expires.After(issued) {
		return fmt.Errorf("expires %s: want whole seconds, after it was issued (%s)", expires.Format(time.RFC3339Nano), issued.Format(time.RFC3339))
	}
	return nil
}

// CheckName says whether a name is one: UTF-8, at most 255 octets, no control characters, no marks that change the
// direction of text, no space at the ends.
func CheckName(s string) error {
	if len(s) > MaxName {
		return fmt.Errorf("name of %d octets: want at most %d", len(s), MaxName)
	}
	if !utf8.ValidString(s) || strings.Trim(s, " ") != s {
		return fmt.Errorf("name %q: want UTF-8 without spaces at the ends", s)
	}
	for _, r := range s {
		if control(r) {
			return fmt.Errorf("name %q: want no control characters", s)
		}
	}
	return nil
}

// AppendTime encodes a time as seconds since 1970, zero for the zero time.
func AppendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
}

// TimeOf is the reverse of AppendTime. What is beyond the year 9999 becomes a time that CheckTimes refuses.
func TimeOf(b []byte) time.Time {
	switch u := binary.BigEndian.Uint64(b); {
	case u == 0:
		return time.Time{}
	default:
		return time.Unix(int64(min(u, maxTime+1)), 0).UTC()
	}
}

// Append encodes the statement.
func (s *Statement) Append(b []byte) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return b, err
	}
	var flags byte
	if s.Verity != nil {
		flags = flagVerity
	}
	b = append(b, byte(s.Kind), flags, byte(s.Roles), byte(len(s.Name)))
	b = binary.BigEndian.AppendUint64(b, s.Size)
	b = binary.BigEndian.AppendUint64(b, s.Version)
	b = AppendTime(b, s.Issued)
	b = AppendTime(b, s.Expires)
	b = append(b, s.Digest[:]...)
	if s.Verity != nil {
		b = append(b, s.Verity[:]...)
	}
	return append(b, s.Name...), nil
}

// DecodeStatement decodes a statement that fills b. Nothing of b is kept.
func DecodeStatement(b []byte) (*Statement, error) {
	if len(b) < statementSize {
		return nil, fmt.Errorf("statement of %d octets: want at least %d", len(b), statementSize)
	}
	s := &Statement{
		Kind: Kind(b[0]), Roles: Role(b[2]), Size: binary.BigEndian.Uint64(b[4:]), Version: binary.BigEndian.Uint64(b[12:]),
		Issued: TimeOf(b[20:]), Expires: TimeOf(b[28:]), Digest: [32]byte(b[36:]),
	}
	flags, name := b[1], int(b[3])
	b = b[statementSize:]
	if flags&^flagVerity != 0 {
		return nil, errors.New("statement: a reserved flag is set")
	}
	if flags&flagVerity != 0 {
		if len(b) < 32 {
			return nil, errors.New("statement: fs-verity digest is cut off")
		}
		s.Verity = (*[32]byte)(append([]byte(nil), b[:32]...))
		b = b[32:]
	}
	if len(b) != name {
		return nil, fmt.Errorf("statement: %d octets of name where %d are announced", len(b), name)
	}
	s.Name = string(b)
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// Printable makes a name that CheckName takes of any string: what may not be there becomes a question mark, and what is too
// long loses its beginning.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if control(r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	s = strings.Trim(b.String(), " ")
	if len(s) > MaxName {
		s = strings.Trim(strings.ToValidUTF8(s[len(s)-MaxName:], ""), " ")
	}
	return s
}

// control says whether a rune does something to the text around it.
func control(r rune) bool {
	return r < ' ' || (r >= 0x7f && r < 0xa0) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}
