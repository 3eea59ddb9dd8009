package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/dpkg"
	"midplane/internal/digsig/enforcer"
)

// incoming is where a system finds manifests that do not lie beside package files.
const incoming = "/var/lib/midplane/digsig/incoming"

// hooking is what the flags of newDpkg's verbs say.
type hooking struct {
	store, state, root string
	socket             string
	sources            []string
	lax                bool
}

func newDpkg(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "dpkg",
		Short: "What apt calls before and after it runs dpkg",
		Long: `Keeps the manifests of a store in step with the packages of a Debian system. apt calls both verbs by its configuration
(packaging/apt/90midplane-digsig); who runs dpkg by hand calls them by hand.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var h hooking
	before := &cobra.Command{
		Use:   "before [FLAGS] [PACKAGE-FILE...]",
		Short: "Put the manifests of package files into the store, if all in the files is signed",
		Long: `Looks for the manifest of each package file, NAME_VERSION_ARCHITECTURE.mdm beside it or in the directories of --from, verifies
by it every program and script in the file, the maintainer scripts too, and puts the manifests into the store. If anything is
not good nothing is put there and the exit code is 15, so that apt stops; if the policy's mode is not enforce, or with
--lax, what is good is put there and the rest is named.

Without arguments the names come from standard input, a line each, as DPkg::Pre-Install-Pkgs gives them.`,
		Example: `  midplane digsig dpkg before ./myapp_3_amd64.deb`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(c *cobra.Command, args []string) error { return h.before(c.Context(), e, args) },
	}
	after := &cobra.Command{
		Use:   "after [FLAGS]",
		Short: "Verify what dpkg installed, and take out manifests of packages that are gone",
		Long: `Verifies the files of the packages that before put manifests in the store for, and takes out the manifests of versions that are
no longer there. Exit code 15 if a file is not good.`,
		Example: `  midplane digsig dpkg after`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return h.after(c.Context(), e) },
	}
	for _, v := range []*cobra.Command{before, after} {
		f := v.Flags()
		f.StringVar(&h.store, "store", digsig.DefaultDir, "the store")
		f.StringVar(&h.state, "state", digsig.DefaultStateDir, "directory that remembers")
		f.StringVar(&h.root, "root", "/", "root of the system")
		socketFlag(v, &h.socket)
	}
	before.Flags().StringArrayVar(&h.sources, "from", []string{incoming}, "directory with manifests; may be given again")
	before.Flags().BoolVar(&h.lax, "lax", false, "go on when something is not signed")
	c.AddCommand(before, after)
	return c
}

// hook returns nil when there is no store: the system does not use DigSig.
func (h *hooking) hook() (*dpkg.Hook, error) {
	s, err := digsig.OpenStore(h.store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.StateDir = h.state
	return &dpkg.Hook{Store: s, Root: h.root, Sources: h.sources, Now: time.Now()}, nil
}

func (h *hooking) before(ctx context.Context, e *env, debs []string) error {
	if len(debs) == 0 {
		var err error
		if debs, err = debNames(e.in); err != nil {
			return err
		}
	}
	hook, err := h.hook()
	if hook == nil || err != nil {
		return err
	}
	lax := h.lax
	if v, err := hook.Store.Load(hook.Now); v == nil {
		return err
	} else if mode := h.mode(ctx, v); mode != digsig.Enforce.String() {
		lax = true
	}
	placed, problems, err := hook.Before(ctx, debs, lax)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "digsig: %d package files, %d manifests put in place\n", len(debs), placed)
	if placed > 0 {
		// They must count before dpkg runs the first maintainer script.
		if err := h.reload(ctx); err != nil {
			return fmt.Errorf("the enforcer does not take the manifests: %w", err)
		}
	}
	return e.problems(problems, lax)
}

// mode is the enforcer's, or what it would begin with.
func (h *hooking) mode(ctx context.Context, v *digsig.Verifier) string {
	if s, err := enforcer.Dial(h.socket).Status(ctx); err == nil {
		return s.Mode
	}
	return v.Policy().Mode.String()
}

// reload has the enforcer take the store, if one runs.
func (h *hooking) reload(ctx context.Context) error {
	_, err := enforcer.Dial(h.socket).Reload(ctx, false)
	if err != nil && isNobody(err) {
		return nil
	}
	return err
}

// debNames reads what apt says: package files, a line each.
func debNames(r io.Reader) ([]string, error) {
	var names []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		name := strings.TrimSpace(s.Text())
		if name == "" {
			continue
		}
		if strings.HasPrefix(name, "VERSION ") {
			return nil, errors.New("apt speaks a later version of its protocol than the configuration of this hook asks for: take out DPkg::Tools::Options::…::Version")
		}
		names = append(names, name)
	}
	return names, s.Err()
}

func (e *env) problems(problems []dpkg.Problem, lax bool) error {
	for _, p := range problems {
		fmt.Fprintf(e.err, "digsig: %s\n", p)
	}
	if len(problems) > 0 && !lax {
		fmt.Fprintf(e.err, "digsig: %d problems\n", len(problems))
		return exitRefused
	}
	return nil
}

func (h *hooking) after(ctx context.Context, e *env) error {
	hook, err := h.hook()
	if hook == nil || err != nil {
		return err
	}
	verified, removed, problems, err := hook.After(ctx)
	if err != nil {
		return err
	}
	kept := ""
	if len(removed) > 0 {
		var refused *enforcer.RefusedError
		if err := h.reload(ctx); errors.As(err, &refused) {
			// What was upgraded runs on with its old files, a library in every program perhaps.
			if err := hook.Restore(removed); err != nil {
				return err
			}
			kept = "; they stay until what runs of them is started again: " + refused.Error()
		} else if err != nil {
			return err
		}
	}
	if verified > 0 || len(removed) > 0 {
		fmt.Fprintf(e.out, "digsig: %d programs and scripts verified, %d old manifests%s\n", verified, len(removed), kept)
	}
	return e.problems(problems, false)
}
