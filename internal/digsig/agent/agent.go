// Package agent signs with keys that an ssh-agent holds.
//
// An agent signs octets, not digests (draft-ietf-sshm-ssh-agent, section 3.6): for ssh-ed25519 the signature is Ed25519
// over exactly the octets of the request (RFC 8709, section 6), for ecdsa-sha2-nistp256 it is ECDSA over their SHA-256,
// which the agent computes (RFC 5656, section 3.1.2). So the signatures are those that the same key would make without
// an agent, but a Signer is a crypto.MessageSigner: what it signs is a message, never a digest.
//
// Domain separation. The agent does not know what it signs, and the same key may log its owner in somewhere. What SSH
// has signed by user keys begins with a length in four octets (the session identifier of RFC 4252, section 7) or with
// the six octets SSHSIG (OpenSSH's PROTOCOL.sshsig). A Signer therefore signs only messages that begin with Domain,
// which is neither, so that no signature that is got from it is good for a login, and no login or SSHSIG signature is
// one of ours. Still, a key of its own for DigSig is the better habit: who can reach the agent can sign code with it.
package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// maxMessage bounds what an agent is asked to sign; OpenSSH's takes requests of 256 KiB.
const maxMessage = 128 << 10

var (
	// ErrNoAgent says that there is no agent to ask.
	ErrNoAgent = errors.New("no ssh-agent: SSH_AUTH_SOCK is not set")
	// ErrNoKey says that the agent holds no key that fits.
	ErrNoKey = errors.New("the ssh-agent has no such key")
)

// Config says where the agent is and what may be signed. The zero value is good but for Domain.
type Config struct {
	// Socket is the agent's Unix socket; empty means $SSH_AUTH_SOCK.
	Socket string
	// Domain is how every message begins. It must not be empty, nor begin with a zero octet or with "SSHSIG".
	Domain string
	// Timeout bounds one exchange with the agent, which may ask its user for confirmation. 0 means a minute.
	Timeout time.Duration
}

// Key is one that can sign here.
type Key struct {
	Fingerprint string // SHA256:…, as ssh-add -l shows it
	Comment     string
	Public      crypto.PublicKey // ed25519.PublicKey, or *ecdsa.PublicKey on P-256
	ssh         ssh.PublicKey
}

// Signer signs with one key of the agent. It is a crypto.MessageSigner, safe for concurrent use: requests of several
// goroutines go over the one connection after each other. Close it after use.
type Signer struct {
	cfg    Config
	key    Key
	mu     sync.Mutex
	conn   net.Conn               // guarded by mu
	client sshagent.ExtendedAgent // guarded by mu
}

func (c *Config) defaults() error {
	if c.Domain == "" || c.Domain[0] == 0 || strings.HasPrefix(c.Domain, "SSHSIG") {
		return fmt.Errorf("ssh-agent: domain %q could be a message of SSH's", c.Domain)
	}
	if c.Socket == "" {
		c.Socket = os.Getenv("SSH_AUTH_SOCK")
	}
	if c.Socket == "" {
		return ErrNoAgent
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	return nil
}

func dial(ctx context.Context, c *Config) (net.Conn, error) {
	if err := c.defaults(); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return conn, nil
}

// List tells the keys of the agent that can sign here; keys of other kinds are left out.
func List(ctx context.Context, c Config) ([]Key, error) {
	conn, err := dial(ctx, &c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return list(conn, sshagent.NewClient(conn), c.Timeout)
}

// within bounds one exchange. Between them there is no deadline: the client reads all the time.
func within[T any](conn net.Conn, timeout time.Duration, f func() (T, error)) (T, error) {
	var zero T
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return zero, err
	}
	v, err := f()
	if err != nil {
		return zero, err
	}
	return v, conn.SetDeadline(time.Time{})
}

func list(conn net.Conn, client sshagent.ExtendedAgent, timeout time.Duration) ([]Key, error) {
	all, err := within(conn, timeout, client.List)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: list of keys: %w", err)
	}
	var keys []Key
	for _, k := range all {
		public, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue // a kind that this version of the library does not know
		}
		crypt, ok := public.(ssh.CryptoPublicKey)
		if !ok {
			continue
		}
		if p := crypt.CryptoPublicKey(); usable(public.Type(), p) {
			keys = append(keys, Key{ssh.FingerprintSHA256(public), k.Comment, p, public})
		}
	}
	return keys, nil
}

// usable leaves out certificates and keys in FIDO tokens too: their signatures are over more than the message.
func usable(kind string, p crypto.PublicKey) bool {
	switch p := p.(type) {
	case ed25519.PublicKey:
		return kind == ssh.KeyAlgoED25519
	case *ecdsa.PublicKey:
		return kind == ssh.KeyAlgoECDSA256 && p.Curve == elliptic.P256()
	}
	return false
}

// Open finds a key by its fingerprint (SHA256:…) or by its comment; an empty which means the only one that there is.
// The context bounds the opening alone.
func Open(ctx context.Context, which string, c Config) (*Signer, error) {
	conn, err := dial(ctx, &c)
	if err != nil {
		return nil, err
	}
	client := sshagent.NewClient(conn)
	keys, err := list(conn, client, c.Timeout)
	if err == nil {
		var k Key
		if k, err = choose(keys, which); err == nil {
			return &Signer{cfg: c, key: k, conn: conn, client: client}, nil
		}
	}
	conn.Close()
	return nil, err
}

func choose(keys []Key, which string) (Key, error) {
	var found []Key
	for _, k := range keys {
		if which == "" || k.Fingerprint == which || k.Comment == which {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Key{}, fmt.Errorf("%d keys of the ssh-agent fit %q: name one by its fingerprint (ssh-add -l)", len(found), which)
	case which == "":
		return Key{}, fmt.Errorf("%w: none of type ed25519 or ecdsa nistp256", ErrNoKey)
	}
	return Key{}, fmt.Errorf("%w: %s, of type ed25519 or ecdsa nistp256", ErrNoKey, which)
}

// Key tells which key it is.
func (s *Signer) Key() Key { return s.key }

// Public is the public key, an ed25519.PublicKey or *ecdsa.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.key.Public }

// Close ends the connection. Signing fails from then on.
func (s *Signer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = nil
	return s.conn.Close()
}

// Sign signs messages with an Ed25519 key (opts.HashFunc() is 0 then, and message is the message). For an ECDSA key it
// returns an error, since a digest is what crypto.Signer wants signed and an agent cannot: use crypto.SignMessage.
func (s *Signer) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, ok := s.key.Public.(ed25519.PublicKey); !ok || opts.HashFunc() != 0 {
		return nil, errors.New("ssh-agent: an agent signs messages, not digests")
	}
	return s.SignMessage(rand, message, opts)
}

// SignMessage signs a message, which begins with the domain; opts.HashFunc() is 0 for Ed25519 and crypto.SHA256 for
// ECDSA, whose signature comes in ASN.1. It blocks until the agent answers, which may ask its user, and at most for the
// configured time. Each signature is verified before it is returned.
func (s *Signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if !bytes.HasPrefix(message, []byte(s.cfg.Domain)) {
		return nil, fmt.Errorf("ssh-agent: refused to sign a message that does not begin with %q", s.cfg.Domain)
	}
	if len(message) > maxMessage {
		return nil, fmt.Errorf("ssh-agent: message of %d octets: want at most %d", len(message), maxMessage)
	}
	_, edwards := s.key.Public.(ed25519.PublicKey)
	if h := opts.HashFunc(); edwards && h != 0 || !edwards && h != crypto.SHA256 {
		return nil, fmt.Errorf("ssh-agent: hash function %v for a key of type %s", h, s.key.ssh.Type())
	}
	sig, err := s.ask(message)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	out, err := verified(s.key, message, sig)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return out, nil
}

func (s *Signer) ask(message []byte) (*ssh.Signature, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, net.ErrClosed
	}
	return within(s.conn, s.cfg.Timeout, func() (*ssh.Signature, error) { return s.client.Sign(s.key.ssh, message) })
}

// verified is the signature as crypto/ed25519 or crypto/ecdsa would make it.
func verified(k Key, message []byte, sig *ssh.Signature) ([]byte, error) {
	if sig.Format != k.ssh.Type() || len(sig.Rest) != 0 {
		return nil, fmt.Errorf("a signature of type %q by a key of type %s", sig.Format, k.ssh.Type())
	}
	switch p := k.Public.(type) {
	case ed25519.PublicKey:
		if len(sig.Blob) == ed25519.SignatureSize && ed25519.Verify(p, message, sig.Blob) {
			return sig.Blob, nil
		}
	case *ecdsa.PublicKey:
		var rs struct{ R, S *big.Int }
		if err := ssh.Unmarshal(sig.Blob, &rs); err != nil {
			return nil, fmt.Errorf("the agent's signature: %w", err)
		}
		der, err := asn1.Marshal(rs)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(message)
		if ecdsa.VerifyASN1(p, sum[:], der) {
			return der, nil
		}
	}
	return nil, errors.New("the agent's signature does not verify")
}
