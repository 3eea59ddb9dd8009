//go:build linux

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// Network is a bridge in a namespace of its own, and the hosts and guests on it. Bridge and namespace end with the
// test.
type Network struct {
	*Namespace
	bridges  int // how many bridges there are: 1, or more for hosts of several networks
	stations int // how many stations were made, which gives each its addresses
}

// NewNetwork makes an empty network with one bridge.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n := &Network{Namespace: NewNamespace(t)}
	n.needBridges(1)
	return n
}

// bridge is the name of the bridge that the stations' device number nic is on.
func bridge(nic int) string { return fmt.Sprintf("br%d", nic) }

// needBridges makes bridges until there are count. Each is a LAN of its own: device number i of every station is on
// bridge number i. Multicast goes everywhere on it, as on a plain switch.
func (n *Network) needBridges(count int) {
	n.t.Helper()
	for ; n.bridges < count; n.bridges++ {
		b := bridge(n.bridges)
		n.IP("link", "add", b, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0", "stp_state", "0")
		n.IP("link", "set", b, "address", fmt.Sprintf("02:00:00:00:ff:%02x", n.bridges), "addrgenmode", "none", "up")
	}
}

// Addr4 is the IPv4 address that station number i (from 1, guests and hosts in the order they were made) has on its
// device number nic: 10.99.nic.i.
func Addr4(i, nic int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, byte(nic), byte(i)}) }

// Addr6 is the IPv6 address that goes with Addr4: fd99:nic::i.
func Addr6(i, nic int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd99:%x::%x", nic, i))
}

// mac is the Ethernet address that goes with Addr4.
func mac(i, nic int) string { return fmt.Sprintf("02:00:00:00:%02x:%02x", nic, i) }

// addressing is the `ip -batch` input that gives a station the addresses of one device.
func addressing(i, nic int, device string) string {
	return fmt.Sprintf("link set %[1]s up\naddr add %[2]s/24 dev %[1]s\naddr add %[3]s/64 dev %[1]s nodad\n",
		device, Addr4(i, nic), Addr6(i, nic))
}

// Port is where a station's device meets its bridge: the plug of the cable.
type Port struct {
	network *Network
	name    string
}

// Name is the device name of the port in the network's namespace.
func (p *Port) Name() string { return p.name }

// Down pulls the plug: the device in the network's namespace goes down and frames stop both ways.
// A guest's own device does not notice; a Host's loses its carrier.
func (p *Port) Down() { p.network.t.Helper(); p.network.IP("link", "set", p.name, "down") }

// Up puts the plug back.
func (p *Port) Up() { p.network.t.Helper(); p.network.IP("link", "set", p.name, "up") }

// tap makes a tap on a bridge. It is persistent, and so outlives the guest that uses it until the namespace ends.
func (n *Network) tap(name string, nic int) *Port {
	n.t.Helper()
	n.IP("tuntap", "add", "dev", name, "mode", "tap")
	n.IP("link", "set", name, "addrgenmode", "none", "master", bridge(nic), "up")
	return &Port{network: n, name: name}
}

// Host is a namespace with one or more Ethernet devices on a network, eth0 and so on. Sockets and programs in it are
// a station of their own.
type Host struct {
	*Namespace
	Index int     // which station of the network it is, from 1
	Ports []*Port // its plugs, one a device
}

// Host makes a host with nics devices, at least one.
func (n *Network) Host(nics int) *Host {
	n.t.Helper()
	nics = max(nics, 1)
	n.needBridges(nics)
	n.stations++
	h := &Host{Namespace: NewNamespace(n.t), Index: n.stations}
	var batch strings.Builder
	for nic := range nics {
		device := fmt.Sprintf("eth%d", nic)
		port := fmt.Sprintf("h%de%d", h.Index, nic)
		// gso_max_segs: a capture shall see the datagrams that a real wire would carry.
		n.IP("link", "add", port, "type", "veth", "peer", "name", device, "address", mac(h.Index, nic), "netns", h.name)
		n.IP("link", "set", port, "addrgenmode", "none", "master", bridge(nic), "up")
		h.Ports = append(h.Ports, &Port{network: n, name: port})
		batch.WriteString("link set dev " + device + " gso_max_segs 1\n" + addressing(h.Index, nic, device))
	}
	p := h.Start("ip", "-batch", "-")
	_, _ = p.Stdin.Write([]byte(batch.String()))
	_ = p.Stdin.Close()
	p.Finish()
	for nic, port := range h.Ports {
		n.waitRunning(port.name)
		h.waitRunning(fmt.Sprintf("eth%d", nic))
	}
	return h
}

// waitRunning waits until the kernel has seen that both ends of a device's cable are up, which it learns a little
// after they are; until then it drops what is sent.
func (ns *Namespace) waitRunning(device string) {
	ns.t.Helper()
	running := func() bool {
		var i *net.Interface
		err := ns.Do(func() (err error) { i, err = net.InterfaceByName(device); return err })
		return err == nil && i.Flags&net.FlagRunning != 0
	}
	if _, ok := Until(Patience, running); !ok {
		ns.t.Fatalf("lab: device %s does not run", device)
	}
}

// Addr is the IPv4 address of the host's device number nic.
func (h *Host) Addr(nic int) netip.Addr { return Addr4(h.Index, nic) }

// Addr6 is the IPv6 address of the host's device number nic.
func (h *Host) Addr6(nic int) netip.Addr { return Addr6(h.Index, nic) }
