package fib

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
)

// loopbackFIB is a FIB of back end rules whose port is lo: sockets can be bound to it without a privilege.
func loopbackFIB(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := binding.Save(dir, []binding.Binding{{FIB: 7, Name: "loop", Backend: binding.Rules, Mark: 7, Ports: []string{"lo"}}}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// boundTo returns the device that a socket is bound to.
func boundTo(t *testing.T, c syscall.RawConn) (device string) {
	t.Helper()
	var err error
	if cerr := c.Control(func(fd uintptr) { device, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return device
}

func TestSocketsAreInTheFIBWhenControlSeesThem(t *testing.T) {
	dir := loopbackFIB(t)
	type call struct{ network, address, device string }
	var calls []call
	control := func(network, address string, c syscall.RawConn) error {
		calls = append(calls, call{network, address, boundTo(t, c)})
		return nil
	}
	lc := ListenConfig{FIB: "loop", Dir: dir}
	lc.Control = control
	lc.SetMultipathTCP(true)
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := Dialer{FIB: "7", Dir: dir}
	d.Timeout = patience
	d.Control = control
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.ControlContext = func(_ context.Context, network, address string, c syscall.RawConn) error {
		return control("context "+network, address, c)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	if c, err := d.DialTCP(context.Background(), "tcp", netip.AddrPort{}, to); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if c, err := d.DialUDP(context.Background(), "udp", netip.AddrPort{}, to); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	want := []call{{"tcp4", "127.0.0.1:0", "lo"}, {"tcp4", to.String(), "lo"}, {"context tcp4", to.String(), "lo"}, {"context udp4", to.String(), "lo"}}
	if len(calls) != len(want) {
		t.Fatalf("calls %+v", calls)
	}
	for i, c := range calls {
		if c != want[i] {
			t.Errorf("call %d: %+v, want %+v", i, c, want[i])
		}
	}
	// An error of it is the error of the dial.
	mine := errors.New("mine")
	d.ControlContext = func(context.Context, string, string, syscall.RawConn) error { return mine }
	if _, err := d.Dial("tcp", to.String()); !errors.Is(err, mine) {
		t.Errorf("dial: %v", err)
	}
	// What is accepted is in the FIB too.
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw, err := s.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if device := boundTo(t, raw); device != "lo" {
		t.Errorf("the accepted socket is bound to %q", device)
	}
	if ok, err := s.(*net.TCPConn).MultipathTCP(); ok || err != nil {
		t.Errorf("Multipath TCP: %v, %v", ok, err)
	}
	_ = s.SetDeadline(time.Now().Add(patience))
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestDialKeepsItsLimits(t *testing.T) {
	d := Dialer{FIB: "loop", Dir: loopbackFIB(t)}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.DialContext(ctx, "tcp", "127.0.0.1:9"); err == nil {
		t.Errorf("canceled: %v", err)
	}
	d.Deadline = time.Now().Add(-time.Second)
	var ne net.Error
	if _, err := d.Dial("tcp", "127.0.0.1:9"); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("past deadline: %v", err)
	}
}

func TestAddressOf(t *testing.T) {
	for a, want := range map[net.Addr][2]string{
		&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}:           {"192.0.2.1", ""},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth7"}:      {"fe80::1", "eth7"},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "1"}:         {"fe80::1", "lo"},
		&net.IPAddr{IP: net.ParseIP("2001:db8::1")}:                 {"2001:db8::1", ""},
		&net.IPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth7"}:       {"fe80::1", "eth7"},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "999999999"}: {"fe80::1", "999999999"},
		&net.UnixAddr{Name: "x"}:                                    {"invalid IP", ""},
	} {
		if ip, zone := addressOf(a); ip.String() != want[0] || zone != want[1] {
			t.Errorf("%v: %v, %q", a, ip, zone)
		}
	}
}
