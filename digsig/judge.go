package digsig

import (
	"encoding/hex"
	"fmt"
	"time"

	"midplane/internal/digsig/trust"
)

// finding is what one statement about a file is worth.
type finding struct {
	reason Reason
	detail string
	key    KeyID
	st     *Statement
	proof  Carrier
	until  time.Time
}

// rank orders the reasons that deny, when several statements fail: the last is reported.
var rank = map[Reason]int{
	Unsigned: 1, UnknownKey: 2, BadAlgorithm: 3, Malformed: 4, Broken: 5, WrongPurpose: 6, NotYetValid: 7, Expired: 8, RoleMissing: 9, Rollback: 10, Revoked: 11,
}

// soon keeps the earlier of two times, of which zero is never.
func soon(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// signatures says what the signatures of an envelope are worth: Signed, or the reason why they are not enough. purpose and
// st are what the key must be good for; st is nil for lists.
func (v *Verifier) signatures(env *Envelope, good map[KeyID]bool, st *Statement, at time.Time) finding {
	worst := finding{reason: UnknownKey, detail: fmt.Sprintf("key %s, which signed it, is not trusted", env.Signatures[0].Key)}
	var best finding
	var until time.Time
	failed := 0
	for _, s := range env.Signatures {
		k := v.trust.Key(s.Key)
		if k == nil {
			continue
		}
		f := v.signature(k, s.Alg, env.Domain, good[s.Key], st, at)
		until = soon(until, f.until)
		if f.reason == Signed {
			if best.reason == 0 {
				best = f
			}
			continue
		}
		failed++
		if f.reason == Broken { // somebody changed what a trusted key signed
			f.until = time.Time{}
			return f
		}
		if rank[f.reason] > rank[worst.reason] {
			worst = f
		}
	}
	if best.reason == Signed && (failed == 0 || !v.policy.AllMustMatch) {
		if v.policy.AllMustMatch {
			best.until = until
		}
		return best
	}
	worst.until = until
	return worst
}

// signature judges one signature by a trusted key.
func (v *Verifier) signature(k *Key, alg Alg, d Domain, good bool, st *Statement, at time.Time) finding {
	f := finding{key: k.ID()}
	say := func(r Reason, format string, a ...any) finding {
		f.reason, f.detail = r, fmt.Sprintf(format, a...)
		return f
	}
	if why, revoked := v.revocations.Keys[k.ID()]; revoked {
		return say(Revoked, "key %s is revoked%s", k, because(why))
	}
	if k.Public.Alg() != alg {
		return say(BadAlgorithm, "the signature says %s, key %s is of %s", alg, k, k.Public.Alg())
	}
	if !good {
		return say(Broken, "the signature by key %s does not fit what it should cover", k)
	}
	if k.Purposes&trust.PurposeOf(d) == 0 {
		return say(WrongPurpose, "key %s may sign %s, not %s", k, k.Purposes, d)
	}
	if st != nil {
		if err := k.MaySign(st.Kind, st.Roles, st.Name); err != nil {
			return say(WrongPurpose, "%v", err)
		}
	}
	if at.Before(k.NotBefore) {
		f.until = k.NotBefore
		return say(NotYetValid, "key %s is valid from %s on", k, k.NotBefore.Format(time.RFC3339))
	}
	if !k.NotAfter.IsZero() && !at.Before(k.NotAfter) {
		return say(Expired, "key %s was valid until %s", k, k.NotAfter.Format(time.RFC3339))
	}
	f.until = k.NotAfter
	return say(Signed, "by key %s", k)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// statement judges one statement about the content that the evidence is of.
func (v *Verifier) statement(e *evidence, digest [32]byte, st *Statement, env *Envelope, good map[KeyID]bool, c Carrier, at time.Time) finding {
	f := v.signatures(env, good, st, at)
	f.st, f.proof = st, c
	say := func(r Reason, format string, a ...any) finding {
		f.reason, f.detail = r, fmt.Sprintf(format, a...)
		return f
	}
	switch {
	case f.reason != Signed:
		return f
	case st.Digest != digest || st.Size != uint64(e.size):
		f.until = time.Time{}
		return say(Broken, "the file was changed after it was signed: its digest is %s, signed was %s", hex.EncodeToString(digest[:]), hex.EncodeToString(st.Digest[:]))
	case st.Kind != e.kind:
		return say(Broken, "the file is of kind %s, signed was %s", e.kind, st.Kind)
	}
	if m, ok := v.revocations.Below[st.Name]; ok && st.Version < m.Version {
		return say(Rollback, "%q is of version %d, and %d is the least that is good%s", st.Name, st.Version, m.Version, because(m.Why))
	}
	if at.Before(st.Issued) {
		f.until = st.Issued
		return say(NotYetValid, "it is valid from %s on", st.Issued.Format(time.RFC3339))
	}
	if !st.Expires.IsZero() && !at.Before(st.Expires) {
		return say(Expired, "it was valid until %s", st.Expires.Format(time.RFC3339))
	}
	f.until = soon(f.until, st.Expires)
	return f
}

// findings calls use for each statement about the content, until it returns false.
func (v *Verifier) findings(e *evidence, at time.Time, use func(finding) bool) {
	for i := range e.proofs {
		p := &e.proofs[i]
		digest := e.file
		if p.carrier == Embedded {
			digest = e.signed
		}
		if !use(v.statement(e, digest, p.st, p.env, v.good(p), p.carrier, at)) {
			return
		}
	}
	v.listed(&e.file, func(m *signedManifest, i int) bool {
		f := v.statement(e, e.file, m.list.Statement(m.list.At(i)), m.env, m.good, InManifest, at)
		if f.reason == Signed {
			v.whole(m, &f)
		}
		f.detail += fmt.Sprintf(" (manifest %q version %d)", m.list.Name, m.list.Version)
		return use(f)
	})
}

// whole looks for what a revocation list says of a manifest as a whole.
func (v *Verifier) whole(m *signedManifest, f *finding) {
	if why, revoked := v.revocations.Digests[m.sum]; revoked {
		f.reason, f.detail = Revoked, "the manifest that lists it is revoked"+because(why)
	} else if least, ok := v.revocations.Below[m.list.Name]; ok && m.list.Version < least.Version {
		f.reason, f.detail = Rollback, fmt.Sprintf("the manifest that lists it is below version %d, the least that is good%s", least.Version, because(least.Why))
	}
}

// good returns which signatures are, verifying those of keys that were not trusted when the proof was made.
func (v *Verifier) good(p *proof) map[KeyID]bool {
	for _, s := range p.env.Signatures {
		if k := v.trust.Key(s.Key); k != nil && k.Public.Alg() == s.Alg {
			if _, known := p.good[s.Key]; !known {
				return verifyAll(p.env, v.trust)
			}
		}
	}
	return p.good
}

// judge makes the verdict from the evidence.
func (v *Verifier) judge(e *evidence, q Request) Verdict {
	at := v.clock(q.At)
	out := Verdict{Use: q.Use, Generation: v.generation, Size: e.size, Kind: e.kind, Digest: e.file, File: e.file, evidence: e}
	need, exempt := v.need(q, e.kind)
	if need == 0 {
		return v.unrestricted(out, exempt)
	}
	for _, d := range [][32]byte{e.file, e.signed} {
		if why, revoked := v.revocations.Digests[d]; revoked {
			return v.deny(out, Revoked, "content "+hex.EncodeToString(d[:])+" is revoked"+because(why))
		}
	}
	worst := finding{reason: Unsigned, detail: "it has no signature, and no manifest lists it"}
	if e.bad != 0 {
		worst = finding{reason: e.bad, detail: e.why}
	}
	var until time.Time
	v.findings(e, at, func(f finding) bool {
		until = soon(until, f.until)
		if f.reason == Signed {
			granted := v.policy.Grant(f.st.Roles, e.file, e.signed)
			if granted&need != 0 {
				out.fill(f, granted, e)
				out.Allow, out.Reason, out.Detail, out.Until = true, Signed, f.detail, f.until
				return false
			}
			f.reason = RoleMissing
			f.detail = fmt.Sprintf("it is signed for %s; %s needs %s", granted, q.Use, need)
		}
		if rank[f.reason] > rank[worst.reason] || worst.reason == Unsigned {
			worst = f
			out.fill(f, 0, e)
		}
		return true
	})
	if out.Allow {
		return out
	}
	out.Until = until
	return v.deny(out, worst.reason, worst.detail)
}

// fill takes over what the statement says.
func (out *Verdict) fill(f finding, granted Role, e *evidence) {
	out.Key, out.Carrier = f.key, f.proof
	if f.st == nil {
		return
	}
	out.Name, out.Version, out.Issued, out.Verity, out.Roles = f.st.Name, f.st.Version, f.st.Issued, f.st.Verity, granted
	out.Digest = e.file
	if f.proof == Embedded {
		out.Digest = e.signed
	}
}

func (v *Verifier) unrestricted(out Verdict, exempt string) Verdict {
	out.Allow, out.Reason, out.Detail = true, Unrestricted, "nothing is wanted for this use"
	if exempt != "" {
		out.Reason, out.Detail = Exempt, exempt
	}
	return out
}

// deny makes a verdict that denies, or says why it would, by the mode.
func (v *Verifier) deny(out Verdict, r Reason, detail string) Verdict {
	out.Allow, out.Reason, out.Detail = false, r, detail
	switch v.policy.Mode {
	case Permissive:
		out.Allow, out.Reason, out.Cause = true, Permitted, r
	case Learn:
		out.Allow, out.Reason, out.Cause = true, Learning, r
	}
	return out
}
