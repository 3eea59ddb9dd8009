package bearer_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A lan is a bridge in a network namespace of its own, and hosts around it in
// a namespace each:
//
//	host 1: eth0 ── veth ─┐
//	host 2: eth0 ── veth ─┼─ br0
//	host 3: eth0 ── veth ─┘
//	10.77.0.n/24 and fd77::n/64 on eth0, MTU as asked for
//
// The namespaces belong to threads, and vanish with them and the sockets made in them.
type lan struct {
	t     *testing.T
	sw    *netns
	hosts []*netns
}

// netns runs functions on a thread in its own network namespace.
type netns struct {
	calls chan func()
	tid   int
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		n.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		if err != nil {
			return
		}
		// Without it, addresses are usable only after one or two seconds.
		os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		for f := range n.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		skipUnlessCI(t, fmt.Sprintf("needs root to make network namespaces (sudo go test ./internal/tipc/bearer): %v", err))
	}
	t.Cleanup(func() { close(n.calls) })
	return n
}

// do runs f in the namespace.
func (n *netns) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

// ip runs the ip command in the namespace.
func (n *netns) ip(t *testing.T, args ...string) {
	t.Helper()
	n.run(t, append([]string{"ip"}, args...)...)
}

func (n *netns) run(t *testing.T, args ...string) {
	t.Helper()
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command(args[0], args[1:]...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func newLAN(t *testing.T, n, mtu int) *lan {
	t.Helper()
	if os.Getuid() != 0 {
		skipUnlessCI(t, "needs root to make network namespaces (sudo go test ./internal/tipc/bearer)")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		skipUnlessCI(t, "needs ip (apt-get install iproute2)")
	}
	l := &lan{t: t, sw: newNetns(t)}
	m := fmt.Sprint(mtu)
	l.sw.ip(t, "link", "add", "br0", "mtu", m, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	l.sw.ip(t, "link", "set", "br0", "up")
	for i := 1; i <= n; i++ {
		h := newNetns(t)
		l.hosts = append(l.hosts, h)
		port := fmt.Sprintf("p%d", i)
		l.sw.ip(t, "link", "add", port, "mtu", m, "type", "veth", "peer", "name", "eth0", "mtu", m, "netns", fmt.Sprint(h.tid))
		l.sw.ip(t, "link", "set", port, "master", "br0", "up")
		h.ip(t, "link", "set", "lo", "up")
		h.ip(t, "link", "set", "eth0", "up")
		h.ip(t, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i), "dev", "eth0")
		h.ip(t, "-6", "addr", "add", fmt.Sprintf("fd77::%d/64", i), "dev", "eth0", "nodad")
	}
	for i, h := range l.hosts {
		h.running(t, "eth0")
		l.sw.running(t, fmt.Sprintf("p%d", i+1))
		h.do(func() { l.settled(i) })
	}
	return l
}

// running waits until the kernel has seen that both ends of a device's cable are
// up; until then it drops what is sent.
func (n *netns) running(t *testing.T, device string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var ifi *net.Interface
		var err error
		n.do(func() { ifi, err = net.InterfaceByName(device) })
		if err == nil && ifi.Flags&net.FlagRunning != 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not run: %v, %v", device, ifi, err)
		}
		time.Sleep(10 * time.Millisecond) // the kernel tells nobody without netlink
	}
}

// settled waits for the link-local address.
func (l *lan) settled(i int) {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := l.tryLinkLocal()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Errorf("host %d has no link-local address: %v", i+1, err)
			return
		}
		time.Sleep(10 * time.Millisecond) // the kernel tells nobody without netlink
	}
}

// tryLinkLocal binds the address by the interface's number: the net package
// remembers names of interfaces, and they differ between namespaces.
func (l *lan) tryLinkLocal() error {
	ip := l.linkLocal()
	if ip == nil {
		return errors.New("none yet")
	}
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte(ip.To16()), ZoneId: uint32(ifi.Index)})
}

// linkLocal returns eth0's link-local address; called in a host's namespace.
func (l *lan) linkLocal() net.IP {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil
	}
	addrs, _ := ifi.Addrs()
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; ip.To4() == nil && ip.IsLinkLocalUnicast() {
			return ip
		}
	}
	return nil
}
