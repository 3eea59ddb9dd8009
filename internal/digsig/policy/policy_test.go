package policy

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/envelope"
)

var (
	python = [32]byte{1}
	bash   = [32]byte{2}
	gcc    = [32]byte{3}
)

func some() *Policy {
	return &Policy{
		Version: 3, Issued: time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC), Mode: Permissive, AllMustMatch: true, MaxSize: 1 << 20,
		Exempt:       map[[32]byte]string{gcc: "the compiler"},
		Interpreters: map[[32]byte]Interpreter{python: {true, []string{"*.py", "*.pyc"}}, bash: {Scripts: []string{}}},
		Protect:      []string{"/etc/*", "/srv/web/*"},
	}
}

func TestPolicy(t *testing.T) {
	p := some()
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("%+v, %v\n%s", got, err, b)
	}
	free := strings.Replace(string(b), "mode permissive\n", "# comment\n\n", 1) + "mode permissive\n"
	if got, err := Parse([]byte(free)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Decode([]byte(free)); err == nil || !strings.Contains(err.Error(), "canonical") {
		t.Errorf("%v", err)
	}
	text := string(b)
	for change, want := range map[[2]string]string{
		{"policy 1", "policy 2"}:                      "line 1",
		{"version 3", "version 0"}:                    "above 0",
		{"version 3\n", ""}:                           "version 0",
		{"version 3", "version 3\nversion 3"}:         "once",
		{"issued 2026", "issued 26"}:                  "want a time",
		{"mode permissive", "mode off"}:               "mode",
		{"signatures all", "signatures most"}:         "any or all",
		{"max-size 1048576", "max-size 0"}:            "1 or more",
		{"max-size 1048576", "max-size 1M"}:           "1 or more",
		{"mode", "modus"}:                             "modus",
		{"exempt 03", "exempt 3"}:                     "hexadecimal",
		{`"the compiler"`, `"the compiler" "x"`}:      "exempt",
		{"indirect", "sometimes"}:                     "interpreter",
		{"interpreter 01", "interpreter 02"}:          "twice",
		{`"*.py" "*.pyc"`, `"*.pyc" "*.py"`}:          "canonical",
		{`protect "/etc/*"`, `protect "/srv/web/*"`}:  "twice",
		{`protect "/etc/*"`, `protect "/etc/*" "/x"`}: "protect",
		{"version 3", "version 18446744073709551616"}: "above 0",
	} {
		x := strings.Replace(text, change[0], change[1], 1)
		if x == text {
			t.Fatalf("nothing to change: %q", change[0])
		}
		if _, err := Decode([]byte(x)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v: want one with %q", change[1], err, want)
		}
	}
}

// What each use needs, by every rule.
func TestNeed(t *testing.T) {
	p := some()
	lib := envelope.RoleLib | envelope.RoleExec | envelope.RoleInterp | envelope.RoleModule
	for _, c := range []struct {
		q      Question
		want   envelope.Role
		exempt bool
	}{
		{Question{Use: UseExec}, envelope.RoleExec, false},
		{Question{Use: UseExec, Kind: envelope.KindScript}, envelope.RoleScript, false},
		{Question{Use: UseCheck, Kind: envelope.KindELF}, envelope.RoleExec, false},
		{Question{Use: UseCheck, Kind: envelope.KindScript}, envelope.RoleScript, false},
		{Question{Use: UseScript, Kind: envelope.KindScript}, envelope.RoleScript, false},
		{Question{Use: UseInterp}, envelope.RoleInterp | envelope.RoleExec, false},
		{Question{Use: UseLib}, lib, false},
		{Question{Use: UseModule}, envelope.RoleModule, false},
		{Question{Use: UseAny}, envelope.AllRoles, false},
		{Question{Use: 200}, envelope.RoleExec, false},
		{Question{Use: UseOpen}, 0, false},
		{Question{Use: UseOpen, Path: "/home/x"}, 0, false},
		{Question{Use: UseOpen, Path: "/etc/ssh/sshd_config"}, envelope.RoleData, false},
		{Question{Use: UseOpen, Path: "/etc/shadow", Subject: &gcc}, 0, true},
		{Question{Use: UseLib, Subject: &gcc}, 0, true},
		{Question{Use: UseExec, Subject: &gcc}, envelope.RoleExec, false},
		{Question{Use: UseInterp, Subject: &gcc}, envelope.RoleInterp | envelope.RoleExec, false},
		{Question{Use: UseModule, Subject: &gcc}, envelope.RoleModule, false},
		{Question{Use: UseOpen, Path: "/home/x/a.py", Subject: &python}, envelope.RoleScript, false},
		{Question{Use: UseOpen, Path: "/home/x/a.txt", Subject: &python}, 0, false},
		{Question{Use: UseOpen, Path: "/home/x/a.py", Subject: &bash}, 0, false},
		{Question{Use: UseOpen, Path: "/home/x/a.py"}, 0, false},
	} {
		if got, exempt := p.Need(c.q); got != c.want || (exempt != "") != c.exempt {
			t.Errorf("%+v: %s %q, want %s", c.q, got, exempt, c.want)
		}
	}
	exec := envelope.RoleExec | envelope.RoleLib
	if got := p.Grant(exec, python); got != envelope.RoleInterp|envelope.RoleLib {
		t.Errorf("an indirect interpreter gets %s", got)
	}
	if got := p.Grant(exec, bash); got != exec {
		t.Errorf("a direct interpreter gets %s", got)
	}
	for u := UseExec; u <= UseAny; u++ {
		if got, err := ParseUse(u.String()); err != nil || got != u {
			t.Error(u, got, err)
		}
	}
}

// FuzzPolicy reads any text: what is a signed policy encodes to the same octets; what people may write, to a signed one.
func FuzzPolicy(f *testing.F) {
	b, err := some().Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(head + "\nversion 1\nissued 2026-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Decode(b); err == nil {
			if again, err := p.Append(nil); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q encodes to %q, %v", b, again, err)
			}
		}
		p, err := Parse(b)
		if err != nil {
			return
		}
		out, err := p.Append(nil)
		if err != nil {
			return
		}
		got, err := Decode(out)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if again, err := got.Append(nil); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q, then %q", out, again)
		}
	})
}
