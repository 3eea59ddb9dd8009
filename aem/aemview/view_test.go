package aemview_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemview"
)

func program(t *testing.T) (*aem.Executor, *aem.Loop, string) {
	t.Helper()
	ex, err := aem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	l, err := aem.NewLoop(ex, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dir, err := os.MkdirTemp("", "aem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return ex, l, filepath.Join(dir, "view")
}

func TestWatch(t *testing.T) {
	ex, l, path := program(t)
	e, err := aem.Register(l, aem.Every(time.Millisecond), func(*aem.Ctx, aem.Tick) {}, aem.EventConfig{Name: "tick"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	s, err := aemview.Serve(path, ex, l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := aemview.Serve(path, ex); err == nil {
		t.Fatal("a path in use was taken")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatal(fi, err)
	}
	enough := errors.New("enough")
	n := 0
	err = aemview.Watch(t.Context(), path, aemview.MinInterval, func(v *aemview.Snapshot) error {
		if n++; v.PID != os.Getpid() || len(v.Executor.Classes) != 3 || len(v.Loops) != 1 || len(v.Events) != 1 || v.Events[0].Name != "tick" {
			t.Fatalf("%+v", v)
		}
		if v.Events[0].Happened == 0 || n < 2 {
			return nil
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	// Who asks wrongly, or never, is let go; who watches when the program ends is told.
	for _, line := range []string{"nonsense\n", ""} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	first := make(chan struct{}, 100)
	go func() {
		done <- aemview.Watch(context.Background(), path, aemview.MinInterval, func(*aemview.Snapshot) error { first <- struct{}{}; return nil })
	}()
	<-first
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("nobody told the viewer")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the socket is left: %v", err)
	}
	// A socket that a killed program left is taken over.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if s, err = aemview.Serve(path, ex, l); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := aemview.Watch(t.Context(), path, time.Nanosecond, nil); err == nil {
		t.Fatal("an interval of 1 ns was taken")
	}
}
