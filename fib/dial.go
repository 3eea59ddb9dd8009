package fib

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
)

// Dialer is a [net.Dialer] whose connections run in a FIB: routes, source addresses and neighbours are the FIB's, and
// so are the name servers. All options of net.Dialer keep their meaning; Control and ControlContext are called when the
// socket is in the FIB. Networks without routing ("unix") are dialed as net.Dialer does.
//
// FIB must name a FIB that is set up on this host (by midplane fib add, or by the node daemon); the record of it is
// looked at in each dial, without a daemon. How a socket gets in depends on the FIB's back end: vrf binds it to the VRF
// device; rules marks it and, if the FIB has one port only, binds it to that; netns opens it in the FIB's network
// namespace. The first two need no privilege since Linux 5.7, the third CAP_SYS_ADMIN: what is missing is said by a
// [*PrivilegeError] within the *net.OpError. A connection of a process without CAP_NET_RAW in a FIB of back end rules
// with several ports is bound to the port that the route leads to when it is dialed.
//
// Names are resolved by Go's own resolver, which asks the FIB's name servers through the FIB (those of the host,
// through the FIB, if it has none), unless Resolver is set. /etc/hosts and the search list are the host's.
//
// Multipath TCP is not used, whatever SetMultipathTCP says: the kernel opens further subflows by itself, outside of
// the FIB (net/mptcp/pm_netlink.c).
//
// A Dialer may be used by several goroutines at once once its fields are set.
type Dialer struct {
	net.Dialer
	FIB string // name or number; required
	Dir string // where the record of FIBs is; default $MIDPLANE_FIB_DIR, else /run/midplane/fib
}

// PrivilegeError says which privilege is missing for a FIB, and why it is needed.
type PrivilegeError = enter.PrivilegeError

// NotSetUpError says that no FIB of a name or number is set up on this host.
type NotSetUpError = binding.NotFoundError

// Dial connects to an address in a FIB; see [net.Dial] for networks and addresses, and [Dialer].
func Dial(fib, network, address string) (net.Conn, error) {
	return (&Dialer{FIB: fib}).Dial(network, address)
}

// Dial connects to an address; see [net.Dialer.Dial].
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to an address; see [net.Dialer.DialContext].
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n, err := d.within(network)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return n.DialContext(ctx, network, address)
}

// DialTCP connects by TCP; see [net.Dialer.DialTCP].
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*net.TCPConn, error) {
	n, err := d.within(network)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return n.DialTCP(ctx, network, laddr, raddr)
}

// DialUDP connects a UDP socket; see [net.Dialer.DialUDP].
func (d *Dialer) DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*net.UDPConn, error) {
	n, err := d.within(network)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return n.DialUDP(ctx, network, laddr, raddr)
}

// DialIP connects a raw IP socket; see [net.Dialer.DialIP].
func (d *Dialer) DialIP(ctx context.Context, network string, laddr, raddr netip.Addr) (*net.IPConn, error) {
	n, err := d.within(network)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return n.DialIP(ctx, network, laddr, raddr)
}

// within returns a net.Dialer whose sockets enter the FIB.
func (d *Dialer) within(network string) (*net.Dialer, error) {
	n := d.Dialer
	if !routed(network) {
		return &n, nil
	}
	b, err := find(d.FIB, d.Dir)
	if err != nil {
		return nil, err
	}
	n.SetMultipathTCP(false)
	user, userContext := n.Control, n.ControlContext
	n.Control = nil
	n.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := enterSocket(b, "", c, target(address)); err != nil {
			return err
		}
		switch {
		case userContext != nil: // it takes precedence, as in package net
			return userContext(ctx, network, address, c)
		case user != nil:
			return user(network, address, c)
		}
		return nil
	}
	if n.Resolver == nil {
		n.Resolver = resolver(b)
	}
	return &n, nil
}

// routed says whether a network has routes.
func routed(network string) bool { return !strings.HasPrefix(network, "unix") }

// find reads the record of a FIB.
func find(fib, dir string) (binding.Binding, error) {
	if fib == "" {
		return binding.Binding{}, &FieldError{"FIB", "", "the name or number of a FIB"}
	}
	if dir == "" {
		dir = binding.DefaultDir()
	}
	return lookUp(dir, fib)
}

// enterSocket puts the socket behind c into the FIB.
func enterSocket(b binding.Binding, port string, c syscall.RawConn, to netip.Addr) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = enter.Socket(b, port, int(fd), to) }); cerr != nil {
		return cerr
	}
	return err
}

// target is the address that a socket is going to be connected to.
func target(address string) netip.Addr {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return ap.Addr()
	}
	a, _ := netip.ParseAddr(address) // raw IP sockets have no port
	return a
}
