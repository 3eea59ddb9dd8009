// Package mountinfo reads /proc/PID/mountinfo: what is mounted where in a mount namespace (proc_pid_mountinfo(5);
// fs/proc_namespace.c, show_mountinfo).
package mountinfo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line.
type Mount struct {
	ID      int
	Dev     string // major:minor of the super block
	Root    string
	Point   string
	Options string // of the mount
	Type    string
	Source  string
	Super   string // options of the super block
}

// Parse reads a whole file. A line that cannot be read is an error, for who must not overlook a mount; ParseLine is for others.
func Parse(text string) ([]Mount, error) {
	var all []Mount
	for line := range strings.Lines(text) {
		m, err := ParseLine(line)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// ParseLine reads a line, with or without its end.
func ParseLine(line string) (Mount, error) {
	line = strings.TrimSuffix(line, "\n")
	before, after, ok := strings.Cut(line, " - ")
	head, tail := strings.Split(before, " "), strings.Split(after, " ")
	if !ok || len(head) < 6 || len(tail) < 3 {
		return Mount{}, fmt.Errorf("mountinfo: line %q", line)
	}
	id, err := strconv.Atoi(head[0])
	if err != nil {
		return Mount{}, fmt.Errorf("mountinfo: line %q: %w", line, err)
	}
	return Mount{ID: id, Dev: head[2], Root: Unescape(head[3]), Point: Unescape(head[4]), Options: head[5],
		Type: tail[0], Source: Unescape(tail[1]), Super: tail[2]}, nil
}

// Has says whether the mount has an option, such as noexec.
func (m *Mount) Has(option string) bool {
	return slices.Contains(strings.Split(m.Options, ","), option)
}

// Unescape takes back what the kernel did to blanks and backslashes (fs/proc_namespace.c, mangle).
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Layers returns the directories that an overlay is made of, as its mount options name them: they are paths of where it
// was mounted.
func (m *Mount) Layers() (dirs []string) {
	if m.Type != "overlay" {
		return nil
	}
	for o := range strings.SplitSeq(m.Super, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "lowerdir":
			for d := range strings.SplitSeq(value, ":") {
				if d != "" {
					dirs = append(dirs, Unescape(d))
				}
			}
		case "lowerdir+", "datadir+", "upperdir":
			dirs = append(dirs, Unescape(value))
		}
	}
	return dirs
}
