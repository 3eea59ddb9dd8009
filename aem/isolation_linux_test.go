package aem_test

import (
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"midplane/aem"
	"midplane/internal/aem/worker"
	"midplane/internal/sys"
)

// mayRun returns where a thread that does not exist yet may run.
func mayRun(t *testing.T) []int {
	t.Helper()
	got := make(chan []int)
	go func() {
		runtime.LockOSThread() // and ends: a thread for each
		cpus, _ := sys.ThreadCPUs()
		got <- cpus
	}()
	return <-got
}

// Loops have their processors, alone but for lowered workers, and everybody has all of them afterwards.
func TestLoopCPUs(t *testing.T) {
	all, err := sys.ThreadCPUs()
	must(t, err)
	for name, wrong := range map[string][]int{"none is left": all, "is none that": {all[len(all)-1] + 1}} {
		if _, err := aem.New(&aem.Config{LoopCPUs: wrong}); err == nil || !strings.Contains(err.Error(), "LoopCPUs") || !strings.Contains(err.Error(), name) {
			t.Errorf("LoopCPUs %v of %v: %v", wrong, all, err)
		}
	}
	if len(all) < 2 {
		t.Skip("one processor")
	}
	mine, rest, processors := all[:1], all[1:], worker.Processors()
	bound := make(chan bool)
	go func() { // somebody who was bound before
		runtime.LockOSThread()
		if err := sys.SetThreadCPUs(mine); err != nil {
			t.Error(err)
		}
		bound <- true
		<-bound
		if got, _ := sys.ThreadCPUs(); !slices.Equal(got, mine) {
			t.Errorf("a thread that was bound to %v may run on %v", mine, got)
		}
		close(bound)
	}()
	<-bound
	for range 3 {
		ex, err := aem.New(&aem.Config{LoopCPUs: mine})
		must(t, err)
		if _, err := aem.New(&aem.Config{LoopCPUs: mine}); !errors.Is(err, worker.ErrCPUsTaken) {
			t.Errorf("a second one: %v", err)
		}
		urgent, err := ex.Class("urgent", aem.ClassConfig{Inline: true})
		must(t, err)
		for _, backend := range backends {
			l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: backend})
			if errors.Is(err, errors.ErrUnsupported) {
				continue
			}
			must(t, err)
			var cpus []int
			onLoop(t, l, urgent, func() { cpus, _ = sys.ThreadCPUs() })
			want := mine
			if l.Backend() == "stdnet" {
				want = rest
			}
			if !slices.Equal(cpus, want) {
				t.Errorf("on %s a loop may run on %v, want %v", backend, cpus, want)
			}
			must(t, l.Close())
		}
		for range 20 {
			if cpus := mayRun(t); !slices.Equal(cpus, rest) {
				t.Fatalf("another thread may run on %v, want %v", cpus, rest)
			}
		}
		var lowered, started []int
		must(t, ex.Background().Do(t.Context(), func(*aem.Ctx) { lowered, _ = sys.ThreadCPUs() }))
		if !slices.Equal(lowered, all) {
			t.Errorf("a lowered worker may run on %v, want %v", lowered, all)
		}
		if n := worker.Processors(); n != processors {
			t.Errorf("the process has %d processors, want %d", n, processors)
		}
		cmd := exec.Command("sleep", "1000")
		must(t, cmd.Start())
		started, _ = sys.CPUsOf(cmd.Process.Pid)
		cmd.Process.Kill()
		cmd.Wait()
		if !slices.Equal(started, rest) {
			t.Errorf("a process may run on %v, want %v", started, rest)
		}
		must(t, ex.Close())
		for range 20 {
			if cpus := mayRun(t); !slices.Equal(cpus, all) {
				t.Fatalf("a thread may run on %v afterwards, want %v", cpus, all)
			}
		}
	}
	bound <- true
	<-bound
}
