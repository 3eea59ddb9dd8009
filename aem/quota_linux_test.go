package aem_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"midplane/aem"
	"midplane/internal/lab"
)

// The quota of a cgroup of its own is set, raised and lifted while a program runs, and its workers follow.
func TestIntegrationQuota(t *testing.T) {
	if os.Getenv("AEM_QUOTA") != "" {
		tellWorkers(t)
		return
	}
	lab.Require(t)
	name := fmt.Sprintf("aemtest%d", os.Getpid())
	group := filepath.Join("/sys/fs/cgroup", name)
	limit := func(quota int) (file, text string) {
		if quota == 0 {
			return "cpu.max", "max 100000"
		}
		return "cpu.max", fmt.Sprintf("%d 100000", quota)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); err == nil { // version 1
		group = filepath.Join("/sys/fs/cgroup/cpu", name)
		limit = func(quota int) (file, text string) {
			if quota == 0 {
				quota = -1
			}
			return "cpu.cfs_quota_us", strconv.Itoa(quota)
		}
	} else {
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu"), 0)
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	defer func() {
		settle(t, "the cgroup to be removed", func() bool { return os.Remove(group) == nil })
	}()
	set := func(quota int) {
		t.Helper()
		file, text := limit(quota)
		if err := os.WriteFile(filepath.Join(group, file), []byte(text), 0); err != nil {
			t.Skipf("the group has no controller of processors: %v", err)
		}
	}
	set(0)
	cmd := exec.Command(os.Args[0], "-test.run=^TestIntegrationQuota$")
	cmd.Env = append(os.Environ(), "AEM_QUOTA=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := make(chan int)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if n, err := strconv.Atoi(strings.TrimPrefix(s.Text(), "workers ")); err == nil {
				lines <- n
			}
		}
	}()
	all := recv(t, lines)
	if all < 2 {
		t.Skip("one processor: there is nothing to limit")
	}
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0))
	for _, c := range []struct{ quota, want int }{{150_000, 1}, {250_000, 2}, {50_000, 1}, {0, all}} {
		set(c.quota)
		if n := recv(t, lines); n != c.want && n != min(c.want, all) {
			t.Fatalf("%d workers with a quota of %d %% of a processor, want %d", n, c.quota/1000, c.want)
		}
	}
}

// tellWorkers is the program: it says how many workers it has whenever that changes, until nobody listens.
func tellWorkers(t *testing.T) {
	ex, err := aem.New(nil)
	must(t, err)
	defer ex.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = os.Stdin.Read(make([]byte, 1))
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for was := 0; ; {
		_ = ex.Normal().Go(func(*aem.Ctx) {}) // it looks while there is something to do
		if n := ex.Stats().Workers; n != was {
			fmt.Printf("workers %d\n", n)
			was = n
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}
