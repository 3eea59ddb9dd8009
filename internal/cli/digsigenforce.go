package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/enforcer"
)

// socketFlag adds the flag that the verbs of a running enforcer have.
func socketFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "socket", enforcer.DefaultSocket, "control socket of the enforcer")
}

// enforcing is what newEnforce's flags say.
type enforcing struct {
	cfg                             enforcer.Config
	foreground, check, reload, stop bool
	logLevel                        string
	json                            bool
}

func newEnforce(e *env) *cobra.Command {
	var o enforcing
	c := &cobra.Command{
		Use:   "enforce [--foreground | --check | --reload | --stop] [FLAGS]",
		Short: "Let only what is signed run",
		Long: `Without flags it has the enforcer that runs deny what is not good, until it ends or the mode is changed.

--foreground is the enforcer itself, as systemd starts it (packaging/systemd/midplane-digsig.service). It refuses to begin
when programs that run now would be denied: --check names them, and needs no enforcer; --force begins all the same.
--reload takes keys, manifests, revocations and policy as they are in the store now, in force when it returns; what would
lock out the running system is refused, with code 15, unless --force is given. --stop ends the enforcer: everything runs,
unless it was begun with --keep in tier bpf-lsm.

The tier is the highest that this kernel carries, see status. In tier bpf-lsm the kernel decides, also when the enforcer is
killed; the enforcer's own program must be enrolled for it.

midplane.digsig=off or =permissive on the kernel's command line is the way back in.`,
		Example: `  midplane digsig enforce --check
  midplane digsig enforce --foreground
  midplane digsig enforce --reload`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), e) },
	}
	f := c.Flags()
	f.BoolVar(&o.foreground, "foreground", false, "be the enforcer, until SIGTERM")
	f.BoolVar(&o.check, "check", false, "say what runs now and would be denied; change nothing")
	f.BoolVar(&o.reload, "reload", false, "take the store as it is now")
	f.BoolVar(&o.stop, "stop", false, "end the enforcer")
	f.BoolVar(&o.cfg.Force, "force", false, "begin or reload although what runs would be denied")
	f.StringVar(&o.cfg.Dir, "store", digsig.DefaultDir, "the store")
	f.StringVar(&o.cfg.StateDir, "state", digsig.DefaultStateDir, "directory that remembers the highest lists")
	f.StringVar(&o.cfg.Mode, "mode", "", "begin in this mode: enforce, permissive or learn (default the policy's)")
	f.StringVar(&o.cfg.Audit.Path, "audit", enforcer.DefaultAuditLog, "audit log")
	f.StringArrayVar(&o.cfg.Mounts, "mount", nil, "watch only the file system of this path; may be given again (default all local ones)")
	f.DurationVar(&o.cfg.Watchdog, "watchdog", enforcer.DefaultWatchdog, "how long the worker may be silent before it is replaced")
	f.BoolVar(&o.cfg.NoOpen, "no-open", false, "look at executions only: libraries are not checked")
	f.BoolVar(&o.cfg.Remote, "remote", false, "verify on file systems too that can change unseen (FUSE, NFS), instead of denying there")
	f.StringVar(&o.cfg.Tier, "tier", enforcer.TierAuto, "highest tier: auto, fanotify, verity or bpf (which then must be there)")
	f.StringArrayVar(&o.cfg.Enrolled, "enrolled", nil, "directory with enrolled files; may be given again (default /usr and /opt)")
	f.StringSliceVar(&o.cfg.Kernel, "kernel", nil, "what tier bpf-lsm forbids besides: anonymous,modules,guard,ptrace")
	f.BoolVar(&o.cfg.Keep, "keep", false, "in tier bpf-lsm the kernel goes on deciding after an orderly end")
	f.BoolVar(&o.cfg.Allowed, "log-allowed", false, "log what is allowed too")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	socketFlag(c, &o.cfg.Socket)
	jsonFlag(c, &o.json)
	return c
}

func (o *enforcing) run(ctx context.Context, e *env) error {
	chosen := 0
	for _, b := range []bool{o.foreground, o.check, o.reload, o.stop} {
		if b {
			chosen++
		}
	}
	if chosen > 1 {
		return usagef("--foreground, --check, --reload and --stop: want one of them")
	}
	client := enforcer.Dial(o.cfg.Socket)
	switch {
	case o.foreground:
		var level slog.Level
		if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
			return usagef("--log-level %q: want debug, info, warn or error", o.logLevel)
		}
		o.cfg.Logger = slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level}))
		return enforcer.Run(ctx, o.cfg)
	case o.check:
		return o.preflight(ctx, e)
	case o.reload:
		return o.again(ctx, e, client)
	case o.stop:
		return e.absent(o.cfg.Socket, client.Stop(ctx))
	}
	return e.absent(o.cfg.Socket, client.SetMode(ctx, "enforce"))
}

// absent gives the error of an enforcer that does not run the exit code of a node that does not.
func (e *env) absent(socket string, err error) error {
	if err == nil || !isNobody(err) {
		return err
	}
	fmt.Fprintf(e.err, "midplane: no enforcer answers at %s: %v\n", socket, err)
	return exitCode(3)
}

func newMode(e *env, mode, short, long string) *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:     mode,
		Short:   short,
		Long:    long,
		Example: "  midplane digsig " + mode,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.absent(socket, enforcer.Dial(socket).SetMode(c.Context(), mode))
		},
	}
	socketFlag(c, &socket)
	return c
}

func (o *enforcing) preflight(ctx context.Context, e *env) error {
	s, err := digsig.OpenStore(o.cfg.Dir)
	if err != nil {
		return err
	}
	s.StateDir = o.cfg.StateDir
	v, err := s.Load(time.Now())
	if v == nil {
		return err
	}
	config := enforcer.CheckConfig{Verifier: v, Mounts: o.cfg.Mounts}
	if f, ok := e.err.(*os.File); ok && isTerminal(f) {
		var bar *progressbar.ProgressBar
		config.Progress = func(done, total int) {
			if bar == nil {
				bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(f), progressbar.OptionSetDescription("checking"), progressbar.OptionClearOnFinish())
			}
			_ = bar.Set(done) // of the terminal, if it is gone
		}
	}
	r, err := enforcer.Check(ctx, config)
	if err != nil {
		return err
	}
	return o.report(e, r, fmt.Sprintf("%d files of %d processes", r.Files, r.Processes))
}

// report says what runs and would be denied.
func (o *enforcing) report(e *env, r *enforcer.CheckReport, what string) error {
	if o.json {
		if err := e.writeJSON(r); err != nil {
			return err
		}
	} else {
		for _, d := range r.Denied {
			if _, err := fmt.Fprintf(e.out, "%s: %s: %s: %s, pid %s\n", d.Path, d.Use, d.Reason, d.Detail, strings.Trim(fmt.Sprint(d.PIDs), "[]")); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(e.out, "%s, %d would be denied\n", what, len(r.Denied)); err != nil {
			return err
		}
	}
	if len(r.Denied) > 0 {
		return exitRefused
	}
	return nil
}

func (o *enforcing) again(ctx context.Context, e *env, client *enforcer.Client) error {
	r, err := client.Reload(ctx, o.cfg.Force)
	var refused *enforcer.RefusedError
	if errors.As(err, &refused) && refused.Check != nil {
		fmt.Fprintf(e.err, "midplane: not reloaded: %v; --force does it all the same\n", refused)
		return errors.Join(o.report(e, refused.Check, "of what runs"), exitRefused)
	}
	if err != nil {
		return e.absent(o.cfg.Socket, err)
	}
	if o.json {
		return e.writeJSON(r)
	}
	if r.Kept != "" {
		fmt.Fprintf(e.err, "midplane: %s\n", r.Kept)
	}
	_, err = fmt.Fprintf(e.out, "generation %d\n", r.Generation)
	return err
}

func newAudit(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Read and verify the log of what was denied",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAuditTail(e), newAuditVerify(e))
	return c
}

func logFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "log", enforcer.DefaultAuditLog, "the log")
}

func newAuditTail(e *env) *cobra.Command {
	var path string
	var n int
	var follow, asJSON bool
	c := &cobra.Command{
		Use:     "tail [FLAGS]",
		Short:   "Show the last records of the log, and those that come",
		Example: `  midplane digsig audit tail -f`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if n < 0 {
				return usagef("-n %d: want 0 or more", n)
			}
			var failed error
			err := audit.Tail(c.Context(), path, n, follow, func(r audit.Record) bool {
				if asJSON {
					failed = e.writeJSON(r)
				} else {
					_, failed = fmt.Fprintln(e.out, recordLine(r))
				}
				return failed == nil
			})
			if c.Context().Err() != nil {
				err = nil // that is how following ends
			}
			return errors.Join(failed, err)
		},
	}
	logFlag(c, &path)
	c.Flags().IntVarP(&n, "lines", "n", 10, "how many records")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come, until interrupted")
	jsonFlag(c, &asJSON)
	return c
}

// recordLine is a record for people.
func recordLine(r audit.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Time.UTC().Format(time.RFC3339Nano), r.Type)
	add := func(name, v string) {
		if v != "" {
			fmt.Fprintf(&b, " %s=%s", name, quoted(v))
		}
	}
	add("verdict", r.Verdict)
	add("reason", r.Reason)
	add("use", r.Use)
	add("path", r.Path)
	add("name", r.Name)
	if r.PID != 0 {
		fmt.Fprintf(&b, " pid=%d", r.PID)
	}
	add("exe", r.Exe)
	add("cgroup", r.Cgroup)
	add("mode", r.Mode)
	if r.Count != 0 {
		fmt.Fprintf(&b, " count=%d", r.Count)
	}
	add("detail", r.Detail)
	return b.String()
}

// quoted keeps names with blanks, or that play with terminals, in one piece.
func quoted(s string) string {
	q := fmt.Sprintf("%q", s)
	if !strings.ContainsAny(s, " =") && q == `"`+s+`"` {
		return s
	}
	return q
}

func newAuditVerify(e *env) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify [FLAGS]",
		Short: "Say whether the log is whole: nothing changed, taken out or cut off",
		Long: `Reads the log with its older files and says whether each record follows from the one before, up to the end that is kept beside
the log. Exit code 11 if the chain is broken.`,
		Example: `  midplane digsig audit verify`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := audit.Verify(path, nil)
			if code := e.brokenLog(err); code != 0 {
				return code
			}
			if err != nil {
				return err
			}
			if asJSON {
				return e.writeJSON(r)
			}
			_, err = fmt.Fprintf(e.out, "%d records in %d files, from number %d on: whole\n", r.Records, len(r.Files), r.First)
			return err
		},
	}
	logFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}
