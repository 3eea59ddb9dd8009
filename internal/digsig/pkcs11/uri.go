package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"midplane/internal/digsig/pkcs11/proto"
)

// maxURI bounds a key's URI.
const maxURI = 4 << 10

// URI names a private key in a token (RFC 7512).
type URI struct {
	Match      proto.Match
	ModulePath string // query attribute module-path
	PINSource  string // query attribute pin-source
	pin        string // query attribute pin-value
}

// ParseURI reads a pkcs11: URI. Of the attributes that RFC 7512 has it takes token, manufacturer, serial, model, slot-id,
// object, id and type (which must be private), and in the query pin-source, pin-value and module-path; others and any
// that come twice are errors.
func ParseURI(s string) (URI, error) {
	var u URI
	rest, ok := strings.CutPrefix(s, "pkcs11:")
	if !ok {
		return u, errors.New("a PKCS #11 URI begins with the scheme pkcs11")
	}
	if len(s) > maxURI {
		return u, fmt.Errorf("PKCS #11 URI of %d octets: want at most %d", len(s), maxURI)
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := attributes(path, ";", u.pathAttribute); err != nil {
		return URI{}, err
	}
	if err := attributes(query, "&", u.queryAttribute); err != nil {
		return URI{}, err
	}
	if u.pin != "" && u.PINSource != "" {
		return URI{}, errors.New("PKCS #11 URI with both pin-value and pin-source")
	}
	return u, nil
}

func attributes(s, sep string, set func(name, value string) error) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for a := range strings.SplitSeq(s, sep) {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return fmt.Errorf("PKCS #11 URI: %q is not attribute=value", a)
		}
		value, err := url.PathUnescape(value)
		if err != nil {
			return fmt.Errorf("PKCS #11 URI: attribute %s: %w", name, err)
		}
		if seen[name] {
			return fmt.Errorf("PKCS #11 URI: attribute %s comes twice", name)
		}
		seen[name] = true
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) pathAttribute(name, value string) error {
	// A value that is there and empty would match everything: nobody means that.
	if value == "" {
		return fmt.Errorf("PKCS #11 URI: attribute %s is empty", name)
	}
	text := map[string]*string{"token": &u.Match.Token, "manufacturer": &u.Match.Manufacturer, "serial": &u.Match.Serial, "model": &u.Match.Model, "object": &u.Match.Object}
	switch {
	case text[name] != nil:
		*text[name] = value
	case name == "id":
		u.Match.ID = []byte(value)
	case name == "slot-id":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("PKCS #11 URI: slot-id %q: want a number", value)
		}
		u.Match.Slot = &n
	case name == "type":
		if value != "private" {
			return fmt.Errorf("PKCS #11 URI: type %q: signing takes a private key", value)
		}
	default:
		return fmt.Errorf("PKCS #11 URI: attribute %q is not known: want token, manufacturer, serial, model, slot-id, object, id or type", name)
	}
	return nil
}

func (u *URI) queryAttribute(name, value string) error {
	switch name {
	case "pin-source":
		u.PINSource = value
	case "pin-value":
		u.pin = value
	case "module-path":
		u.ModulePath = value
	default:
		return fmt.Errorf("PKCS #11 URI: query attribute %q is not known: want pin-source, pin-value or module-path", name)
	}
	return nil
}

// String writes the URI without its PIN.
func (u URI) String() string {
	var path, query []string
	add := func(list *[]string, name, value string) {
		if value != "" {
			*list = append(*list, name+"="+escape(value))
		}
	}
	add(&path, "token", u.Match.Token)
	add(&path, "manufacturer", u.Match.Manufacturer)
	add(&path, "serial", u.Match.Serial)
	add(&path, "model", u.Match.Model)
	if u.Match.Slot != nil {
		add(&path, "slot-id", strconv.FormatUint(*u.Match.Slot, 10))
	}
	add(&path, "object", u.Match.Object)
	add(&path, "id", string(u.Match.ID))
	add(&query, "pin-source", u.PINSource)
	add(&query, "module-path", u.ModulePath)
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// escape leaves the characters that RFC 3986 reserves for nothing, and slashes, as they are.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
