package worker

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Processors returns how many processors' worth of time this process gets now: those that the calling thread may run on, and
// at most its cgroup's quota, rounded down, for a group that uses all of its quota is stopped for the rest of each period. At
// least 1.
func Processors() int {
	n := affinity()
	if q, ok := Quota(); ok {
		n = min(n, int(q))
	}
	return max(n, 1)
}

// Quota returns the processor time that the cgroups of this process allow it, in processors; false when they do not limit it.
func Quota() (float64, bool) { return quota(root) }

// quota reads the limits of all groups from the process's own up to the root: cpu.max of version 2, cpu.cfs_quota_us and
// cpu.cfs_period_us of version 1 (kernel documentation, admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
func quota(fsys fs.FS) (float64, bool) {
	least := math.Inf(1)
	eachGroup(fsys, "cpu", func(group string) {
		words := readWords(fsys, path.Join(group, "cpu.max"))
		if len(words) == 2 {
			least = min(least, ratio(words[0], words[1]))
		}
	}, func(group string) {
		q := readWords(fsys, path.Join(group, "cpu.cfs_quota_us"))
		p := readWords(fsys, path.Join(group, "cpu.cfs_period_us"))
		if len(q) == 1 && len(p) == 1 {
			least = min(least, ratio(q[0], p[0]))
		}
	})
	return least, !math.IsInf(least, 1)
}

// eachGroup calls two or one with the directories of the cgroups of this process that may limit it, from its own up to the root: two with
// those of version 2, one with those of version 1 that have the controller.
func eachGroup(fsys fs.FS, controller string, two, one func(group string)) {
	b, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		f := strings.SplitN(line, ":", 3) // number:controllers:path
		if len(f) != 3 {
			continue
		}
		switch {
		case f[1] == "":
			for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
				upward(f[2], func(group string) { two(path.Join(mount, group)) })
			}
		case strings.Contains(","+f[1]+",", ","+controller+","):
			for _, mount := range []string{"sys/fs/cgroup/" + f[1], "sys/fs/cgroup/" + controller} {
				upward(f[2], func(group string) { one(path.Join(mount, group)) })
			}
		}
	}
}

// upward calls f with a group and those above it.
func upward(group string, f func(string)) {
	for g := path.Clean("/" + group); ; g = path.Dir(g) {
		f(g)
		if g == "/" {
			return
		}
	}
}

func readWords(fsys fs.FS, name string) []string {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// ratio returns quota/period; infinite for "max", -1 and what cannot be understood.
func ratio(quota, period string) float64 {
	q, err1 := strconv.ParseUint(quota, 10, 63)
	p, err2 := strconv.ParseUint(period, 10, 63)
	if err1 != nil || err2 != nil || p == 0 || q == 0 {
		return math.Inf(1)
	}
	return float64(q) / float64(p)
}
