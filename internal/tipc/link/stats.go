package link

// Stats are a link's counters since its last reset, as `tipc link statistics` shows them (net/tipc/link.c struct
// tipc_stats).
type Stats struct {
	SentPkts       uint64
	RecvPkts       uint64
	SentStates     uint64
	RecvStates     uint64
	SentProbes     uint64
	RecvProbes     uint64
	SentNacks      uint64
	RecvNacks      uint64
	SentAcks       uint64
	SentBundled    uint64 // messages in bundles
	SentBundles    uint64
	RecvBundled    uint64
	RecvBundles    uint64
	Retransmitted  uint64
	SentFragmented uint64 // messages that needed fragments
	SentFragments  uint64
	RecvFragmented uint64
	RecvFragments  uint64
	LinkCongs      uint64 // senders that had to wait
	DeferredRecv   uint64 // packets out of order
	Duplicates     uint64 // packets known already, outside the window, or of a former contact

	MaxQueueSz       uint64 // longest send queue seen by the timer
	AccuQueueSz      uint64 // sum of the lengths of the send queue
	QueueSzCounts    uint64 // number of lengths in that sum
	MsgLengthCounts  uint64 // number of messages in the profile
	MsgLengthsTotal  uint64 // sum of their lengths
	MsgLengthProfile [7]uint64

	// What the kernel does not count: traffic that no correct peer sends.
	BadAcks     uint64 // acknowledgements of packets that were never sent
	BadMessages uint64 // messages of a kind that cannot be where they were
	DeferFull   uint64 // packets dropped because too much was out of order
}

// profileLimits are the upper bounds of the length classes but the last.
var profileLimits = [...]int{64, 256, 1024, 4096, 16384, 32768}

func (s *Stats) profile(length int) {
	s.MsgLengthsTotal += uint64(length)
	s.MsgLengthCounts++
	c := 0
	for c < len(profileLimits) && length > profileLimits[c] {
		c++
	}
	s.MsgLengthProfile[c]++
}

// AvgQueueSz is the mean length of the send queue.
func (s *Stats) AvgQueueSz() uint64 {
	if s.QueueSzCounts == 0 {
		return 0
	}
	return s.AccuQueueSz / s.QueueSzCounts
}

// Stats returns a snapshot of the counters.
func (l *Link) Stats() Stats { return l.stats }

// ResetStats clears them (net/tipc/link.c tipc_link_reset_stats).
func (l *Link) ResetStats() { l.stats = Stats{} }

// IllegalEvents counts the state machine events that cannot happen. Unlike Stats it survives resets.
func (l *Link) IllegalEvents() uint64 { return l.illegalEvents }
