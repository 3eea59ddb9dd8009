package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
)

// Alg is the number of a signature algorithm. A key has one, its own; a signature that names another never verifies.
type Alg uint8

// Algorithms. 16 to 31 are reserved for post-quantum ones. There is none with SHA-1.
const (
	Ed25519   Alg = 1 // RFC 8032, pure; public key 32 octets
	ECDSAP256 Alg = 2 // FIPS 186-5 with SHA-256; public key uncompressed, 65 octets; signature r and s, 32 octets each, s in the lower half
)

// SignatureSize is the length of a signature of either algorithm.
const SignatureSize = 64

// String returns the name, as key files write it.
func (a Alg) String() string {
	switch a {
	case Ed25519:
		return "ed25519"
	case ECDSAP256:
		return "ecdsa-p256"
	}
	return "algorithm " + strconv.Itoa(int(a))
}

// ParseAlg is the reverse of String for the algorithms that are known.
func ParseAlg(s string) (Alg, error) {
	for _, a := range []Alg{Ed25519, ECDSAP256} {
		if s == a.String() {
			return a, nil
		}
	}
	return 0, fmt.Errorf("algorithm %q: want %s or %s", s, Ed25519, ECDSAP256)
}

// KeyID names a public key: the SHA-256 of its algorithm and octets.
type KeyID [32]byte

// String returns it in hexadecimal.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// ParseKeyID is the reverse of String.
func ParseKeyID(s string) (k KeyID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, fmt.Errorf("key id %q: want 64 hexadecimal digits", s)
	}
	return KeyID(b), nil
}

const keyIDPrefix = "midplane digsig key v1\x00"

// PublicKey is a public key with its algorithm, checked when made. It is immutable and safe for concurrent use.
type PublicKey struct {
	alg   Alg
	raw   []byte
	id    KeyID
	ecdsa *ecdsa.PublicKey
}

// NewPublicKey checks the octets of a key.
func NewPublicKey(alg Alg, raw []byte) (*PublicKey, error) {
	k := &PublicKey{alg: alg, raw: append([]byte(nil), raw...)}
	switch alg {
	case Ed25519:
		if len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("ed25519 key of %d octets: want %d", len(raw), ed25519.PublicKeySize)
		}
	case ECDSAP256:
		var err error
		if k.ecdsa, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw); err != nil {
			return nil, fmt.Errorf("ecdsa-p256 key: want an uncompressed point of the curve, 65 octets: %w", err)
		}
	default:
		return nil, fmt.Errorf("%s: want %s or %s", alg, Ed25519, ECDSAP256)
	}
	k.id = sha256.Sum256(append(append([]byte(keyIDPrefix), byte(alg)), raw...))
	return k, nil
}

// FromCrypto takes a key of package crypto: ed25519.PublicKey, or *ecdsa.PublicKey on P-256.
func FromCrypto(pub crypto.PublicKey) (*PublicKey, error) {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		return NewPublicKey(Ed25519, p)
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, errors.New("ecdsa key: want curve P-256")
		}
		raw, err := p.Bytes()
		if err != nil {
			return nil, err
		}
		return NewPublicKey(ECDSAP256, raw)
	}
	return nil, fmt.Errorf("key of type %T: want ed25519 or ecdsa on P-256", pub)
}

// Alg returns the algorithm.
func (k *PublicKey) Alg() Alg { return k.alg }

// ID returns the key's name.
func (k *PublicKey) ID() KeyID { return k.id }

// Raw returns a copy of the octets.
func (k *PublicKey) Raw() []byte { return append([]byte(nil), k.raw...) }

// halfOrder is half the order of P-256: of s and -s, which verify alike, only the lower one is accepted.
var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// Verify says whether sig is the key's signature of message.
func (k *PublicKey) Verify(message, sig []byte) bool {
	if len(sig) != SignatureSize {
		return false
	}
	switch k.alg {
	case Ed25519:
		return ed25519.Verify(k.raw, message, sig)
	case ECDSAP256:
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		if s.Cmp(halfOrder) > 0 {
			return false
		}
		digest := sha256.Sum256(message)
		return ecdsa.Verify(k.ecdsa, digest[:], r, s)
	}
	return false
}

// LowS puts r and s of an ECDSA signature on P-256 into the one form that is accepted.
func LowS(r, s *big.Int) ([]byte, error) {
	n := elliptic.P256().Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return nil, errors.New("ecdsa signature: r or s out of range")
	}
	if s.Cmp(halfOrder) > 0 {
		s = new(big.Int).Sub(n, s)
	}
	sig := make([]byte, SignatureSize)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig, nil
}
