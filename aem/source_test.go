package aem_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"midplane/aem"
)

func linuxOnly(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has these descriptors")
	}
}

// watch registers and starts an event that puts what happens into a channel.
func watch[T any](t *testing.T, l *aem.Loop, src aem.Source[T], cfg aem.EventConfig) (*aem.Event, <-chan T) {
	t.Helper()
	ch := make(chan T, 1000)
	cfg.OnError = func(err error) {
		if err != aem.ErrEnded {
			t.Logf("source: %v", err)
		}
	}
	e := register(t, l, src, func(_ *aem.Ctx, v T) { ch <- v }, cfg)
	must(t, e.Start())
	return e, ch
}

func TestTimers(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		inline := classOf(t, l, "inline", aem.ClassConfig{Inline: true})
		e, ticks := watch(t, l, aem.Every(2*time.Millisecond), aem.EventConfig{Class: inline})
		for range 5 {
			if tick := recv(t, ticks); tick.Late < 0 {
				t.Fatalf("early by %v", -tick.Late)
			}
		}
		must(t, e.Stop())
		after, once := watch(t, l, aem.After(time.Millisecond), aem.EventConfig{Class: inline})
		recv(t, once)
		must(t, after.Stop())
		must(t, after.Start())
		recv(t, once)
		_, far := watch(t, l, aem.After(time.Hour), aem.EventConfig{Class: inline})
		if s := l.Stats(); s.Timers != 1 {
			t.Fatalf("%d timers are set, want the far one", s.Timers)
		}
		if len(far) != 0 {
			t.Fatal("an hour went by")
		}
		bad := register(t, l, aem.Every(time.Microsecond), func(*aem.Ctx, aem.Tick) {}, aem.EventConfig{})
		if bad.Start() == nil {
			t.Fatal("a period below 1 ms was taken")
		}
	})
}

func TestChan(t *testing.T) {
	l := newLoop(t, "stdnet")
	ch := make(chan int, 10)
	e, got := watch(t, l, aem.Chan(ch), aem.EventConfig{})
	ch <- 7
	if v := recv(t, got); v != 7 {
		t.Fatal(v)
	}
	must(t, e.Stop())
	ch <- 8 // waits for the next start
	must(t, e.Start())
	if v := recv(t, got); v != 8 {
		t.Fatal(v)
	}
	close(ch)
	settle(t, "the end", func() bool { return e.State() == aem.Registered })
}

func TestProcessEnd(t *testing.T) {
	linuxOnly(t)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		for script, want := range map[string]aem.ProcessExit{"read x; exit 5": {Known: true, Code: 5}, "read x; kill -TERM $$": {Known: true, Code: -1, Signal: 15}} {
			cmd := exec.Command("sh", "-c", script)
			in, err := cmd.StdinPipe()
			must(t, err)
			must(t, cmd.Start())
			e, ends := watch(t, l, aem.ProcessEnd(cmd.Process.Pid), aem.EventConfig{})
			in.Close() // now it ends
			want.PID = cmd.Process.Pid
			if got := recv(t, ends); got != want {
				t.Errorf("%s: %+v, want %+v", script, got, want)
			}
			_ = cmd.Wait()
			settle(t, "the source to end", func() bool { return e.State() == aem.Registered })
			if e.Start() == nil {
				t.Error("a process that is gone is watched")
			}
		}
	})
}

func TestFiles(t *testing.T) {
	linuxOnly(t)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		dir := t.TempDir()
		_, events := watch(t, l, aem.Files(0, dir), aem.EventConfig{Class: classOf(t, l, "in order", aem.ClassConfig{Inline: true})})
		want := func(op aem.FileOp, path string) {
			t.Helper()
			for {
				if e := recv(t, events); e.Op&op != 0 {
					if e.Path != path {
						t.Fatalf("%v of %s, want %s", e.Op, e.Path, path)
					}
					return
				}
			}
		}
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		must(t, os.WriteFile(a, []byte("x"), 0o600))
		want(aem.FileCreated, a)
		want(aem.FileWritten, a)
		want(aem.FileClosed, a)
		must(t, os.Rename(a, b))
		want(aem.FileRemoved, a)
		want(aem.FileCreated, b)
		must(t, os.Remove(b))
		want(aem.FileRemoved, b)
		bad := register(t, l, aem.Files(0, filepath.Join(dir, "nothing")), func(*aem.Ctx, aem.FileEvent) {}, aem.EventConfig{})
		if bad.Start() == nil {
			t.Fatal("a path that is not there is watched")
		}
	})
}

func TestCounter(t *testing.T) {
	linuxOnly(t)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		c, err := aem.NewCounter()
		must(t, err)
		e, got := watch(t, l, c, aem.EventConfig{})
		sum := uint64(0)
		for i := range uint64(100) {
			must(t, c.Add(i+1))
		}
		for sum < 5050 {
			sum += recv(t, got)
		}
		must(t, e.Stop())
		must(t, c.Add(3)) // is kept for the next start
		must(t, e.Start())
		if v := recv(t, got); v != 3 {
			t.Fatal(v)
		}
		must(t, c.Close())
		if c.Add(1) == nil || c.Add(0) == nil {
			t.Fatal("a closed counter counts")
		}
	})
}

// The kernel takes the trigger; memory is not put under pressure for it.
func TestPressure(t *testing.T) {
	linuxOnly(t)
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		t.Skip("this kernel has no pressure stall information")
	}
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		e := register(t, l, aem.Pressure{}.Source(), func(*aem.Ctx, aem.PressureEvent) {}, aem.EventConfig{})
		must(t, e.Start())
		must(t, e.Stop())
		for _, p := range []aem.Pressure{{Window: time.Minute}, {Stall: 3 * time.Second}, {Resource: "/proc/pressure/nothing"}} {
			e := register(t, l, p.Source(), func(*aem.Ctx, aem.PressureEvent) {}, aem.EventConfig{})
			if e.Start() == nil {
				t.Errorf("%+v was taken", p)
			}
		}
	})
}

// A trigger fires when processes compete for the processors.
func TestPressureFires(t *testing.T) {
	linuxOnly(t)
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		t.Skip("this kernel has no pressure stall information")
	}
	l := newLoop(t, "")
	_, got := watch(t, l, aem.Pressure{Resource: "cpu", Stall: time.Millisecond, Window: 2 * time.Second}.Source(), aem.EventConfig{Class: l.Executor().Critical()})
	var stop atomic.Bool
	defer stop.Store(true)
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		must(t, cmd.Start())
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	if e := recv(t, got); e.Resource != "cpu" {
		t.Fatalf("%+v", e)
	}
}

// Sources give everything back.
func TestSourcesLeaveNothing(t *testing.T) {
	linuxOnly(t)
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			goroutines, fds := runtime.NumGoroutine(), openFDs(t)
			func() {
				ex, err := aem.New(nil)
				must(t, err)
				defer ex.Close()
				l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: name})
				if err != nil {
					t.Skip(err)
				}
				defer l.Close()
				c, err := aem.NewCounter()
				must(t, err)
				defer c.Close()
				for range 20 {
					g := l.All()
					for _, e := range []*aem.Event{
						register(t, l, aem.Files(0, t.TempDir()), func(*aem.Ctx, aem.FileEvent) {}, aem.EventConfig{}),
						register(t, l, c, func(*aem.Ctx, uint64) {}, aem.EventConfig{}),
						register(t, l, aem.ProcessEnd(os.Getpid()), func(*aem.Ctx, aem.ProcessExit) {}, aem.EventConfig{}),
						register(t, l, aem.Links(), func(*aem.Ctx, aem.LinkChange) {}, aem.EventConfig{}),
						register(t, l, aem.Listen("tcp", "127.0.0.1:0"), func(*aem.Ctx, aem.StreamEvent) {}, aem.EventConfig{}),
						register(t, l, aem.ListenPacket("udp", "127.0.0.1:0"), func(*aem.Ctx, aem.Packet) {}, aem.EventConfig{}),
						register(t, l, aem.Chan(make(chan int)), func(*aem.Ctx, int) {}, aem.EventConfig{}),
						register(t, l, aem.Every(time.Hour), func(*aem.Ctx, aem.Tick) {}, aem.EventConfig{}),
					} {
						g.Add(e)
					}
					must(t, g.Start())
					must(t, g.Stop())
					must(t, g.Start())
					must(t, g.Shutdown())
				}
			}()
			settle(t, "all to be given back", func() bool { return runtime.NumGoroutine() <= goroutines && openFDs(t) <= fds+1 })
		})
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(d)
}
