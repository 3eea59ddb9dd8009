package link

import "testing"

// Classes of message lengths end where the kernel's do (net/tipc/link.c link_profile_stats).
func TestLengthProfile(t *testing.T) {
	var s Stats
	total := 0
	for i, lengths := range [][]int{{24, 64}, {65, 256}, {257, 1024}, {1025, 4096}, {4097, 16384}, {16385, 32768}, {32769, 66060}} {
		for _, n := range lengths {
			s.profile(n)
			total += n
		}
		if s.MsgLengthProfile[i] != 2 {
			t.Errorf("class %d: %v after %v", i, s.MsgLengthProfile, lengths)
		}
	}
	if s.MsgLengthCounts != 14 || s.MsgLengthsTotal != uint64(total) {
		t.Errorf("%+v", s)
	}
	if s.AvgQueueSz() != 0 {
		t.Error("a mean of nothing")
	}
	s.AccuQueueSz, s.QueueSzCounts = 21, 4
	if s.AvgQueueSz() != 5 {
		t.Errorf("mean %d", s.AvgQueueSz())
	}
}
