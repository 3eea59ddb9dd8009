package digsig

import (
	"fmt"
	"strconv"
	"time"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/manifest"
	"midplane/internal/digsig/policy"
	"midplane/internal/digsig/revoke"
	"midplane/internal/digsig/trust"
)

// What is signed.
type (
	// Statement is what the holder of a key says about a file.
	Statement = envelope.Statement
	// Role is a set of things that a file may be used for.
	Role = envelope.Role
	// Kind is what sort of file was signed.
	Kind = envelope.Kind
	// KeyID names a public key: the SHA-256 of its algorithm and octets.
	KeyID = envelope.KeyID
	// Alg is the number of a signature algorithm.
	Alg = envelope.Alg
	// Domain separates what is signed: a signature of one domain is none in another.
	Domain = envelope.Domain
	// Envelope is what carries a body and its signatures.
	Envelope = envelope.Envelope
	// Manifest is a list of files that one signature covers.
	Manifest = manifest.Manifest
	// ManifestHeader is what a manifest says of itself.
	ManifestHeader = manifest.Header
	// ManifestEntry is one file of a manifest.
	ManifestEntry = manifest.Entry
	// Revocations is a list of what is no longer good although it was signed.
	Revocations = revoke.List
	// Minimum is the least version of a name that is good.
	Minimum = revoke.Minimum
)

// Who is trusted, and what is wanted.
type (
	// PublicKey is a public key with its algorithm.
	PublicKey = envelope.PublicKey
	// Key is a public key and what it is trusted for; its text form is a file of the store's directory trust.
	Key = trust.Key
	// Purpose is a set of domains that a key may sign in.
	Purpose = trust.Purpose
	// TrustStore is an immutable set of keys.
	TrustStore = trust.Store
	// Policy says what happens to what is not good, and to which files which rules apply.
	Policy = policy.Policy
	// Interpreter is a policy's rule for a program that runs scripts.
	Interpreter = policy.Interpreter
	// Mode says what happens to what is not good.
	Mode = policy.Mode
	// Use is what somebody wants to do with a file.
	Use = policy.Use
)

// Roles.
const (
	RoleExec   = envelope.RoleExec   // run as a program
	RoleLib    = envelope.RoleLib    // mapped as a shared library
	RoleScript = envelope.RoleScript // run through #!, or read by an interpreter
	RoleInterp = envelope.RoleInterp // run as PT_INTERP or as the program of a #! line, and only so unless RoleExec is there too
	RoleData   = envelope.RoleData   // read; must not change
	RoleModule = envelope.RoleModule // loaded into the kernel
	AllRoles   = envelope.AllRoles
)

// Kinds.
const (
	KindELF    = envelope.KindELF
	KindScript = envelope.KindScript // begins with #!
	KindFile   = envelope.KindFile   // anything else
)

// Algorithms.
const (
	Ed25519   = envelope.Ed25519
	ECDSAP256 = envelope.ECDSAP256
)

// Domains.
const (
	DomainContent     = envelope.Content
	DomainManifest    = envelope.Manifest
	DomainRevocations = envelope.Revocations
	DomainPolicy      = envelope.Policy
)

// Purposes.
const (
	PurposeContent     = trust.Content
	PurposeManifest    = trust.Manifest
	PurposeRevocations = trust.Revocations
	PurposePolicy      = trust.Policy
	AllPurposes        = trust.AllPurposes
)

// Modes.
const (
	Enforce    = policy.Enforce    // what is not good does not run
	Permissive = policy.Permissive // it runs, and the verdict says why it would not
	Learn      = policy.Learn      // as Permissive; a Learner makes a manifest of what ran
)

// Uses.
const (
	UseExec   = policy.UseExec   // run it; a file that begins with #! is then UseScript
	UseInterp = policy.UseInterp // run as PT_INTERP of a program, or as the program of a #! line
	UseLib    = policy.UseLib    // map it, or open an ELF file, which may be for mapping
	UseScript = policy.UseScript // run it through #!
	UseCheck  = policy.UseCheck  // ask whether it could be run: execveat(2) with AT_EXECVE_CHECK
	UseOpen   = policy.UseOpen   // read it
	UseModule = policy.UseModule // load it into the kernel
	UseAny    = policy.UseAny    // nothing in particular: is it signed for anything at all
)

// Reason is why a verdict is as it is.
type Reason uint8

// Reasons. The first group allows, the second denies.
const (
	Signed       Reason = 1 + iota // by a trusted key, and nothing speaks against it
	Exempt                         // the policy exempts who asks
	Unrestricted                   // nothing is wanted for this use
	Permitted                      // it is denied for Cause, but the mode is permissive
	Learning                       // it is denied for Cause, but the mode is learn
)

// Reasons that deny.
const (
	Unsigned     Reason = 32 + iota // there is no signature, and no manifest lists the file
	Broken                          // there is a signature, but not of this content: it was changed after it was signed
	UnknownKey                      // no key that signed it is trusted
	WrongPurpose                    // the key is not trusted for this
	Revoked                         // the content, or the key, is on the revocation list
	Expired                         // the signature or the key is no longer valid
	NotYetValid                     // the signature or the key is not valid yet
	Rollback                        // the version is below the least good one
	RoleMissing                     // it is signed, but not for this use
	BadAlgorithm                    // the signature's algorithm is unknown or not the key's
	Malformed                       // it is an ELF file that breaks the rules, so nothing in it can be trusted
	TooBig                          // it is bigger than the policy lets anybody read
	NotRegular                      // it is a directory, FIFO or device
	Unreadable                      // reading failed, or took longer than the context allows
)

var reasonNames = map[Reason]string{
	Signed: "signed", Exempt: "exempt", Unrestricted: "unrestricted", Permitted: "permitted", Learning: "learning",
	Unsigned: "unsigned", Broken: "broken", UnknownKey: "unknown key", WrongPurpose: "wrong purpose", Revoked: "revoked",
	Expired: "expired", NotYetValid: "not yet valid", Rollback: "rollback", RoleMissing: "role missing",
	BadAlgorithm: "bad algorithm", Malformed: "malformed", TooBig: "too big", NotRegular: "not regular", Unreadable: "unreadable",
}

// String returns the reason in one or two words.
func (r Reason) String() string {
	if s := reasonNames[r]; s != "" {
		return s
	}
	return "reason " + strconv.Itoa(int(r))
}

// Allows says whether a verdict with this reason allows.
func (r Reason) Allows() bool { return r >= Signed && r <= Learning }

// Carrier is where a signature was found.
type Carrier uint8

// Carriers.
const (
	NoCarrier Carrier = iota
	Embedded          // in the ELF file
	InManifest
	InXattr  // in an extended attribute
	Detached // in a file beside it
)

// String returns the name.
func (c Carrier) String() string {
	switch c {
	case NoCarrier:
		return "none"
	case Embedded:
		return "embedded"
	case InManifest:
		return "manifest"
	case InXattr:
		return "xattr"
	case Detached:
		return "detached"
	}
	return "carrier " + strconv.Itoa(int(c))
}

// Verdict is the answer to whether a file may be used. Only a Verifier makes verdicts that allow: the zero value denies.
type Verdict struct {
	Allow  bool
	Reason Reason
	Cause  Reason // with Permitted and Learning: what it would be denied for
	Detail string // the reason in words

	Digest  [32]byte // what was signed: of an ELF with an embedded signature, with the slot read as zeros; else File
	File    [32]byte // SHA-256 of the whole file, as sha256sum prints it; zero when it was not read to the end
	Size    int64
	Kind    Kind
	Verity  *[32]byte // the fs-verity digest that the signature vouches for, if it does
	Key     KeyID     // that decided; zero: none
	Name    string    // that was signed
	Version uint64
	Roles   Role // that the policy grants by the signature
	Carrier Carrier
	Issued  time.Time
	Until   time.Time // from then on the verdict may be another, just because time goes on; zero: never

	Use        Use
	Generation uint64 // of the Verifier

	evidence *evidence
}

// String returns the verdict in one line.
func (v Verdict) String() string {
	word := "deny"
	if v.Allow {
		word = "allow"
	}
	return fmt.Sprintf("%s: %s: %s", word, v.Reason, v.Detail)
}
