package worker

import (
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"testing/fstest"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func TestQuota(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  float64 // 0: none
	}{
		"no cgroups":    {fstest.MapFS{}, 0},
		"v2":            {fstest.MapFS{"proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/cpu.max": file("150000 100000\n")}, 1.5},
		"v2, above":     {fstest.MapFS{"proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/cpu.max": file("max 100000\n"), "sys/fs/cgroup/a/cpu.max": file("50000 100000\n")}, 0.5},
		"v2, unlimited": {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/cpu.max": file("max 100000\n")}, 0},
		"v1": {fstest.MapFS{"proc/self/cgroup": file("3:cpu,cpuacct:/x\n1:name=systemd:/\n"),
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": file("300000\n"), "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": file("100000\n")}, 3},
		"v1, unlimited": {fstest.MapFS{"proc/self/cgroup": file("1:cpu:/\n"), "sys/fs/cgroup/cpu/cpu.cfs_quota_us": file("-1\n"), "sys/fs/cgroup/cpu/cpu.cfs_period_us": file("100000\n")}, 0},
		"hostile":       {fstest.MapFS{"proc/self/cgroup": file("::\n0::/../..\nx\n"), "sys/fs/cgroup/cpu.max": file("7 0\n")}, 0},
	} {
		got, ok := quota(c.files)
		if ok != (c.want != 0) || ok && got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, ok, c.want)
		}
	}
	if n := Processors(); n < 1 || n > runtime.NumCPU() {
		t.Errorf("%d processors of %d", n, runtime.NumCPU())
	}
}

func TestMemory(t *testing.T) {
	const meminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    900 kB\n"
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  uint64
		ok    bool
	}{
		"nothing":     {fstest.MapFS{}, 0, false},
		"the machine": {fstest.MapFS{"proc/meminfo": file(meminfo)}, 900 << 10, true},
		"v2, above": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/b/memory.current": file("7\n"),
			"sys/fs/cgroup/a/memory.max": file("5000\n"), "sys/fs/cgroup/a/memory.current": file("3000\n")}, 2000, true},
		"v2, used up": {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("10\n"), "sys/fs/cgroup/memory.current": file("11\n")}, 0, true},
		"v1": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("3:memory:/x\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("700\n"), "sys/fs/cgroup/memory/x/memory.usage_in_bytes": file("600\n")}, 100, true},
		"v1, unlimited": {fstest.MapFS{"proc/meminfo": file(meminfo), "proc/self/cgroup": file("3:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"), "sys/fs/cgroup/memory/memory.usage_in_bytes": file("600\n")}, 900 << 10, true},
		"hostile": {fstest.MapFS{"proc/meminfo": file("MemAvailable:\nMemAvailable: -1 kB\nMemAvailable: 99999999999999999999 kB\n")}, 0, false},
	} {
		if got, ok := memory(c.files); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, ok, c.want)
		}
	}
}

// What limits the process is looked at anew each time.
func TestProcessorsFollowsQuota(t *testing.T) {
	if affinity() < 2 {
		t.Skip("one processor: there is nothing to limit")
	}
	defer func(was fs.FS) { root = was }(root)
	limit := file("max 100000\n")
	files := fstest.MapFS{"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/cpu.max": limit}
	root = files
	check := func(what string, want int) {
		t.Helper()
		if n := Processors(); n != want {
			t.Errorf("%s: %d processors, want %d", what, n, want)
		}
	}
	check("no quota", affinity())
	limit.Data = []byte("199999 100000\n")
	check("less than two", 1)
	limit.Data = []byte("200000 100000\n")
	check("two", 2)
	files["sys/fs/cgroup/cpu.max"] = file("1000 100000\n")
	check("one above", 1)
	files["proc/self/cgroup"] = file("0::/b\n")
	delete(files, "sys/fs/cgroup/cpu.max")
	check("moved to another group", affinity())
}

func TestProcs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.GOMAXPROCS(0)
	defer runtime.SetDefaultGOMAXPROCS()
	p, err := TakeProcs()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeProcs(); !errors.Is(err, ErrProcsTaken) {
		t.Errorf("taken twice: %v", err)
	}
	p.Set(before + 3)
	if n := runtime.GOMAXPROCS(0); n != before+3 {
		t.Errorf("it is %d after Set(%d)", n, before+3)
	}
	p.Release()
	p.Release()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("it is %d after Release, was %d", n, before)
	}

	// Whoever sets it while it is taken keeps it.
	if p, err = TakeProcs(); err != nil {
		t.Fatal(err)
	}
	p.Set(before + 3)
	runtime.GOMAXPROCS(before + 7)
	p.Set(before + 4)
	p.Release()
	if n := runtime.GOMAXPROCS(0); n != before+7 {
		t.Errorf("it is %d, was set to %d by somebody else", n, before+7)
	}
	if _, err := TakeProcs(); !errors.Is(err, ErrProcsTaken) {
		t.Errorf("taken from the program: %v", err)
	}
	runtime.SetDefaultGOMAXPROCS()
	t.Setenv("GOMAXPROCS", "2")
	if _, err := TakeProcs(); !errors.Is(err, ErrProcsTaken) {
		t.Errorf("taken from the environment: %v", err)
	}
}

func TestParker(t *testing.T) {
	for _, locked := range []bool{false, true} {
		p, q := NewParker(locked), NewParker(locked)
		p.Unpark()
		p.Unpark()
		p.Park() // several before count as one
		n := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			if locked {
				runtime.LockOSThread()
			}
			for range 1000 {
				p.Park()
				n++
				q.Unpark()
			}
		}()
		for i := range 1000 {
			if n != i {
				t.Fatalf("locked %v: %d of %d rounds", locked, n, i)
			}
			p.Unpark()
			q.Park()
		}
		<-done
	}
}
