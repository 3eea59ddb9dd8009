package bearer

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

const (
	udpRxBatch   = 8     // datagrams, or merged trains of them, of one recvmmsg call: more would not fit the L2 cache
	udpRxSize    = 65536 // the largest datagram and the largest merged train fit
	maxGSOLimits = 1024  // destinations whose segmentation limit is remembered
)

// open makes the sockets.
func (u *UDP) open() error {
	p := u.plan
	fd, err := u.socket(p.local, false)
	if err != nil {
		return err
	}
	if p.Plain {
		conn, err := netConn(fd, u.name)
		if err != nil {
			return err
		}
		u.conn, u.send = conn, u.sendPlain
		u.readers = []Reader{newPlainReader(u, conn, false)}
		if !p.group.IsValid() {
			return nil
		}
		if fd, err = u.socket(netip.AddrPortFrom(p.group.Addr(), p.groupPort()), true); err != nil {
			return err
		}
		if conn, err = netConn(fd, u.name); err != nil {
			return err
		}
		u.groupConn = conn
		u.readers = append(u.readers, newPlainReader(u, conn, true))
		return nil
	}
	sock, err := newWaitSock(fd)
	if err != nil {
		return err
	}
	u.conn = sock
	tx := &udpTx{u: u, gso: !p.NoOffload && probeGSO(fd)}
	if err := tx.mm.init(sock, &u.stats); err != nil {
		return err
	}
	tx.mm.refused = tx.refused
	u.send = tx.write
	if err := u.addReader(sock, false); err != nil || !p.group.IsValid() {
		return err
	}
	if fd, err = u.socket(netip.AddrPortFrom(p.group.Addr(), p.groupPort()), true); err != nil {
		return err
	}
	if sock, err = newWaitSock(fd); err != nil {
		return err
	}
	u.groupConn = sock
	return u.addReader(sock, true)
}

func (u *UDP) addReader(s *waitSock, group bool) error {
	r := &udpRx{u: u, sock: s, group: group}
	if err := r.mm.initBufs(s, udpRxBatch, udpRxSize); err != nil {
		return err
	}
	u.readers = append(u.readers, r)
	return nil
}

// netConn makes a socket one of the net package's. fd is closed.
func netConn(fd int, name string) (*net.UDPConn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // the net package works on a duplicate
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// socket makes a UDP socket bound to at. A socket for the group receives that
// group's datagrams from this bearer's interface only.
func (u *UDP) socket(at netip.AddrPort, group bool) (fd int, err error) {
	p := u.plan
	v6 := at.Addr().Is6()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()

	rcv, snd := sys.SetBuffers(fd, p.RecvBuf, p.SendBuf)
	if !group {
		u.rcvbuf, u.sndbuf = rcv, snd
	}
	set := func(what string, level, opt, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt "+what, unix.SetsockoptInt(fd, level, opt, value))
		}
	}
	// These two are missing on old kernels only, and things work without.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	if !p.NoOffload && !p.Plain {
		unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	if v6 {
		set("IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
		set("IPV6_UNICAST_HOPS", unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, p.TTL)
		set("IPV6_MULTICAST_HOPS", unix.SOL_IPV6, unix.IPV6_MULTICAST_HOPS, p.TTL)
		set("IPV6_MULTICAST_IF", unix.SOL_IPV6, unix.IPV6_MULTICAST_IF, p.ifi.Index)
		set("IPV6_MULTICAST_LOOP", unix.SOL_IPV6, unix.IPV6_MULTICAST_LOOP, 1)
		set("IPV6_MTU_DISCOVER", unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
	} else {
		set("IP_TTL", unix.SOL_IP, unix.IP_TTL, p.TTL)
		set("IP_MULTICAST_TTL", unix.SOL_IP, unix.IP_MULTICAST_TTL, p.TTL)
		set("IP_MULTICAST_LOOP", unix.SOL_IP, unix.IP_MULTICAST_LOOP, 1)
		// Linux' own bearer lets routers fragment, too: its default MTU counts on it.
		set("IP_MTU_DISCOVER", unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		if err == nil {
			mreq := &unix.IPMreqn{Ifindex: int32(p.ifi.Index)}
			err = os.NewSyscallError("setsockopt IP_MULTICAST_IF", unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, mreq))
		}
	}
	if group {
		// The other nodes of this host bind the same group and port.
		set("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return -1, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if v6 {
		s := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		if needsZone(at.Addr()) {
			s.ZoneId = uint32(p.ifi.Index)
		}
		sa = s
	} else {
		sa.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, &net.OpError{Op: "bind", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: os.NewSyscallError("bind", err)}
	}
	if group {
		if err := joinGroup(fd, at.Addr(), p.ifi.Index); err != nil {
			return -1, err
		}
	}
	return fd, nil
}

func joinGroup(fd int, group netip.Addr, ifindex int) error {
	if group.Is6() {
		// Not there before Linux 4.20; then only a bearer on a second
		// interface with the same group of wider scope would notice.
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_ALL, 0)
		m := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifindex)}
		return os.NewSyscallError("setsockopt IPV6_ADD_MEMBERSHIP", unix.SetsockoptIPv6Mreq(fd, unix.SOL_IPV6, unix.IPV6_ADD_MEMBERSHIP, m))
	}
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MULTICAST_ALL, 0)
	m := &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(ifindex)}
	return os.NewSyscallError("setsockopt IP_ADD_MEMBERSHIP", unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, m))
}

// needsZone reports whether the kernel wants an interface with the address.
func needsZone(a netip.Addr) bool {
	return a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast())
}

// probeGSO asks whether the kernel knows UDP_SEGMENT (Linux 4.18).
func probeGSO(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// udpRx is a reader of one of the sockets.
type udpRx struct {
	u     *UDP
	sock  *waitSock
	mm    mmsgRx
	group bool

	cur   int            // message being returned
	rest  []byte         // what is left of it
	seg   int            // size to cut it at
	src   wire.MediaAddr // its source
	drops uint32         // last value of the kernel's drop counter
}

// ReadBatch implements Reader.
func (r *udpRx) ReadBatch(p []Packet) (int, error) { return r.read(p, true) }

// ReadBatchDirect implements DirectReader.
func (r *udpRx) ReadBatchDirect(p []Packet) (int, error) {
	r.mm.flags = unix.MSG_WAITFORONE
	n, err := r.read(p, false)
	r.mm.flags = unix.MSG_DONTWAIT
	if n == 0 && err == nil && r.sock.shut.Load() {
		err = ErrClosed
	}
	return n, err
}

// Kick implements DirectReader: an empty datagram from the socket to itself.
func (r *udpRx) Kick() { r.sock.kick() }

// TryReadBatch implements Reader.
func (r *udpRx) TryReadBatch(p []Packet) (int, error) { return r.read(p, false) }

func (r *udpRx) read(p []Packet, wait bool) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n := r.take(p); n > 0 {
			return n, nil
		}
		r.cur = 0
		if err := r.mm.fill(wait, &r.u.stats); err != nil {
			r.mm.n = 0
			return 0, err
		}
		if !wait {
			return r.take(p), nil
		}
	}
}

// take fills p from what was received.
func (r *udpRx) take(p []Packet) int {
	n, size, merged := 0, 0, 0
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.cur >= r.mm.n {
				break
			}
			r.next()
			continue
		}
		k := min(r.seg, len(r.rest))
		p[n] = Packet{Src: r.src, Broadcast: r.group, Data: r.rest[:k:k]}
		switch whole := len(r.mm.data(r.cur - 1)); {
		case k < whole:
			merged++
		case k > buf.Roomy:
			p[n].Buf = r.mm.take(r.cur - 1)
		}
		r.rest = r.rest[k:]
		size += k
		n++
	}
	if n > 0 {
		st := &r.u.stats
		st.rxDatagrams.Add(uint64(n))
		st.rxBytes.Add(uint64(size))
		if merged > 0 {
			st.rxMerged.Add(uint64(merged))
		}
	}
	return n
}

// next starts with another message; r.rest stays empty when it is not for us.
func (r *udpRx) next() {
	i := r.cur
	r.cur++
	st := &r.u.stats
	seg, drops, ok := r.mm.control(i)
	if ok {
		st.rxOverflow.Add(uint64(drops - r.drops)) // the counter wraps
		r.drops = drops
	}
	data := r.mm.data(i)
	switch {
	case r.mm.msgs[i].Hdr.Flags&unix.MSG_TRUNC != 0:
		st.rxTruncated.Add(1)
		return
	case len(data) == 0:
		st.rxEmpty.Add(1)
		return
	}
	src, ok := r.source(i)
	if !ok {
		st.rxForeign.Add(1)
		return
	}
	if src == r.u.addr.IP {
		st.rxOwn.Add(1)
		return
	}
	r.src = wire.MediaAddr{Media: wire.MediaUDP, IP: src}
	r.rest, r.seg = data, len(data)
	if seg > 0 {
		r.seg = seg
	}
}

func (r *udpRx) source(i int) (netip.AddrPort, bool) {
	sa := &r.mm.names[i]
	switch sa.Family {
	case unix.AF_INET:
		s4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(s4.Addr), ntohs(s4.Port)), true
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), ntohs(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// ntohs and htons convert a port that was read or is written as it lies in memory.
func ntohs(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

func htons(port uint16) uint16 { return ntohs(port) }

// udpTx sends batches. Its methods are called with u.sendMu held.
type udpTx struct {
	u   *UDP
	mm  mmsgTx
	gso bool

	// limits holds the largest segment that the kernel cuts for a
	// destination, for those that have refused one: 0 means none at all.
	limits map[netip.AddrPort]int
}

func (t *udpTx) write(b *buf.Batch, id int) error {
	dgs := b.Datagrams
	limit := maxUDPPayload(t.u.plan.local.Addr().Is6())
	for i := 0; i < len(dgs); {
		d := &dgs[i]
		if id != All && d.Bearer != id {
			i++
			continue
		}
		dst, peers, ok := t.u.destination(d.Dst)
		if !ok || d.Len() > limit {
			t.u.stats.txErrors.Add(1)
			i++
			continue
		}
		j, seg := i+1, 0
		if t.gso {
			if j = runEnd(dgs, i, limit); j > i+1 {
				seg = d.Len()
			}
		}
		if peers == nil {
			if err := t.add(b, i, j, seg, dst); err != nil {
				return err
			}
		}
		for _, peer := range peers {
			if err := t.add(b, i, j, seg, peer); err != nil {
				return err
			}
		}
		i = j
	}
	return t.mm.flush()
}

// runEnd returns the end of the run of datagrams from i on that the kernel can
// cut from one buffer: to one destination, all of one size but the last, which
// may be shorter, and together not more than limit octets.
func runEnd(dgs []buf.Datagram, i, limit int) int {
	first := &dgs[i]
	seg, total := first.Len(), first.Len()
	if seg == 0 {
		return i + 1
	}
	j := i + 1
	for j < len(dgs) && j-i < maxSegments {
		d := &dgs[j]
		l := d.Len()
		if l == 0 || l > seg || total+l > limit || d.Bearer != first.Bearer || d.Dst != first.Dst {
			break
		}
		total += l
		j++
		if l < seg {
			break
		}
	}
	return j
}

// add queues datagrams i to j-1 for dst, in segments of seg octets if that is not 0.
func (t *udpTx) add(b *buf.Batch, i, j, seg int, dst netip.AddrPort) error {
	if seg > 0 && len(t.limits) > 0 {
		if limit, known := t.limits[dst]; known && seg > limit {
			seg = 0
		}
	}
	if seg > 0 || j == i+1 {
		return t.addOne(b, i, j, seg, dst)
	}
	for ; i < j; i++ {
		if err := t.addOne(b, i, i+1, 0, dst); err != nil {
			return err
		}
	}
	return nil
}

func (t *udpTx) addOne(b *buf.Batch, i, j, seg int, dst netip.AddrPort) error {
	m := &t.mm
	if err := m.room(2 * (j - i)); err != nil {
		return err
	}
	if span, ok := b.Span(i, j); ok {
		m.put(span)
	} else {
		for ; i < j; i++ {
			m.putDatagram(b, i)
		}
	}
	ip := dst.Addr()
	if ip.Is4() {
		*m.name4(m.n) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: htons(dst.Port()), Addr: ip.As4()}
		m.add(seg, unix.SizeofSockaddrInet4)
		return nil
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: htons(dst.Port()), Addr: ip.As16()}
	if needsZone(ip) {
		sa.Scope_id = uint32(t.u.plan.ifi.Index)
	}
	m.names[m.n] = sa
	m.add(seg, unix.SizeofSockaddrInet6)
	return nil
}

// refused learns from the kernel's refusal to segment. EINVAL and EMSGSIZE say
// that a segment exceeds the path's MTU (datagrams sent alone get fragmented),
// EIO that the device cannot do checksums.
func (t *udpTx) refused(i int, e syscall.Errno) {
	sa := &t.mm.names[i]
	var dst netip.AddrPort
	if sa.Family == unix.AF_INET {
		s4 := t.mm.name4(i)
		dst = netip.AddrPortFrom(netip.AddrFrom4(s4.Addr), ntohs(s4.Port))
	} else {
		dst = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), ntohs(sa.Port))
	}
	limit := 0
	if e == unix.EINVAL || e == unix.EMSGSIZE {
		// The device's MTU is the likely limit. If it was not, the next
		// refusal ends segmentation for this destination.
		limit = t.u.plan.ifi.MTU - 20 - 8
		if dst.Addr().Is6() {
			limit -= 20
		}
		if limit >= t.mm.segs[i] {
			limit = 0
		}
	}
	if t.limits == nil || len(t.limits) >= maxGSOLimits {
		t.limits = make(map[netip.AddrPort]int)
	}
	t.limits[dst] = limit
}
