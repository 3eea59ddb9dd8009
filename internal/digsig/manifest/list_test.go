package manifest

import (
	"reflect"
	"strings"
	"testing"

	"midplane/internal/digsig/envelope"
)

func listed(entries ...Entry) string {
	b := []byte(ListHead + "\n")
	for i := range entries {
		b = entries[i].AppendLine(b)
	}
	return string(b)
}

func TestList(t *testing.T) {
	want := []Entry{
		{Digest: [32]byte{1, 0xab}, Size: 7, Kind: envelope.KindELF, Roles: envelope.RoleExec | envelope.RoleLib, Name: `usr/bin/a "b" \c`},
		{Digest: [32]byte{31: 1}, Kind: envelope.KindScript, Roles: envelope.RoleScript},
		{Digest: [32]byte{31: 1}, Size: 1<<63 - 1, Kind: envelope.KindFile, Roles: envelope.AllRoles, Name: "ß"},
	}
	got, err := ParseList([]byte(strings.Replace(listed(want...), "\n", "\n# a comment\n\n", 1)))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %+v", err, got)
	}
	for line, says := range map[string]string{
		"file":                                  `want file DIGEST`,
		"dir 00 1 elf exec x":                   `want file DIGEST`,
		"file 00 1 elf exec x":                  `digest "00"`,
		"file D -1 elf exec x":                  `size "-1"`,
		"file D 9223372036854775808 elf exec x": "size ",
		"file D 1 exe exec x":                   `kind "exe"`,
		"file D 1 elf run x":                    `role "run"`,
		"file D 1 elf none x":                   `role "none"`,
		`file D 1 elf exec " x"`:                "without spaces",
		`file D 1 elf exec "x`:                  "without an end",
		"file D 1 elf exec x y":                 `want file DIGEST`,
	} {
		line = strings.Replace(line, "D", strings.Repeat("0", 64), 1)
		if _, err := ParseList([]byte(ListHead + "\n" + line + "\n")); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := ParseList([]byte("file\n")); err == nil || !strings.Contains(err.Error(), ListHead) {
		t.Error(err)
	}
}

// FuzzList reads any text: what is taken is the same when it is written and read again.
func FuzzList(f *testing.F) {
	f.Add(listed(Entry{Kind: envelope.KindELF, Roles: envelope.RoleExec, Name: "a \"b\""}, Entry{Size: 5, Kind: envelope.KindFile, Roles: envelope.AllRoles}))
	f.Add(ListHead + "\n# nothing\n\nfile x\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseList([]byte(s))
		if err != nil {
			return
		}
		again, err := ParseList([]byte(listed(got...)))
		if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
			t.Errorf("%v: %+v became %+v", err, got, again)
		}
	})
}
