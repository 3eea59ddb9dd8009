package bpflsm

import (
	"os"
	"strings"
	"testing"

	"midplane/internal/digsig/envelope"
)

// The programs' numbers are those of the Go side.
func TestNumbersOfTheSources(t *testing.T) {
	b, err := os.ReadFile("bpf/state.h")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{
		"ROLE_EXEC = 1 << 0", "ROLE_LIB = 1 << 1", "ROLE_SCRIPT = 1 << 2", "ROLE_INTERP = 1 << 3", "ROLE_DATA = 1 << 4", "ROLE_MODULE = 1 << 5",
		"ROLE_MANAGER = 1 << 30", "MODE_OFF = 0", "MODE_PERMISSIVE = 1", "MODE_ENFORCE = 2",
		"DENY_ANONYMOUS = 1 << 0", "CHECK_MODULES = 1 << 1", "GUARD_STATE = 1 << 2", "DENY_PTRACE = 1 << 3",
		"KIND_NONE = 0", "KIND_VERITY = 1", "KIND_CONTENT = 2", "KIND_PENDING = 3",
		"OK = 0", "NO_VERDICT = 1", "UNDECIDED = 2", "UNKNOWN = 3", "STALE = 4", "ROLE = 5", "ALGORITHM = 6", "WRITERS = 7", "ANONYMOUS = 8",
		"NO_FILE = 9", "GUARDED = 10", "REMOTE = 11", "REASONS = 16", "HOOKS = 16",
		"HOOK_CHECK = 0", "HOOK_EXEC = 1", "HOOK_INTERP = 2", "HOOK_MMAP = 3", "HOOK_MPROTECT = 4", "HOOK_MODULE = 5", "HOOK_KEXEC = 6", "HOOK_MAP = 7",
		"HOOK_PIN = 8", "HOOK_PTRACE = 9",
	} {
		if !strings.Contains(words, " "+want+",") {
			t.Errorf("bpf/state.h has no %q", want)
		}
	}
	for want, got := range map[uint]envelope.Role{1: envelope.RoleExec, 2: envelope.RoleLib, 4: envelope.RoleScript, 8: envelope.RoleInterp, 16: envelope.RoleData, 32: envelope.RoleModule} {
		if uint(got) != want {
			t.Errorf("role %v is %d, and %d in bpf/state.h", got, got, want)
		}
	}
	for _, c := range [][2]uint{
		{uint(Enforce), 2}, {uint(Pending), 3}, {uint(Remote), 11}, {uint(Ptrace), 9}, {uint(Writers), 7}, {uint(Kexec), 6}, {uint(Unknown), 3}, {reasons, 16}, {hooks, 16},
	} {
		if c[0] != c[1] {
			t.Errorf("%d, want %d", c[0], c[1])
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		Enforce.String(): "enforce", Mode(9).String(): "9", Verity.String(): "fs-verity", Left.String(): "left to fanotify", Reason(200).String(): "200",
		Ptrace.String(): "ptrace", Hook(15).String(): "15", Digest{Verity, [32]byte{1}}.String(): "fs-verity:01" + strings.Repeat("00", 31),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if len(reasonNames) != int(Left)+1 || len(hookNames) != int(Ptrace)+1 {
		t.Error("a reason or hook without a name")
	}
	c := Counters{Exec: {OK: 5, Unknown: 2, Left: 4}, Map: {NoVerdict: 3}}
	if n := c.Denied(); n != 5 {
		t.Errorf("%d denied, want 5", n)
	}
	if s := (&LockoutError{Program: "/usr/bin/midplane", Lack: "a grant"}).Error(); !strings.Contains(s, "/usr/bin/midplane") || !strings.Contains(s, "a grant") {
		t.Error(s)
	}
}
