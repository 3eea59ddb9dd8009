package digsig

import (
	"crypto"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/manifest"
	"midplane/internal/digsig/policy"
	"midplane/internal/digsig/revoke"
	"midplane/internal/digsig/trust"
)

// NewPublicKey checks the octets of a key: 32 of Ed25519, or an uncompressed point of P-256, 65. They are copied.
func NewPublicKey(alg Alg, raw []byte) (*PublicKey, error) { return envelope.NewPublicKey(alg, raw) }

// PublicKeyOf takes a key of package crypto: ed25519.PublicKey, or *ecdsa.PublicKey on P-256.
func PublicKeyOf(key crypto.PublicKey) (*PublicKey, error) { return envelope.FromCrypto(key) }

// ParseKeyID reads 64 hexadecimal digits.
func ParseKeyID(s string) (KeyID, error) { return envelope.ParseKeyID(s) }

// ParseAlg reads "ed25519" or "ecdsa-p256".
func ParseAlg(s string) (Alg, error) { return envelope.ParseAlg(s) }

// ParseRoles reads names of roles with commas between them, in any order.
func ParseRoles(s string) (Role, error) { return envelope.ParseRoles(s) }

// ParseKind reads "elf", "script" or "file".
func ParseKind(s string) (Kind, error) { return envelope.ParseKind(s) }

// ParsePurposes reads names of purposes with commas between them, in any order.
func ParsePurposes(s string) (Purpose, error) { return trust.ParsePurposes(s) }

// ParseMode reads "enforce", "permissive" or "learn".
func ParseMode(s string) (Mode, error) { return policy.ParseMode(s) }

// ParseUse reads "exec", "interp", "lib", "script", "check", "open", "module" or "any".
func ParseUse(s string) (Use, error) { return policy.ParseUse(s) }

// ParsePolicy reads a policy as people write it: see docs/digsig.md. Errors name the line.
func ParsePolicy(b []byte) (*Policy, error) { return policy.Parse(b) }

// ParseRevocations reads a revocation list as people write it: see docs/digsig.md. Errors name the line.
func ParseRevocations(b []byte) (*Revocations, error) { return revoke.Parse(b) }

// NewTrustStore makes a store of keys, which belong to it then. A key may be there once.
func NewTrustStore(keys ...*Key) (*TrustStore, error) { return trust.NewStore(keys...) }

// DecodeEnvelope decodes an envelope that fills b, and refers to b. Whether its signatures are good is not looked at.
func DecodeEnvelope(b []byte) (*Envelope, error) { return envelope.Decode(b) }

// DecodeStatement decodes the body of an envelope of DomainContent. Nothing of b is kept.
func DecodeStatement(b []byte) (*Statement, error) { return envelope.DecodeStatement(b) }

// DecodeManifest decodes the body of an envelope of DomainManifest, and refers to b.
func DecodeManifest(b []byte) (*Manifest, error) { return manifest.Decode(b) }
