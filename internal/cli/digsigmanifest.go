package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/dpkg"
	"midplane/internal/digsig/envelope"
	"midplane/internal/digsig/manifest"
)

func newManifest(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "manifest",
		Short: "Make, show and check manifests: one signature for many files",
		Long: `A manifest lists files by their SHA-256 under one signature. It is for files that must not change: those of packages, scripts,
kernel modules. It lies in the directory manifests of a store (/etc/midplane/digsig/manifests) with a name that ends in .mdm.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newManifestMake(e), newManifestShow(e), newManifestCheck(e))
	return c
}

// making is what newManifestMake's flags say.
type making struct {
	keys
	out           string
	name          string
	version       uint64
	expires       string
	root          string
	dpkg, deb     bool
	list          string
	unowned       bool
	data, changed bool
	scripts       []string
	workers       int
	json          bool
}

// unownedDirs are where programs and scripts of a system are.
var unownedDirs = []string{"usr", "etc", "opt", "bin", "sbin", "lib", "lib64"}

func newManifestMake(e *env) *cobra.Command {
	var m making
	c := &cobra.Command{
		Use:   "make --key KEY --out FILE|DIR [FLAGS] [ARG...]",
		Short: "Make a manifest of directories, of installed packages, or of package files",
		Long: `Makes and signs a manifest of all ELF files and scripts

  below the directories that are named, and of the files that are;
  with --dpkg: of the installed packages that are named, or of all, with their maintainer scripts;
  with --deb: in the package files that are named, with their maintainer scripts;
  with --from-list: of the files of a list, as midplane digsig learn review writes it (- is standard input). It is signed as
  it is: the files are not looked at, and need not be on this machine.

If --out is a directory each package gets a manifest of its own, NAME_VERSION_ARCHITECTURE.mdm, else there is one for all.
Files of packages that differ from the MD5 sums that the package came with are not signed, and named, unless --changed is
given. With --unowned a further manifest, unowned.mdm, lists the programs and scripts that belong to no package; look at
them first (without --key nothing is written and all is shown).

` + keyHelp,
		Example: `  midplane digsig manifest make --key file:release.key --out app.mdm ./build
  midplane digsig manifest make --key file:release.key --out manifests/ --dpkg --root /srv/image
  midplane digsig manifest make --key file:release.key --out . --deb ./*.deb
  midplane digsig manifest make --key file:release.key --out learnt.mdm --from-list learnt.txt
  midplane digsig manifest make --dpkg --unowned`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return m.run(c.Context(), e, args) },
	}
	f := c.Flags()
	m.flags(c)
	f.StringVar(&m.out, "out", "", "file or directory to write to")
	f.StringVar(&m.name, "name", "", "name of the collection (default: of packages their name, else of files their path)")
	f.Uint64Var(&m.version, "version", 0, "version, which grows with each (default: the seconds since 1970)")
	f.StringVar(&m.expires, "expires", "", "time from which on the manifest is no longer valid (default never)")
	f.StringVar(&m.root, "root", "/", "root of the system whose packages are meant")
	f.BoolVar(&m.dpkg, "dpkg", false, "arguments are installed packages; none means all")
	f.BoolVar(&m.deb, "deb", false, "arguments are package files")
	f.StringVar(&m.list, "from-list", "", "file with a list of files and digests")
	f.BoolVar(&m.unowned, "unowned", false, "with --dpkg: list what belongs to no package too")
	f.BoolVar(&m.data, "data", false, "list files too that are neither ELF nor scripts")
	f.BoolVar(&m.changed, "changed", false, "sign files of packages too that differ from the package's sums")
	f.StringSliceVar(&m.scripts, "script-names", nil, "patterns of names of scripts without #!, as *.py")
	workersFlag(c, &m.workers)
	jsonFlag(c, &m.json)
	return c
}

// collected is a manifest to be.
type collected struct {
	file    string // without directory
	name    string
	entries []digsig.ManifestEntry
}

func (m *making) run(ctx context.Context, e *env, args []string) error {
	switch {
	case m.dpkg && m.deb || m.list != "" && (m.dpkg || m.deb):
		return usagef("--dpkg, --deb and --from-list: want one of them")
	case m.list != "" && len(args) > 0:
		return usagef("--from-list: want no other files, and %q is one", args[0])
	case m.unowned && !m.dpkg:
		return usagef("--unowned goes with --dpkg")
	case !m.dpkg && m.list == "" && len(args) == 0:
		return usagef("nothing to list: want directories, files, --dpkg or --from-list")
	case m.out == "" && len(m.names) > 0:
		return usagef("--out is missing")
	}
	now := time.Now().Truncate(time.Second)
	expires, err := parseTime("expires", m.expires, now)
	if err != nil {
		return err
	}
	// A key that cannot be used is said before the work.
	var signers []*digsig.Signer
	if m.out != "" {
		var closing func()
		if signers, closing, err = m.open(ctx); err != nil {
			return err
		}
		defer closing()
	}
	b := &dpkg.Builder{Issued: now, Version: m.version, Data: m.data, ScriptNames: m.scripts, Changed: m.changed}
	var all []collected
	var failed []*digsig.FileError
	switch {
	case m.dpkg:
		all, failed, err = m.installed(ctx, e, b, args)
	case m.deb:
		all, err = m.debs(ctx, b, args)
	case m.list != "":
		all, err = m.listed(e)
	default:
		all, failed, err = m.trees(ctx, e, args)
	}
	if err != nil {
		return err
	}
	for _, f := range failed {
		fmt.Fprintf(e.err, "%v\n", f)
	}
	if err := m.write(e, b, expires, signers, all); err != nil {
		return err
	}
	return partly(len(failed), len(failed)+count(all))
}

func count(all []collected) (n int) {
	for _, c := range all {
		n += len(c.entries)
	}
	return n
}

func (m *making) installed(ctx context.Context, e *env, b *dpkg.Builder, names []string) (all []collected, failed []*digsig.FileError, err error) {
	db, err := dpkg.Open(m.root)
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	packages := db.Packages()
	if len(names) > 0 {
		packages = nil
		for _, n := range names {
			p, err := db.Find(n)
			if err != nil {
				return nil, nil, err
			}
			packages = append(packages, p)
		}
	}
	show, end := e.progress("packages")
	done := 0
	err = b.Installed(ctx, db, packages, cmp.Or(m.workers, runtime.GOMAXPROCS(0)), func(built *dpkg.Built) {
		done++
		if show != nil {
			show(digsig.Progress{Bytes: int64(done), TotalBytes: int64(len(packages))})
		}
		all = append(all, collected{built.Package.ID() + ".mdm", built.Package.Name, built.Entries})
		failed = append(failed, built.Failed...)
	})
	end()
	if err != nil || !m.unowned {
		return all, failed, err
	}
	rest := collected{file: "unowned.mdm", name: "unowned"}
	err = b.Unowned(ctx, db, unownedDirs, func(name string, entry digsig.ManifestEntry, err error) {
		if err != nil {
			failed = append(failed, &digsig.FileError{Path: "/" + name, Err: err})
			return
		}
		fmt.Fprintf(e.err, "of no package: /%s\n", name)
		rest.entries = append(rest.entries, entry)
	})
	return append(all, rest), failed, err
}

func (m *making) debs(ctx context.Context, b *dpkg.Builder, files []string) (all []collected, err error) {
	for _, deb := range files {
		p, entries, err := b.Deb(ctx, deb)
		if err != nil {
			return nil, err
		}
		all = append(all, collected{p.ID() + ".mdm", p.Name, entries})
	}
	return all, nil
}

func (m *making) listed(e *env) ([]collected, error) {
	b, err := e.readFile(m.list)
	if err != nil {
		return nil, err
	}
	entries, err := manifest.ParseList(b)
	if err == nil && len(entries) == 0 {
		err = errors.New("there are no files on it")
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", m.list, err)
	}
	for i := range entries {
		entries[i].Version = m.version
		if m.name != "" {
			entries[i].Name = m.name
		}
	}
	return []collected{{name: m.name, entries: entries}}, nil
}

// maxText bounds what is read as text.
const maxText = 256 << 20

// readFile reads a file, or with - standard input.
func (e *env) readFile(name string) ([]byte, error) {
	in := e.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxText+1))
	if err == nil && len(b) > maxText {
		err = fmt.Errorf("%s: more than %d octets", name, maxText)
	}
	return b, err
}

func (m *making) trees(ctx context.Context, e *env, paths []string) (all []collected, failed []*digsig.FileError, err error) {
	c := collected{name: m.name}
	for _, path := range paths {
		show, end := e.progress("reading")
		// Files that are named are meant, whatever is in them.
		fi, err := os.Stat(path)
		if err != nil {
			return nil, nil, err
		}
		o := digsig.TreeOptions{Workers: m.workers, Progress: show, Data: m.data || !fi.IsDir()}
		entries, err := digsig.ManifestTree(ctx, path, digsig.Template{Name: m.name, Version: m.version}, o, nil)
		end()
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		c.entries = append(c.entries, entries...)
		failed = append(failed, fileErrors(path, err)...)
	}
	return []collected{c}, failed, nil
}

// fileErrors takes a joined error apart.
func fileErrors(path string, err error) []*digsig.FileError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*digsig.FileError
		for _, one := range joined.Unwrap() {
			all = append(all, fileErrors(path, one)...)
		}
		return all
	}
	var f *digsig.FileError
	if errors.As(err, &f) {
		return []*digsig.FileError{f}
	}
	return []*digsig.FileError{{Path: path, Err: err}}
}

// write signs and writes, or shows what would be.
func (m *making) write(e *env, b *dpkg.Builder, expires time.Time, signers []*digsig.Signer, all []collected) error {
	each := false
	if fi, err := os.Stat(m.out); err == nil && fi.IsDir() && m.out != "" {
		each = true
	}
	if m.out != "" && !each {
		one := collected{name: m.name}
		if one.name == "" && len(all) == 1 {
			one.name = all[0].name
		}
		for _, c := range all {
			one.entries = append(one.entries, c.entries...)
		}
		all = []collected{one}
	}
	if each && !m.dpkg && !m.deb {
		return usagef("--out %s is a directory: packages have manifests of their own, other files want one to be named", m.out)
	}
	written, listed := 0, 0
	for _, c := range all {
		if len(c.entries) == 0 {
			continue // of a package without programs
		}
		listed += len(c.entries)
		if m.out == "" {
			continue
		}
		signed, err := digsig.SignManifest(b.Header(c.name, expires), c.entries, signers...)
		if err != nil {
			return err
		}
		to := m.out
		if each {
			to = filepath.Join(m.out, c.file)
		}
		if err := digsig.WriteFile(to, signed, 0o644); err != nil {
			return err
		}
		written++
	}
	if m.json {
		return e.writeJSON(map[string]int{"manifests": written, "files": listed})
	}
	if m.out == "" {
		_, err := fmt.Fprintf(e.out, "%d files; nothing was written, since there is no --out\n", listed)
		return err
	}
	_, err := fmt.Fprintf(e.out, "%d files in %d manifests\n", listed, written)
	return err
}

// readManifest reads a manifest with its envelope.
func readManifest(name string) (*digsig.Envelope, *digsig.Manifest, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, err
	}
	env, err := digsig.DecodeEnvelope(b)
	if err == nil && env.Domain != digsig.DomainManifest {
		err = fmt.Errorf("it is of domain %s, no manifest", env.Domain)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	m, err := digsig.DecodeManifest(env.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return env, m, nil
}

func newManifestShow(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "show FILE",
		Short:   "Show what a manifest lists, without verifying it",
		Example: `  midplane digsig manifest show app.mdm`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			env, m, err := readManifest(args[0])
			if err != nil {
				return err
			}
			return showManifest(e, env, m, asJSON)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func showManifest(e *env, env *digsig.Envelope, m *digsig.Manifest, asJSON bool) error {
	type file struct {
		SHA256  string   `json:"sha256"`
		Size    uint64   `json:"size"`
		Kind    string   `json:"kind"`
		Roles   []string `json:"roles"`
		Name    string   `json:"name"`
		Version uint64   `json:"version"`
		Verity  string   `json:"verity,omitempty"`
	}
	var by []string
	for _, s := range env.Signatures {
		by = append(by, s.Key.String())
	}
	if asJSON {
		out := struct {
			Name    string   `json:"name"`
			Version uint64   `json:"version"`
			Issued  string   `json:"issued"`
			Expires string   `json:"expires,omitempty"`
			Keys    []string `json:"keys"`
			Files   []file   `json:"files"`
		}{m.Name, m.Version, m.Issued.Format(time.RFC3339), "", by, []file{}}
		if !m.Expires.IsZero() {
			out.Expires = m.Expires.Format(time.RFC3339)
		}
		for f := range m.All() {
			one := file{fmt.Sprintf("%x", f.Digest), f.Size, f.Kind.String(), strings.Split(f.Roles.String(), ","), f.Name, f.Version, ""}
			if f.Verity != nil {
				one.Verity = fmt.Sprintf("%x", *f.Verity)
			}
			out.Files = append(out.Files, one)
		}
		return e.writeJSON(out)
	}
	fmt.Fprintf(e.out, "name %q version %d issued %s", m.Name, m.Version, m.Issued.Format(time.RFC3339))
	if !m.Expires.IsZero() {
		fmt.Fprintf(e.out, " expires %s", m.Expires.Format(time.RFC3339))
	}
	fmt.Fprintf(e.out, " files %d\n", m.Len())
	for _, k := range by {
		fmt.Fprintf(e.out, "signed by %s\n", k)
	}
	for f := range m.All() {
		if _, err := fmt.Fprintf(e.out, "%x %10d %-6s %s %s\n", f.Digest, f.Size, f.Kind, f.Roles, f.Name); err != nil {
			return err
		}
	}
	return nil
}

func newManifestCheck(e *env) *cobra.Command {
	var t trusting
	var asJSON bool
	c := &cobra.Command{
		Use:   "check [FLAGS] FILE [PATH...]",
		Short: "Check a manifest's signature, and that it lists what is below PATH",
		Long: `Checks that a manifest is signed by a key that is trusted for manifests and valid, and then as verify does that every ELF file
and script below PATH is good by this manifest alone. Exit codes are those of verify.`,
		Example: `  midplane digsig manifest check --pub release.pub app.mdm ./build`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return checkManifest(c.Context(), e, &t, args[0], args[1:], asJSON)
		},
	}
	f := c.Flags()
	f.StringVar(&t.store, "store", "", "directory with trusted keys (default "+digsig.DefaultDir+")")
	f.StringArrayVar(&t.pubs, "pub", nil, "trust this public key file and no store; may be given again")
	jsonFlag(c, &asJSON)
	return c
}

// manifestChecked is what check -j shows.
type manifestChecked struct {
	Path   string        `json:"path"`
	Good   bool          `json:"good"`
	Code   int           `json:"code"`
	Detail string        `json:"detail"`
	Files  int           `json:"files"` // in the manifest
	Bad    []verdictJSON `json:"bad"`   // below the paths
}

func checkManifest(ctx context.Context, e *env, t *trusting, name string, paths []string, asJSON bool) error {
	now := time.Now()
	v, err := t.verifier(now)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	env, m, err := readManifest(name)
	if err != nil {
		return err
	}
	code, why := signedBy(env, v, now)
	if code == 0 && !m.Expires.IsZero() && !now.Before(m.Expires) {
		code, why = exitExpired, "expired: it was valid until "+m.Expires.Format(time.RFC3339)
	}
	report := manifestChecked{Path: name, Good: code == 0, Code: int(code), Detail: why, Files: m.Len(), Bad: []verdictJSON{}}
	if !asJSON {
		if _, err := fmt.Fprintf(e.out, "%s: %s, %d files\n", name, why, m.Len()); err != nil {
			return err
		}
	}
	if code == 0 && len(paths) > 0 {
		if v, err = v.WithManifests([][]byte{b}, now); err != nil {
			return err
		}
	} else {
		paths = nil
	}
	for _, p := range paths {
		show, end := e.progress("verifying")
		err := v.VerifyTree(ctx, p, digsig.Request{Use: digsig.UseAny, At: now}, digsig.TreeOptions{Progress: show}, func(path string, got digsig.Verdict) {
			if c := codeOf(got); c != 0 {
				code = graver(code, c)
				if asJSON {
					report.Bad = append(report.Bad, verdictOf(path, got))
				} else {
					fmt.Fprintf(e.out, "%s: %s\n", path, line(got))
				}
			}
		})
		end()
		if err != nil {
			return err
		}
	}
	if asJSON {
		if err := e.writeJSON(report); err != nil {
			return err
		}
	}
	if code != 0 {
		return code
	}
	return nil
}

// signedBy says whether a list is signed by a key that may sign such.
func signedBy(env *digsig.Envelope, v *digsig.Verifier, now time.Time) (exitCode, string) {
	code, why := exitUnknownKey, "unknown key: it is signed by keys that are not trusted"
	sum := sha256.Sum256(env.Body)
	all := envelope.Signers(env.Signatures)
	purpose := map[digsig.Domain]digsig.Purpose{
		digsig.DomainManifest: digsig.PurposeManifest, digsig.DomainRevocations: digsig.PurposeRevocations, digsig.DomainPolicy: digsig.PurposePolicy, digsig.DomainContent: digsig.PurposeContent,
	}[env.Domain]
	for _, s := range env.Signatures {
		k := v.Trust().Key(s.Key)
		if k == nil {
			continue
		}
		_, revoked := v.Revocations().Keys[s.Key]
		switch {
		case k.Public.Alg() != s.Alg || !k.Public.Verify(envelope.Message(env.Domain, s.Alg, s.Key, all, uint64(len(env.Body)), sum), s.Sig):
			code, why = exitBroken, fmt.Sprintf("broken: the signature by key %s does not fit", k)
		case revoked:
			code, why = exitRevoked, fmt.Sprintf("revoked: key %s", k)
		case k.Purposes&purpose == 0:
			code, why = exitRefused, fmt.Sprintf("wrong purpose: key %s may sign %s", k, k.Purposes)
		case now.Before(k.NotBefore) || !k.NotAfter.IsZero() && !now.Before(k.NotAfter):
			code, why = exitExpired, fmt.Sprintf("expired or not yet valid: key %s", k)
		default:
			return 0, fmt.Sprintf("good: signed by key %s", k)
		}
	}
	return code, why
}
