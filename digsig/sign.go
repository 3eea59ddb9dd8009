package digsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/manifest"
)

// Signer signs with one key. It is safe for concurrent use if the crypto.Signer is.
type Signer struct {
	key    crypto.Signer
	public *PublicKey
}

// NewSigner takes any holder of an Ed25519 key or of one on P-256: a private key of the standard library, an agent, a token.
// It is asked as crypto.SignMessage asks, with crypto.Hash(0) or crypto.SHA256, and gives ECDSA signatures in ASN.1.
func NewSigner(key crypto.Signer) (*Signer, error) {
	public, err := envelope.FromCrypto(key.Public())
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &Signer{key, public}, nil
}

// Public returns the public key.
func (s *Signer) Public() *PublicKey { return s.public }

// KeyID returns the key's name.
func (s *Signer) KeyID() KeyID { return s.public.ID() }

// sign makes the signature of a message. The same key and message give the same signature with Ed25519, and with an ECDSA
// key of the standard library.
func (s *Signer) sign(message []byte) (out []byte, err error) {
	switch s.public.Alg() {
	case Ed25519:
		out, err = crypto.SignMessage(s.key, rand.Reader, message, crypto.Hash(0))
	case ECDSAP256:
		var random io.Reader = rand.Reader
		if _, std := s.key.(*ecdsa.PrivateKey); std {
			random = nil // RFC 6979
		}
		var der []byte
		if der, err = crypto.SignMessage(s.key, random, message, crypto.SHA256); err == nil {
			out, err = fixed(der)
		}
	}
	if err != nil {
		return out, fmt.Errorf("sign with key %s: %w", s.KeyID(), err)
	}
	if !s.public.Verify(message, out) {
		return out, fmt.Errorf("sign with key %s: the signer gave a signature that does not verify", s.KeyID())
	}
	return out, nil
}

func fixed(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
		return nil, errors.New("the signer gave something that is no ECDSA signature")
	}
	return envelope.LowS(sig.R, sig.S)
}

// seal makes an envelope. Every signature covers who else signs.
func seal(d Domain, body []byte, signers []*Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("no signer is given")
	}
	signers = slices.SortedFunc(slices.Values(signers), func(a, b *Signer) int {
		x, y := a.KeyID(), b.KeyID()
		return bytes.Compare(x[:], y[:])
	})
	e := &Envelope{Domain: d, Body: body}
	for _, s := range signers {
		e.Signatures = append(e.Signatures, envelope.Signature{Alg: s.public.Alg(), Key: s.KeyID()})
	}
	all, sum := envelope.Signers(e.Signatures), sha256.Sum256(body)
	for i, s := range signers {
		sig := &e.Signatures[i]
		var err error
		if sig.Sig, err = s.sign(envelope.Message(d, sig.Alg, sig.Key, all, uint64(len(body)), sum)); err != nil {
			return nil, err
		}
	}
	return e.Append(nil)
}

// SignStatement signs a statement about one file, for a file beside it or an extended attribute; its Digest is that of the
// whole file. Embed is for signatures inside ELF files.
func SignStatement(st *Statement, signers ...*Signer) ([]byte, error) {
	body, err := st.Append(nil)
	if err != nil {
		return nil, err
	}
	return seal(DomainContent, body, signers)
}

// SignManifest signs a list of files.
func SignManifest(h ManifestHeader, entries []ManifestEntry, signers ...*Signer) ([]byte, error) {
	body, err := manifest.Append(nil, h, entries)
	if err != nil {
		return nil, err
	}
	return seal(DomainManifest, body, signers)
}

// SignRevocations signs a revocation list.
func SignRevocations(l *Revocations, signers ...*Signer) ([]byte, error) {
	body, err := l.Append(nil)
	if err != nil {
		return nil, err
	}
	return seal(DomainRevocations, body, signers)
}

// SignPolicy signs a policy.
func SignPolicy(p *Policy, signers ...*Signer) ([]byte, error) {
	body, err := p.Append(nil)
	if err != nil {
		return nil, err
	}
	return seal(DomainPolicy, body, signers)
}

// SignAgain signs what is in an envelope by these keys instead of those that signed it, as a rotation of keys needs. The
// signatures that were there are not looked at.
func SignAgain(signed []byte, signers ...*Signer) ([]byte, error) {
	e, err := envelope.Decode(signed)
	if err != nil {
		return nil, err
	}
	return seal(e.Domain, e.Body, signers)
}

// EntryOf returns a statement as an entry of a manifest.
func EntryOf(st *Statement) ManifestEntry {
	return ManifestEntry{Digest: st.Digest, Size: st.Size, Kind: st.Kind, Roles: st.Roles, Name: st.Name, Version: st.Version, Verity: st.Verity}
}
