package fibtool

// Manual lists every command with its arguments, a line each, indented by two spaces.
func Manual() string { return root.Manual() }

// Complete returns what may follow the words of a command, each with a tab and its description behind; nothing when it is
// an argument.
func Complete(words []string) []string { return root.Complete(words) }
