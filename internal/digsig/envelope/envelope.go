package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// Domain separates what is signed: a signature of one domain is none in another.
type Domain uint8

// Domains.
const (
	Content     Domain = 1 // a Statement about one file
	Manifest    Domain = 2 // package manifest
	Revocations Domain = 3 // package revoke
	Policy      Domain = 4 // package policy
)

// String returns the name that goes into the signed message.
func (d Domain) String() string {
	switch d {
	case Content:
		return "content"
	case Manifest:
		return "manifest"
	case Revocations:
		return "revocations"
	case Policy:
		return "policy"
	}
	return "domain " + strconv.Itoa(int(d))
}

// Bounds.
const (
	MaxSignatures = 8
	MaxSignature  = 8192    // octets, of algorithms to come
	MaxBody       = 1 << 28 // octets
)

const (
	magic      = "MPDIGSIG"
	version    = 1
	headerSize = 16
	sigHeader  = 36
)

// Signature is one signature of an envelope.
type Signature struct {
	Alg Alg
	Key KeyID
	Sig []byte
}

// Envelope is a body with its signatures, which are in ascending order of their keys' ids, one for each key.
type Envelope struct {
	Domain     Domain
	Signatures []Signature
	Body       []byte
}

// Errors that tell what kind of octets these are not.
var (
	ErrNotEnvelope = errors.New("not a DigSig envelope")
	ErrTruncated   = errors.New("envelope is cut off")
)

// Signers binds a signature to those beside it: the SHA-256 of algorithm and key of each signature of an envelope, in their
// order. So nobody can add, remove or rename one.
func Signers(list []Signature) (sum [32]byte) {
	b := make([]byte, 0, MaxSignatures*33)
	for i := range list {
		b = append(append(b, byte(list[i].Alg)), list[i].Key[:]...)
	}
	return sha256.Sum256(b)
}

// Message returns what a key signs: one line of printable ASCII, without an end of line, that binds domain, algorithm, key,
// all signers (see Signers) and the body by its length and SHA-256. It begins like nothing that other programs have a key
// sign.
func Message(d Domain, alg Alg, key KeyID, signers [32]byte, size uint64, sum [32]byte) []byte {
	m := make([]byte, 0, 320)
	m = append(m, MessagePrefix...)
	m = append(append(m, d.String()...), ' ')
	m = append(append(m, alg.String()...), ' ')
	m = append(hex.AppendEncode(m, key[:]), ' ')
	m = append(hex.AppendEncode(m, signers[:]), ' ')
	m = append(strconv.AppendUint(m, size, 10), ' ')
	return hex.AppendEncode(m, sum[:])
}

// MessagePrefix begins every signed message.
const MessagePrefix = "midplane-digsig-v1 "

// Size returns how many octets Append will add.
func (e *Envelope) Size() int {
	n := headerSize + len(e.Body)
	for _, s := range e.Signatures {
		n += sigHeader + len(s.Sig)
	}
	return n
}

// Append encodes the envelope.
func (e *Envelope) Append(b []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return b, err
	}
	b = append(b, magic...)
	b = append(b, version, byte(e.Domain))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Signatures)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Body)))
	for _, s := range e.Signatures {
		b = append(b, byte(s.Alg), 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.Sig)))
		b = append(b, s.Key[:]...)
		b = append(b, s.Sig...)
	}
	return append(b, e.Body...), nil
}

func (e *Envelope) check() error {
	if e.Domain < Content || e.Domain > Policy {
		return fmt.Errorf("envelope: unknown %s", e.Domain)
	}
	if n := len(e.Signatures); n == 0 || n > MaxSignatures {
		return fmt.Errorf("envelope with %d signatures: want 1 to %d", n, MaxSignatures)
	}
	if len(e.Body) == 0 || len(e.Body) > MaxBody {
		return fmt.Errorf("envelope with a body of %d octets: want 1 to %d", len(e.Body), MaxBody)
	}
	for i, s := range e.Signatures {
		switch n := len(s.Sig); {
		case s.Alg == 0:
			return errors.New("envelope: signature with algorithm 0")
		case (s.Alg == Ed25519 || s.Alg == ECDSAP256) && n != SignatureSize:
			return fmt.Errorf("envelope: %s signature of %d octets: want %d", s.Alg, n, SignatureSize)
		case n == 0 || n > MaxSignature:
			return fmt.Errorf("envelope: signature of %d octets: want 1 to %d", n, MaxSignature)
		case i > 0 && bytes.Compare(e.Signatures[i-1].Key[:], s.Key[:]) >= 0:
			return errors.New("envelope: signatures are not in ascending order of their keys")
		}
	}
	return nil
}

// Decode decodes an envelope that fills b. Body and signatures are parts of b.
func Decode(b []byte) (*Envelope, error) {
	e, rest, err := DecodePrefix(b)
	if err == nil && len(rest) != 0 {
		return nil, fmt.Errorf("envelope: %d octets after it", len(rest))
	}
	return e, err
}

// DecodePrefix decodes the envelope at the beginning of b, and returns what follows it.
func DecodePrefix(b []byte) (*Envelope, []byte, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, b, ErrNotEnvelope
	}
	if len(b) < headerSize {
		return nil, b, ErrTruncated
	}
	if v := b[8]; v != version {
		return nil, b, fmt.Errorf("envelope of version %d: want %d", v, version)
	}
	e := &Envelope{Domain: Domain(b[9])}
	count, size := int(binary.BigEndian.Uint16(b[10:])), uint64(binary.BigEndian.Uint32(b[12:]))
	if count == 0 || count > MaxSignatures {
		return nil, b, fmt.Errorf("envelope with %d signatures: want 1 to %d", count, MaxSignatures)
	}
	if size == 0 || size > MaxBody {
		return nil, b, fmt.Errorf("envelope with a body of %d octets: want 1 to %d", size, MaxBody)
	}
	rest := b[headerSize:]
	for range count {
		if len(rest) < sigHeader {
			return nil, b, ErrTruncated
		}
		s := Signature{Alg: Alg(rest[0]), Key: KeyID(rest[4:sigHeader])}
		n := int(binary.BigEndian.Uint16(rest[2:]))
		if rest[1] != 0 {
			return nil, b, errors.New("envelope: a reserved octet is not zero")
		}
		if len(rest) < sigHeader+n {
			return nil, b, ErrTruncated
		}
		s.Sig = rest[sigHeader : sigHeader+n : sigHeader+n]
		e.Signatures = append(e.Signatures, s)
		rest = rest[sigHeader+n:]
	}
	if uint64(len(rest)) < size {
		return nil, b, ErrTruncated
	}
	e.Body = rest[:size:size]
	if err := e.check(); err != nil {
		return nil, b, err
	}
	return e, rest[size:], nil
}
