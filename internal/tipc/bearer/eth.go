package bearer

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// Ethernet bearer: specification constants.
const (
	EtherType = 0x88ca // ETH_P_TIPC

	// MinMTU is the least that a device must carry (net/tipc/bearer.h
	// TIPC_MIN_BEARER_MTU: the longest header and a tunnel's).
	MinMTU = 60 + 40
)

// EthConfig configures an Ethernet bearer.
type EthConfig struct {
	// Device is the network interface; the bearer is called "eth:" and this.
	Device string

	// RecvBuf and SendBuf are the sizes of socket buffers asked for, in
	// octets: 0 means 4 MiB.
	RecvBuf, SendBuf int
}

// Eth is an Ethernet bearer. It needs CAP_NET_RAW and Linux; elsewhere OpenEth
// reports that it is not supported.
type Eth struct {
	name    string
	index   int
	device  string
	stats   counters
	readers []Reader
	rcvbuf  int
	sndbuf  int

	mtu  atomic.Int64
	addr atomic.Pointer[wire.MediaAddr]

	sendMu sync.Mutex
	sys    ethSys // what the system needs; its sending half is guarded by sendMu

	events chan Event
	done   chan struct{} // closed by Close
	once   sync.Once
	wg     sync.WaitGroup
}

var _ Bearer = (*Eth)(nil)

// OpenEth opens an Ethernet bearer on a device. As in Linux the loopback
// device is refused (net/tipc/bearer.c tipc_enable_l2_media).
func OpenEth(c EthConfig) (*Eth, error) {
	e, err := openEth(c)
	if err != nil {
		return nil, fmt.Errorf("bearer eth:%s: %w", c.Device, err)
	}
	return e, nil
}

func openEth(c EthConfig) (*Eth, error) {
	if c.Device == "" {
		return nil, badConfig("an Ethernet bearer needs a device")
	}
	if c.RecvBuf < 0 || c.SendBuf < 0 {
		return nil, badConfig("negative socket buffer")
	}
	ifi, err := device(c.Device)
	if err != nil {
		return nil, err
	}
	switch {
	case ifi.Flags&net.FlagLoopback != 0:
		return nil, badConfig("a loopback device carries no Ethernet bearer")
	case len(ifi.HardwareAddr) != 6:
		return nil, badConfig("the device has no Ethernet address")
	case ifi.MTU < MinMTU:
		return nil, badConfig("the device's MTU %d is below %d", ifi.MTU, MinMTU)
	}
	if c.RecvBuf == 0 {
		c.RecvBuf = DefaultSockBuf
	}
	if c.SendBuf == 0 {
		c.SendBuf = DefaultSockBuf
	}
	e := &Eth{
		name:   "eth:" + c.Device,
		index:  ifi.Index,
		device: c.Device,
		events: make(chan Event, 16),
		done:   make(chan struct{}),
	}
	e.mtu.Store(int64(ifi.MTU))
	e.setAddr([6]byte(ifi.HardwareAddr))
	if err := e.sys.open(e, c, ifi); err != nil {
		close(e.events)
		return nil, err
	}
	return e, nil
}

func (e *Eth) setAddr(mac [6]byte) {
	e.addr.Store(&wire.MediaAddr{Media: wire.MediaEth, MAC: mac})
}

// Name implements Bearer.
func (e *Eth) Name() string { return e.name }

// Media implements Bearer.
func (e *Eth) Media() wire.MediaType { return wire.MediaEth }

// Addr implements Bearer.
func (e *Eth) Addr() wire.MediaAddr { return *e.addr.Load() }

// BroadcastAddr implements Bearer.
func (e *Eth) BroadcastAddr() wire.MediaAddr {
	return wire.MediaAddr{Media: wire.MediaEth, Broadcast: true, MAC: broadcastMAC}
}

// BroadcastSupport implements Bearer.
func (e *Eth) BroadcastSupport() bool { return true }

// MTU implements Bearer: that of the device.
func (e *Eth) MTU() int { return int(e.mtu.Load()) }

// Readers implements Bearer.
func (e *Eth) Readers() []Reader { return e.readers }

// Events implements Bearer. When it is read late, changes in between may be
// missing, but never the device's latest state.
func (e *Eth) Events() <-chan Event { return e.events }

// Stats implements Bearer.
func (e *Eth) Stats() Stats {
	s := e.stats.snapshot()
	s.RecvBuf, s.SendBuf = e.rcvbuf, e.sndbuf
	return s
}

// WriteBatch implements Bearer.
func (e *Eth) WriteBatch(b *buf.Batch, id int) error {
	e.sendMu.Lock()
	defer e.sendMu.Unlock()
	return e.sys.write(e, b, id)
}

// Close implements Bearer.
func (e *Eth) Close() error {
	err := ErrClosed
	e.once.Do(func() {
		close(e.done)
		err = errors.Join(e.sys.close())
		e.wg.Wait()
		close(e.events)
	})
	return err
}
