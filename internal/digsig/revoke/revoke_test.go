package revoke

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/envelope"
)

func list() *List {
	return &List{
		Serial: 7, Issued: time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC),
		Digests: map[[32]byte]string{{1}: "CVE-2026-1", {2}: ""},
		Keys:    map[envelope.KeyID]string{{3}: `stolen, "they say"`},
		Below:   map[string]Minimum{"nginx": {12, "old"}, "a name": {1, ""}},
	}
}

func TestList(t *testing.T) {
	l := list()
	b, err := l.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, l) {
		t.Fatalf("%+v, %v\n%s", got, err, b)
	}
	// People may write lines in another order and comments; a signed list may not.
	free := strings.Replace(string(b), "serial 7\n", "# comment\n\n", 1) + "serial 7\n"
	if got, err := Parse([]byte(free)); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Decode([]byte(free)); err == nil || !strings.Contains(err.Error(), "canonical") {
		t.Errorf("%v", err)
	}
	text := string(b)
	for change, want := range map[[2]string]string{
		{"revocations 1", "revocations 2"}:       "line 1",
		{"serial 7", "serial 0"}:                 "above 0",
		{"serial 7", "serial -7"}:                "above 0",
		{"serial 7", "serial 7\nserial 7"}:       "once",
		{"serial 7\n", ""}:                       "serial 0",
		{"issued 2026", "issued 26"}:             "want a time",
		{"issued 2026-11-26T07:00:00Z\n", ""}:    "issued",
		{"digest 01", "digest 0x"}:               "hexadecimal",
		{"digest 02", "digest 01"}:               "twice",
		{"key 03", "key 3"}:                      "key id",
		{"below 12", "below 0"}:                  "above 0",
		{"below 12", "under 12"}:                 "want",
		{`name "nginx"`, `name ""`}:              "name",
		{`name "nginx"`, `name "a name"`}:        "twice",
		{`"CVE-2026-1"`, "\"CVE-\u202e2026-1\""}: "control",
		{"digest 01", "hash 01"}:                 "want",
		{"Z\n", "Z\r\n"}:                         "want a time",
	} {
		x := strings.Replace(text, change[0], change[1], 1)
		if x == text {
			t.Fatalf("nothing to change: %q", change[0])
		}
		if _, err := Decode([]byte(x)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v: want one with %q", change[1], err, want)
		}
	}
	if _, err := Decode(append(b, '\n')); err == nil {
		t.Error("an empty line more")
	}
}

// FuzzRevocations reads any text: what is a signed list encodes to the same octets; what people may write, to a signed one.
func FuzzRevocations(f *testing.F) {
	b, err := list().Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(head + "\nserial 1\nissued 2026-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := Decode(b); err == nil {
			if again, err := l.Append(nil); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q encodes to %q, %v", b, again, err)
			}
		}
		l, err := Parse(b)
		if err != nil {
			return
		}
		if out, err := l.Append(nil); err == nil {
			if got, err := Decode(out); err != nil || !reflect.DeepEqual(got, l) {
				t.Fatalf("%q: %+v, %v", out, got, err)
			}
		}
	})
}
