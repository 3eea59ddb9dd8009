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
