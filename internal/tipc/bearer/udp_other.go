//go:build !linux

package bearer

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// open makes the sockets with the standard library alone.
func (u *UDP) open() error {
	p := u.plan
	network := "udp4"
	la := net.UDPAddrFromAddrPort(p.local)
	if p.local.Addr().Is6() {
		network = "udp6"
		if p.local.Addr().IsLinkLocalUnicast() {
			la.Zone = p.ifi.Name
		}
	}
	if p.LocalPort == EphemeralPort {
		la.Port = 0
	}
	conn, err := net.ListenUDP(network, la)
	if err != nil {
		return err
	}
	u.conn = conn
	// The systems differ in how large a buffer they grant; what they refuse is not needed.
	conn.SetReadBuffer(p.RecvBuf)
	conn.SetWriteBuffer(p.SendBuf)
	u.send = u.sendPlain
	u.readers = []Reader{newPlainReader(u, conn, false)}
	if network == "udp4" {
		pc := ipv4.NewPacketConn(conn)
		pc.SetTTL(p.TTL)
		if p.group.IsValid() {
			if err := pc.SetMulticastInterface(p.ifi); err != nil {
				return err
			}
			pc.SetMulticastTTL(p.TTL)
			pc.SetMulticastLoopback(true)
		}
	} else {
		pc := ipv6.NewPacketConn(conn)
		pc.SetHopLimit(p.TTL)
		if p.group.IsValid() {
			if err := pc.SetMulticastInterface(p.ifi); err != nil {
				return err
			}
			pc.SetMulticastHopLimit(p.TTL)
			pc.SetMulticastLoopback(true)
		}
	}
	if !p.group.IsValid() {
		return nil
	}
	ga := net.UDPAddrFromAddrPort(p.group)
	ga.Port = int(p.groupPort())
	group, err := net.ListenMulticastUDP(network, p.ifi, ga)
	if err != nil {
		return err
	}
	u.groupConn = group
	group.SetReadBuffer(p.RecvBuf)
	u.readers = append(u.readers, newPlainReader(u, group, true))
	return nil
}
