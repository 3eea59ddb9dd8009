package digsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
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

// sign signs a body. The same key and body give the same signature with Ed25519, and with an ECDSA key of the standard
// library.
func (s *Signer) sign(d Domain, body []byte) (envelope.Signature, error) {
	out := envelope.Signature{Alg: s.public.Alg(), Key: s.KeyID()}
	message := envelope.Message(d, out.Alg, out.Key, body)
	var err error
	switch out.Alg {
	case Ed25519:
		out.Sig, err = crypto.SignMessage(s.key, rand.Reader, message, crypto.Hash(0))
	case ECDSAP256:
		var random io.Reader = rand.Reader
		if _, std := s.key.(*ecdsa.PrivateKey); std {
			random = nil // RFC 6979
		}
		var der []byte
		if der, err = crypto.SignMessage(s.key, random, message, crypto.SHA256); err == nil {
			out.Sig, err = fixed(der)
		}
	}
	if err != nil {
		return out, fmt.Errorf("sign with key %s: %w", out.Key, err)
	}
	if !s.public.Verify(message, out.Sig) {
		return out, fmt.Errorf("sign with key %s: the signer gave a signature that does not verify", out.Key)
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

func seal(d Domain, body []byte, signers []*Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("no signer is given")
	}
	e := &Envelope{Domain: d, Body: body}
	for _, s := range signers {
		sig, err := s.sign(d, body)
		if err != nil {
			return nil, err
		}
		e.Signatures = append(e.Signatures, sig)
	}
	slices.SortFunc(e.Signatures, func(a, b envelope.Signature) int { return bytes.Compare(a.Key[:], b.Key[:]) })
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

// AddSignatures signs what is in an envelope with more keys, as a rotation of keys needs. A key that has signed already
// signs again.
func AddSignatures(signed []byte, signers ...*Signer) ([]byte, error) {
	e, err := envelope.Decode(signed)
	if err != nil {
		return nil, err
	}
	for _, s := range signers {
		sig, err := s.sign(e.Domain, e.Body)
		if err != nil {
			return nil, err
		}
		e.Signatures = slices.DeleteFunc(e.Signatures, func(old envelope.Signature) bool { return old.Key == sig.Key })
		e.Signatures = append(e.Signatures, sig)
	}
	slices.SortFunc(e.Signatures, func(a, b envelope.Signature) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return e.Append(nil)
}

// EntryOf returns a statement as an entry of a manifest.
func EntryOf(st *Statement) ManifestEntry {
	return ManifestEntry{Digest: st.Digest, Size: st.Size, Kind: st.Kind, Roles: st.Roles, Name: st.Name, Version: st.Version, Verity: st.Verity}
}
