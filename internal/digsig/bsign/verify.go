package bsign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var (
	// ErrBroken says that the file is not the one that was signed, or that the signature is not that of the key.
	ErrBroken = errors.New("the bsign signature is not of this file")
	// ErrUnknownKey says that the key is not in the ring.
	ErrUnknownKey = errors.New("signed by an OpenPGP key that is not in the key ring")
	// ErrRevoked says that the key is, by the key ring.
	ErrRevoked = errors.New("signed by an OpenPGP key that is revoked")
	// ErrWeak says that the key or hash function was no protection even then.
	ErrWeak = errors.New("signed by an OpenPGP key or with a hash function that is too weak")
	// ErrExpired says that key or signature was no longer valid, or not yet.
	ErrExpired = errors.New("signed by an OpenPGP key or with a signature that is not valid at that time")
)

// minBits is of RSA and DSA keys that are taken.
const minBits = 1024

// maxKeyRing bounds a key ring file.
const maxKeyRing = 4 << 20

// KeyRing holds OpenPGP keys.
type KeyRing struct{ entities openpgp.EntityList }

// ReadKeyRing reads keys as gpg --export writes them, armored or not.
func ReadKeyRing(path string) (*KeyRing, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyRing+1))
	if err == nil && len(b) > maxKeyRing {
		err = fmt.Errorf("longer than %d octets", maxKeyRing)
	}
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, err)
	}
	k, err := ParseKeyRing(b)
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, err)
	}
	return k, nil
}

// ParseKeyRing reads keys from memory.
func ParseKeyRing(b []byte) (*KeyRing, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	list, err := read(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("no key in it")
	}
	return &KeyRing{list}, nil
}

// Result is what a good signature says.
type Result struct {
	Version string // of bsign
	Key     string // fingerprint, hexadecimal
	User    string // the key's first user id
	Created time.Time
}

// Verify looks for bsign's signature in a file of the given size and verifies it. at is when key and signature must be
// valid; the zero time means when it was signed, by its own word. The error wraps one of those
// above, ErrNone or ErrHazard, or is of reading or of the file's form.
func Verify(ctx context.Context, r io.ReaderAt, size int64, ring *KeyRing, at time.Time) (*Result, error) {
	s, err := Find(r, size)
	if err != nil {
		return nil, err
	}
	sum, err := hash(ctx, r, size, s.Offset)
	if err != nil {
		return nil, err
	}
	if sum != s.Hash {
		return nil, fmt.Errorf("%w: its SHA-1 is %x and the signed one %x", ErrBroken, sum, s.Hash)
	}
	return s.check(ring, at)
}

// hash is SHA-1 of the file, the section taken as zeros.
func hash(ctx context.Context, r io.ReaderAt, size, section int64) (sum [hashSize]byte, err error) {
	h := sha1.New()
	buf := make([]byte, 64<<10)
	part := func(from, to int64) error {
		for from < to {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:min(int64(len(buf)), to-from)]
			if err := readAt(r, b, from); err != nil {
				return err
			}
			h.Write(b)
			from += int64(len(b))
		}
		return nil
	}
	if err := part(0, section); err != nil {
		return sum, err
	}
	h.Write(make([]byte, sectionSize))
	if err := part(section+sectionSize, size); err != nil {
		return sum, err
	}
	return [hashSize]byte(h.Sum(nil)), nil
}

// check verifies the OpenPGP signature.
func (s *Section) check(ring *KeyRing, at time.Time) (*Result, error) {
	created, err := s.alone()
	if err != nil {
		return nil, err
	}
	if at.IsZero() {
		at = created
	}
	config := &packet.Config{Time: func() time.Time { return at }}
	sig, signer, err := openpgp.VerifyDetachedSignature(ring.entities, bytes.NewReader(s.signed), bytes.NewReader(s.packet), config)
	switch {
	case err == nil:
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return nil, ErrUnknownKey
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return nil, ErrRevoked
	case errors.Is(err, pgperrors.ErrKeyExpired) || errors.Is(err, pgperrors.ErrSignatureExpired):
		return nil, fmt.Errorf("%w: %w", ErrExpired, err)
	default:
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if bits, err := signer.PrimaryKey.BitLength(); err != nil || bits < minBits && rsaOrDSA(signer.PrimaryKey.PubKeyAlgo) {
		return nil, fmt.Errorf("%w: a key of %d bits (%v): want %d at least", ErrWeak, bits, err, minBits)
	}
	res := &Result{Version: s.Version, Key: fmt.Sprintf("%X", signer.PrimaryKey.Fingerprint), Created: sig.CreationTime}
	if id := signer.PrimaryIdentity(); id != nil {
		res.User = id.Name
	}
	return res, nil
}

// alone wants exactly one packet, a signature of a binary document, and returns when it says that it was made.
func (s *Section) alone() (time.Time, error) {
	rest := bytes.NewReader(s.packet)
	p, err := packet.Read(rest)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: OpenPGP packet: %w", ErrBroken, err)
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.SigType != packet.SigTypeBinary {
		return time.Time{}, fmt.Errorf("%w: the packet is no OpenPGP signature of a file", ErrBroken)
	}
	// Signatures of bsign's time are over SHA-1, as is the content's own digest; there is no use in wanting more here.
	if sig.Hash != crypto.SHA1 && sig.Hash.Size() < 32 {
		return time.Time{}, fmt.Errorf("%w: hash function %v", ErrWeak, sig.Hash)
	}
	if rest.Len() > 0 {
		return time.Time{}, hazard("there is more than one OpenPGP packet")
	}
	return sig.CreationTime, nil
}

func rsaOrDSA(a packet.PublicKeyAlgorithm) bool {
	return a == packet.PubKeyAlgoRSA || a == packet.PubKeyAlgoRSASignOnly || a == packet.PubKeyAlgoDSA
}
