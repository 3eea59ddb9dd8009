package socket

import (
	"time"

	"midplane/internal/tipc/wire"
)

// Specification constants (net/tipc/socket.c, socket.h).
const (
	connTimeoutDefault = 8 * time.Second // CONN_TIMEOUT_DEFAULT
	probeInterval      = time.Hour       // CONN_PROBING_INTV
	retryBase          = 100 * time.Millisecond
	minConnTimeout     = 4 * time.Millisecond // below it, the random part of the retry delay has no range
	maxConnTimeout     = 65535 * time.Millisecond

	nagleStartInit  = 4    // messages in one direction before Nagle begins
	nagleStartMax   = 1024 // up to which bad experience doubles that
	nagleMaxBacklog = 64   // blocks that wait for an acknowledgement
	nagleLocal      = 1500 // largest gathered message inside the node

	ackRate   = 4         // CONN_ACK at a quarter of the receive window
	flowMsgs  = 512       // FLOWCTL_MSG_WIN: window in messages, peers without block flow control
	blockSize = 1024      // FLOWCTL_BLK_SZ
	RcvBufMin = 512 << 10 // smallest receive buffer, octets
	RcvBufDef = 2 << 20   // default
	RcvBufMax = 16 << 20  // largest

	// flowMsgLimit is the receive limit of a connection with message flow control: FLOWCTL_MSG_LIM.
	flowMsgLimit = (flowMsgs*2 + 1) * (wire.MaxMsgSize + bufOverhead)
)

// Implementation constants.
const (
	defaultMaxSockets = 1 << 20 // the kernel's (tsk_rht_params.max_size)

	// Bounds of the multicast messages that one socket holds back until they are in order: number, octets. The kernel has
	// none. Each holdCheck it is seen whether what they wait for can still come.
	maxDeferred      = 512
	maxDeferredBytes = RcvBufMax
	holdCheck        = 500 * time.Millisecond

	// bufOverhead is what a waiting message costs beside its memory, and maxRatio bounds the cost of a message to that
	// many times its flow control blocks. A sender that keeps to its window of rcvbuf/4 (and may exceed it by one
	// message) must never hit the receive limit: (512+65) blocks of 3 KiB are less than 2 MiB.
	bufOverhead = 192
	maxRatio    = 3
)
