package loop

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// limitFDs lets the process open that many descriptors more, and returns how to undo it.
func limitFDs(t *testing.T, more int) (undo func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	// New descriptors are the lowest free ones: occupy the holes by asking where they end.
	var probe []int
	top := 0
	for range more {
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		probe = append(probe, fd)
		top = max(top, fd)
	}
	for _, fd := range probe {
		unix.Close(fd)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(top + 1), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	done := false
	undo = func() {
		if !done {
			done = true
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(undo)
	return undo
}

// Without descriptors a listener pauses, says so, does not spin and accepts everybody when there are some again.
func TestConformNoDescriptors(t *testing.T) {
	each(t, Config{AcceptRetry: 30 * time.Millisecond}, func(r *rig) {
		ln, dial := r.listen("tcp")
		r.ok(r.l.Pause(ln))
		r.step(0)
		const peers = 12
		for range peers {
			dial()
		}
		r.step(5 * time.Millisecond)
		accepted := 0
		for _, e := range r.unread {
			if e.Op == OpAccept { // the listener was accepting when it was paused
				accepted++
			}
		}
		r.unread = nil
		undo := limitFDs(r.T, 3)
		r.ok(r.l.Resume(ln))
		e := r.next(OpPaused, ln)
		if !errors.Is(e.Err, unix.EMFILE) {
			r.Fatalf("paused with %v", e.Err)
		}
		before := r.l.Stats()
		for range 6 {
			r.step(20 * time.Millisecond)
		}
		if after := r.l.Stats(); after.Waits-before.Waits > 200 || after.AcceptPauses-before.AcceptPauses > 50 {
			r.Fatalf("it spins: %+v, then %+v", before, after)
		}
		undo()
		r.until("all peers", func() bool {
			for _, e := range r.unread {
				if e.Op == OpAccept {
					accepted++
				}
			}
			r.unread = nil
			return accepted == peers
		})
	})
}

// Ten thousand idle connections cost no thread and little memory, and one among them is heard. The peers are another
// process, so that each needs descriptors for one end only.
func TestConformIdle(t *testing.T) {
	count := 10_000
	if path := os.Getenv("AEM_IDLE"); path != "" {
		idlePeers(t, path, count)
		return
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(count + 200); limit.Cur < need {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: max(need, limit.Max)}); err != nil {
			t.Skipf("it needs %d descriptors: ulimit -n %d: %v", need, need, err)
		}
	}
	each(t, Config{BufferSize: 512}, func(r *rig) {
		ln, _ := r.listen("unix")
		local, _, err := r.l.Addrs(ln)
		r.ok(err)
		peers := exec.Command(os.Args[0], "-test.run=^TestConformIdle$")
		peers.Env = append(os.Environ(), "AEM_IDLE="+local.String())
		in, err := peers.StdinPipe()
		r.ok(err)
		var out bytes.Buffer
		peers.Stdout, peers.Stderr = &out, &out
		r.ok(peers.Start())
		defer func() {
			in.Close()
			_ = peers.Wait()
		}()
		var conns []Handle
		r.until("all", func() bool {
			for _, e := range r.unread {
				if e.Op == OpAccept {
					r.ok(r.l.Resume(e.Conn))
					conns = append(conns, e.Conn)
				}
			}
			r.unread = r.unread[:0]
			return len(conns) == count
		})
		_, err = in.Write([]byte{'1'}) // now one of them says something
		r.ok(err)
		heard := Handle(0)
		r.until("the one", func() bool {
			for h, b := range r.got {
				if string(b) == "here" {
					heard = h
				}
			}
			return heard != 0
		})
		r.sendAll(heard, []byte("heard"))
		r.background(peers.Wait) // it ends when it has got that
		if !strings.Contains(out.String(), "PASS") {
			r.Fatal(out.String())
		}
		for _, h := range conns {
			r.ok(r.l.Close(h))
		}
		r.until("the end of all", func() bool { r.unread = r.unread[:0]; return r.l.Stats().Endpoints == 1 })
	})
}

func idlePeers(t *testing.T, path string, count int) {
	fds := make([]int, count)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			t.Fatal(i, err)
		}
		fds[i] = fd
	}
	b := make([]byte, 5)
	if _, err := os.Stdin.Read(b); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fds[count/2], []byte("here")); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(fds[count/2], b); err != nil || string(b[:n]) != "heard" {
		t.Fatalf("read %q, %v", b[:max(n, 0)], err)
	}
}

func TestConformPoll(t *testing.T) {
	each(t, Config{}, func(r *rig) {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		r.ok(err)
		defer unix.Close(fd)
		h, err := r.l.Poll(fd, In, "tag")
		r.ok(err)
		for range 3 {
			r.step(2 * time.Millisecond)
			r.none(OpReady, h)
			_, err = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 1})
			r.ok(err)
			if e := r.next(OpReady, h); e.Mask&In == 0 || e.Tag != "tag" {
				r.Fatalf("ready for %x with %v", e.Mask, e.Tag)
			}
			r.step(2 * time.Millisecond)
			r.none(OpReady, h) // told once
			r.ok(r.l.Rearm(h))
			r.next(OpReady, h) // it is ready still
			_, err = unix.Read(fd, make([]byte, 8))
			r.ok(err)
			r.ok(r.l.Rearm(h))
		}
		r.ok(r.l.Close(h))
		r.next(OpClosed, h)
		if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 1}); err != nil {
			r.Fatal("the descriptor is the caller's, and was closed")
		}
		r.step(2 * time.Millisecond)
		r.none(OpReady, h)
		if _, err := r.l.Poll(9999, In, nil); !errors.Is(err, unix.EBADF) {
			r.Fatalf("watching nothing: %v", err)
		}
	})
}

// In the steady state an echo allocates nothing.
func TestNoAllocations(t *testing.T) {
	for _, name := range []string{"epoll", "io_uring"} {
		t.Run(name, func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			on(t, name, Config{}, func(r *rig) {
				ln, _ := r.listen("unix")
				local, _, err := r.l.Addrs(ln)
				r.ok(err)
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				r.ok(err)
				defer unix.Close(fd)
				r.ok(unix.Connect(fd, &unix.SockaddrUnix{Name: local.String()}))
				h := r.next(OpAccept, ln).Conn
				r.ok(r.l.Resume(h))
				msg, back := make([]byte, 64), make([]byte, 64)
				echo := func() {
					if _, err := unix.Write(fd, msg); err != nil {
						panic(err)
					}
					for {
						n, err := r.l.Wait(r.events[:], never)
						if err != nil {
							panic(err)
						}
						if n == 0 {
							continue
						}
						for _, e := range r.events[:n] {
							if _, err := r.l.Send(e.H, e.Data); err != nil {
								panic(err)
							}
							r.l.Release(e.Buf)
						}
						break
					}
					if name == "io_uring" { // its sends go out with the next wait
						if _, err := r.l.Wait(r.events[:], 0); err != nil {
							panic(err)
						}
					}
					if n, err := unix.Read(fd, back); n != len(back) || err != nil {
						panic(fmt.Sprint(n, err))
					}
				}
				for range 100 {
					echo()
				}
				if n := testing.AllocsPerRun(1000, echo); n != 0 {
					t.Errorf("%v allocations an echo", n)
				}
			})
		})
	}
}

const never = math.MaxInt64

// A process that may not use io_uring says why, and gets the next back end.
func TestFallsBackWithoutRing(t *testing.T) {
	if os.Getenv("AEM_FORBID") != "" {
		forbidden(t)
		return
	}
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFallsBackWithoutRing$", "-test.v")
		cmd.Env = append(os.Environ(), fmt.Sprintf("AEM_FORBID=%d", int(errno)))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "the loop is epoll") {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

func forbidden(t *testing.T) {
	var errno int
	if _, err := fmt.Sscan(os.Getenv("AEM_FORBID"), &errno); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(errno)}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},                 // SECCOMP_RET_ALLOW
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const setModeFilter, tsync = 1, 1
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, tsync, uintptr(unsafe.Pointer(&prog))); e != 0 {
		t.Fatal(e)
	}
	if err := Probe("io_uring"); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "seccomp") {
		t.Fatalf("probing says %v", err)
	}
	l, fallback, err := Open("", Config{})
	if err != nil || l.Name() != "epoll" || fallback == nil {
		t.Fatalf("opened %v, %v, %v", l, fallback, err)
	}
	if _, _, err := Open("io_uring", Config{}); err == nil {
		t.Fatal("a forbidden back end was opened")
	}
	fmt.Printf("the loop is %s: %v\n", l.Name(), fallback)
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
}
