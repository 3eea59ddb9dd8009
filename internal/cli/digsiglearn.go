package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/audit/learnt"
	"midplane/internal/digsig/manifest"
	"midplane/internal/digsig/text"
)

func newLearn(e *env) *cobra.Command {
	c := newMode(e, "learn", "Let everything run, and collect what would be denied", `As permissive; the audit log then has all that ran and is not signed. Do everything then that the machine is to do, and

  midplane digsig learn review > learnt.txt

writes it as a list. Read it, delete what is not to run, and sign it, on this machine or another:

  midplane digsig manifest make --from-list learnt.txt --key file:release.key --out learnt.mdm

The manifest goes into the store; then midplane digsig enforce --reload, and midplane digsig enforce.
midplane digsig enforce --foreground --mode learn is an enforcer that begins so.`)
	c.AddCommand(newLearnReview(e))
	return c
}

// reviewing is what newLearnReview's flags say.
type reviewing struct {
	trusting
	log                string
	exclude, excludeBy []string
	permissive         bool
	json               bool
}

func newLearnReview(e *env) *cobra.Command {
	var o reviewing
	c := &cobra.Command{
		Use:   "review [FLAGS]",
		Short: "List what ran unsigned while the mode was learn, to be read and signed",
		Long: `Reads the audit log and writes a list of all files that would have been denied while the mode was learn, each with its digest and
what it was used for, and in comments by whom, where and when. A file is on it only if its content is still the one that
ran. What was altered after it was signed, revoked, or is expired is left out; so is what is gone. The list is for
midplane digsig manifest make --from-list.

Exit code 15 if something that ran was left out, which comments in the list name; 11 if the log is not whole: then there is no
list, since somebody may have put something into it.`,
		Example: `  midplane digsig learn review --exclude '/home/*' > learnt.txt
  midplane digsig learn review -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), e) },
	}
	f := c.Flags()
	logFlag(c, &o.log)
	f.StringArrayVar(&o.exclude, "exclude", nil, "leave out files whose path fits this pattern (* is anything, / too); may be given again")
	f.StringArrayVar(&o.excludeBy, "exclude-by", nil, "leave out files that only programs used whose path fits this pattern, as /usr/bin/rsync; may be given again")
	f.BoolVar(&o.permissive, "permissive", false, "take what ran in mode permissive too")
	o.flags(c)
	jsonFlag(c, &o.json)
	return c
}

// learntFile is a file of the list, as -j shows it.
type learntFile struct {
	SHA256 string    `json:"sha256"`
	Size   uint64    `json:"size"`
	Kind   string    `json:"kind"`
	Roles  []string  `json:"roles"`
	Name   string    `json:"name"`
	Seen   []sighted `json:"seen"`
}

// sighted is what the log says of one path.
type sighted struct {
	Path    string    `json:"path"`
	Uses    []string  `json:"uses"`
	Reasons []string  `json:"reasons"`
	By      []string  `json:"by"`
	Users   []int     `json:"users"`
	Cgroups []string  `json:"cgroups"`
	Count   int       `json:"count"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// leftOut is a file that is not on the list.
type leftOut struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Why    string `json:"why"`
}

// reviewed is the list, as -j shows it.
type reviewed struct {
	Log      string       `json:"log"`
	First    uint64       `json:"first"`
	Last     uint64       `json:"last"`
	Head     string       `json:"head"`
	Lost     uint64       `json:"lost"`
	Files    []learntFile `json:"files"`
	LeftOut  []leftOut    `json:"left_out"`
	Excluded int          `json:"excluded"`
	Signed   int          `json:"signed"`

	other, nameless int
	entries         []digsig.ManifestEntry
}

func (o *reviewing) run(ctx context.Context, e *env) error {
	v, err := o.verifier(time.Now())
	if err != nil {
		return err
	}
	c := learnt.Collector{Permissive: o.permissive}
	r, err := audit.Read(o.log, nil, c.Add)
	if code := e.brokenLog(err); code != 0 {
		return code
	}
	if err != nil {
		return err
	}
	out := reviewed{Log: o.log, First: r.First, Last: r.Head.Seq, Head: r.Head.Hash.String(), Lost: c.Lost, Files: []learntFile{}, LeftOut: []leftOut{}, other: c.Other, nameless: c.Nameless}
	if err := o.review(ctx, e, v, c.Files(), &out); err != nil {
		return err
	}
	if o.json {
		err = e.writeJSON(out)
	} else {
		err = out.write(e.out)
	}
	if err != nil {
		return err
	}
	out.tell(e.err, c.Full)
	if len(out.LeftOut) > 0 || c.Full > 0 {
		return exitRefused
	}
	return nil
}

// brokenLog tells of a log that is not whole, and gives the exit code for it.
func (e *env) brokenLog(err error) exitCode {
	var broken *audit.FileError
	if !errors.As(err, &broken) || errors.Is(err, os.ErrPermission) {
		return 0
	}
	// Without its head a log may have been cut off.
	if errors.Is(err, os.ErrNotExist) && !strings.HasSuffix(broken.Name, ".head") {
		return 0
	}
	fmt.Fprintf(e.err, "midplane: %v\n", err)
	return exitBroken
}

func fits(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return text.Match(p, s) })
}

// review looks at each file that was seen. Files of one path follow each other, the youngest content first.
func (o *reviewing) review(ctx context.Context, e *env, v *digsig.Verifier, files []*learnt.File, out *reviewed) error {
	by := o.excludeBy
	if own, err := os.Executable(); err == nil {
		by = append(slices.Clone(by), own) // what this verb opens itself is in the log too
	}
	var l digsig.Learner
	seen := map[[32]byte][]sighted{}
	show, end := e.progress("reading")
	defer end()
	for i := 0; i < len(files); {
		path, n := files[i].Path, 1
		for i+n < len(files) && files[i+n].Path == path {
			n++
		}
		contents := slices.DeleteFunc(slices.Clone(files[i:i+n]), func(f *learnt.File) bool {
			return !slices.ContainsFunc(f.By, func(exe string) bool { return !fits(by, exe) })
		})
		i += n
		if show != nil {
			show(digsig.Progress{Bytes: int64(i), TotalBytes: int64(len(files))})
		}
		if fits(o.exclude, path) || len(contents) == 0 {
			out.Excluded++
			continue
		}
		got := v.VerifyFile(ctx, path, digsig.Request{Use: digsig.UseAny, At: time.Now(), Path: path})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := hex.EncodeToString(got.Digest[:])
		j := slices.IndexFunc(contents, func(f *learnt.File) bool { return f.Digest == now })
		if j < 0 {
			out.LeftOut = append(out.LeftOut, leftOut{path, contents[0].Digest, changed(path, got, now)})
			continue
		}
		f := contents[j]
		taken, err := learn(&l, v, got, f)
		switch {
		case err != nil:
			out.LeftOut = append(out.LeftOut, leftOut{path, f.Digest, err.Error()})
		case taken:
			seen[got.File] = append(seen[got.File], sighted{path, f.Uses, f.Reasons, f.By, f.UIDs, f.Cgroups, f.Count, f.First, f.Last})
		default:
			out.Signed++
		}
	}
	out.entries, _ = l.Proposal()
	slices.SortFunc(out.entries, func(a, b digsig.ManifestEntry) int { return strings.Compare(a.Name, b.Name) })
	for _, en := range out.entries {
		out.Files = append(out.Files, learntFile{hex.EncodeToString(en.Digest[:]), en.Size, en.Kind.String(), strings.Split(en.Roles.String(), ","), en.Name, seen[en.Digest]})
	}
	return nil
}

// changed says why a path has no content that was seen.
func changed(path string, got digsig.Verdict, now string) string {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "it is gone"
	}
	if got.Digest == ([32]byte{}) {
		return fmt.Sprintf("%s: %s", got.Reason, got.Detail)
	}
	return "it is another file now, with digest " + now
}

// learn takes a file for all that it was used for. It is not taken, without an error, if it may be used so by now.
func learn(l *digsig.Learner, v *digsig.Verifier, got digsig.Verdict, f *learnt.File) (taken bool, err error) {
	for _, s := range f.Uses {
		if s == digsig.UseLib.String() && slices.ContainsFunc(f.Uses, func(s string) bool { return s == digsig.UseExec.String() || s == digsig.UseInterp.String() }) {
			continue // the kernel opens what it executes, and the role for that is enough
		}
		use, err := digsig.ParseUse(s)
		if err != nil {
			return false, fmt.Errorf("the log says it was used for %q, which this version does not know", s)
		}
		q := v.RecheckRequest(got, digsig.Request{Use: use, At: time.Now(), Path: f.Path})
		if codeOf(q) == 0 {
			continue
		}
		// Named as other manifests name files: then verify can tell that one was changed.
		if !l.Add(q, strings.TrimPrefix(f.Path, "/")) {
			return false, errors.New(line(q))
		}
		taken = true
	}
	return taken, nil
}

// write writes the list for people.
func (r *reviewed) write(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, manifest.ListHead)
	comment(&b, fmt.Sprintf("learnt from %s, records %d to %d, the last with hash %s", quoted(r.Log), r.First, r.Last, r.Head))
	for i := range r.entries {
		b.WriteByte('\n')
		for _, s := range r.Files[i].Seen {
			comment(&b, fmt.Sprintf("%s: %s, %s by %s, user %s, cgroup %s, %d events from %s to %s", quoted(s.Path), strings.Join(s.Reasons, ", "), strings.Join(s.Uses, ", "),
				words(s.By), strings.Trim(fmt.Sprint(s.Users), "[]"), words(s.Cgroups), s.Count, s.First.UTC().Format(time.RFC3339), s.Last.UTC().Format(time.RFC3339)))
		}
		b.Write(r.entries[i].AppendLine(nil))
	}
	if len(r.LeftOut) > 0 {
		b.WriteByte('\n')
	}
	for _, l := range r.LeftOut {
		comment(&b, fmt.Sprintf("left out: %s, which had digest %s: %s", quoted(l.Path), l.SHA256, l.Why))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func words(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(s))
	}
	return b.String()
}

// comment writes a line that readers of lists pass over, short enough for them.
func comment(b *bytes.Buffer, s string) {
	if most := text.MaxLine - len("# …"); len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most] + "…"
	}
	fmt.Fprintf(b, "# %s\n", strings.ReplaceAll(s, "\n", " "))
}

// tell says what the list does not.
func (r *reviewed) tell(w io.Writer, full int) {
	fmt.Fprintf(w, "%d files learnt, %d left out, %d excluded, %d signed by now\n", len(r.Files), len(r.LeftOut), r.Excluded, r.Signed)
	if r.First > 1 {
		fmt.Fprintf(w, "the log begins with record %d: what ran before is not in it any more\n", r.First)
	}
	if r.Lost > 0 {
		fmt.Fprintf(w, "%d records were lost, as they came faster than they could be written\n", r.Lost)
	}
	if r.nameless > 0 {
		fmt.Fprintf(w, "%d records are of what has no file or could not be read\n", r.nameless)
	}
	if r.other > 0 {
		fmt.Fprintf(w, "%d records are of other modes; --permissive takes those of mode permissive\n", r.other)
	}
	if full > 0 {
		fmt.Fprintf(w, "%d records are of more files than %d and were not taken\n", full, learnt.MaxFiles)
	}
}
