package bearer

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// plainReader receives one datagram a call with what every system has.
type plainReader struct {
	u     *UDP
	conn  *net.UDPConn
	group bool
	buf   []byte
	fails int // errors in a row
}

func newPlainReader(u *UDP, conn *net.UDPConn, group bool) *plainReader {
	return &plainReader{u: u, conn: conn, group: group, buf: make([]byte, 65536)}
}

// ReadBatch implements Reader.
func (r *plainReader) ReadBatch(p []Packet) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, src, err := r.conn.ReadFromUDPAddrPort(r.buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, err
			}
			if errors.Is(err, net.ErrClosed) {
				return 0, ErrClosed
			}
			r.u.stats.rxErrors.Add(1)
			r.fails++
			backOff(r.fails)
			continue
		}
		r.fails = 0
		r.u.stats.rxCalls.Add(1)
		if n == 0 {
			r.u.stats.rxEmpty.Add(1)
			continue
		}
		// A zone would make the address differ from the one in discovery messages.
		src = netip.AddrPortFrom(src.Addr().Unmap().WithZone(""), src.Port())
		if src == r.u.addr.IP {
			r.u.stats.rxOwn.Add(1)
			continue
		}
		p[0] = Packet{Src: wire.MediaAddr{Media: wire.MediaUDP, IP: src}, Broadcast: r.group, Data: r.buf[:n:n]}
		r.u.stats.rxDatagrams.Add(1)
		r.u.stats.rxBytes.Add(uint64(n))
		return 1, nil
	}
}

// TryReadBatch implements Reader.
func (r *plainReader) TryReadBatch(p []Packet) (int, error) {
	// A deadline in the past would not even try; the next microsecond does.
	r.conn.SetReadDeadline(time.Now().Add(time.Microsecond))
	defer r.conn.SetReadDeadline(time.Time{})
	n, err := r.ReadBatch(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// backOff keeps a socket that only fails from using a processor up.
func backOff(fails int) {
	if fails > 16 {
		time.Sleep(min(time.Duration(fails-16)*time.Millisecond, 100*time.Millisecond))
	}
}

// sendPlain is WriteBatch with one call a datagram.
func (u *UDP) sendPlain(b *buf.Batch, id int) error {
	for i, d := range b.Datagrams {
		if id != All && d.Bearer != id {
			continue
		}
		pkt := b.Bytes(i)
		dst, peers, ok := u.destination(d.Dst)
		if !ok || len(pkt) > maxUDPPayload(dst.Addr().Is6()) {
			u.stats.txErrors.Add(1)
			continue
		}
		if peers == nil {
			if err := u.sendOne(pkt, dst); err != nil {
				return err
			}
		}
		for _, peer := range peers {
			if err := u.sendOne(pkt, peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// destination resolves a media address to one address, or to the list of
// peers (nil when it is one address).
func (u *UDP) destination(a wire.MediaAddr) (dst netip.AddrPort, peers []netip.AddrPort, ok bool) {
	switch {
	case a.Broadcast && u.plan.group.IsValid():
		return u.plan.group, nil, true
	case a.Broadcast:
		peers = *u.peers.Load()
		if peers == nil {
			peers = noPeers
		}
		return dst, peers, true
	}
	ok = a.Media == wire.MediaUDP && a.IP.IsValid() && a.IP.Port() != 0 && a.IP.Addr().Is6() == u.plan.local.Addr().Is6()
	return a.IP, nil, ok
}

func (u *UDP) sendOne(pkt []byte, dst netip.AddrPort) error {
	if ip := dst.Addr(); ip.IsLinkLocalUnicast() && ip.Is6() || ip.IsLinkLocalMulticast() && ip.Is6() {
		dst = netip.AddrPortFrom(ip.WithZone(u.plan.ifi.Name), dst.Port())
	}
	_, err := u.conn.(*net.UDPConn).WriteToUDPAddrPort(pkt, dst)
	switch {
	case err == nil:
		u.stats.txCalls.Add(1)
		u.stats.txDatagrams.Add(1)
		u.stats.txBytes.Add(uint64(len(pkt)))
	case errors.Is(err, net.ErrClosed):
		return ErrClosed
	default:
		u.stats.txErrors.Add(1)
	}
	return nil
}

// noPeers is an empty list that is not nil.
var noPeers = make([]netip.AddrPort, 0)
