package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
)

// uses are what explain goes through, with what they are in words.
var uses = []struct {
	use  digsig.Use
	text string
}{
	{digsig.UseExec, "run as a program"},
	{digsig.UseLib, "mapped as a library"},
	{digsig.UseInterp, "run as interpreter of others (PT_INTERP, #!)"},
	{digsig.UseScript, "run as a script through #!"},
	{digsig.UseCheck, "asked about with AT_EXECVE_CHECK"},
	{digsig.UseOpen, "read"},
	{digsig.UseModule, "loaded into the kernel"},
}

func newExplain(e *env) *cobra.Command {
	var t trusting
	var a asking
	var at string
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain [FLAGS] FILE",
		Short: "Say for each use whether a file may be used so, and why",
		Long: `Says in words, for each use of a file, whether it would be let do it, and why: by the store, or by the keys that --pub names.
Where an enforcer runs, a file that is not good cannot be opened: then it is asked (as root; not with --pub). The exit code is that
of verify.`,
		Example: `  midplane digsig explain /usr/bin/ssh`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			now := time.Now()
			when, err := parseTime("at", at, now)
			if err != nil {
				return err
			}
			if when.IsZero() {
				when = now
			}
			v, err := t.verifier(now)
			if err != nil {
				return err
			}
			a.none = len(t.pubs) > 0
			return explain(c.Context(), e, v, &a, args[0], when, asJSON)
		},
	}
	t.flags(c)
	socketFlag(c, &a.socket)
	c.Flags().StringVar(&at, "at", "", "time at which (default now)")
	jsonFlag(c, &asJSON)
	return c
}

func explain(ctx context.Context, e *env, v *digsig.Verifier, a *asking, path string, at time.Time, asJSON bool) error {
	q := digsig.Request{Use: digsig.UseAny, At: at}
	if abs, err := filepath.Abs(path); err == nil {
		q.Path = abs
	}
	whole := a.ask(ctx, path, v.VerifyFile(ctx, path, q))
	code := codeOf(whole)
	list := &jsonList{w: e.out}
	if asJSON {
		if err := list.add(verdictOf(path, whole)); err != nil {
			return err
		}
	} else if err := e.about(v, path, whole); err != nil {
		return err
	}
	if whole.File != ([32]byte{}) {
		for _, u := range uses {
			q.Use = u.use
			got := v.RecheckRequest(whole, q)
			if asJSON {
				if err := list.add(verdictOf(path, got)); err != nil {
					return err
				}
				continue
			}
			if _, err := fmt.Fprintf(e.out, "  %-46s %s\n", u.text+":", inWords(got)); err != nil {
				return err
			}
		}
	}
	if asJSON {
		if err := list.end(); err != nil {
			return err
		}
	}
	if code != 0 {
		return code
	}
	return nil
}

// about writes what the file is and who signed it.
func (e *env) about(v *digsig.Verifier, path string, got digsig.Verdict) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", path)
	if got.File != ([32]byte{}) {
		fmt.Fprintf(&b, "  %s, %d octets, SHA-256 %x\n", got.Kind, got.Size, got.File)
	}
	if got.Digest != got.File && got.Digest != ([32]byte{}) {
		fmt.Fprintf(&b, "  signed digest %x (the signature in it taken as zeros)\n", got.Digest)
	}
	fmt.Fprintf(&b, "  %s\n", line(got))
	if k := v.Trust().Key(got.Key); k != nil {
		fmt.Fprintf(&b, "  key %s: trusted for %s, roles %s\n", k, k.Purposes, k.Roles)
	}
	if !got.Issued.IsZero() {
		fmt.Fprintf(&b, "  signed %s\n", got.Issued.UTC().Format(time.RFC3339))
	}
	if !got.Until.IsZero() {
		fmt.Fprintf(&b, "  this may change by time alone on %s\n", got.Until.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "  the policy's mode is %s\n", v.Policy().Mode)
	_, err := fmt.Fprint(e.out, b.String())
	return err
}

func inWords(v digsig.Verdict) string {
	switch v.Reason {
	case digsig.Signed:
		return "yes, it is signed for it"
	case digsig.Permitted, digsig.Learning:
		return fmt.Sprintf("yes, but only since the mode is not enforce; else not: %s: %s", v.Cause, v.Detail)
	}
	if v.Allow {
		return fmt.Sprintf("yes: %s: %s", v.Reason, v.Detail)
	}
	return fmt.Sprintf("no: %s: %s", v.Reason, v.Detail)
}
