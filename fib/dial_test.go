package fib

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"midplane/internal/fib/binding"
)

// What net's types can do ours can, so that a program changes one line.
type netDialer interface {
	Dial(network, address string) (net.Conn, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*net.TCPConn, error)
	DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*net.UDPConn, error)
	DialIP(ctx context.Context, network string, laddr, raddr netip.Addr) (*net.IPConn, error)
	DialUnix(ctx context.Context, network string, laddr, raddr *net.UnixAddr) (*net.UnixConn, error)
	MultipathTCP() bool
	SetMultipathTCP(bool)
}

type netListenConfig interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	MultipathTCP() bool
	SetMultipathTCP(bool)
}

var (
	_, _ netDialer       = (*net.Dialer)(nil), (*Dialer)(nil)
	_, _ netListenConfig = (*net.ListenConfig)(nil), (*ListenConfig)(nil)
)

func TestDialAndListenNeedAFIB(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	ap := netip.MustParseAddrPort("127.0.0.1:9")
	for _, fib := range []string{"", "blue"} {
		d, lc := Dialer{FIB: fib, Dir: dir}, ListenConfig{FIB: fib, Dir: dir}
		for what, f := range map[string]func() error{
			"Dial":         func() error { _, err := d.Dial("tcp", "127.0.0.1:9"); return err },
			"DialContext":  func() error { _, err := d.DialContext(ctx, "udp", "127.0.0.1:9"); return err },
			"DialTCP":      func() error { _, err := d.DialTCP(ctx, "tcp", netip.AddrPort{}, ap); return err },
			"DialUDP":      func() error { _, err := d.DialUDP(ctx, "udp", netip.AddrPort{}, ap); return err },
			"DialIP":       func() error { _, err := d.DialIP(ctx, "ip4:1", netip.Addr{}, ap.Addr()); return err },
			"Listen":       func() error { _, err := lc.Listen(ctx, "tcp", "127.0.0.1:0"); return err },
			"ListenPacket": func() error { _, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0"); return err },
			"Resolver":     func() error { _, err := Resolver(fib, dir); return err },
		} {
			err := f()
			var field *FieldError
			var none *NotSetUpError
			var op *net.OpError
			if what != "Resolver" && !errors.As(err, &op) {
				t.Errorf("%s in FIB %q: %v is no *net.OpError", what, fib, err)
			}
			if fib == "" && !errors.As(err, &field) || fib != "" && (!errors.As(err, &none) || none.FIB != "blue") {
				t.Errorf("%s in FIB %q: %v", what, fib, err)
			}
		}
	}
}

// Sockets of the Unix domain have no FIB.
func TestUnixSocketsAreNets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	c, err := (&Dialer{}).Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// What the user's Control sees is a socket that is in the FIB: it is called after, with the same arguments, once.
func TestControlComesAfterTheFIB(t *testing.T) {
	dir := t.TempDir()
	// A FIB that cannot be entered: no socket, so Control is not called.
	b := []binding.Binding{{FIB: 7, Name: "gone", Backend: binding.VRF, Device: "no-such-vrf"}, {FIB: 8, Name: "odd", Backend: "jail"}, {FIB: 9, Name: "bare", Backend: binding.Rules}}
	if err := binding.Save(dir, b); err != nil {
		t.Fatal(err)
	}
	called := false
	control := func(string, string, syscall.RawConn) error { called = true; return nil }
	for fib, want := range map[string]string{
		"7": "fib gone: ", "8": `back end "jail" of FIB odd is not supported here`, "9": "fib bare: no port: want a FIB with a port",
	} {
		d := Dialer{FIB: fib, Dir: dir}
		d.Control = control
		lc := ListenConfig{FIB: fib, Dir: dir}
		lc.Control = control
		_, err1 := d.Dial("tcp", "127.0.0.1:9")
		_, err2 := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		_, err3 := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
		for _, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), want) && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("FIB %s: %v, want %q", fib, err, want)
			}
		}
	}
	if called {
		t.Error("Control was called with a socket that is in no FIB")
	}
}

func TestTargets(t *testing.T) {
	for address, want := range map[string]string{"192.0.2.1:80": "192.0.2.1", "[2001:db8::1]:80": "2001:db8::1", "[fe80::1%eth0]:80": "fe80::1%eth0", "192.0.2.1": "192.0.2.1", "x:80": "invalid IP", "": "invalid IP"} {
		if got := target(address); got.String() != want {
			t.Errorf("%q: %v, want %s", address, got, want)
		}
	}
	for network, want := range map[string]string{"tcp": "ip", "tcp4": "ip4", "udp6": "ip6", "udp": "ip"} {
		if got := family(network); got != want {
			t.Errorf("%s: %s", network, got)
		}
	}
}
