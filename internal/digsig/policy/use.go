package policy

import (
	"fmt"
	"slices"
	"strconv"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/text"
)

// Use is what somebody wants to do with a file.
type Use uint8

// Uses.
const (
	UseExec   Use = iota // run it: execve(2), fexecve(3); a file that begins with #! is then UseScript
	UseInterp            // run as PT_INTERP of a program, or as the program of a #! line
	UseLib               // map it, or open an ELF file, which may be for mapping
	UseScript            // run it through #!
	UseCheck             // ask whether it could be run: execveat(2) with AT_EXECVE_CHECK
	UseOpen              // read it
	UseModule            // load it into the kernel
	UseAny               // nothing in particular: is it signed for anything at all
)

var useNames = []string{"exec", "interp", "lib", "script", "check", "open", "module", "any"}

// String returns the name.
func (u Use) String() string {
	if int(u) < len(useNames) {
		return useNames[u]
	}
	return "use " + strconv.Itoa(int(u))
}

// ParseUse is the reverse of String.
func ParseUse(s string) (Use, error) {
	if i := slices.Index(useNames, s); i >= 0 {
		return Use(i), nil
	}
	return 0, fmt.Errorf("use %q: want exec, interp, lib, script, check, open, module or any", s)
}

// Question is what a policy is asked about a use.
type Question struct {
	Use     Use
	Path    string    // as it was opened; empty: unknown, and no rule for paths fits
	Subject *[32]byte // digest of the program that asks; nil: unknown, and no rule for subjects fits
	Kind    envelope.Kind
}

// Need returns the roles of which a file must have one for a use, and whether the policy wants anything at all. The second
// result is in words why nothing is wanted, for subjects that are exempt.
func (p *Policy) Need(q Question) (envelope.Role, string) {
	reads := q.Use == UseLib || q.Use == UseOpen
	if reads && q.Subject != nil {
		if i, ok := p.Interpreters[*q.Subject]; ok && q.Use == UseOpen && matches(i.Scripts, q.Path) {
			return envelope.RoleScript, ""
		}
		if what, ok := p.Exempt[*q.Subject]; ok {
			return 0, "the subject only reads: " + what
		}
	}
	switch q.Use {
	case UseInterp:
		return envelope.RoleInterp | envelope.RoleExec, ""
	case UseLib:
		return envelope.RoleLib | envelope.RoleExec | envelope.RoleInterp | envelope.RoleModule, ""
	case UseScript:
		return envelope.RoleScript, ""
	case UseOpen:
		if matches(p.Protect, q.Path) {
			return envelope.RoleData, ""
		}
		return 0, ""
	case UseModule:
		return envelope.RoleModule, ""
	case UseAny:
		return envelope.AllRoles, ""
	}
	// UseExec, UseCheck, and what is unknown.
	if q.Kind == envelope.KindScript {
		return envelope.RoleScript, ""
	}
	return envelope.RoleExec, ""
}

func matches(patterns []string, path string) bool {
	return path != "" && slices.ContainsFunc(patterns, func(s string) bool { return text.Match(s, path) })
}

// Grant returns the roles that a good file has under the policy: an indirect interpreter is none that is run directly.
func (p *Policy) Grant(roles envelope.Role, digests ...[32]byte) envelope.Role {
	for _, d := range digests {
		if p.Interpreters[d].Indirect {
			if roles&envelope.RoleExec != 0 {
				roles = roles&^envelope.RoleExec | envelope.RoleInterp
			}
		}
	}
	return roles
}
