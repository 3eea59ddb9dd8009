package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/revoke"
)

// revoking is what newRevoke's flags say.
type revoking struct {
	keys
	store       string
	from, out   string
	digests     []string
	revokedKeys []string
	below       []string
	why         string
	show        bool
	json        bool
}

func newRevoke(e *env) *cobra.Command {
	var r revoking
	c := &cobra.Command{
		Use:   "revoke --key KEY [FLAGS] [FILE...]",
		Short: "Make and sign the next revocation list",
		Long: `Makes the next revocation list: what the list in force says and what is added, with the next serial, signed. A list is never
shortened, since machines take the one with the highest serial whole. FILE is revoked by its content; its name and place do
not matter.

The list is read from and written to the store's file revocations, unless --from and --out say otherwise. A running enforcer
takes it by midplane digsig enforce --reload.

` + keyHelp,
		Example: `  midplane digsig revoke --key file:officer.key --why CVE-2027-1234 /usr/bin/old
  midplane digsig revoke --key file:officer.key --below myapp=7
  midplane digsig revoke --key file:officer.key --revoked-key release.pub
  midplane digsig revoke --show`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return r.run(c.Context(), e, args) },
	}
	f := c.Flags()
	r.flags(c)
	f.StringVar(&r.store, "store", digsig.DefaultDir, "the store")
	f.StringVar(&r.from, "from", "", "list to go on from (default the store's, or none)")
	f.StringVar(&r.out, "out", "", "file to write (default the store's)")
	f.StringArrayVar(&r.digests, "digest", nil, "revoke content by its SHA-256, as verify -j shows it; may be given again")
	f.StringArrayVar(&r.revokedKeys, "revoked-key", nil, "revoke a key, by its file or id; may be given again")
	f.StringArrayVar(&r.below, "below", nil, "NAME=VERSION: revoke what is signed as NAME with a lower version; may be given again")
	f.StringVar(&r.why, "why", "", "the reason, which verdicts tell")
	f.BoolVar(&r.show, "show", false, "show the list that is there, and sign nothing")
	jsonFlag(c, &r.json)
	return c
}

func (r *revoking) run(ctx context.Context, e *env, files []string) error {
	place := filepath.Join(r.store, digsig.RevocationsFile)
	from, out := r.from, r.out
	if from == "" {
		from = place
	}
	if out == "" {
		out = place
	}
	old, err := readRevocations(from)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || r.from != "") {
		return err
	}
	if r.show && r.json {
		return e.writeJSON(revocationsOf(old))
	}
	if r.show {
		if old == nil {
			_, err := fmt.Fprintln(e.out, "no list")
			return err
		}
		b, err := old.Append(nil)
		if err == nil {
			_, err = e.out.Write(b)
		}
		return err
	}
	next := &digsig.Revocations{Serial: 1, Issued: time.Now().Truncate(time.Second), Digests: map[[32]byte]string{}, Keys: map[digsig.KeyID]string{}, Below: map[string]digsig.Minimum{}}
	if old != nil {
		next.Serial = old.Serial + 1
		maps.Copy(next.Digests, old.Digests)
		maps.Copy(next.Keys, old.Keys)
		maps.Copy(next.Below, old.Below)
	}
	if err := r.add(ctx, next, files); err != nil {
		return err
	}
	if old != nil && next.Len() == old.Len() && maps.Equal(next.Below, old.Below) {
		return usagef("nothing to revoke that is not revoked already")
	}
	if next.Len() == 0 {
		return usagef("nothing to revoke: want FILE, --digest, --revoked-key or --below")
	}
	signers, closing, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer closing()
	b, err := digsig.SignRevocations(next, signers...)
	if err != nil {
		return err
	}
	if err := digsig.WriteFile(out, b, 0o644); err != nil {
		return err
	}
	if r.json {
		return e.writeJSON(revocationsOf(next))
	}
	_, err = fmt.Fprintf(e.out, "serial %d, %d entries\n", next.Serial, next.Len())
	return err
}

// revocationsJSON is a list as -j shows it; serial 0 is none.
type revocationsJSON struct {
	Serial  uint64                 `json:"serial"`
	Issued  string                 `json:"issued,omitempty"`
	Digests map[string]string      `json:"digests"` // reasons by SHA-256
	Keys    map[string]string      `json:"keys"`    // reasons by id
	Below   map[string]minimumJSON `json:"below"`   // by name
}

type minimumJSON struct {
	Version uint64 `json:"version"`
	Why     string `json:"why"`
}

func revocationsOf(l *digsig.Revocations) revocationsJSON {
	out := revocationsJSON{Digests: map[string]string{}, Keys: map[string]string{}, Below: map[string]minimumJSON{}}
	if l == nil {
		return out
	}
	out.Serial, out.Issued = l.Serial, l.Issued.Format(time.RFC3339)
	for d, why := range l.Digests {
		out.Digests[hex.EncodeToString(d[:])] = why
	}
	for k, why := range l.Keys {
		out.Keys[k.String()] = why
	}
	for name, m := range l.Below {
		out.Below[name] = minimumJSON{m.Version, m.Why}
	}
	return out
}

func readRevocations(name string) (*digsig.Revocations, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	env, err := digsig.DecodeEnvelope(b)
	if err == nil && env.Domain != digsig.DomainRevocations {
		err = fmt.Errorf("it is of domain %s, no revocation list", env.Domain)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l, err := revoke.Decode(env.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func (r *revoking) add(ctx context.Context, l *digsig.Revocations, files []string) error {
	for _, name := range files {
		digests, err := digestsOf(ctx, name)
		if err != nil {
			return err
		}
		for _, d := range digests {
			l.Digests[d] = r.why
		}
	}
	for _, s := range r.digests {
		d, err := digsig.ParseKeyID(s) // 64 hexadecimal digits too
		if err != nil {
			return usagef("--digest %q: want 64 hexadecimal digits", s)
		}
		l.Digests[[32]byte(d)] = r.why
	}
	for _, s := range r.revokedKeys {
		id, err := digsig.ParseKeyID(s)
		if err != nil {
			k, err := readPub(s)
			if err != nil {
				return err
			}
			id = k.ID()
		}
		l.Keys[id] = r.why
	}
	for _, s := range r.below {
		name, number, _ := strings.Cut(s, "=")
		v, err := strconv.ParseUint(number, 10, 64)
		if err != nil || name == "" || v == 0 {
			return usagef("--below %q: want NAME=VERSION, the least version that is good", s)
		}
		if had, ok := l.Below[name]; ok && had.Version > v {
			return usagef("--below %q: %d is required already", s, had.Version)
		} else if ok && had.Version == v {
			continue
		}
		l.Below[name] = digsig.Minimum{Version: v, Why: r.why}
	}
	return nil
}

// digestsOf returns what to revoke so that a file no longer runs: its digest, and if a signature is in it the digest
// that it is of, so that signing it again does not help.
func digestsOf(ctx context.Context, name string) ([][32]byte, error) {
	none, err := digsig.NewTrustStore()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	v, err := digsig.NewVerifier(digsig.Config{Trust: none, Now: now})
	if err != nil {
		return nil, err
	}
	got := v.VerifyFile(ctx, name, digsig.Request{Use: digsig.UseAny, At: now})
	if got.File == ([32]byte{}) {
		return nil, fmt.Errorf("%s: %s", name, got.Detail)
	}
	digests := [][32]byte{got.File}
	if got.Digest != got.File && got.Digest != ([32]byte{}) {
		digests = append(digests, got.Digest)
	}
	return digests, nil
}
