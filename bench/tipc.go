package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"midplane/tipc"
)

// Ours: a node in each process, joined by the UDP bearer over loopback with unicast peer lists. In the mode inside one
// process both ends are sockets of one node.
const benchService = 47110

var local *tipc.Node // set by serveTIPC: this process answers itself

func benchNode(port int, remote netip.AddrPort) (*tipc.Node, error) {
	lo := netip.MustParseAddr("127.0.0.1")
	return tipc.NewNode(tipc.Config{Bearers: []tipc.Bearer{
		tipc.UDP{Name: "b" + strconv.Itoa(port), LocalIP: lo, LocalPort: port, Remotes: []netip.AddrPort{remote}, MTU: benchMTU},
	}})
}

// benchBuffer is about what the buffers of TCP grow to. The default is the Linux kernel's, 2 MiB.
const benchBuffer = 8 << 20

// benchMTU suits the loopback device, as the default suits Ethernet-sized networks.
const benchMTU = 64000

func serveTIPC(typ string) func() (string, func(), error) {
	return func() (string, func(), error) {
		t, err := tipc.ParseSocketType(typ)
		if err != nil {
			return "", nil, err
		}
		lo := netip.MustParseAddr("127.0.0.1")
		p := freePort()
		q := freePort()
		n, err := benchNode(p, netip.AddrPortFrom(lo, uint16(q)))
		if err != nil {
			return "", nil, err
		}
		l, err := n.Listen(tipc.ServiceAddr{Type: benchService, Instance: uint32(t)}, &tipc.SocketConfig{Type: t, ReadBuffer: benchBuffer})
		if err != nil {
			return "", nil, err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go answer(conn{c})
			}
		}()
		local = n
		return fmt.Sprintf("%d,%d", p, q), func() { n.Close() }, nil
	}
}

func dialTIPC(typ string) func(string) (endpoint, error) {
	return func(addr string) (endpoint, error) {
		t, err := tipc.ParseSocketType(typ)
		if err != nil {
			return nil, err
		}
		n := local
		if n == nil {
			var server, own int
			if _, err := fmt.Sscanf(strings.ReplaceAll(addr, ",", " "), "%d %d", &server, &own); err != nil {
				return nil, err
			}
			n, err = benchNode(own, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(server)))
			if err != nil {
				return nil, err
			}
		}
		service := tipc.ServiceAddr{Type: benchService, Instance: uint32(t)}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := published(ctx, n, service); err != nil {
			return nil, err
		}
		c, err := n.DialContext(ctx, service, &tipc.SocketConfig{Type: t, ReadBuffer: benchBuffer})
		if err != nil {
			return nil, err
		}
		return conn{c}, nil
	}
}

// published waits until somebody is bound to the service.
func published(ctx context.Context, n *tipc.Node, a tipc.ServiceAddr) error {
	s, err := n.Subscribe(tipc.ServiceRange{Type: a.Type, Lower: a.Instance, Upper: a.Instance}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.NextContext(ctx)
	return err
}

func freePort() int {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fatal("%v", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}
