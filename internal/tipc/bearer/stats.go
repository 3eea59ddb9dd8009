package bearer

import "sync/atomic"

// Stats are a bearer's counters since it was opened.
type Stats struct {
	RxDatagrams uint64 // delivered by ReadBatch
	RxBytes     uint64
	RxCalls     uint64 // system calls that returned datagrams
	RxMerged    uint64 // of RxDatagrams, those the kernel had merged (UDP_GRO)
	RxOwn       uint64 // own broadcasts that came back, discarded
	RxEmpty     uint64 // datagrams without an octet, discarded
	RxTruncated uint64 // datagrams longer than the buffer, discarded
	RxForeign   uint64 // frames for other hosts or from addresses of another kind, discarded
	RxOverflow  uint64 // dropped by the kernel or the hub as the receive queue was full
	RxErrors    uint64 // errors reported by the socket, such as ICMP messages

	TxDatagrams uint64 // handed to the network, one per receiver in a peer list
	TxBytes     uint64
	TxCalls     uint64 // system calls that sent something
	TxSegmented uint64 // of TxDatagrams, those left to the kernel to cut up (UDP_SEGMENT)
	TxErrors    uint64 // datagrams refused by the socket or with an unusable address
	TxStalls    uint64 // times that the socket was full
	TxDropped   uint64 // datagrams dropped as it stayed full

	RecvBuf int // size of the socket's receive queue in octets, 0 when unknown
	SendBuf int // size of the socket's send queue
}

// counters are what Stats is read from. Drivers add once a batch.
type counters struct {
	rxDatagrams, rxBytes, rxCalls, rxMerged, rxOwn, rxEmpty, rxTruncated, rxForeign, rxErrors atomic.Uint64
	txDatagrams, txBytes, txCalls, txSegmented, txErrors, txStalls, txDropped                 atomic.Uint64
	rxOverflow                                                                                atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		RxDatagrams: c.rxDatagrams.Load(),
		RxBytes:     c.rxBytes.Load(),
		RxCalls:     c.rxCalls.Load(),
		RxMerged:    c.rxMerged.Load(),
		RxOwn:       c.rxOwn.Load(),
		RxEmpty:     c.rxEmpty.Load(),
		RxTruncated: c.rxTruncated.Load(),
		RxForeign:   c.rxForeign.Load(),
		RxOverflow:  c.rxOverflow.Load(),
		RxErrors:    c.rxErrors.Load(),
		TxDatagrams: c.txDatagrams.Load(),
		TxBytes:     c.txBytes.Load(),
		TxCalls:     c.txCalls.Load(),
		TxSegmented: c.txSegmented.Load(),
		TxErrors:    c.txErrors.Load(),
		TxStalls:    c.txStalls.Load(),
		TxDropped:   c.txDropped.Load(),
	}
}
