package aem_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"midplane/aem"
	"midplane/internal/lab"
)

// Links, addresses and routes of a namespace, as they come and go.
func TestIntegrationNetlink(t *testing.T) {
	lab.RequireNamespaces(t)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		ns := lab.NewNamespace(t)
		inline := classOf(t, l, "in order", aem.ClassConfig{Inline: true})
		links, addrs, routes := make(chan aem.LinkChange, 1000), make(chan aem.AddrChange, 1000), make(chan aem.RouteChange, 1000)
		var g aem.Group
		g.Add(
			register(t, l, aem.Links(), func(_ *aem.Ctx, c aem.LinkChange) { links <- c }, aem.EventConfig{Class: inline}),
			register(t, l, aem.Addrs(), func(_ *aem.Ctx, c aem.AddrChange) { addrs <- c }, aem.EventConfig{Class: inline}),
			register(t, l, aem.Routes(), func(_ *aem.Ctx, c aem.RouteChange) { routes <- c }, aem.EventConfig{Class: inline}),
		)
		must(t, ns.Do(g.Start)) // the sockets are of the namespace
		ns.IP("link", "add", "aem0", "type", "veth", "peer", "name", "aem1")
		ns.IP("link", "set", "aem1", "up")
		ns.IP("link", "set", "aem0", "mtu", "1400", "up")
		ns.IP("addr", "add", "192.0.2.1/24", "dev", "aem0")
		ns.IP("route", "add", "198.51.100.0/24", "via", "192.0.2.2", "dev", "aem0", "metric", "7")
		link := until(t, links, func(c aem.LinkChange) bool { return c.Name == "aem0" && c.Up && c.Running && c.MTU == 1400 })
		until(t, addrs, func(c aem.AddrChange) bool {
			return c.Prefix == netip.MustParsePrefix("192.0.2.1/24") && c.Index == link.Index && !c.Gone
		})
		until(t, routes, func(c aem.RouteChange) bool {
			return c.Dst == netip.MustParsePrefix("198.51.100.0/24") && c.Gateway == netip.MustParseAddr("192.0.2.2") && c.Index == link.Index && c.Metric == 7 && !c.Gone
		})
		ns.IP("route", "del", "198.51.100.0/24")
		until(t, routes, func(c aem.RouteChange) bool { return c.Dst == netip.MustParsePrefix("198.51.100.0/24") && c.Gone })
		ns.IP("addr", "del", "192.0.2.1/24", "dev", "aem0")
		until(t, addrs, func(c aem.AddrChange) bool { return c.Index == link.Index && c.Gone })
		ns.IP("link", "del", "aem0")
		until(t, links, func(c aem.LinkChange) bool { return c.Name == "aem0" && c.Gone })
		must(t, g.Shutdown())
	})
}

// until receives until one fits.
func until[T any](t *testing.T, ch <-chan T, fits func(T) bool) T {
	t.Helper()
	for {
		if v := recv(t, ch); fits(v) {
			return v
		}
	}
}

func TestIntegrationAccesses(t *testing.T) {
	lab.Require(t)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		file := filepath.Join(t.TempDir(), "read")
		must(t, os.WriteFile(file, []byte("x"), 0o600))
		_, got := watch(t, l, aem.Accesses(file, "", aem.Opened|aem.Accessed), aem.EventConfig{})
		cmd := exec.Command("cat", file)
		must(t, cmd.Run())
		a := until(t, got, func(a aem.Access) bool { return a.Op&aem.Opened != 0 })
		if a.Path != file || a.PID != cmd.Process.Pid {
			t.Fatalf("%+v, want %s of %d", a, file, cmd.Process.Pid)
		}
		bad := register(t, l, aem.Accesses(file, "everything", aem.Opened), func(*aem.Ctx, aem.Access) {}, aem.EventConfig{})
		if bad.Start() == nil {
			t.Fatal("a scope that does not exist was taken")
		}
	})
}
