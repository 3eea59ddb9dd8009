package aem_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"midplane/aem"
	"midplane/internal/sys"
)

func realtimeLoop(ex *aem.Executor, backend string, priority int) (*aem.Loop, error) {
	return aem.NewLoop(ex, &aem.LoopConfig{Backend: backend, Realtime: priority})
}

// A loop's thread has the priority, and nothing that it starts or that comes after it.
func TestRealtime(t *testing.T) {
	if os.Getenv("AEM_UNPRIVILEGED") != "" {
		refusesRealtime(t)
		return
	}
	ex, err := aem.New(nil)
	must(t, err)
	defer ex.Close()
	for _, wrong := range []struct {
		backend  string
		priority int
	}{{"epoll", -1}, {"epoll", 100}, {"stdnet", 1}} {
		var ce *aem.ConfigError
		if _, err := realtimeLoop(ex, wrong.backend, wrong.priority); !errors.As(err, &ce) || ce.Field != "Realtime" {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	for _, backend := range backends[:2] {
		l, err := realtimeLoop(ex, backend, 7)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		urgent, err := ex.Class(backend, aem.ClassConfig{Inline: true})
		must(t, err)
		var n int
		started := make(chan int, 1)
		onLoop(t, l, urgent, func() {
			n, _ = sys.ThreadRealtime()
			go func() {
				n, _ := sys.ThreadRealtime()
				started <- n
			}()
			// Who asks runs it: a shell tells the policy of itself.
			out, err := exec.Command("sh", "-c", "cut -d' ' -f40,41 /proc/$$/stat").Output()
			if text := strings.TrimSpace(string(out)); err != nil || text != "0 0" {
				t.Errorf("a process that the loop starts has real-time priority and policy %q, %v", text, err)
			}
		})
		if n != 7 {
			t.Errorf("on %s a handler runs with real-time priority %d", backend, n)
		}
		if n := <-started; n != 0 {
			t.Errorf("a goroutine that it starts has real-time priority %d", n)
		}
		must(t, l.Close())
	}
	for range 50 {
		n := make(chan int)
		go func() {
			p, _ := sys.ThreadRealtime()
			n <- p
		}()
		if p := <-n; p != 0 {
			t.Fatalf("a thread is left with real-time priority %d", p)
		}
	}

	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRealtime$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "AEM_UNPRIVILEGED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRealtime") {
		t.Errorf("without privilege: %v\n%s", err, out)
	}
}

// refusesRealtime runs in a process that may not have real-time threads.
func refusesRealtime(t *testing.T) {
	var none syscall.Rlimit
	const rtprio = 14 // RLIMIT_RTPRIO
	if err := syscall.Setrlimit(rtprio, &none); err != nil {
		t.Fatal(err)
	}
	ex, err := aem.New(nil)
	must(t, err)
	defer ex.Close()
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	for _, backend := range backends[:2] {
		if _, err := realtimeLoop(ex, backend, 7); !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "Realtime is 7") || !strings.Contains(err.Error(), "RLIMIT_RTPRIO") {
			t.Errorf("%s: %v", backend, err)
		}
	}
	settle(t, "goroutines and descriptors to be given back", func() bool { return runtime.NumGoroutine() <= goroutines && openFDs(t) <= fds })
}
