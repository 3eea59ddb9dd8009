package fibtool

import "strings"

// Manual lists every command with its arguments, a line each, indented by two spaces.
func Manual() string {
	var b strings.Builder
	var walk func(words string, cmd *command)
	walk = func(words string, cmd *command) {
		if len(cmd.sub) == 0 {
			b.WriteString(strings.TrimRight("  "+words+" "+cmd.args, " ") + "\n")
		}
		for _, s := range cmd.sub {
			walk(strings.TrimSpace(words+" "+s.name), s)
		}
	}
	walk("", root)
	return strings.TrimSuffix(b.String(), "\n")
}

// Complete returns what may follow the words of a command, each with a tab and its description behind; nothing when it is
// an argument.
func Complete(words []string) (next []string) {
	cmd := root
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			continue
		}
		if cmd = find(cmd.sub, w); cmd == nil {
			return nil
		}
	}
	for _, s := range cmd.sub {
		next = append(next, s.name+"\t"+s.short)
	}
	return next
}
