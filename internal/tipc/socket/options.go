package socket

import (
	"time"

	"midplane/internal/tipc/wire"
)

// SetImportance sets the importance of messages sent from now on, 0 (low, the default) to 3 (critical)
// (TIPC_IMPORTANCE). The importance of a connection is that of the request. [ErrInvalid] above 3.
func (s *Sock) SetImportance(level int) error {
	if level < 0 || level > int(wire.UserCritical) {
		return ErrInvalid
	}
	s.phdr().SetImportance(level)
	return nil
}

// Importance is the current level.
func (s *Sock) Importance() int { return s.phdr().Importance() }

// SetSrcDroppable marks messages as droppable by a congested sender (TIPC_SRC_DROPPABLE). It is the default of dgram
// sockets. Links of Linux 6.1 no longer act on it, nor do ours. [ErrNoOption] for streams.
func (s *Sock) SetSrcDroppable(on bool) error {
	if s.typ == Stream {
		return ErrNoOption
	}
	s.phdr().SetSrcDroppable(on)
	return nil
}

// SrcDroppable is the current setting.
func (s *Sock) SrcDroppable() bool { return s.phdr().SrcDroppable() }

// SetDestDroppable has messages that cannot be delivered dropped instead of returned (TIPC_DEST_DROPPABLE). It is the
// default of connectionless sockets.
func (s *Sock) SetDestDroppable(on bool) { s.phdr().SetDestDroppable(on) }

// DestDroppable is the current setting.
func (s *Sock) DestDroppable() bool { return s.phdr().DestDroppable() }

// SetConnTimeout sets how long a connect tries (TIPC_CONN_TIMEOUT). Default 8 s; 0: until it is answered; the range is
// that of Linux, up to 65.535 s.
func (s *Sock) SetConnTimeout(d time.Duration) { s.connTimeout = min(max(d, 0), maxConnTimeout) }

// ConnTimeout is the current setting.
func (s *Sock) ConnTimeout() time.Duration { return s.connTimeout }

// SetNoDelay switches Nagle's algorithm off (TIPC_NODELAY). It only concerns streams. What was gathered goes out with
// the next Send.
func (s *Sock) SetNoDelay(on bool) {
	s.nodelay = on
	s.setNagle()
}

// NoDelay is the current setting.
func (s *Sock) NoDelay() bool { return s.nodelay }

// SetRecvBuf sets the receive buffer in octets, 512 KiB to 16 MiB; others are moved to the nearest. Default 2 MiB. A
// connection advertises a quarter of it as window; connectionless and listening sockets take messages of low
// importance up to it, of medium, high and critical importance up to 2, 4 and 8 times that.
func (s *Sock) SetRecvBuf(octets int) { s.rcvBuf = min(max(octets, RcvBufMin), RcvBufMax) }

// RecvBuf is the current setting.
func (s *Sock) RecvBuf() int { return s.rcvBuf }

// SetMcastBroadcast and SetMcastReplicast fix how multicasts travel, if the nodes can do both
// (TIPC_MCAST_BROADCAST, TIPC_MCAST_REPLICAST). By default the number of destinations decides.
func (s *Sock) SetMcastBroadcast() { s.method.Wish, s.method.Mandatory = false, true }
func (s *Sock) SetMcastReplicast() { s.method.Wish, s.method.Mandatory = true, true }

// RecvQueueDepth is the number of messages that wait to be received (TIPC_SOCK_RECVQ_DEPTH), RecvQueueUsed what they
// count against the receive buffer, in octets (TIPC_SOCK_RECVQ_USED).
func (s *Sock) RecvQueueDepth() int { return s.rxq.Len() }
func (s *Sock) RecvQueueUsed() int  { return s.rxUsed }

// JoinGroup and LeaveGroup return [ErrNotSupported]: communication groups are absent.
func (s *Sock) JoinGroup(typ, instance uint32, scope wire.Scope) error { return ErrNotSupported }
func (s *Sock) LeaveGroup() error                                      { return ErrNotSupported }
