package fib

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"midplane/internal/fib/binding"
)

// ListenConfig is a [net.ListenConfig] whose sockets are in a FIB: only packets of the FIB reach them, answers leave by
// its routes, and any number of FIBs listen on the same address and port. All options of net.ListenConfig keep their
// meaning; Control is called when the socket is in the FIB, once a socket. Networks without routing ("unix",
// "unixgram") are listened to as net.ListenConfig does.
//
// See [Dialer] for how a socket gets into a FIB, for privileges, names, and Multipath TCP.
//
// In a FIB of back end rules with several ports there is one socket a port behind the listener, because accepted
// connections are kept apart by device; then the listener is a *[PortListener] and the packet connection a
// *[PortPacketConn], with the ports that the FIB had when it was made. In all other cases the types are those that
// package net returns, such as *net.TCPListener and *net.UDPConn.
type ListenConfig struct {
	net.ListenConfig
	FIB string // name or number; required
	Dir string // where the record of FIBs is; default $MIDPLANE_FIB_DIR, else /run/midplane/fib
}

// Listen listens in a FIB for connections; see [net.Listen] and [ListenConfig].
func Listen(fib, network, address string) (net.Listener, error) {
	return (&ListenConfig{FIB: fib}).Listen(context.Background(), network, address)
}

// ListenPacket opens a packet socket in a FIB; see [net.ListenPacket] and [ListenConfig].
func ListenPacket(fib, network, address string) (net.PacketConn, error) {
	return (&ListenConfig{FIB: fib}).ListenPacket(context.Background(), network, address)
}

// Listen listens for connections; see [net.ListenConfig.Listen].
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if !routed(network) {
		return lc.ListenConfig.Listen(ctx, network, address)
	}
	b, address, err := lc.prepare(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	if !perPort(b) {
		return lc.within(b, "").Listen(ctx, network, address)
	}
	l, err := forPorts(b.Ports, address, func(port, address string) (net.Listener, error) {
		return lc.within(b, port).Listen(ctx, network, address)
	}, net.Listener.Addr)
	if err != nil {
		return nil, err
	}
	return newPortListener(l), nil
}

// ListenPacket opens a packet socket; see [net.ListenConfig.ListenPacket].
func (lc *ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if !routed(network) {
		return lc.ListenConfig.ListenPacket(ctx, network, address)
	}
	b, address, err := lc.prepare(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	if !perPort(b) {
		return lc.within(b, "").ListenPacket(ctx, network, address)
	}
	l, err := forPorts(b.Ports, address, func(port, address string) (net.PacketConn, error) {
		return lc.within(b, port).ListenPacket(ctx, network, address)
	}, net.PacketConn.LocalAddr)
	if err != nil {
		return nil, err
	}
	return newPortPacketConn(b, l), nil
}

// perPort says whether a listener needs a socket a port.
func perPort(b binding.Binding) bool { return b.Backend == binding.Rules && len(b.Ports) > 1 }

// prepare finds the FIB and resolves the host of the address through it.
func (lc *ListenConfig) prepare(ctx context.Context, network, address string) (binding.Binding, string, error) {
	b, err := find(lc.FIB, lc.Dir)
	if err != nil {
		return b, "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || literal(host) {
		return b, address, nil // without a name; what is wrong with it package net says
	}
	ips, err := resolver(b).LookupNetIP(ctx, family(network), host)
	if err != nil {
		return b, "", err
	}
	ip := ips[0].Unmap()
	for _, other := range ips {
		if other = other.Unmap(); other.Is4() { // IPv4 first, as package net does
			ip = other
			break
		}
	}
	return b, net.JoinHostPort(ip.String(), port), nil
}

func literal(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// family is the "ip", "ip4" or "ip6" of a network.
func family(network string) string {
	switch network[len(network)-1] {
	case '4':
		return "ip4"
	case '6':
		return "ip6"
	}
	return "ip"
}

// within returns a net.ListenConfig whose sockets enter the FIB, at a port if one is given.
func (lc *ListenConfig) within(b binding.Binding, port string) *net.ListenConfig {
	n := lc.ListenConfig
	n.SetMultipathTCP(false)
	user := n.Control
	n.Control = func(network, address string, c syscall.RawConn) error {
		if err := enterSocket(b, port, c, netip.Addr{}); err != nil {
			return err
		}
		if user != nil {
			return user(network, address, c)
		}
		return nil
	}
	return &n
}

// portAttempts bounds how often a port number is chosen that is free at one port of the FIB and taken at another.
const portAttempts = 16

// member is a socket behind a listener, and the FIB's port that it is bound to.
type member[T any] struct {
	port   string
	socket T
}

// forPorts opens a socket for each port of a FIB. When the address leaves the number to the kernel, that of the first
// is taken for all.
func forPorts[T interface{ Close() error }](ports []string, address string, open func(port, address string) (T, error), addr func(T) net.Addr) ([]member[T], error) {
	host, number, _ := net.SplitHostPort(address)
	chosen := number != "" && number != "0"
	for attempt := 1; ; attempt++ {
		var all []member[T]
		var err error
		at := address
		for _, port := range ports {
			var s T
			if s, err = open(port, at); err != nil {
				break
			}
			all = append(all, member[T]{port, s})
			if !chosen {
				if n := portNumber(addr(s)); n != 0 { // raw IP has none
					at = net.JoinHostPort(host, strconv.Itoa(n))
				}
			}
		}
		if err == nil {
			return all, nil
		}
		for _, m := range all {
			_ = m.socket.Close()
		}
		if chosen || len(all) == 0 || attempt == portAttempts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

func portNumber(a net.Addr) int {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	}
	return 0
}
