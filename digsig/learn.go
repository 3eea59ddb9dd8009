package digsig

import (
	"slices"
	"sync"

	"midplane/internal/digsig/envelope"
)

// maxLearned bounds what a Learner remembers.
const maxLearned = 1 << 18

// Learner collects what would be denied, as a proposal for a manifest. The zero value is ready. It is safe for concurrent
// use.
type Learner struct {
	mu      sync.Mutex
	files   map[[32]byte]ManifestEntry // guarded by mu
	refused int                        // guarded by mu
}

// Add takes a verdict and the path of its file into account. Only what was never signed here is proposed: what is revoked,
// rolled back, expired or was changed after it was signed wants a person to look at it, and what was not read has no digest.
// It says whether the proposal has the file, with the role that this use needs.
func (l *Learner) Add(v Verdict, path string) bool {
	reason := v.Reason
	if v.Cause != 0 {
		reason = v.Cause
	}
	if v.Allow && v.Cause == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch reason {
	case Unsigned, UnknownKey, RoleMissing, Malformed:
	default:
		l.refused++
		return false
	}
	e, known := l.files[v.File]
	if v.File == [32]byte{} || (!known && len(l.files) >= maxLearned) {
		l.refused++
		return false
	}
	if !known {
		e = ManifestEntry{Digest: v.File, Size: uint64(v.Size), Kind: v.Kind, Name: envelope.Printable(path)}
	}
	e.Roles |= roleFor(v.Use, v.Kind)
	if l.files == nil {
		l.files = map[[32]byte]ManifestEntry{}
	}
	l.files[v.File] = e
	return true
}

// Proposal returns what was collected, in the order of digests, for SignManifest after somebody has read it; and how many
// verdicts were not taken.
func (l *Learner) Proposal() (entries []ManifestEntry, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.files {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b ManifestEntry) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return entries, l.refused
}

// roleFor returns the role that a use needs, the narrowest if there are several.
func roleFor(u Use, k Kind) Role {
	switch u {
	case UseInterp:
		return RoleInterp
	case UseLib:
		return RoleLib
	case UseScript:
		return RoleScript
	case UseModule:
		return RoleModule
	case UseOpen:
		if k == KindScript {
			return RoleScript
		}
		return RoleData
	case UseAny:
		switch k {
		case KindELF:
			return RoleExec | RoleLib
		case KindScript:
			return RoleScript
		}
		return RoleData
	}
	if k == KindScript {
		return RoleScript
	}
	return RoleExec
}
