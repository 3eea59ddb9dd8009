package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/policy"
)

// policing is what newPolicy's flags say.
type policing struct {
	keys
	store, out string
	show       bool
	json       bool
}

func newPolicy(e *env) *cobra.Command {
	var o policing
	c := &cobra.Command{
		Use:   "policy --key KEY [FLAGS] FILE",
		Short: "Sign a policy",
		Long: `Reads a policy as people write it (docs/digsig.md), gives it the next version after the one in the store unless it has one itself,
and writes it signed to the store. A running enforcer takes it by midplane digsig enforce --reload, and refuses one that
would deny what runs.

` + keyHelp,
		Example: `  midplane digsig policy --key file:officer.key policy.txt
  midplane digsig policy --show`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), e, args) },
	}
	f := c.Flags()
	o.flags(c)
	f.StringVar(&o.store, "store", digsig.DefaultDir, "the store")
	f.StringVar(&o.out, "out", "", "file to write (default the store's)")
	f.BoolVar(&o.show, "show", false, "show the policy that is in the store, or in FILE, and sign nothing")
	jsonFlag(c, &o.json)
	return c
}

func (o *policing) run(ctx context.Context, e *env, args []string) error {
	place := filepath.Join(o.store, digsig.PolicyFile)
	if o.show {
		if len(args) == 1 {
			place = args[0]
		}
		p, err := readPolicy(place)
		if err != nil {
			return err
		}
		if o.json {
			return e.writeJSON(policyOf(p))
		}
		b, err := p.Append(nil)
		if err == nil {
			_, err = e.out.Write(b)
		}
		return err
	}
	if len(args) == 0 {
		return usagef("no policy to sign: want FILE, or --show")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	p, err := digsig.ParsePolicy(text)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	old, err := readPolicy(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last := uint64(0)
	if old != nil {
		last = old.Version
	}
	switch {
	case p.Version == 0:
		p.Version = last + 1
	case p.Version <= last:
		return usagef("%s: version %d: the store's is %d, and machines take no lower one", args[0], p.Version, last)
	}
	if p.Issued.IsZero() {
		p.Issued = time.Now().Truncate(time.Second)
	}
	signers, closing, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer closing()
	b, err := digsig.SignPolicy(p, signers...)
	if err != nil {
		return err
	}
	if o.out != "" {
		place = o.out
	}
	if err := digsig.WriteFile(place, b, 0o644); err != nil {
		return err
	}
	if o.json {
		return e.writeJSON(policyOf(p))
	}
	_, err = fmt.Fprintf(e.out, "version %d, mode %s\n", p.Version, p.Mode)
	return err
}

// policyJSON is what -j shows of a policy: the numbers of its rules, which the text has in full.
type policyJSON struct {
	Version      uint64 `json:"version"`
	Mode         string `json:"mode"`
	Exempt       int    `json:"exempt"`
	Interpreters int    `json:"interpreters"`
	Protect      int    `json:"protect"`
}

func policyOf(p *digsig.Policy) policyJSON {
	return policyJSON{p.Version, p.Mode.String(), len(p.Exempt), len(p.Interpreters), len(p.Protect)}
}

func readPolicy(name string) (*digsig.Policy, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	env, err := digsig.DecodeEnvelope(b)
	if err == nil && env.Domain != digsig.DomainPolicy {
		err = fmt.Errorf("it is of domain %s, no policy", env.Domain)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p, err := policy.Decode(env.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}
