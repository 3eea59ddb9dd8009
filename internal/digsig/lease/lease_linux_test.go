package lease

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 30 * time.Second

func openAt(t *testing.T, name string, flags int) int {
	t.Helper()
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// dirs are on the file systems that are here without mounting one.
func dirs(t *testing.T) map[string]string {
	d := map[string]string{"temp": t.TempDir()}
	if shm, err := os.MkdirTemp("/dev/shm", "lease"); err == nil {
		t.Cleanup(func() { os.RemoveAll(shm) })
		d["tmpfs"] = shm
	}
	return d
}

func TestLease(t *testing.T) {
	for name, dir := range dirs(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "f")
			if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			broken := make(chan int, 16)
			k, err := New(func(fd int) { broken <- fd }, func() { t.Error("lost") })
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()

			w := openAt(t, file, unix.O_RDWR)
			r := openAt(t, file, unix.O_RDONLY)
			defer unix.Close(r)
			if err := k.Take(r); !errors.Is(err, ErrWriter) {
				t.Errorf("with a writer: %v, want ErrWriter", err)
			}
			m, err := unix.Mmap(w, 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(w)
			if err := k.Take(r); !errors.Is(err, ErrWriter) {
				t.Errorf("with a writable mapping: %v, want ErrWriter", err)
			}
			unix.Munmap(m)
			if err := k.Take(r); err != nil {
				t.Fatal(err)
			}
			if Broken(r) {
				t.Error("it is broken already")
			}

			for what, write := range map[string]func() error{
				"open":     func() error { fd, err := unix.Open(file, unix.O_WRONLY, 0); unix.Close(fd); return err },
				"truncate": func() error { return unix.Truncate(file, 3) },
				"O_TRUNC":  func() error { fd, err := unix.Open(file, unix.O_RDWR|unix.O_TRUNC, 0); unix.Close(fd); return err },
			} {
				done := make(chan error, 1)
				go func() { done <- write() }()
				select {
				case fd := <-broken:
					if fd != r {
						t.Errorf("%s: descriptor %d broke, want %d", what, fd, r)
					}
				case err := <-done:
					t.Fatalf("%s went on under the lease: %v", what, err)
				case <-time.After(patience):
					t.Fatalf("%s: nothing told of the break", what)
				}
				if !Broken(r) {
					t.Errorf("%s: the lease does not say that it is broken", what)
				}
				select {
				case err := <-done:
					t.Fatalf("%s went on before the release: %v", what, err)
				default:
				}
				Release(r)
				if err := <-done; err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if err := k.Take(r); err != nil {
					t.Fatalf("after %s: %v", what, err)
				}
			}
		})
	}
}

// A lease outlives who took it, while another holds the open file; and anyone who holds it can release it.
func TestLeaseIsTheOpenFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := New(func(int) {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	a := openAt(t, file, unix.O_RDONLY)
	if err := k.Take(a); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Dup(a)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(a)
	if _, err := unix.Open(file, unix.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a writer, while the other descriptor is open: %v, want EWOULDBLOCK", err)
	}
	Release(b)
	w := openAt(t, file, unix.O_WRONLY|unix.O_NONBLOCK)
	unix.Close(w)
	unix.Close(b)
}

// Breaks that the kernel had no room to tell of one by one.
func TestLost(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &was); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	lost := make(chan struct{}, 1000)
	broken := make(chan int, 1000)
	k, err := New(func(fd int) { broken <- fd; <-hold }, func() { lost <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	dir := t.TempDir()
	var fds []int
	for i := range 20 {
		name := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		fd := openAt(t, name, unix.O_RDONLY)
		defer unix.Close(fd)
		if err := k.Take(fd); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	less := was
	less.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_SIGPENDING, &less); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_SIGPENDING, &was) }()
	for i := range fds {
		_, _ = unix.Open(filepath.Join(dir, string(rune('a'+i))), unix.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	close(hold)
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("nothing told of the breaks for which there was no room")
	}
	for _, fd := range fds {
		if !Broken(fd) {
			t.Error("a lease does not say that it is broken")
		}
		Release(fd)
	}
}
