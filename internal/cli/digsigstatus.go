package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"midplane/internal/digsig/enforcer"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gaps/probe"
)

func newStatus(e *env) *cobra.Command {
	var socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [FLAGS]",
		Short: "Show what is enforced, and each gap that is left on this machine with its cure",
		Long: `Shows the mode, the lists in force, what is watched, and the ways around that are open on this very kernel with how to close
each. When no enforcer runs it shows what one could do here, and the exit code is 3.`,
		Example: `  midplane digsig status`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := enforcer.Dial(socket).Status(c.Context())
			if err != nil && isNobody(err) {
				return off(e, socket, err, asJSON)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return e.writeJSON(s)
			}
			return showStatus(e.out, s)
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	return c
}

// off is the status without an enforcer.
func off(e *env, socket string, why error, asJSON bool) error {
	h, err := probe.Host()
	if err != nil {
		return err
	}
	r := gaps.Decide(h, gaps.Settings{})
	if asJSON {
		if err := e.writeJSON(map[string]any{"mode": "off", "possible": r}); err != nil {
			return err
		}
		return exitCode(3)
	}
	fmt.Fprintf(e.err, "midplane: no enforcer answers at %s: %v\n", socket, why)
	fmt.Fprintf(e.out, "mode off: nothing is enforced\npossible here: tier %s\n", r.Tier)
	for _, w := range r.Why {
		fmt.Fprintf(e.out, "  not higher: %s\n", w)
	}
	showGaps(e.out, r.Gaps)
	return exitCode(3)
}

func showGaps(w io.Writer, list []gaps.Gap) {
	fmt.Fprintf(w, "gaps: %d\n", len(list))
	for _, g := range list {
		fmt.Fprintf(w, "  %s\n    cure: %s\n", g.Text, g.Cure)
	}
}

func showStatus(w io.Writer, s *enforcer.Status) error {
	fmt.Fprintf(w, "mode %s (by %s), tier %s, since %s\n", s.Mode, s.Why, s.Tier, s.Started.UTC().Format(time.RFC3339))
	for _, why := range s.NotHigher {
		fmt.Fprintf(w, "  not higher: %s\n", why)
	}
	if k := s.Kernel; k != nil {
		fmt.Fprintf(w, "kernel: mode %s, %d grants, %d denied (%d not logged), %d verdicts not taken\n", k.Mode, k.Grants, k.Denied, k.Lost, k.Unhanded)
	}
	fmt.Fprintf(w, "lists: generation %d, policy %d, revocations %d, %d keys, %d manifests\n", s.Generation, s.Policy, s.Revocations, s.Keys, s.Manifests)
	if s.StoreError != "" {
		fmt.Fprintf(w, "store not taken: %s\n", s.StoreError)
	}
	if s.LastGood {
		fmt.Fprintf(w, "in force is a copy of the last store that was good\n")
	}
	fmt.Fprintf(w, "processes: supervisor %d, worker %d, restarts %d, the groups are also held by %s\n", s.Supervisor.PID, s.Worker, s.Supervisor.Total, s.Supervisor.Guardian)
	if n := len(s.Supervisor.Restarts); n > 0 {
		r := s.Supervisor.Restarts[n-1]
		fmt.Fprintf(w, "last restart: %s, %s, %d denied meanwhile\n", r.Time.UTC().Format(time.RFC3339), r.Why, r.Denied)
	}
	g := s.Stats
	fmt.Fprintf(w, "events %d, of them gone %d, unopened %d; log: %d written, %d lost\n", g.Events, g.Gone, g.Unopened, g.Audit.Written, g.Audit.Lost)
	fmt.Fprintf(w, "watched: %d\n", len(s.Marks))
	for _, m := range s.Marks {
		fmt.Fprintf(w, "  %s %s %s", m.Mount, m.Type, m.Place)
		if m.Namespace != "" {
			fmt.Fprintf(w, " of namespace %s", m.Namespace)
		}
		if m.Err != "" {
			fmt.Fprintf(w, ": not: %s", m.Err)
		}
		fmt.Fprintln(w)
	}
	if s.Earlier != nil && len(s.Earlier.Denied) > 0 {
		fmt.Fprintf(w, "ran before the enforcer and would be denied: %d\n", len(s.Earlier.Denied))
		for _, d := range s.Earlier.Denied {
			fmt.Fprintf(w, "  %s: %s: %s\n", d.Path, d.Reason, d.Detail)
		}
	}
	showGaps(w, s.Gaps)
	return nil
}

// enrolment is one file as enrol -j shows it.
type enrolment struct {
	Path    string `json:"path"`
	Outcome string `json:"outcome"`
	New     bool   `json:"new,omitempty"`
	Digest  string `json:"verity,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// enroller is what the system can do; see the files of its name.
type enroller func(ctx context.Context, root, store string, scan bool, workers int, report func(enrolment) error) error

func newEnrol(e *env, enrol enroller) *cobra.Command {
	var store string
	var scan, asJSON bool
	var workers int
	c := &cobra.Command{
		Use:   "enrol [FLAGS] DIR...",
		Short: "Make signed files immutable by fs-verity",
		Long: `Verifies every program, library and script below the directories and turns on fs-verity for those that are good: from then on
nobody can change their content, root neither, and checking them takes no reading. They can still be replaced, as package
managers do. Needs root and a file system with fs-verity (ext4: tune2fs -O verity; f2fs, btrfs). Exit code 15 if files are not
good, 1 if fs-verity could not be turned on for some.`,
		Example: `  midplane digsig enrol /usr
  midplane digsig enrol --scan /usr`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			counts := map[string]int{}
			list := &jsonList{w: e.out}
			for _, dir := range args {
				err := enrol(c.Context(), dir, store, scan, workers, func(r enrolment) error {
					counts[r.Outcome]++
					if asJSON {
						return list.add(r)
					}
					if r.Outcome == "enrolled" && !scan {
						return nil
					}
					_, err := fmt.Fprintf(e.out, "%s: %s %s\n", r.Path, r.Outcome, r.Digest+r.Detail)
					return err
				})
				if err != nil {
					return err
				}
			}
			if asJSON {
				if err := list.end(); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(e.err, "%d enrolled, %d plain, %d not good, %d failed\n", counts["enrolled"], counts["plain"], counts["refused"], counts["failed"])
			}
			switch {
			case counts["failed"] > 0:
				return exitCode(1)
			case counts["refused"] > 0:
				return exitRefused
			}
			return nil
		},
	}
	c.Flags().StringVar(&store, "store", "", "the store")
	c.Flags().BoolVar(&scan, "scan", false, "change nothing: say what is enrolled")
	workersFlag(c, &workers)
	jsonFlag(c, &asJSON)
	return c
}
