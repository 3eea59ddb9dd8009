package bearer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/sys"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

const ethRxBatch = 64 // frames of one recvmmsg call

// ethSys is a packet socket for both directions and a netlink socket that
// tells of changes of the device.
type ethSys struct {
	sock *os.File
	link *linkWatch
	tx   mmsgTx
}

func (s *ethSys) open(e *Eth, c EthConfig, ifi *net.Interface) (err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("a packet socket needs CAP_NET_RAW: %w", os.NewSyscallError("socket", err))
	case err != nil:
		return &sys.UnsupportedError{Feature: "a packet socket", Err: os.NewSyscallError("socket", err)}
	}
	s.sock = os.NewFile(uintptr(fd), e.name)
	e.rcvbuf, e.sndbuf = sys.SetBuffers(fd, c.RecvBuf, c.SendBuf)
	// The monitor comes first, lest a change get lost in between.
	if s.link, err = watchLink(ifi.Index, ifi.Name); err != nil {
		return err
	}
	sa := &unix.SockaddrLinklayer{Protocol: htons(EtherType), Ifindex: ifi.Index}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := s.tx.init(s.sock, &e.stats); err != nil {
		return err
	}
	r := &ethRx{e: e}
	if err := r.mm.init(s.sock, ethRxBatch, r.bufSize()); err != nil {
		return err
	}
	e.readers = []Reader{r}
	e.wg.Go(func() { s.link.run(e) })
	return nil
}

func (s *ethSys) close() error {
	var errs []error
	if s.sock != nil {
		errs = append(errs, s.sock.Close())
	}
	if s.link != nil {
		errs = append(errs, s.link.close())
	}
	return errors.Join(errs...)
}

func (s *ethSys) write(e *Eth, b *buf.Batch, id int) error {
	t := &s.tx
	for i := range b.Datagrams {
		d := &b.Datagrams[i]
		if id != All && d.Bearer != id {
			continue
		}
		mac := d.Dst.MAC
		if d.Dst.Broadcast {
			mac = broadcastMAC
		}
		if d.Len() == 0 || d.Dst.Media != wire.MediaEth || mac == [6]byte{} {
			e.stats.txErrors.Add(1)
			continue
		}
		if err := t.room(2); err != nil {
			return err
		}
		sa := t.nameLL(t.n)
		*sa = unix.RawSockaddrLinklayer{
			Family: unix.AF_PACKET, Protocol: htons(EtherType), Ifindex: int32(e.index), Halen: 6,
		}
		copy(sa.Addr[:], mac[:])
		t.putDatagram(b, i)
		t.add(0, unix.SizeofSockaddrLinklayer)
	}
	return t.flush()
}

// ethRx reads the packet socket.
type ethRx struct {
	e     *Eth
	mm    mmsgRx
	cur   int    // next frame to return
	drops uint32 // last value of the kernel's drop counter
}

// bufSize leaves room for padding and for an MTU that has just grown a little.
func (r *ethRx) bufSize() int { return max(r.e.MTU(), 1500) + 64 }

// ReadBatch implements Reader.
func (r *ethRx) ReadBatch(p []Packet) (int, error) { return r.read(p, true) }

// TryReadBatch implements Reader.
func (r *ethRx) TryReadBatch(p []Packet) (int, error) { return r.read(p, false) }

func (r *ethRx) read(p []Packet, wait bool) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n := r.take(p); n > 0 {
			return n, nil
		}
		if size := r.bufSize(); size != r.mm.size {
			r.mm.resize(size)
		}
		r.cur = 0
		if err := r.mm.fill(wait, &r.e.stats); err != nil {
			r.mm.n = 0
			return 0, err
		}
		if r.mm.n == 0 && !wait {
			return 0, nil
		}
	}
}

// take applies the rule of net/tipc/bearer.c tipc_l2_rcv_msg: frames to this
// host and to groups, not those to others that a promiscuous device sees.
func (r *ethRx) take(p []Packet) int {
	n, size := 0, 0
	own := r.e.addr.Load().MAC
	st := &r.e.stats
	for ; n < len(p) && r.cur < r.mm.n; r.cur++ {
		i := r.cur
		if _, drops, ok := r.mm.control(i); ok {
			st.rxOverflow.Add(uint64(drops - r.drops)) // the counter wraps
			r.drops = drops
		}
		sa := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&r.mm.names[i]))
		data := r.mm.data(i)
		switch {
		case r.mm.msgs[i].Hdr.Flags&unix.MSG_TRUNC != 0:
			st.rxTruncated.Add(1)
			continue
		case len(data) == 0:
			st.rxEmpty.Add(1)
			continue
		case sa.Family != unix.AF_PACKET || sa.Halen != 6 || sa.Pkttype > unix.PACKET_MULTICAST:
			st.rxForeign.Add(1)
			continue
		}
		src := wire.MediaAddr{Media: wire.MediaEth}
		copy(src.MAC[:], sa.Addr[:])
		if src.MAC == own {
			st.rxOwn.Add(1)
			continue
		}
		p[n] = Packet{Src: src, Broadcast: sa.Pkttype != unix.PACKET_HOST, Data: data}
		size += len(data)
		n++
	}
	if n > 0 {
		st.rxDatagrams.Add(uint64(n))
		st.rxBytes.Add(uint64(size))
	}
	return n
}
