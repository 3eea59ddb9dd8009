package worker

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Memory returns how many octets this process can still get: what the machine has available, and what its cgroups leave; false
// when nothing says.
func Memory() (uint64, bool) { return memory(root) }

// memory reads MemAvailable (proc_meminfo(5)) and the groups' memory.max and memory.current, of version 1 memory.limit_in_bytes and
// memory.usage_in_bytes (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
func memory(fsys fs.FS) (uint64, bool) {
	least := uint64(math.MaxUint64)
	b, _ := fs.ReadFile(fsys, "proc/meminfo")
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			if f := strings.Fields(text); len(f) > 0 {
				if kib, err := strconv.ParseUint(f[0], 10, 53); err == nil {
					least = kib << 10
				}
			}
		}
	}
	left := func(limit, used string) func(string) {
		return func(group string) {
			l, u := readWords(fsys, path.Join(group, limit)), readWords(fsys, path.Join(group, used))
			if len(l) != 1 || len(u) != 1 {
				return
			}
			most, err1 := strconv.ParseUint(l[0], 10, 64) // not for "max"
			now, err2 := strconv.ParseUint(u[0], 10, 64)
			if err1 == nil && err2 == nil {
				least = min(least, most-min(most, now))
			}
		}
	}
	eachGroup(fsys, "memory", left("memory.max", "memory.current"), left("memory.limit_in_bytes", "memory.usage_in_bytes"))
	return least, least != math.MaxUint64
}
