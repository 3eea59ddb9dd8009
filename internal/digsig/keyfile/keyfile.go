package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/ssh"
)

// Specification constants of the format.
const (
	pemType   = "MIDPLANE DIGSIG PRIVATE KEY"
	plainType = "PRIVATE KEY"
	sshType   = "OPENSSH PRIVATE KEY"

	formatVersion = 1
	kdfArgon2id   = 1
	cipherChaCha  = 1
	saltSize      = 16
	fixedSize     = 42
)

// Limits of what is read.
const (
	maxFile    = 64 << 10
	maxPublic  = 1 << 10
	maxMemory  = 1 << 20 // KiB, so 1 GiB
	maxPasses  = 64
	maxLanes   = 64
	minMemory  = 8 << 10 // KiB; less is no protection worth the name
	maxPhrase  = 4 << 10
	maxPrivate = 4 << 10
)

var (
	// ErrPassphrase says that the passphrase does not open the file (or that the file was altered: the cipher cannot
	// tell one from the other).
	ErrPassphrase = errors.New("wrong passphrase, or the key file was altered")
	// ErrPlain says that the key is not encrypted, and that the caller did not allow that.
	ErrPlain = errors.New("the private key is not encrypted; name it plain:PATH to use it all the same")
)

// Cost is what deriving the key takes, for us once a run and for a guesser at each guess.
type Cost struct {
	Passes uint32 // 1 to 64
	Memory uint32 // KiB, 8,192 to 1,048,576
	Lanes  uint8  // 1 to 64
}

// DefaultCost is RFC 9106's second recommended choice: 3 passes over 64 MiB in 4 lanes.
var DefaultCost = Cost{Passes: 3, Memory: 64 << 10, Lanes: 4}

func (c Cost) check() error {
	if c.Passes < 1 || c.Passes > maxPasses || c.Memory < minMemory || c.Memory > maxMemory || c.Lanes < 1 || c.Lanes > maxLanes {
		return fmt.Errorf("argon2id cost %d passes, %d KiB, %d lanes: want 1 to %d, %d to %d, 1 to %d", c.Passes, c.Memory, c.Lanes, maxPasses, minMemory, maxMemory, maxLanes)
	}
	return nil
}

// Key is a private key in memory. It is safe for concurrent use until it is closed.
type Key struct{ crypto.Signer }

// Close overwrites the private key where the language allows: an Ed25519 key is gone, of an ECDSA key the runtime may
// keep copies until the process ends. The key must not be used any more.
func (k *Key) Close() error {
	if p, ok := k.Signer.(ed25519.PrivateKey); ok {
		clear(p)
	}
	return nil
}

// Algorithm names what Generate can make.
type Algorithm string

const (
	Ed25519 Algorithm = "ed25519"
	P256    Algorithm = "p256"
)

// Generate makes a new key.
func Generate(a Algorithm) (*Key, error) {
	switch a {
	case Ed25519:
		_, p, err := ed25519.GenerateKey(rand.Reader)
		return &Key{p}, err
	case P256:
		p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return &Key{p}, err
	}
	return nil, fmt.Errorf("key algorithm %q: want %s or %s", a, Ed25519, P256)
}

// Marshal encrypts a key. It does not keep or change the passphrase, which must not be empty.
func Marshal(k *Key, passphrase []byte, c Cost) ([]byte, error) {
	if len(passphrase) == 0 || len(passphrase) > maxPhrase {
		return nil, fmt.Errorf("a passphrase has 1 to %d octets", maxPhrase)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k.Signer)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	b := []byte{formatVersion, kdfArgon2id, cipherChaCha, c.Lanes}
	b = binary.BigEndian.AppendUint32(b, c.Passes)
	b = binary.BigEndian.AppendUint32(b, c.Memory)
	random := make([]byte, saltSize+chacha20poly1305.NonceSize)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	b = append(b, random...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(public)))
	b = append(b, public...)
	aead, err := derive(passphrase, random[:saltSize], c)
	if err != nil {
		return nil, err
	}
	b = aead.Seal(b, random[saltSize:], private, b)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: b}), nil
}

// MarshalPlain encodes a key as unencrypted PKCS #8.
func MarshalPlain(k *Key) ([]byte, error) {
	private, err := x509.MarshalPKCS8PrivateKey(k.Signer)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	return pem.EncodeToMemory(&pem.Block{Type: plainType, Bytes: private}), nil
}

func derive(passphrase, salt []byte, c Cost) (interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}, error) {
	key := argon2.IDKey(passphrase, salt, c.Passes, c.Memory, c.Lanes, chacha20poly1305.KeySize)
	defer clear(key)
	return chacha20poly1305.New(key)
}

// sealed is the content of an encrypted file, its parts being of the file's octets.
type sealed struct {
	cost                Cost
	salt, nonce, public []byte
	header, ciphertext  []byte
}

func parseSealed(b []byte) (sealed, error) {
	var s sealed
	switch {
	case len(b) < fixedSize:
		return s, fmt.Errorf("truncated: %d octets", len(b))
	case b[0] != formatVersion:
		return s, fmt.Errorf("format %d is not known: want %d", b[0], formatVersion)
	case b[1] != kdfArgon2id:
		return s, fmt.Errorf("derivation %d is not known: want %d (argon2id)", b[1], kdfArgon2id)
	case b[2] != cipherChaCha:
		return s, fmt.Errorf("cipher %d is not known: want %d (ChaCha20-Poly1305)", b[2], cipherChaCha)
	}
	s.cost = Cost{Lanes: b[3], Passes: binary.BigEndian.Uint32(b[4:]), Memory: binary.BigEndian.Uint32(b[8:])}
	if err := s.cost.check(); err != nil {
		return s, err
	}
	s.salt, s.nonce = b[12:28], b[28:40]
	n := int(binary.BigEndian.Uint16(b[40:]))
	if n > maxPublic || len(b) < fixedSize+n+chacha20poly1305.Overhead || len(b) > fixedSize+n+maxPrivate {
		return s, fmt.Errorf("a public key of %d octets in a file of %d", n, len(b))
	}
	s.header, s.public, s.ciphertext = b[:fixedSize+n], b[fixedSize:fixedSize+n], b[fixedSize+n:]
	return s, nil
}

// Phrase asks for the passphrase of the key that what describes. Its result is overwritten after use.
type Phrase func(what string) ([]byte, error)

// Options are how a key is read.
type Options struct {
	// Phrase gives the passphrase; nil means that there is none to be had.
	Phrase Phrase
	// Plain allows keys that are not encrypted.
	Plain bool
}

// Parse reads the content of a key file. The data is not kept.
func Parse(data []byte, o Options) (*Key, error) {
	block, err := decode(data)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case pemType:
		s, err := parseSealed(block.Bytes)
		if err != nil {
			return nil, err
		}
		return s.open(o.Phrase)
	case sshType:
		return parseSSH(data, o)
	case plainType:
		if !o.Plain {
			return nil, ErrPlain
		}
		defer clear(block.Bytes)
		return parsePKCS8(block.Bytes)
	}
	return nil, fmt.Errorf("PEM block %q is no private key of ours: want %s, %s or %s", block.Type, pemType, sshType, plainType)
}

// decode wants exactly one block and no headers: what a reader overlooks, an author cannot have meant.
func decode(data []byte) (*pem.Block, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("longer than %d octets", maxFile)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("no PEM block in it")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is something behind the PEM block")
	case len(block.Headers) > 0:
		return nil, errors.New("a PEM block with headers")
	}
	return block, nil
}

func (s *sealed) open(ask Phrase) (*Key, error) {
	public, err := x509.ParsePKIXPublicKey(s.public)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	passphrase, err := phrase(ask, "the key file")
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	aead, err := derive(passphrase, s.salt, s.cost)
	if err != nil {
		return nil, err
	}
	private, err := aead.Open(nil, s.nonce, s.ciphertext, s.header)
	if err != nil {
		return nil, ErrPassphrase
	}
	defer clear(private)
	k, err := parsePKCS8(private)
	if err != nil {
		return nil, err
	}
	if p, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !p.Equal(public) {
		return nil, errors.New("the private key is not that of the public key in front of it")
	}
	return k, nil
}

func phrase(ask Phrase, what string) ([]byte, error) {
	if ask == nil {
		return nil, errors.New("the key is encrypted and there is no passphrase")
	}
	p, err := ask(what)
	if err != nil {
		return nil, err
	}
	if len(p) == 0 || len(p) > maxPhrase {
		clear(p)
		return nil, fmt.Errorf("a passphrase has 1 to %d octets", maxPhrase)
	}
	return p, nil
}

func parsePKCS8(der []byte) (*Key, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return usable(k)
}

// usable is the key as one of the two that DigSig signs with.
func usable(k any) (*Key, error) {
	switch k := k.(type) {
	case ed25519.PrivateKey:
		return &Key{k}, nil
	case *ed25519.PrivateKey:
		return &Key{*k}, nil
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("an ECDSA key on curve %s: want P-256", k.Curve.Params().Name)
		}
		return &Key{k}, nil
	}
	return nil, fmt.Errorf("a private key of type %T: want Ed25519 or ECDSA P-256", k)
}

func parseSSH(data []byte, o Options) (*Key, error) {
	k, err := ssh.ParseRawPrivateKey(data)
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		passphrase, err := phrase(o.Phrase, "the OpenSSH key")
		if err != nil {
			return nil, err
		}
		defer clear(passphrase)
		if k, err = ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase); errors.Is(err, x509.IncorrectPasswordError) {
			return nil, ErrPassphrase
		} else if err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case !o.Plain:
		return nil, ErrPlain
	}
	return usable(k)
}

// ParsePublic reads the public key of an encrypted file; that takes no passphrase, and proves nothing about the
// private key.
func ParsePublic(data []byte) (crypto.PublicKey, error) {
	block, err := decode(data)
	if err != nil {
		return nil, err
	}
	if block.Type != pemType {
		return nil, fmt.Errorf("PEM block %q tells no public key: want %s", block.Type, pemType)
	}
	s, err := parseSealed(block.Bytes)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(s.public)
}

// readAll reads at most maxFile octets.
func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(b) > maxFile {
		return nil, fmt.Errorf("longer than %d octets", maxFile)
	}
	return b, err
}
