package cli

import (
	"github.com/spf13/cobra"

	"midplane/internal/api/fibapi"
	"midplane/internal/cli/fibtool"
	"midplane/internal/fib/setfib"
	"midplane/tipc"
)

// newFIB is the fib tool, which parses its arguments itself.
func newFIB(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "fib [OPTIONS] COMMAND ...",
		Short: "Show and change FIBs and their routes, with the grammar of iproute2's ip",
		Long: `Shows and changes the FIBs of a node with the grammar of iproute2's ip. Each word may be abbreviated to any unique beginning;
"midplane fib -h WORD..." explains a command.

` + fibtool.Manual() + `

-j answers in JSON with the members that ip has, -p indents it, -4 and -6 choose a family, -d says more, -b FILE runs the
commands of a file. --control PATH names the control socket of the node to ask.`,
		DisableFlagParsing: true,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return fibtool.Complete(args), cobra.ShellCompDirectiveNoFileComp
		},
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 && args[0] == superviseVerb {
				return setfib.Supervise(args[1])
			}
			t := &fibtool.Tool{
				Name: c.CommandPath(), Control: tipc.DefaultControl(), Stdin: e.in, Stdout: e.out, Stderr: e.err, Enter: entering{},
				Connect: func(path string) fibapi.Control { return fibapi.NewClient(path) },
			}
			if code := t.Run(c.Context(), args); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}
