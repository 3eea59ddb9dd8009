package cli

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/agent"
	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/keyfile"
	"midplane/internal/digsig/pkcs11"
)

// keys are the flags that say what to sign with.
type keys struct {
	names      []string
	passphrase string
}

const keyHelp = `A key is file:PATH (encrypted, as keygen writes it, or of OpenSSH), plain:PATH (not encrypted), agent:KEY (the fingerprint or
comment of a key in ssh-agent; agent: alone if there is one only), or a pkcs11: URI of RFC 7512. With several every one
signs, so that machines that trust any of them take the result.`

func (k *keys) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&k.names, "key", nil, "key to sign with; may be given again")
	k.passphraseFlag(c)
}

func (k *keys) passphraseFlag(c *cobra.Command) {
	c.Flags().StringVar(&k.passphrase, "passphrase", "", "where passphrase or PIN come from: ask, fd:N, env:NAME, file:PATH or credential:NAME (default: the systemd credential "+keyfile.CredentialName+", else the terminal)")
}

func (k *keys) phrase(ctx context.Context) (keyfile.Phrase, error) {
	p, err := keyfile.Source(k.passphrase, keyfile.TTY{Done: ctx.Done()})
	if err != nil {
		return nil, usageError{err}
	}
	return p, nil
}

// holder is a private key and what holds it.
type holder interface {
	crypto.Signer
	io.Closer
}

// holding opens one key.
func (k *keys) holding(ctx context.Context, name string) (holder, error) {
	phrase, err := k.phrase(ctx)
	if err != nil {
		return nil, err
	}
	scheme, rest, ok := strings.Cut(name, ":")
	if !ok {
		return nil, usagef("key %q: want file:PATH, plain:PATH, agent:KEY or pkcs11:…", name)
	}
	switch scheme {
	case "file", "plain":
		h, err := keyfile.Read(rest, keyfile.Options{Phrase: phrase, Plain: scheme == "plain"})
		if err != nil {
			return nil, err // not h, which is a nil pointer in an interface then
		}
		return h, nil
	case "agent":
		h, err := agent.Open(ctx, rest, agent.Config{Domain: envelope.MessagePrefix})
		if err != nil {
			return nil, err
		}
		return h, nil
	case "pkcs11":
		u, err := pkcs11.ParseURI(name)
		if err != nil {
			return nil, usageError{err}
		}
		h, err := pkcs11.Open(ctx, u, k.pkcs11(phrase))
		if err != nil {
			return nil, err
		}
		return h, nil
	}
	return nil, usagef("key %q: want file:PATH, plain:PATH, agent:KEY or pkcs11:…", name)
}

// pkcs11 asks for a PIN only where there can be one: a token with a key pad has none for us.
func (k *keys) pkcs11(phrase keyfile.Phrase) pkcs11.Config {
	return pkcs11.Config{PIN: func(what string) ([]byte, error) {
		pin, err := phrase(what)
		if errors.Is(err, keyfile.ErrNoTerminal) && k.passphrase == "" {
			return nil, nil
		}
		return pin, err
	}}
}

// open opens all keys. close ends their use.
func (k *keys) open(ctx context.Context) (signers []*digsig.Signer, closing func(), err error) {
	var open []holder
	closing = func() {
		for _, h := range open {
			_ = h.Close() // there is nothing to lose
		}
	}
	if len(k.names) == 0 {
		return nil, closing, usageError{errNoSigner}
	}
	for _, name := range k.names {
		h, err := k.holding(ctx, name)
		if err != nil {
			closing()
			return nil, nil, err
		}
		open = append(open, h)
		s, err := digsig.NewSigner(h)
		if err != nil {
			closing()
			return nil, nil, fmt.Errorf("key %s: %w", name, err)
		}
		signers = append(signers, s)
	}
	return signers, closing, nil
}

// keygen is what newKeygen's flags say.
type keygen struct {
	keys
	algorithm           string
	from, token         string
	plain               bool
	comment             string
	purposes, roles     string
	kinds               []string
	names               []string
	notBefore, notAfter string
	json                bool
}

func newKeygen(e *env) *cobra.Command {
	var k keygen
	c := &cobra.Command{
		Use:   "keygen [FLAGS] NAME",
		Short: "Make a key pair: NAME.key to sign with, NAME.pub to trust",
		Long: `Makes a key pair and writes the private key to NAME.key, encrypted with a passphrase, and the public key, with what it is to be
trusted for, to NAME.pub. No file is ever overwritten. A machine trusts a key when NAME.pub lies in the directory trust of its
store (/etc/midplane/digsig/trust).

With --token the key is made in a PKCS #11 token and cannot leave it; with --from an existing key is used. Then NAME.pub
alone is written. What a key may sign is said in NAME.pub and can be edited there: it is the machine that trusts it who decides.`,
		Example: `  midplane digsig keygen release
  midplane digsig keygen --purpose revocations,policy --comment "security officer" officer
  midplane digsig keygen --type p256 --token 'pkcs11:token=signing;object=release' release
  midplane digsig keygen --from agent: release`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return k.run(c.Context(), e, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&k.algorithm, "type", "ed25519", "ed25519, or p256 (ECDSA) for tokens that lack it")
	f.StringVar(&k.from, "from", "", "take this key in place of a new one: file:PATH, plain:PATH, agent:KEY or pkcs11:…")
	f.StringVar(&k.token, "token", "", "make the key in this PKCS #11 token: pkcs11:token=…;object=…")
	f.BoolVar(&k.plain, "unencrypted", false, "do not encrypt the private key; it is then named plain:NAME.key")
	f.StringVar(&k.comment, "comment", "", "whose key it is (default NAME)")
	f.StringVar(&k.purposes, "purpose", "content,manifest", "what it may sign: content, manifest, revocations, policy")
	f.StringVar(&k.roles, "roles", "exec,lib,script,interp,data", "roles that files may get by its signature; module too for kernel modules")
	f.StringSliceVar(&k.kinds, "kinds", nil, "kinds of files that it may sign: elf, script, file (default all)")
	f.StringSliceVar(&k.names, "names", nil, "patterns of names that it may sign (default all)")
	f.StringVar(&k.notBefore, "not-before", "", "time from which on it is valid")
	f.StringVar(&k.notAfter, "not-after", "", "time from which on it is no longer valid")
	k.passphraseFlag(c)
	jsonFlag(c, &k.json)
	return c
}

func (k *keygen) run(ctx context.Context, e *env, name string) error {
	if k.from != "" && (k.token != "" || k.plain) || k.token != "" && k.plain {
		return usagef("--from, --token and --unencrypted: want one of them")
	}
	pub, err := k.trusted(name)
	if err != nil {
		return err
	}
	var h holder
	var private []byte
	switch {
	case k.from != "":
		h, err = k.holding(ctx, k.from)
	case k.token != "":
		h, err = k.generateInToken(ctx)
	default:
		h, private, err = k.generate(ctx)
	}
	if err != nil {
		return err
	}
	defer h.Close()
	defer clear(private)
	if pub.Public, err = digsig.PublicKeyOf(h.Public()); err != nil {
		return err
	}
	text, err := pub.MarshalText()
	if err != nil {
		return usageError{err}
	}
	if private != nil {
		if err := keyfile.Write(name+".key", private); err != nil {
			return err
		}
	}
	if err := keyfile.WritePublic(name+".pub", text); err != nil {
		return err
	}
	if k.json {
		out := struct {
			ID  string `json:"id"`
			Key string `json:"key,omitempty"` // file with the private key
			Pub string `json:"pub"`
		}{ID: pub.ID().String(), Pub: name + ".pub"}
		if private != nil {
			out.Key = name + ".key"
		}
		return e.writeJSON(out)
	}
	_, err = fmt.Fprintf(e.out, "%s\n", pub.ID())
	return err
}

// trusted is what the public key's file will say.
func (k *keygen) trusted(name string) (*digsig.Key, error) {
	now := time.Now()
	pub := &digsig.Key{Comment: k.comment, Names: k.names}
	if pub.Comment == "" {
		pub.Comment = name[strings.LastIndexByte(name, '/')+1:]
	}
	var err error
	if pub.Purposes, err = digsig.ParsePurposes(k.purposes); err != nil {
		return nil, usagef("--purpose: %w", err)
	}
	if pub.Roles, err = digsig.ParseRoles(k.roles); err != nil {
		return nil, usagef("--roles: %w", err)
	}
	for _, s := range k.kinds {
		kind, err := digsig.ParseKind(s)
		if err != nil {
			return nil, usagef("--kinds: %w", err)
		}
		pub.Kinds = append(pub.Kinds, kind)
	}
	if pub.NotBefore, err = parseTime("not-before", k.notBefore, now); err != nil {
		return nil, err
	}
	pub.NotAfter, err = parseTime("not-after", k.notAfter, now)
	return pub, err
}

func (k *keygen) generate(ctx context.Context) (holder, []byte, error) {
	key, err := keyfile.Generate(keyfile.Algorithm(k.algorithm))
	if err != nil {
		return nil, nil, usageError{err}
	}
	if k.plain {
		b, err := keyfile.MarshalPlain(key)
		return key, b, err
	}
	phrase, err := k.phrase(ctx)
	if err != nil {
		return nil, nil, err
	}
	first, err := phrase("the new key")
	if err != nil {
		return nil, nil, err
	}
	defer clear(first)
	// Only who types can mistype; the other sources say the same again.
	second, err := phrase("the new key, again")
	if err != nil {
		return nil, nil, err
	}
	defer clear(second)
	if !bytes.Equal(first, second) {
		return nil, nil, errors.New("the passphrases differ")
	}
	b, err := keyfile.Marshal(key, first, keyfile.DefaultCost)
	return key, b, err
}

func (k *keygen) generateInToken(ctx context.Context) (holder, error) {
	u, err := pkcs11.ParseURI(k.token)
	if err != nil {
		return nil, usageError{err}
	}
	phrase, err := k.phrase(ctx)
	if err != nil {
		return nil, err
	}
	h, err := pkcs11.Generate(ctx, u, k.algorithm, k.pkcs11(phrase))
	if err != nil {
		return nil, err
	}
	return h, nil
}
