package tipctool

import "midplane/internal/cli/grammar"

type command = grammar.Command[*call]

const optionsText = `
options, anywhere on the line:
  -h, --help      explain the last command on the line
  -j, --json      answer in JSON
  -p, --pretty    indent the JSON
  --control PATH  control socket of the node to ask
`

// Manual lists every command with its arguments, a line each, indented by two spaces.
func Manual() string { return root.Manual() }

// Complete returns what may follow the words of a command, each with a tab and its description behind; nothing when it is
// an argument.
func Complete(words []string) []string { return root.Complete(words) }
