package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/text"
)

// ListHead is the first line of a list: entries of a manifest as text, for people to read and thin out before it is signed.
// Each further line is an entry, "file DIGEST SIZE KIND ROLES NAME" with the name in quotation marks, a comment (#), or empty.
const ListHead = "midplane digsig list 1"

// AppendLine writes one entry as a line of a list. Version and fs-verity digest are not in it.
func (e *Entry) AppendLine(b []byte) []byte {
	return fmt.Appendf(b, "file %x %d %s %s %s\n", e.Digest, e.Size, e.Kind, e.Roles, text.Quote(e.Name))
}

// ParseList reads a list. Errors name the line. The order is that of the lines; files that are there twice are there twice.
func ParseList(b []byte) ([]Entry, error) {
	var out []Entry
	err := text.Lines(b, ListHead, func(f []string) error {
		if len(f) != 6 || f[0] != "file" {
			return fmt.Errorf("%.80q: want file DIGEST SIZE KIND ROLES \"NAME\"", strings.Join(f, " "))
		}
		if len(out) == MaxEntries {
			return fmt.Errorf("more than %d files", MaxEntries)
		}
		var e Entry
		var err error
		if e.Digest, err = text.ParseDigest(f[1]); err != nil {
			return err
		}
		if e.Size, err = strconv.ParseUint(f[2], 10, 63); err != nil {
			return fmt.Errorf("size %.80q: want a number of octets", f[2])
		}
		if e.Kind, err = envelope.ParseKind(f[3]); err != nil {
			return err
		}
		if e.Roles, err = envelope.ParseRoles(f[4]); err != nil {
			return err
		}
		e.Name = f[5]
		if err := envelope.CheckName(e.Name); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	})
	return out, err
}
