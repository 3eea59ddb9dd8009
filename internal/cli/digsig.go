package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/enforcer"
)

// Exit codes of verify and explain besides those of all verbs.
const (
	exitUnsigned   exitCode = 10
	exitBroken     exitCode = 11
	exitUnknownKey exitCode = 12
	exitRevoked    exitCode = 13
	exitExpired    exitCode = 14
	exitRefused    exitCode = 15
)

// newDigsig is the parent of DigSig's verbs.
func newDigsig(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "digsig",
		Short: "Sign programs, verify them, and let only signed ones run",
		Long: `Signs programs, libraries and scripts, verifies them, and has the kernel run only what is signed.

keygen, sign, verify, manifest, revoke and explain need neither root nor a running enforcer.`,
		Example: `  midplane digsig keygen release
  midplane digsig sign --key file:release.key ./program
  midplane digsig verify --pub release.pub ./program`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeygen(e), newSign(e), newVerify(e), newManifest(e), newRevoke(e), newPolicy(e), newExplain(e), newDpkg(e),
		newEnrol(e, enrolTree), newStatus(e), newEnforce(e), newAudit(e),
		newMode(e, "permissive", "Let everything run, and log what would be denied", "Has the enforcer that runs allow everything and log what it would deny, until it ends or the mode is changed."),
		newLearn(e))
	return c
}

// jsonFlag adds -j.
func jsonFlag(c *cobra.Command, on *bool) {
	c.Flags().BoolVarP(on, "json", "j", false, "answer in JSON")
}

// workerCount is how many files are worked on at the same time.
type workerCount int

// String, Set and Type are those of a flag.
func (n *workerCount) String() string { return strconv.Itoa(int(*n)) }

func (n *workerCount) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 || v > 1024 {
		return errors.New("want 0 (as many as there are processors) to 1024")
	}
	*n = workerCount(v)
	return nil
}

func (n *workerCount) Type() string { return "int" }

// workersFlag adds --workers.
func workersFlag(c *cobra.Command, n *int) {
	c.Flags().Var((*workerCount)(n), "workers", "files at the same time (default: as many as there are processors)")
}

// jsonList writes an array element by element.
type jsonList struct {
	w     io.Writer
	begun bool
}

func (l *jsonList) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if !l.begun {
		sep, l.begun = "[", true
	}
	_, err = fmt.Fprintf(l.w, "%s%s", sep, b)
	return err
}

func (l *jsonList) end() error {
	s := "]\n"
	if !l.begun {
		s = "[]\n"
	}
	_, err := io.WriteString(l.w, s)
	return err
}

// writeJSON writes one value on a line.
func (e *env) writeJSON(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// progress makes a bar of octets on a terminal; without one the result does nothing.
func (e *env) progress(what string) (show func(digsig.Progress), end func()) {
	f, ok := e.err.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, func() {}
	}
	var bar *progressbar.ProgressBar
	return func(p digsig.Progress) {
			if bar == nil {
				bar = progressbar.NewOptions64(p.TotalBytes, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
					progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
			}
			_ = bar.Set64(p.Bytes) // of the terminal, if it is gone
		}, func() {
			if bar != nil {
				_ = bar.Finish()
			}
		}
}

// parseTime reads a time as people write it: RFC 3339, a date, or from now on: 90d, 36h, 2y.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	n, unit := 0, ""
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err == nil && n > 0 && n < 1<<20 {
		switch unit {
		case "h":
			return now.Add(time.Duration(n) * time.Hour), nil
		case "d":
			return now.AddDate(0, 0, n), nil
		case "y":
			return now.AddDate(n, 0, 0), nil
		}
	}
	return time.Time{}, usagef("--%s %q: want a time (2027-01-31T12:00:00Z), a date (2027-01-31), or a while from now (90d, 12h, 2y)", flag, s)
}

// trusting are the flags that say by whose signatures to judge.
type trusting struct {
	store       string
	pubs        []string
	manifests   []string
	revocations string
}

func (t *trusting) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.store, "store", "", "directory with trusted keys, manifests, revocations and policy (default "+digsig.DefaultDir+")")
	f.StringArrayVar(&t.pubs, "pub", nil, "trust this public key file and no store; may be given again")
	f.StringArrayVar(&t.manifests, "manifest", nil, "use this manifest too; may be given again")
	f.StringVar(&t.revocations, "revocations", "", "use this revocation list in place of the store's")
}

// verifier makes the judge. What a file with --pub or --revocations says wins over the store.
func (t *trusting) verifier(now time.Time) (*digsig.Verifier, error) {
	if t.store != "" && len(t.pubs) > 0 {
		return nil, usagef("--store and --pub: want one of them")
	}
	var revocations []byte
	var err error
	if t.revocations != "" {
		if revocations, err = os.ReadFile(t.revocations); err != nil {
			return nil, err
		}
	}
	var more [][]byte
	for _, name := range t.manifests {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		more = append(more, b)
	}
	if len(t.pubs) > 0 {
		trust, err := readPubs(t.pubs)
		if err != nil {
			return nil, err
		}
		return digsig.NewVerifier(digsig.Config{Trust: trust, Manifests: more, Revocations: revocations, Now: now})
	}
	store, err := digsig.OpenStore(t.store)
	if err != nil {
		return nil, fmt.Errorf("%w; --pub FILE names a key to trust without a store", err)
	}
	v, err := store.Load(now)
	if err != nil && v == nil {
		return nil, err
	}
	if revocations != nil {
		if v, err = v.WithRevocations(revocations, now); err != nil {
			return nil, err
		}
	}
	if len(more) > 0 {
		have, err := store.Manifests()
		if err != nil {
			return nil, err
		}
		return v.WithManifests(append(have, more...), now)
	}
	return v, nil
}

// asking is what a running enforcer says of files that it does not let this process open.
type asking struct {
	socket string
	none   bool // other keys are asked about than the enforcer's
}

// ask returns a verdict again, or the enforcer's if it denies opening the file: on the machine that it watches what is not good
// cannot be read, and nobody else can say why.
func (a *asking) ask(ctx context.Context, path string, got digsig.Verdict) digsig.Verdict {
	if got.Reason != digsig.Unreadable || a.none {
		return got
	}
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	if !errors.Is(err, syscall.EPERM) { // file modes say EACCES
		return got
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return got
	}
	said, err := enforcer.Dial(a.socket).Explain(ctx, path)
	if err != nil || said == nil {
		got.Detail += "; an enforcer may deny opening it, because it is not good"
		return got
	}
	use := digsig.UseExec
	if got.Use != digsig.UseAny {
		use = got.Use
	}
	o, ok := said.Verdicts[use.String()]
	for r := digsig.Unsigned; ok && r < digsig.Unreadable; r++ {
		if r.String() == o.Reason {
			got.Reason, got.Detail, got.Name, got.Version = r, o.Detail+" (says the enforcer, which lets nobody open it)", o.Name, o.Version
		}
	}
	return got
}

// readPubs reads key files.
func readPubs(names []string) (*digsig.TrustStore, error) {
	var keys []*digsig.Key
	for _, name := range names {
		k, err := readPub(name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return digsig.NewTrustStore(keys...)
}

func readPub(name string) (*digsig.Key, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	k := new(digsig.Key)
	if err := k.UnmarshalText(b); err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, err)
	}
	return k, nil
}

// codeOf is the exit code for a reason; permissive modes do not change what a file is.
func codeOf(v digsig.Verdict) exitCode {
	reason := v.Reason
	if reason == digsig.Permitted || reason == digsig.Learning {
		reason = v.Cause
	}
	switch reason {
	case digsig.Signed, digsig.Exempt, digsig.Unrestricted:
		return 0
	case digsig.Unsigned:
		return exitUnsigned
	case digsig.Broken, digsig.Malformed:
		return exitBroken
	case digsig.UnknownKey:
		return exitUnknownKey
	case digsig.Revoked, digsig.Rollback:
		return exitRevoked
	case digsig.Expired, digsig.NotYetValid:
		return exitExpired
	case digsig.NotRegular, digsig.Unreadable:
		return 1
	}
	return exitRefused
}

// severity orders the codes of several files: the one of the whole is that of the gravest.
var severity = []exitCode{0, exitRefused, exitUnsigned, exitExpired, exitUnknownKey, 1, exitRevoked, exitBroken}

func graver(a, b exitCode) exitCode {
	for i := len(severity) - 1; i >= 0; i-- {
		if severity[i] == a || severity[i] == b {
			return severity[i]
		}
	}
	return a
}

// verdictJSON is a verdict as -j shows it.
type verdictJSON struct {
	Path    string   `json:"path"`
	Use     string   `json:"use"`
	Good    bool     `json:"good"`
	Allow   bool     `json:"allow"`
	Reason  string   `json:"reason"`
	Cause   string   `json:"cause,omitempty"`
	Detail  string   `json:"detail"`
	Code    int      `json:"code"`
	SHA256  string   `json:"sha256,omitempty"`
	Signed  string   `json:"signed,omitempty"` // digest that the signature is of, when it is another
	Key     string   `json:"key,omitempty"`
	Name    string   `json:"name,omitempty"`
	Version uint64   `json:"version,omitempty"`
	Roles   []string `json:"roles,omitempty"`
	Carrier string   `json:"carrier,omitempty"`
}

func verdictOf(path string, v digsig.Verdict) verdictJSON {
	code := codeOf(v)
	j := verdictJSON{Path: path, Use: v.Use.String(), Good: code == 0, Allow: v.Allow, Reason: v.Reason.String(), Detail: v.Detail, Code: int(code), Name: v.Name, Version: v.Version}
	if v.Cause != 0 {
		j.Cause = v.Cause.String()
	}
	if v.File != ([32]byte{}) {
		j.SHA256 = fmt.Sprintf("%x", v.File)
	}
	if v.Digest != v.File && v.Digest != ([32]byte{}) {
		j.Signed = fmt.Sprintf("%x", v.Digest)
	}
	if v.Key != (digsig.KeyID{}) {
		j.Key = v.Key.String()
	}
	if v.Roles != 0 {
		j.Roles = strings.Split(v.Roles.String(), ",")
	}
	if v.Carrier != digsig.NoCarrier {
		j.Carrier = v.Carrier.String()
	}
	return j
}

// partly is the error of work that was done but for some files, which were named.
func partly(failed, of int) error {
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d failed", failed, of)
}

var errNoSigner = errors.New("no key to sign with: --key file:PATH, plain:PATH, agent:KEY or pkcs11:…")
