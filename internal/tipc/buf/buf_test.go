package buf_test

import (
	"testing"

	"pgregory.net/rapid"

	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// A Queue agrees with a slice under any sequence of operations.
func TestQueueAgainstSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q, other buf.Queue
		var want, wantOther []*buf.Buf
		t.Repeat(map[string]func(*rapid.T){
			"push back":  func(*rapid.T) { b := buf.Get(30); q.PushBack(b); want = append(want, b) },
			"push front": func(*rapid.T) { b := buf.Get(30); q.PushFront(b); want = append([]*buf.Buf{b}, want...) },
			"other":      func(*rapid.T) { b := buf.Get(30); other.PushBack(b); wantOther = append(wantOther, b) },
			"splice":     func(*rapid.T) { q.Splice(&other); want, wantOther = append(want, wantOther...), nil },
			"pop": func(t *rapid.T) {
				b := q.PopFront()
				if len(want) == 0 {
					if b != nil {
						t.Fatal("pop of an empty queue")
					}
					return
				}
				if b != want[0] {
					t.Fatal("wrong front")
				}
				want = want[1:]
			},
			"pop back": func(t *rapid.T) {
				if b := q.PopBack(); len(want) > 0 {
					if b != want[len(want)-1] {
						t.Fatal("wrong back")
					}
					want = want[:len(want)-1]
				}
			},
			"insert": func(t *rapid.T) {
				i := rapid.IntRange(0, len(want)).Draw(t, "at")
				var at *buf.Buf
				if i < len(want) {
					at = want[i]
				}
				b := buf.Get(30)
				q.InsertBefore(b, at)
				want = append(want[:i:i], append([]*buf.Buf{b}, want[i:]...)...)
			},
			"remove": func(t *rapid.T) {
				if len(want) == 0 {
					return
				}
				i := rapid.IntRange(0, len(want)-1).Draw(t, "at")
				q.Remove(want[i])
				want = append(want[:i:i], want[i+1:]...)
			},
			"": func(t *rapid.T) {
				if q.Len() != len(want) || q.Empty() != (len(want) == 0) {
					t.Fatalf("len %d, want %d", q.Len(), len(want))
				}
				b, r := q.Front(), q.Back()
				for i := range want {
					if b != want[i] || r != want[len(want)-1-i] {
						t.Fatal("order")
					}
					b, r = b.Next(), r.Prev()
				}
				if b != nil || r != nil {
					t.Fatal("ends")
				}
			},
		})
	})
}

func TestMisuseIsFound(t *testing.T) {
	mustPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	var q, q2 buf.Queue
	b := buf.Get(10)
	q.PushBack(b)
	mustPanic("second queue", func() { q2.PushBack(b) })
	mustPanic("foreign remove", func() { q2.Remove(b) })
	mustPanic("release of a queued Buf", b.Release)
}

func TestGetClearsHeaderOnly(t *testing.T) {
	for _, n := range []int{0, 24, 60, 61, 256, 257, 14336, 66060, 70000} {
		b := buf.Get(n)
		if len(b.Msg) != n {
			t.Fatalf("Get(%d) has %d", n, len(b.Msg))
		}
		for i := range b.Msg {
			b.Msg[i] = 0xff
		}
		b.RetrCnt = 3
		b.Release()
		b = buf.Get(n)
		for i := range min(n, wire.MaxHeaderSize) {
			if b.Msg[i] != 0 {
				t.Fatalf("Get(%d): header octet %d dirty", n, i)
			}
		}
		if b.RetrCnt != 0 {
			t.Fatal("control block dirty")
		}
	}
}

func TestBatch(t *testing.T) {
	var b buf.Batch
	pkt := []byte("one")
	dst := wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2}}
	b.Send(1, dst, pkt)
	pkt[0] = 'x'
	b.Send(2, dst, []byte("second"))
	if b.Len() != 2 || b.Size() != 9 || string(b.Bytes(0)) != "one" || string(b.Bytes(1)) != "second" {
		t.Fatalf("%+v", b)
	}
	if span, ok := b.Span(0, 2); !ok || string(span) != "onesecond" {
		t.Fatalf("%q %v", span, ok)
	}
	if n := testing.AllocsPerRun(100, func() { b.Reset(); b.Send(1, dst, pkt); b.Send(1, dst, pkt) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBatchReferences gives a long message to a batch, releases it, and gets others: the batch must have its octets until
// Reset, with the header as it was.
func TestBatchReferences(t *testing.T) {
	var batch buf.Batch
	dst := wire.MediaAddr{Media: wire.MediaEth, MAC: [6]byte{2}}
	message := func(n int) (*buf.Buf, string) {
		b := buf.Get(n)
		for i := range b.Msg {
			b.Msg[i] = byte(i * 7)
		}
		b.Msg.SetHdrsz(wire.IntHeaderSize)
		return b, string(b.Msg)
	}
	var want []string
	for _, n := range []int{100, 5000, 60_000, 60_000, 2000, 66_060} {
		b, s := message(n)
		batch.SendFrom(1, dst, b.Msg, b)
		want = append(want, s)
		b.Msg.SetAck(4711) // the link does so when it sends it again
		if n == 5000 {
			batch.SendFrom(2, dst, b.Msg, b)
			want = append(want, string(b.Msg))
		}
		b.Release()
		other := buf.Get(n) // would be the same memory
		clear(other.Msg)
		defer other.Release()
	}
	size := 0
	for i, s := range want {
		head, rest := batch.Parts(i)
		if string(head)+string(rest) != s || string(batch.Bytes(i)) != s || batch.Datagrams[i].Len() != len(s) {
			t.Errorf("datagram %d of %d octets is different", i, len(s))
		}
		if len(s) >= 5000 == (len(rest) == 0) {
			t.Errorf("datagram %d of %d octets: %d referenced", i, len(s), len(rest))
		}
		size += len(s)
	}
	if batch.Size() != size {
		t.Errorf("size %d, want %d", batch.Size(), size)
	}
	if _, ok := batch.Span(0, 2); ok {
		t.Error("a span with references")
	}
	if _, ok := batch.Span(0, 1); !ok {
		t.Error("no span of copies")
	}
	batch.Reset()
	if batch.Len() != 0 || batch.Size() != 0 {
		t.Error("not empty")
	}
}

func TestBatchReferencesDoNotAllocate(t *testing.T) {
	var batch buf.Batch
	run := func() {
		for range 3 {
			b := buf.Get(60_000)
			b.Msg.SetHdrsz(wire.IntHeaderSize)
			batch.SendFrom(1, wire.MediaAddr{}, b.Msg, b)
			b.Release()
		}
		batch.Reset()
	}
	run()
	if n := testing.AllocsPerRun(100, run); n >= 1 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}
