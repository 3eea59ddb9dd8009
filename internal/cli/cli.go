// Package cli is the command line of midplane, one file a verb. Answers go to standard output, everything else to
// standard error; exit codes are those of package grammar for all verbs. docs/cli.md is its manual.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"midplane/internal/api"
	"midplane/internal/cli/grammar"
)

// env is what the verbs have of the world outside.
type env struct {
	in       io.Reader
	out, err io.Writer
	program  string // how this program can be called from elsewhere
}

// usageError is a mistake in the command line; it ends with exit code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode ends a command that has said all itself.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Main runs the command line args, the first of which is how the program was called, and returns the exit code. SIGINT
// and SIGTERM end the context of the verbs, which then stop in order; a second one kills.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return Run(ctx, args, in, out, errOut)
}

// Run is Main without signals.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	e := &env{in, out, errOut, programPath(args[0])}
	root := newRoot(e)
	if name := strings.TrimSuffix(filepath.Base(args[0]), ".exe"); name == "tipc" {
		// Called through a link of that name: a drop-in for iproute2's tool, which has no command help or completion.
		root = newTipc(e)
		root.SetHelpCommand(&cobra.Command{Hidden: true})
		root.CompletionOptions.DisableDefaultCmd = true
	}
	common(root)
	root.SetArgs(args[1:])
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return e.code(root.ExecuteContext(ctx))
}

// programPath makes a name that works in another directory too, of the one that the program was called by.
func programPath(arg0 string) string {
	if abs, err := filepath.Abs(arg0); err == nil && strings.ContainsRune(arg0, filepath.Separator) {
		return abs
	}
	return arg0 // it was found on the PATH
}

// code reports an error and says how the program exits.
func (e *env) code(err error) int {
	var code exitCode
	if err == nil {
		return grammar.ExitOK
	}
	if errors.As(err, &code) {
		return int(code)
	}
	// Which package found it is no news to a user.
	fmt.Fprintf(e.err, "midplane: %s\n", packagePrefix.ReplaceAllString(err.Error(), ""))
	var usage usageError
	var absent *api.NoDaemonError
	switch {
	case errors.As(err, &usage):
		return grammar.ExitUsage
	case errors.As(err, &absent):
		return grammar.ExitNoNode
	}
	return grammar.ExitFailed
}

var packagePrefix = regexp.MustCompile(`\b(?:tipc/[a-z]+|tipc): `)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "midplane",
		Short: "Cluster communication and more for any Linux, without a kernel module",
		Long: `Midplane gives any Linux the server features that mission-critical clusters need.

Try it without root and without configuration:  midplane dev`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(newNode(e), newTipc(e), newFIB(e), newAEM(e), newDigsig(e), newDev(e), newMan(e), newVersion(e))
	return root
}

// common is what all commands below root do alike with mistakes.
func common(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see: %s --help", err, c.CommandPath())
	})
	checkArgs(root)
}

// checkArgs makes complaints about the number of arguments usage errors.
func checkArgs(c *cobra.Command) {
	if f := c.Args; f != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := f(c, args); err != nil {
				return usagef("%w; see: %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, s := range c.Commands() {
		checkArgs(s)
	}
}
