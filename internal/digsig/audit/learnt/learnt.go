// Package learnt gathers from records of the audit log what would have been denied, file by file. It is a core: records in,
// files out. What is in a log is what was seen then; whether a file is still the same is for who asks to find out.
package learnt

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"midplane/internal/digsig/audit/chain"
)

// Bounds of a Collector: files, and of each file how many of those who used it are named.
const (
	MaxFiles = 1 << 18
	maxUsers = 16
)

// Collector gathers. The zero value takes what was seen in mode learn. It is not safe for concurrent use.
type Collector struct {
	Permissive bool // take what was seen in mode permissive too

	// Counters of what was not taken.
	Other    int    // seen in modes that are not taken
	Nameless int    // would-be denials without a path or a digest: memory, files that could not be read
	Full     int    // more than MaxFiles
	Lost     uint64 // records that the log itself lost

	files map[key]*File
}

type key struct{ path, digest string }

// File is one content at one path.
type File struct {
	Path, Digest string   // as in the records
	Uses         []string // exec, interp, lib, script, check, open; sorted
	Reasons      []string // sorted
	By           []string // programs that used it; sorted, at most 16
	Cgroups      []string // theirs; sorted, at most 16
	UIDs         []int    // theirs; sorted, at most 16
	Count        int
	First, Last  time.Time
}

// Add takes a record into account.
func (c *Collector) Add(r *chain.Record) {
	if r.Type == "lost" {
		c.Lost += r.Count
	}
	if r.Type != "verdict" || r.Verdict != "would-deny" {
		return
	}
	switch {
	case r.Mode != "learn" && !(c.Permissive && r.Mode == "permissive"):
		c.Other++
		return
	case r.Digest == "" || !strings.HasPrefix(r.Path, "/"):
		c.Nameless++
		return
	}
	k := key{r.Path, r.Digest}
	f := c.files[k]
	if f == nil {
		if len(c.files) == MaxFiles {
			c.Full++
			return
		}
		if c.files == nil {
			c.files = map[key]*File{}
		}
		f = &File{Path: r.Path, Digest: r.Digest, First: r.Time}
		c.files[k] = f
	}
	f.Count++
	f.Last = r.Time
	for use := range strings.SplitSeq(r.Use, "|") {
		f.Uses = insert(f.Uses, use, maxUsers)
	}
	f.Reasons = insert(f.Reasons, r.Reason, maxUsers)
	f.By = insert(f.By, r.Exe, maxUsers)
	f.Cgroups = insert(f.Cgroups, r.Cgroup, maxUsers)
	if r.UID != nil {
		f.UIDs = insert(f.UIDs, *r.UID, maxUsers)
	}
}

// Files returns what was gathered, in the order of paths, the youngest content of a path first.
func (c *Collector) Files() []*File {
	return slices.SortedFunc(maps.Values(c.files), func(a, b *File) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), b.Last.Compare(a.Last), strings.Compare(a.Digest, b.Digest))
	})
}

// insert keeps a sorted set of at most n.
func insert[T cmp.Ordered](set []T, v T, n int) []T {
	i, have := slices.BinarySearch(set, v)
	if have || len(set) == n {
		return set
	}
	return slices.Insert(set, i, v)
}
