package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"midplane/internal/api"
)

// The service manager hears that the node is ready when it is, and that it stops before it ends.
func TestNodeNotifies(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@midplane-test-%d", os.Getpid())} {
		manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		manager.SetReadDeadline(time.Now().Add(2 * time.Minute))
		state := func() string {
			b := make([]byte, 100)
			n, err := manager.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			return string(b[:n])
		}
		t.Setenv("NOTIFY_SOCKET", name)
		control := filepath.Join(t.TempDir(), "control")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		code := make(chan int, 1)
		go func() {
			bearer := fmt.Sprintf("udp,name=u,localip=127.9.%d.%d,remoteip=127.0.0.1", os.Getpid()>>8&255, os.Getpid()&255)
			code <- Run(ctx, []string{"midplane", "node", "--control", control, "--bearer", bearer}, nil, io.Discard, t.Output())
		}()
		if s := state(); s != "READY=1" {
			t.Fatalf("%s: told %q first", name, s)
		}
		if b, err := api.NewClient(control).Bearers(t.Context()); err != nil || len(b) != 1 {
			t.Fatalf("%s: ready with bearers %v, %v", name, b, err)
		}
		stop()
		if s := state(); s != "STOPPING=1" {
			t.Fatalf("%s: told %q in the end", name, s)
		}
		if c := <-code; c != 0 {
			t.Fatalf("%s: exit code %d", name, c)
		}
	}
}

// A service manager that is not there is worth a warning, no more.
func TestNodeNotifiesNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var log strings.Builder
	code := Run(ctx, []string{"midplane", "node", "--control", filepath.Join(t.TempDir(), "control")}, nil, io.Discard, &log)
	if code != 0 || !strings.Contains(log.String(), "service manager READY=1") {
		t.Fatalf("exit code %d, log:\n%s", code, log.String())
	}
}
