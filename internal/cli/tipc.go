package cli

import (
	"github.com/spf13/cobra"

	"midplane/internal/api"
	"midplane/internal/cli/tipctool"
	"midplane/tipc"
)

// newTipc is iproute2's tool, which parses its arguments itself, and two verbs that iproute2 lacks.
func newTipc(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "tipc [-h] [-j] [-p] [--control PATH] COMMAND ...",
		Short: "Show and change a TIPC node, with the grammar of iproute2's tipc tool",
		Long: `Shows and changes a node with the grammar of iproute2's tipc tool. Each word may be abbreviated to any unique beginning;
"midplane tipc -h WORD..." explains a command.

` + tipctool.Manual() + `

-j answers in JSON, -p indents it. --control PATH names the control socket of the node to ask.`,
		DisableFlagParsing: true,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return tipctool.Complete(args), cobra.ShellCompDirectiveNoFileComp
		},
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			t := &tipctool.Tool{
				Name: c.CommandPath(), Control: tipc.DefaultControl(), Stdout: e.out, Stderr: e.err,
				Connect: func(path string) api.Control { return api.NewClient(path) },
			}
			if code := t.Run(c.Context(), args); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	c.AddCommand(newPipe(e), newSubscribe(e))
	return c
}

// control adds the flag that all client verbs have.
func control(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "control", tipc.DefaultControl(), "control socket of the node to use")
}

// open attaches to the node.
func open(path string) (*tipc.Node, error) {
	n, err := tipc.Open(&tipc.OpenConfig{Control: path})
	if err != nil {
		return nil, api.NoDaemon(path, err)
	}
	return n, nil
}
