// Package text reads and writes the lines of DigSig's key files, revocation lists and policies: words with single spaces
// between them, and strings in quotation marks.
package text

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLine bounds a line, in octets.
const MaxLine = 4096

// Quote writes a string in quotation marks; a backslash stands before quotation marks and backslashes. The string must
// have no control characters.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Fields splits a line into words and strings. A string loses its quotation marks; the result does not tell it from a word.
func Fields(line string) ([]string, error) {
	var out []string
	for line != "" {
		if line[0] == ' ' || line[0] == '\t' {
			line = line[1:]
			continue
		}
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			if i := strings.IndexAny(word, "\"\t"); i >= 0 {
				return nil, fmt.Errorf("word %q: want no quotation mark or tab inside", word)
			}
			out, line = append(out, word), rest
			continue
		}
		s, rest, err := unquote(line[1:])
		if err != nil {
			return nil, err
		}
		out, line = append(out, s), rest
	}
	return out, nil
}

func unquote(s string) (string, string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			i++
			if i == len(s) || (s[i] != '"' && s[i] != '\\') {
				return "", "", errors.New(`a backslash in a string: want \" or \\`)
			}
			b.WriteByte(s[i])
		case '"':
			rest := s[i+1:]
			if rest != "" && rest[0] != ' ' {
				return "", "", errors.New("want a space after a string")
			}
			return b.String(), rest, nil
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a string without an end")
}

// Lines calls f for each line that is neither empty nor a comment (#), after the first, which must be head. Errors name the
// line.
func Lines(b []byte, head string, f func(fields []string) error) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	if first != head {
		return fmt.Errorf("line 1: %.60q: want %q", first, head)
	}
	n := 1
	for line := range strings.Lines(rest) {
		n++
		line = strings.TrimRight(strings.TrimSuffix(line, "\n"), " ")
		if len(line) > MaxLine {
			return fmt.Errorf("line %d: %d octets: want at most %d", n, len(line), MaxLine)
		}
		if line == "" || line[0] == '#' {
			continue
		}
		fields, err := Fields(line)
		if err == nil && len(fields) > 0 {
			err = f(fields)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// Canonical decodes a body that has one form only: what Append makes of what parse reads must be the body. Errors begin with
// what, a name for the body.
func Canonical[T interface {
	Append([]byte) ([]byte, error)
}](what string, b []byte, parse func([]byte) (T, error)) (T, error) {
	var none T
	v, err := parse(b)
	if err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	again, err := v.Append(nil)
	if err != nil {
		return none, err
	}
	if !bytes.Equal(again, b) {
		return none, fmt.Errorf("%s: not in canonical form", what)
	}
	return v, nil
}

// ParseDigest reads a SHA-256 in hexadecimal digits.
func ParseDigest(s string) (d [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("digest %q: want 64 hexadecimal digits", s)
	}
	return [32]byte(b), nil
}

// Match says whether a string fits a pattern, in which * stands for any octets and ? for one. It takes time by the product of
// the lengths at most.
func Match(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
