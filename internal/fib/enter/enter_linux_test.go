package enter

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
)

// reply is an answer to RTM_GETROUTE.
func reply(kind uint16, rtmType byte, attributes ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	binary.NativeEndian.PutUint16(b[4:], kind)
	b[unix.SizeofNlMsghdr+7] = rtmType
	for _, a := range attributes {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestRouteReply(t *testing.T) {
	device := attribute(nil, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, 7))
	table := attribute(nil, unix.RTA_TABLE, []byte{1, 2, 3, 4})
	refused := reply(unix.NLMSG_ERROR, 0)
	binary.NativeEndian.PutUint32(refused[16:], ^uint32(unix.ENETUNREACH)+1)
	for _, c := range []struct {
		b     []byte
		index int
		local bool
		err   error
	}{
		{reply(unix.RTM_NEWROUTE, unix.RTN_UNICAST, table, device), 7, false, nil},
		{reply(unix.RTM_NEWROUTE, unix.RTN_LOCAL, device), 7, true, nil},
		{reply(unix.RTM_NEWROUTE, unix.RTN_UNICAST, table), 0, false, unix.ENETUNREACH},
		{reply(unix.RTM_NEWROUTE, unix.RTN_UNREACHABLE, device), 0, false, unix.EHOSTUNREACH},
		{reply(unix.RTM_NEWROUTE, unix.RTN_PROHIBIT, device), 0, false, unix.EACCES},
		{reply(unix.RTM_NEWROUTE, unix.RTN_BLACKHOLE, device), 0, false, unix.EINVAL},
		{refused, 0, false, unix.ENETUNREACH},
		{reply(unix.RTM_NEWLINK, unix.RTN_UNICAST, device), 0, false, unix.EBADMSG},
		{reply(unix.RTM_NEWROUTE, unix.RTN_UNICAST, []byte{3, 0, 4, 0}), 0, false, unix.EBADMSG},
		{nil, 0, false, unix.EBADMSG},
	} {
		index, local, err := routeReply(c.b)
		if index != c.index || local != c.local || !errors.Is(err, c.err) {
			t.Errorf("%x: %d, %v, %v; want %d, %v, %v", c.b, index, local, err, c.index, c.local, c.err)
		}
	}
	whole := reply(unix.RTM_NEWROUTE, unix.RTN_UNICAST, table, device)
	for n := range whole {
		if index, _, err := routeReply(whole[:n]); err == nil {
			t.Errorf("cut after %d octets: device %d", n, index)
		}
	}
}

func FuzzRouteReply(f *testing.F) {
	f.Add(reply(unix.RTM_NEWROUTE, unix.RTN_UNICAST, attribute(nil, unix.RTA_OIF, []byte{1, 0, 0, 0})))
	f.Add(reply(unix.NLMSG_ERROR, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if index, _, err := routeReply(b); err != nil && index != 0 {
			t.Errorf("device %d and %v", index, err)
		}
	})
}

func TestRouteRequest(t *testing.T) {
	for a, family := range map[string]byte{"192.0.2.1": unix.AF_INET, "2001:db8::1": unix.AF_INET6} {
		ip := netip.MustParseAddr(a)
		b := routeRequest(10, ip)
		if int(binary.NativeEndian.Uint32(b)) != len(b) || b[16] != family || int(b[17]) != ip.BitLen() || len(b) != 28+4+ip.BitLen()/8+8 {
			t.Errorf("%s: %x", a, b)
		}
	}
	// The kernel takes it: loopback is there in each namespace, in no FIB.
	if _, local, err := routeDevice(0, netip.MustParseAddr("127.0.0.1")); err != nil || !local {
		t.Errorf("127.0.0.1: local %v, %v", local, err)
	}
}

func TestErrorsSayWhat(t *testing.T) {
	err := &PrivilegeError{"blue", "do x", "CAP_Y", "z", unix.EPERM}
	if !errors.Is(err, fs.ErrPermission) || err.Error() != "fib blue: do x: operation not permitted; this needs CAP_Y: z" {
		t.Error(err)
	}
	for b, want := range map[*binding.Binding]string{
		{FIB: 9, Backend: binding.Rules}:                                           "fib 9: no port",
		{FIB: 9, Name: "n", Backend: binding.Rules, Ports: []string{"a"}}:          `fib n: port "b": want one of ["a"]`,
		{FIB: 9, Name: "n", Backend: binding.VRF, Device: "no-such-vrf"}:           "fib n: ",
		{FIB: 9, Name: "n", Backend: binding.Netns, Netns: "/no/such/namespace"}:   "fib n: its network namespace: open /no/such/namespace",
		{FIB: 9, Name: "n", Backend: binding.Backend("x")}:                         `back end "x" of FIB n is not supported here`,
		{FIB: 9, Name: "n", Backend: binding.Rules, Mark: 1, Ports: []string{"z"}}: "fib n: ",
	} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		port := ""
		if strings.Contains(want, `"b"`) {
			port = "b"
		}
		if err := Socket(*b, port, fd, netip.Addr{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", *b, err, want)
		}
		_ = unix.Close(fd)
	}
}
