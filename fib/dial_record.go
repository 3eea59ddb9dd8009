package fib

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"midplane/internal/fib/binding"
)

// bindings are the record of FIBs below a directory, as it was read.
type bindings struct {
	file os.FileInfo // nil: there was none
	by   map[string]binding.Binding
}

// recordFile is the name of the file that package binding writes.
const recordFile = "bindings.json"

// records are kept as long as their files are the same, because a host may have 10,000 FIBs and dials often.
var records struct {
	sync.Mutex
	of map[string]bindings // by directory
}

// settled is how long a file must not have changed to be known by its time: two changes within a tick of the kernel's
// clock have the same (fs/inode.c, current_time), and ticks are up to 10 ms.
const settled = time.Second

// maxRecords bounds how many directories are kept. Programs use one.
const maxRecords = 16

// lookUp finds a FIB by name or number, as binding.Find does.
func lookUp(dir, which string) (binding.Binding, error) {
	now, err := os.Stat(filepath.Join(dir, recordFile))
	if err != nil {
		return binding.Find(dir, which) // which says what is wrong
	}
	records.Lock()
	defer records.Unlock()
	r, ok := records.of[dir]
	if !ok || !os.SameFile(r.file, now) || !r.file.ModTime().Equal(now.ModTime()) || r.file.Size() != now.Size() {
		l, err := binding.Load(dir)
		if err != nil {
			return binding.Binding{}, err
		}
		r = bindings{now, map[string]binding.Binding{}}
		for _, b := range l {
			for _, key := range []string{b.Name, strconv.FormatUint(uint64(b.FIB), 10)} {
				if _, taken := r.by[key]; !taken && key != "" {
					r.by[key] = b
				}
			}
		}
		delete(records.of, dir)
		if since := time.Since(now.ModTime()); since > settled && len(records.of) < maxRecords {
			if records.of == nil {
				records.of = map[string]bindings{}
			}
			records.of[dir] = r
		}
	}
	b, ok := r.by[which]
	if !ok {
		return b, &NotSetUpError{FIB: which, Dir: dir}
	}
	return b, nil
}
