package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/bsign"
)

// xattrName is the extended attribute that any owner of a file can set.
const xattrName = "user.midplane.sig"

// signing is what newSign's flags say.
type signing struct {
	keys
	name               string
	version            uint64
	roles, expires     string
	manifest           string
	detached, xattr    bool
	data, busy, remove bool
	workers            int
	keyring            string
	ring               *bsign.KeyRing
	json               bool
}

func newSign(e *env) *cobra.Command {
	var s signing
	c := &cobra.Command{
		Use:   "sign --key KEY [FLAGS] PATH...",
		Short: "Sign programs, libraries and scripts",
		Long: `Signs files, and of directories all ELF files and scripts below. An ELF file gets its signature inside: the file is replaced by
a signed one in one step. What has no place for one (scripts, kernel modules, files with data behind the ELF part) is listed
in the signed manifest that --manifest names; --detached and --xattr are for single files. A file with several names (hard links)
is replaced under all of them if all are below what was named, else it is for the manifest.

--remove takes the signatures out again, of directories too: each file is then to the octet what it was. It needs no key.

Sign last: strip, patchelf and the like break a signature, as every change does.

` + keyHelp,
		Example: `  midplane digsig sign --key file:release.key --name myapp --version 3 ./myapp
  midplane digsig sign --key agent: --manifest tree.mdm ./build
  midplane digsig sign --key 'pkcs11:token=signing;object=release' ./myapp
  midplane digsig sign --remove ./myapp ./build`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return s.run(c.Context(), e, args) },
	}
	f := c.Flags()
	s.flags(c)
	f.StringVar(&s.name, "name", "", "name of the program or package, for revoking versions below one")
	f.Uint64Var(&s.version, "version", 0, "version, which grows with each release")
	f.StringVar(&s.roles, "roles", "", "what the files may be used for: exec, lib, script, interp, data, module (default: by their kind)")
	f.StringVar(&s.expires, "expires", "", "time from which on the signature is no longer valid (default never)")
	f.StringVar(&s.manifest, "manifest", "", "write a manifest of what takes no signature inside to this file")
	f.BoolVar(&s.detached, "detached", false, "write the signature to PATH.sig and leave the file as it is")
	f.BoolVar(&s.xattr, "xattr", false, "put the signature in the extended attribute "+xattrName)
	f.BoolVar(&s.data, "data", false, "sign files too that are neither ELF nor scripts")
	f.BoolVar(&s.busy, "busy", false, "sign programs too that run: they run on with their old file")
	f.BoolVar(&s.remove, "remove", false, "take the signatures out again")
	f.StringVar(&s.keyring, "bsign", "", "sign only files that bsign signed with an OpenPGP key of this key ring")
	workersFlag(c, &s.workers)
	jsonFlag(c, &s.json)
	return c
}

func (s *signing) template() (digsig.Template, error) {
	now := time.Now().Truncate(time.Second)
	t := digsig.Template{Name: s.name, Version: s.version, Issued: now}
	var err error
	if s.roles != "" {
		if t.Roles, err = digsig.ParseRoles(s.roles); err != nil {
			return t, usagef("--roles: %w", err)
		}
	}
	t.Expires, err = parseTime("expires", s.expires, now)
	if err == nil && s.expires != "" && !t.Expires.After(now) {
		err = usagef("--expires %s: want a time to come", s.expires)
	}
	return t, err
}

func (s *signing) run(ctx context.Context, e *env, args []string) error {
	if s.remove {
		return s.unsign(ctx, e, args)
	}
	single := s.detached || s.xattr
	if s.detached && s.xattr || single && s.manifest != "" {
		return usagef("--detached, --xattr and --manifest: want one of them")
	}
	t, err := s.template()
	if err != nil {
		return err
	}
	signers, closing, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer closing()
	var total signed
	var roots []string
	for _, path := range args {
		fi, err := os.Stat(path)
		if err == nil {
			err = s.admitted(ctx, path, fi.IsDir())
		}
		switch {
		case err != nil:
		case fi.IsDir() && single:
			return usagef("%s is a directory: --detached and --xattr are for files", path)
		case single:
			if err = s.beside(ctx, path, t, signers); err == nil {
				total.embedded++
			}
		case fi.IsDir():
			roots = append(roots, path)
		default:
			if err = s.file(ctx, path, t, signers, &total); errors.Is(err, digsig.ErrLinked) {
				roots, err = append(roots, path), nil // the other names may be among the rest
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			total.fail(path, err)
		}
	}
	if len(roots) > 0 {
		if err := s.trees(ctx, e, roots, t, signers, &total); err != nil {
			return err
		}
	}
	return s.finish(e, t, signers, &total)
}

// signed is what was done so far.
type signed struct {
	embedded int
	listed   []digsig.ManifestEntry
	linked   []string // of listed
	failed   []*digsig.FileError
}

func (t *signed) fail(path string, err error) {
	// The path stands before it already.
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == path {
		err = pe.Err
	}
	if errors.Is(err, digsig.ErrBusy) {
		err = fmt.Errorf("%w; with --busy it gets a new file, and what runs goes on with the old", err)
	}
	t.failed = append(t.failed, &digsig.FileError{Path: path, Err: err})
}

func (s *signing) trees(ctx context.Context, e *env, roots []string, t digsig.Template, signers []*digsig.Signer, total *signed) error {
	show, end := e.progress("signing")
	defer end()
	res, err := digsig.SignTrees(ctx, roots, digsig.SignOptions{Template: t, Busy: s.busy}, digsig.TreeOptions{Workers: s.workers, Progress: show, Data: s.data}, signers...)
	if res != nil {
		total.embedded += res.Embedded
		total.listed = append(total.listed, res.Listed...)
		total.linked = append(total.linked, res.Linked...)
		total.failed = append(total.failed, res.Failed...)
	}
	return err
}

func (s *signing) file(ctx context.Context, path string, t digsig.Template, signers []*digsig.Signer, total *signed) error {
	_, err := digsig.SignFile(ctx, path, digsig.SignOptions{Template: t, Busy: s.busy}, signers...)
	var cannot *digsig.CannotEmbedError
	if !errors.As(err, &cannot) {
		if err == nil {
			total.embedded++
		}
		return err
	}
	st, err := statement(ctx, path, t)
	if err != nil {
		return err
	}
	entry := digsig.EntryOf(st)
	if entry.Name == "" {
		entry.Name = filepath.Base(path)
	}
	if s.manifest == "" {
		return fmt.Errorf("%w; --manifest FILE lists it, --detached writes a signature beside it", cannot)
	}
	total.listed = append(total.listed, entry)
	return nil
}

// statement reads a file and says what there is to sign.
func statement(ctx context.Context, path string, t digsig.Template) (*digsig.Statement, error) {
	f, fi, err := digsig.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return digsig.StatementOf(ctx, f, fi.Size(), t)
}

// beside signs a file without changing it.
func (s *signing) beside(ctx context.Context, path string, t digsig.Template, signers []*digsig.Signer) error {
	st, err := statement(ctx, path, t)
	if err != nil {
		return err
	}
	b, err := digsig.SignStatement(st, signers...)
	if err != nil {
		return err
	}
	if s.xattr {
		return digsig.SetXattr(path, xattrName, b)
	}
	return digsig.WriteFile(path+".sig", b, 0o644)
}

// failure is a file that could not be worked on, as -j shows it.
type failure struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

func failures(list []*digsig.FileError) []failure {
	out := []failure{}
	for _, f := range list {
		out = append(out, failure{f.Path, f.Err.Error()})
	}
	return out
}

// finish writes the manifest and says what was done.
func (s *signing) finish(e *env, t digsig.Template, signers []*digsig.Signer, total *signed) error {
	listed := len(total.listed)
	if s.manifest != "" && listed > 0 {
		// A manifest's version must grow as it replaces another; the time does.
		h := digsig.ManifestHeader{Name: t.Name, Version: t.Version, Issued: t.Issued, Expires: t.Expires}
		if h.Version == 0 {
			h.Version = uint64(t.Issued.Unix())
		}
		b, err := digsig.SignManifest(h, total.listed, signers...)
		if err != nil {
			return err
		}
		if err := digsig.WriteFile(s.manifest, b, 0o644); err != nil {
			return err
		}
	}
	for _, f := range total.failed {
		fmt.Fprintf(e.err, "%s: %v\n", f.Path, f.Err)
	}
	missing := 0
	if s.manifest == "" {
		missing = listed
	}
	if s.json {
		out := struct {
			Embedded int       `json:"embedded"`
			Listed   int       `json:"listed"`
			Linked   int       `json:"linked"`
			Unsigned int       `json:"unsigned"`
			Failed   []failure `json:"failed"`
		}{total.embedded, listed - missing, len(total.linked), missing, failures(total.failed)}
		if err := e.writeJSON(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.out, "%d signed", total.embedded)
		if listed > missing {
			fmt.Fprintf(e.out, ", %d listed in %s", listed, s.manifest)
		}
		fmt.Fprintln(e.out)
	}
	for _, path := range total.linked {
		fmt.Fprintf(e.err, "%s: it has names (hard links) that were not given, and takes no signature inside\n", path)
	}
	if missing > 0 {
		return fmt.Errorf("%d files take no signature inside and are unsigned, %s among them: list them with --manifest FILE", missing, total.listed[0].Name)
	}
	return partly(len(total.failed), len(total.failed)+total.embedded+listed)
}

func (s *signing) unsign(ctx context.Context, e *env, args []string) error {
	if len(s.names) > 0 || s.manifest != "" || s.detached || s.xattr || s.keyring != "" {
		return usagef("--remove: want no --key, --manifest, --detached, --xattr or --bsign: it takes out what is inside, whoever signed")
	}
	show, end := e.progress("removing")
	var total signed
	var roots []string
	for _, path := range args {
		if _, err := os.Stat(path); err != nil {
			total.fail(path, err)
		} else {
			roots = append(roots, path)
		}
	}
	res, err := digsig.UnsignTrees(ctx, roots, s.busy, digsig.TreeOptions{Workers: s.workers, Progress: show})
	end()
	if err != nil {
		return err
	}
	total.failed = append(total.failed, res.Failed...)
	for _, f := range total.failed {
		fmt.Fprintln(e.err, f)
	}
	if s.json {
		err = e.writeJSON(struct {
			Removed int       `json:"removed"`
			Failed  []failure `json:"failed"`
		}{res.Removed, failures(total.failed)})
	} else {
		_, err = fmt.Fprintf(e.out, "%d signatures removed\n", res.Removed)
	}
	if err != nil {
		return err
	}
	return partly(len(total.failed), len(total.failed)+res.Removed)
}

// verifying is what newVerify's flags say.
type verifying struct {
	trusting
	asking
	use, at               string
	detached, quiet, data bool
	verbose               bool
	workers               int
	keyring               string
	json                  bool
}

func newVerify(e *env) *cobra.Command {
	var o verifying
	c := &cobra.Command{
		Use:   "verify [FLAGS] PATH...",
		Short: "Say whether files are signed, intact and still good",
		Long: `Verifies files, and of directories all ELF files and scripts below, by the keys, manifests, revocations and policy of the store,
or by the keys that --pub names. Each file is a line; of directories only what is not good is, unless -v is given.

The exit code says what is wrong: 10 unsigned, 11 broken (altered after it was signed), 12 signed by a key that is not
trusted, 13 revoked, 14 expired or not yet valid, 15 refused by the policy for another reason, 1 not readable; of several
files the gravest (in the order 11, 13, 1, 12, 14, 10, 15). It does not depend on the policy's mode. Where an enforcer runs, files
that are not good cannot be opened: then it is asked why (as root; not with --pub).

With --bsign the old signatures of bsign are verified in place of ours, as of when they were made. They are over SHA-1: enough to
tell whose an old file was, and sign --bsign moves it to a signature of today; never enough to let it run.`,
		Example: `  midplane digsig verify --pub release.pub ./program
  midplane digsig verify --store /etc/midplane/digsig /usr/bin
  midplane digsig verify --use exec -j /usr/bin/ssh`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), e, args) },
	}
	f := c.Flags()
	o.flags(c)
	f.StringVar(&o.use, "use", "any", "what for: exec, interp, lib, script, check, open, module, or any")
	f.StringVar(&o.at, "at", "", "time at which it must be good (default now)")
	socketFlag(c, &o.socket)
	f.BoolVar(&o.detached, "detached", false, "the signature is in PATH.sig")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "say nothing: the exit code tells")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "of directories name the good files too")
	f.BoolVar(&o.data, "data", false, "of directories verify files too that are neither ELF nor scripts")
	f.StringVar(&o.keyring, "bsign", "", "verify bsign's old signatures by the OpenPGP keys of this key ring")
	workersFlag(c, &o.workers)
	jsonFlag(c, &o.json)
	return c
}

func (o *verifying) run(ctx context.Context, e *env, args []string) error {
	now := time.Now()
	at, err := parseTime("at", o.at, now)
	if err != nil {
		return err
	}
	if at.IsZero() {
		at = now
	}
	if o.keyring != "" {
		when := at
		if o.at == "" {
			when = time.Time{} // OpenPGP's keys of that time are long expired
		}
		return o.bsign(ctx, e, args, when)
	}
	use, err := digsig.ParseUse(o.use)
	if err != nil {
		return usagef("--use: %w", err)
	}
	v, err := o.verifier(now)
	if err != nil {
		return err
	}
	worst := exitCode(0)
	list := &jsonList{w: e.out}
	var writing error
	good, bad := 0, 0
	o.none = len(o.pubs) > 0
	tell := func(path string, got digsig.Verdict, always bool) {
		got = o.ask(ctx, path, got)
		code := codeOf(got)
		worst = graver(worst, code)
		if code == 0 {
			good++
		} else {
			bad++
		}
		switch {
		case o.quiet || writing != nil || code == 0 && !always:
		case o.json:
			writing = list.add(verdictOf(path, got))
		default:
			_, writing = fmt.Fprintf(e.out, "%s: %s\n", path, line(got))
		}
	}
	trees := false
	for _, path := range args {
		q := digsig.Request{Use: use, At: at}
		if abs, err := filepath.Abs(path); err == nil {
			q.Path = abs
		}
		fi, err := os.Stat(path)
		if err == nil && fi.IsDir() {
			trees = true
			show, end := e.progress("verifying")
			err = v.VerifyTree(ctx, path, q, digsig.TreeOptions{Workers: o.workers, Progress: show, Data: o.data}, func(path string, got digsig.Verdict) {
				tell(path, got, o.verbose)
			})
			end()
			if err != nil {
				return err
			}
			continue
		}
		if o.detached {
			if q.Signature, err = os.ReadFile(path + ".sig"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			q.Carrier = digsig.Detached
		}
		tell(path, v.VerifyFile(ctx, path, q), true)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if o.json && !o.quiet {
		writing = errors.Join(writing, list.end())
	} else if trees && !o.quiet {
		fmt.Fprintf(e.err, "%d good, %d not\n", good, bad)
	}
	if writing != nil {
		return writing
	}
	if worst != 0 {
		return worst
	}
	return nil
}

// line is a verdict for people.
func line(v digsig.Verdict) string {
	var b strings.Builder
	if codeOf(v) == 0 {
		fmt.Fprintf(&b, "good: %s", v.Reason)
		if v.Key != (digsig.KeyID{}) {
			fmt.Fprintf(&b, " by %.16s (%s)", v.Key, v.Carrier)
		}
		if v.Name != "" {
			fmt.Fprintf(&b, ", %s version %d", v.Name, v.Version)
		}
		if v.Roles != 0 {
			fmt.Fprintf(&b, ", for %s", v.Roles)
		}
		return b.String()
	}
	reason := v.Reason
	if v.Cause != 0 {
		reason = v.Cause
	}
	return fmt.Sprintf("%s: %s", reason, v.Detail)
}
