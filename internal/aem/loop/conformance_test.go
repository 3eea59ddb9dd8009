package loop

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"midplane/internal/mono"
)

var streams = []string{"tcp", "unix"}

func TestConformEcho(t *testing.T) {
	for _, network := range streams {
		t.Run(network, func(t *testing.T) {
			each(t, Config{SendQueue: 32 << 10}, func(r *rig) {
				h, peer := r.pair(network)
				want := pattern(1<<20, 1)
				done := make(chan error, 2)
				go func() {
					for p := want; len(p) > 0; {
						n := min(len(p), 1+len(p)%7001)
						if _, err := peer.Write(p[:n]); err != nil {
							done <- err
							return
						}
						p = p[n:]
					}
					done <- nil
				}()
				go func() { done <- readFull(peer, want) }()
				sent, left := 0, 2
				r.until("the echo", func() bool {
					if b := r.got[h][sent:]; len(b) > 0 {
						n, err := r.l.Send(h, b)
						r.ok(err)
						sent += n
					}
					select {
					case err := <-done:
						r.ok(err)
						left--
					default:
					}
					return left == 0
				})
				r.wantGot(h, want)
			})
		})
	}
}

func TestConformManySmallSends(t *testing.T) {
	each(t, Config{}, func(r *rig) {
		h, peer := r.pair("tcp")
		want := pattern(40_000, 2)
		for i := 0; i < len(want); i += 10 {
			r.sendAll(h, want[i:i+10])
			if i%1000 == 0 {
				r.step(0)
			}
		}
		r.background(func() error { return readFull(peer, want) })
	})
}

func TestConformDatagrams(t *testing.T) {
	for _, network := range []string{"udp4", "udp6", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			each(t, Config{}, func(r *rig) {
				r.keep = true
				here, there := packetPair(r, network)
				h, err := r.l.Packet(here, nil)
				r.ok(err)
				r.ok(r.l.Resume(h))
				to := stdAddr(there.LocalAddr())
				for i, size := range []int{1, 0, 100, 1400, 3000} {
					want := pattern(size, byte(i))
					_, err := there.WriteTo(want, here.LocalAddr())
					r.ok(err)
					e := r.next(OpRecv, h)
					if !bytes.Equal(e.Data, want) || e.From != to {
						r.Fatalf("got %d octets from %v, want %d from %v", len(e.Data), e.From, size, to)
					}
					r.ok(r.l.SendTo(h, e.Data, e.From))
					r.l.Release(e.Buf)
					r.background(func() error {
						b := make([]byte, 4000)
						_ = there.SetReadDeadline(time.Now().Add(bound))
						n, from, err := there.ReadFrom(b)
						if err == nil && (!bytes.Equal(b[:n], want) || from.String() != here.LocalAddr().String()) {
							err = fmt.Errorf("echo of %d octets came back as %d from %v", size, n, from)
						}
						return err
					})
				}
			})
		})
	}
}

// packetPair is two sockets; the first goes into the loop, and its address stays valid when it is taken over.
func packetPair(r *rig, network string) (here, there net.PacketConn) {
	addrs := map[string][2]string{"udp4": {"127.0.0.1:0", "127.0.0.1:0"}, "udp6": {"[::1]:0", "[::1]:0"}}[network]
	if network == "unixgram" {
		dir, err := os.MkdirTemp("", "aem")
		r.ok(err)
		r.Cleanup(func() { os.RemoveAll(dir) })
		addrs = [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	}
	for i, p := range []*net.PacketConn{&here, &there} {
		c, err := net.ListenPacket(network, addrs[i])
		r.ok(err)
		r.Cleanup(func() { c.Close() })
		*p = c
	}
	return here, there
}

// A datagram socket that nobody reads is full at some time: ErrBusy, then OpWritable, and nothing is lost or doubled.
func TestConformDatagramBackPressure(t *testing.T) {
	each(t, Config{SendQueue: 8192}, func(r *rig) {
		here, there := packetPair(r, "unixgram")
		to := stdAddr(there.LocalAddr())
		h, err := r.l.Packet(here, nil)
		r.ok(err)
		sent := 0
		for err = nil; err == nil && sent < 10_000; sent++ {
			err = r.l.SendTo(h, pattern(512, byte(sent)), to)
		}
		sent--
		if !errors.Is(err, ErrBusy) {
			r.Fatalf("after %d datagrams: %v, want ErrBusy", sent, err)
		}
		r.background(func() error {
			b := make([]byte, 1000)
			for i := range sent {
				_ = there.SetReadDeadline(time.Now().Add(bound))
				n, _, err := there.ReadFrom(b)
				if err != nil {
					return err
				}
				if !bytes.Equal(b[:n], pattern(512, byte(i))) {
					return fmt.Errorf("datagram %d is another", i)
				}
			}
			return nil
		})
		r.next(OpWritable, h)
		r.ok(r.l.SendTo(h, []byte("more"), to))
		r.background(func() error {
			_ = there.SetReadDeadline(time.Now().Add(bound))
			_, _, err := there.ReadFrom(make([]byte, 10))
			return err
		})
	})
}

// A peer that does not read keeps nobody but its own datagrams waiting: the loop does not spin. When the peer reads, sending goes on, also
// when what fills its queue came from somebody else.
func TestConformDatagramPeerFull(t *testing.T) {
	each(t, Config{SendQueue: 8192, Held: 1}, func(r *rig) {
		if r.l.Name() == "stdnet" {
			r.Skip("the standard library waits for the room")
		}
		here, there := packetPair(r, "unixgram")
		other, _ := packetPair(r, "unixgram")
		filled := 0
		for ; ; filled++ {
			_ = other.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := other.WriteTo([]byte("full"), there.LocalAddr()); err != nil {
				break
			}
		}
		to := stdAddr(there.LocalAddr())
		h, err := r.l.Packet(here, nil)
		r.ok(err)
		r.ok(r.l.Resume(h))
		_ = other.SetWriteDeadline(time.Now().Add(bound))
		if err := r.l.SendTo(h, []byte("mine"), to); !errors.Is(err, ErrBusy) {
			r.Fatalf("to a peer with %d datagrams in its queue: %v, want ErrBusy", filled, err)
		}
		from, tries := r.l.Stats().Waits, 0
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); tries++ {
			r.next(OpWritable, h)
			if err := r.l.SendTo(h, []byte("mine"), to); !errors.Is(err, ErrBusy) {
				r.Fatalf("try %d: %v, want ErrBusy", tries, err)
			}
			_, err := other.WriteTo([]byte("in"), here.LocalAddr())
			r.ok(err)
			r.until("what comes in", func() bool { return len(r.got[h]) == 2*(tries+1) })
		}
		if n := r.l.Stats().Waits - from; n > 1000 {
			r.Errorf("the loop came round %d times in 100 ms for a peer that does not read", n)
		}
		b := make([]byte, 10)
		for range filled {
			_, _, err := there.ReadFrom(b)
			r.ok(err)
		}
		r.next(OpWritable, h)
		r.ok(r.l.SendTo(h, []byte("mine"), to))
		n, _, err := there.ReadFrom(b)
		r.ok(err)
		if string(b[:n]) != "mine" {
			r.Errorf("the peer reads %q", b[:n])
		}
	})
}

func TestConformHalfClose(t *testing.T) {
	for _, network := range streams {
		t.Run(network, func(t *testing.T) {
			each(t, Config{}, func(r *rig) {
				h, peer := r.pair(network)
				_, err := peer.Write([]byte("last words"))
				r.ok(err)
				r.ok(peer.(interface{ CloseWrite() error }).CloseWrite())
				r.next(OpEOF, h)
				r.wantGot(h, []byte("last words"))
				want := pattern(300_000, 3)
				done := make(chan error, 1)
				go func() { done <- errors.Join(readFull(peer, want), readEOF(peer)) }()
				r.sendAll(h, want)
				r.ok(r.l.Close(h))
				if e := r.next(OpClosed, h); e.Err != nil {
					r.Fatal(e.Err)
				}
				r.background(func() error { return <-done })
			})
		})
	}
}

func TestConformShutdown(t *testing.T) {
	for _, network := range streams {
		t.Run(network, func(t *testing.T) {
			each(t, Config{}, func(r *rig) {
				h, peer := r.pair(network)
				want := pattern(200_000, 4)
				n, err := r.l.Send(h, want)
				r.ok(err)
				r.ok(r.l.Shutdown(h))
				if _, err := r.l.Send(h, want); !errors.Is(err, syscall.EPIPE) {
					r.Fatalf("sending after Shutdown: %v", err)
				}
				r.background(func() error { return errors.Join(readFull(peer, want[:n]), readEOF(peer)) })
				_, err = peer.Write([]byte("still heard"))
				r.ok(err)
				r.wantGot(h, []byte("still heard"))
				peer.Close()
				r.next(OpEOF, h)
				r.ok(r.l.Close(h))
				r.next(OpClosed, h)
			})
		})
	}
}

// A reset is told once, in every state of the connection.
func TestConformReset(t *testing.T) {
	reset := func(r *rig, c net.Conn) {
		r.ok(c.(*net.TCPConn).SetLinger(0))
		r.ok(c.Close())
	}
	states := map[string]func(r *rig) Handle{
		"before receiving": func(r *rig) Handle {
			h, peer := r.paused("tcp")
			reset(r, peer)
			r.ok(r.l.Resume(h))
			return h
		},
		"idle": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			reset(r, peer)
			return h
		},
		"while paused": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			r.ok(r.l.Pause(h))
			r.step(0)
			reset(r, peer)
			r.step(20 * time.Millisecond)
			r.ok(r.l.Resume(h))
			return h
		},
		"queue full": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			r.fill(h)
			reset(r, peer)
			return h
		},
		"after our shutdown": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			r.ok(r.l.Shutdown(h))
			r.background(func() error { return readEOF(peer) })
			reset(r, peer)
			return h
		},
		"after its shutdown": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			r.ok(peer.(*net.TCPConn).CloseWrite())
			r.next(OpEOF, h)
			reset(r, peer)
			for { // nothing reads any more, so that sending tells
				if _, err := r.l.Send(h, []byte("x")); err != nil {
					return h
				}
				r.step(5 * time.Millisecond)
				for _, e := range r.unread {
					if e.Op == OpClosed {
						return h
					}
				}
			}
		},
		"while closing": func(r *rig) Handle {
			h, peer := r.pair("tcp")
			r.fill(h)
			r.ok(r.l.Close(h))
			r.step(0)
			reset(r, peer)
			return h
		},
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			each(t, full, func(r *rig) {
				h := state(r)
				e := r.next(OpClosed, h)
				if !errors.Is(e.Err, syscall.ECONNRESET) && !errors.Is(e.Err, syscall.EPIPE) {
					r.Fatalf("%s: closed with %v", name, e.Err)
				}
				if _, err := r.l.Send(h, []byte("x")); !errors.Is(err, ErrClosed) {
					r.Fatalf("sending after the end: %v", err)
				}
				if st := r.l.Stats(); st.Endpoints != 0 || st.Queued != 0 {
					r.Fatalf("left behind: %+v", st)
				}
			})
		})
	}
}

func TestConformSlowReader(t *testing.T) {
	each(t, Config{SendQueue: 256 << 10}, func(r *rig) {
		h, peer := r.pair("tcp")
		p := pattern(24<<20, 5)
		sent := 0
		for {
			n, err := r.l.Send(h, p[sent:])
			r.ok(err)
			sent += n
			if q := r.l.Stats().Queued; q > 256<<10 {
				r.Fatalf("%d octets queued, the bound is %d", q, 256<<10)
			}
			if n == 0 {
				for range 10 { // the kernel may take more yet
					r.step(2 * time.Millisecond)
				}
				if n, err = r.l.Send(h, p[sent:]); n == 0 {
					break
				}
				r.ok(err)
				sent += n
			}
		}
		if sent == len(p) {
			r.Fatal("no back-pressure")
		}
		p = p[:min(len(p), sent+200_000)]
		r.unread = nil
		done := make(chan error, 1)
		go func() { done <- readFull(peer, p) }()
		for sent < len(p) {
			r.next(OpWritable, h)
			n, err := r.l.Send(h, p[sent:])
			r.ok(err)
			sent += n
		}
		r.background(func() error { return <-done })
	})
}

// Sending memory is bounded over all endpoints too, and who had to wait is told.
func TestConformSendMemory(t *testing.T) {
	const memory = 512 << 10
	each(t, Config{SendQueue: 1 << 20, SendMemory: memory}, func(r *rig) {
		a, peerA := r.pair("unix")
		b, peerB := r.pair("unix")
		want := pattern(4<<20, 6)
		n, err := r.l.Send(a, want)
		r.ok(err)
		if q := r.l.Stats().Queued; q > memory {
			r.Fatalf("%d octets queued, the bound is %d", q, memory)
		}
		if n == len(want) {
			r.Fatal("no bound")
		}
		done := make(chan error, 2)
		go func() { done <- readFull(peerA, want) }()
		go func() { done <- readFull(peerB, want[:100_000]) }()
		r.sendAll(b, want[:100_000])
		r.unread = nil
		for n < len(want) {
			k, err := r.l.Send(a, want[n:])
			r.ok(err)
			n += k
			r.step(10 * time.Millisecond)
		}
		r.background(func() error { return errors.Join(<-done, <-done) })
	})
}

func TestConformPause(t *testing.T) {
	for _, network := range streams {
		t.Run(network, func(t *testing.T) {
			each(t, Config{}, func(r *rig) {
				h, peer := r.pair(network)
				want := pattern(500_000, 7)
				done := make(chan error, 1)
				go func() {
					_, err := peer.Write(want)
					done <- err
				}()
				for i := 0; len(r.got[h]) < len(want); i++ {
					r.ok(r.l.Pause(h))
					r.step(0)
					before := len(r.got[h])
					for range 5 {
						r.step(time.Millisecond)
					}
					if more := len(r.got[h]) - before; i > 0 && more > 16*8192 {
						r.Fatalf("%d octets came while paused", more)
					}
					r.ok(r.l.Resume(h))
					r.step(10 * time.Millisecond)
				}
				r.wantGot(h, want)
				r.ok(<-done)
			})
		})
	}
}

// Close gives what is queued to a peer that reads, and does not wait for ever for one that does not.
func TestConformLinger(t *testing.T) {
	cfg := full
	cfg.Linger = 50 * time.Millisecond
	each(t, cfg, func(r *rig) {
		h, _ := r.pair("tcp")
		r.fill(h)
		r.ok(r.l.Close(h))
		if e := r.next(OpClosed, h); !errors.Is(e.Err, os.ErrDeadlineExceeded) {
			r.Fatalf("closed with %v", e.Err)
		}
	})
}

func TestConformAbort(t *testing.T) {
	each(t, full, func(r *rig) {
		h, peer := r.pair("tcp")
		r.fill(h)
		r.ok(r.l.Abort(h))
		if e := r.next(OpClosed, h); e.Err != nil {
			r.Fatal(e.Err)
		}
		r.background(func() error {
			_ = peer.SetReadDeadline(time.Now().Add(bound))
			for b := make([]byte, 64<<10); ; {
				if _, err := peer.Read(b); errors.Is(err, syscall.ECONNRESET) {
					return nil
				} else if err != nil {
					return fmt.Errorf("peer read %w, want a reset", err)
				}
			}
		})
	})
}

// What events have told stays the receiver's until it is released, also after the connection is closed.
func TestConformBufferOwnership(t *testing.T) {
	each(t, Config{Buffers: 16, BufferSize: 256, Held: 16}, func(r *rig) {
		r.keep = true
		h, peer := r.pair("tcp")
		var held []Event
		for i := range 8 {
			_, err := peer.Write(pattern(200, byte(i)))
			r.ok(err)
			held = append(held, r.next(OpRecv, h))
		}
		r.ok(r.l.Close(h))
		r.next(OpClosed, h)
		h2, peer2 := r.pair("tcp")
		for i := range 40 { // other data goes through the buffers that are left
			_, err := peer2.Write(pattern(200, byte(100+i)))
			r.ok(err)
			r.l.Release(r.next(OpRecv, h2).Buf)
		}
		for i, e := range held {
			if !bytes.Equal(e.Data, pattern(len(e.Data), byte(i))) {
				r.Fatalf("buffer %d was written to while it was held", i)
			}
			r.l.Release(e.Buf)
			r.l.Release(e.Buf) // a second time is a mistake without consequence
		}
		if st := r.l.Stats(); st.Held != 0 {
			r.Fatalf("%d buffers held", st.Held)
		}
	})
}

// An endpoint that holds its share receives no more; the others do; and waiting for buffers is not a spin.
func TestConformHeld(t *testing.T) {
	each(t, Config{Buffers: 64, BufferSize: 1024, Held: 4}, func(r *rig) {
		r.keep = true
		h, peer := r.pair("tcp")
		want := pattern(64<<10, 8)
		_, err := peer.Write(want)
		r.ok(err)
		var held []Event
		for range 4 {
			held = append(held, r.next(OpRecv, h))
		}
		other, peer2 := r.pair("tcp")
		_, err = peer2.Write([]byte("not kept waiting"))
		r.ok(err)
		r.l.Release(r.next(OpRecv, other).Buf)
		before := r.l.Stats().Waits
		for range 5 {
			r.step(10 * time.Millisecond)
		}
		if n := r.l.Stats().Waits - before; n > 100 {
			r.Fatalf("%d waits without progress", n)
		}
		var got []byte
		for len(got) < len(want) {
			if len(held) == 0 {
				held = append(held, r.next(OpRecv, h))
			}
			got = append(got, held[0].Data...)
			r.l.Release(held[0].Buf)
			held = held[1:]
		}
		if !bytes.Equal(got, want) {
			r.Fatal("data is out of order")
		}
	})
}

// When all buffers are held nobody receives, nothing spins, and a release lets all go on.
func TestConformNoBuffers(t *testing.T) {
	each(t, Config{Buffers: 8, BufferSize: 256, Held: 8}, func(r *rig) {
		r.keep = true
		h, peer := r.pair("tcp")
		go peer.Write(pattern(20_000, 9))
		var held []Event
		for range 8 {
			held = append(held, r.next(OpRecv, h))
		}
		other, peer2 := r.pair("tcp")
		_, err := peer2.Write(pattern(100, 10))
		r.ok(err)
		before := r.l.Stats().Waits
		for range 5 {
			r.step(10 * time.Millisecond)
		}
		if n := r.l.Stats().Waits - before; n > 100 {
			r.Fatalf("%d waits without progress", n)
		}
		for _, e := range held {
			r.l.Release(e.Buf)
		}
		n := 0
		for _, e := range held {
			n += len(e.Data)
		}
		found := false
		r.until("both", func() bool {
			for _, e := range r.unread {
				if e.Op == OpRecv {
					found = found || e.H == other
					if e.H == h {
						n += len(e.Data)
					}
					r.l.Release(e.Buf)
				}
			}
			r.unread = nil
			return found && n == 20_000
		})
	})
}

func TestConformMistakes(t *testing.T) {
	each(t, Config{MaxEndpoints: 64}, func(r *rig) {
		ln, _ := r.listen("tcp")
		h, _ := r.pair("tcp")
		for name, err := range map[string]error{
			"Send on a listener": func() error { _, err := r.l.Send(ln, nil); return err }(),
			"SendTo on a stream": r.l.SendTo(h, nil, Addr{}),
			"Shutdown of listen": r.l.Shutdown(ln),
			"Rearm of a stream":  r.l.Rearm(h),
		} {
			if !errors.Is(err, ErrKind) {
				r.Errorf("%s: %v", name, err)
			}
		}
		for _, h := range []Handle{0, 77, h + 1<<32, 1<<63 + 5} {
			for _, err := range []error{r.l.Resume(h), r.l.Pause(h), r.l.Close(h), r.l.Abort(h), r.l.Detach(h), r.l.SetTag(h, 1)} {
				if !errors.Is(err, ErrClosed) {
					r.Errorf("handle %x: %v", h, err)
				}
			}
		}
		r.l.Release(0)
		r.l.Release(1 << 30)
		if _, err := r.l.Conn(&net.TCPConn{}, nil); err == nil && r.l.Name() != "stdnet" {
			r.Error("an invalid connection was taken")
		}
	})
}

func TestConformMaxEndpoints(t *testing.T) {
	each(t, Config{MaxEndpoints: 4, AcceptRetry: 20 * time.Millisecond}, func(r *rig) {
		ln, dial := r.listen("tcp")
		for range 8 {
			dial()
		}
		var conns []Handle
		for r.next(OpPaused, ln); len(conns) < 3; {
			conns = append(conns, r.next(OpAccept, ln).Conn)
		}
		before := r.l.Stats().Waits
		for range 5 {
			r.step(10 * time.Millisecond)
		}
		if n := r.l.Stats().Waits - before; n > 100 {
			r.Fatalf("%d waits without progress", n)
		}
		accepted := len(conns)
		for accepted < 8 {
			if len(conns) > 0 {
				r.ok(r.l.Close(conns[0]))
				r.next(OpClosed, conns[0])
				conns = conns[1:]
			}
			for i := 0; i < len(r.unread); i++ {
				if e := r.unread[i]; e.Op == OpAccept {
					conns = append(conns, e.Conn)
					accepted++
				}
			}
			r.unread = nil
			r.step(10 * time.Millisecond)
		}
	})
}

func TestConformWakeAndDeadline(t *testing.T) {
	each(t, Config{}, func(r *rig) {
		start := mono.Now()
		for mono.Now() < start.Add(20*time.Millisecond) {
			_, err := r.l.Wait(r.events[:], start.Add(20*time.Millisecond))
			r.ok(err)
		}
		r.l.Wake() // before a wait
		for end := time.Now().Add(bound); ; {
			n, err := r.l.Wait(r.events[:], mono.Never)
			r.ok(err)
			if n == 0 {
				break
			}
			if time.Now().After(end) {
				r.Fatal("no wake")
			}
		}
		// No wake is lost: who wakes raises a number before, and the loop sees it after.
		var number atomic.Int64
		go func() {
			for range 5000 {
				was := number.Add(1)
				r.l.Wake()
				if was%16 == 0 {
					runtime.Gosched()
				}
			}
		}()
		for {
			r.l.Heard() // before looking, so that none is lost by it either
			if number.Load() == 5000 {
				break
			}
			_, err := r.l.Wait(r.events[:], mono.Never)
			r.ok(err)
		}
		// What was heard ends no wait.
		r.l.Wake()
		r.l.Heard()
		until := mono.Now().Add(5 * time.Millisecond)
		for turns := 0; mono.Now() < until; turns++ {
			if turns > 100 {
				r.Fatal("it spins")
			}
			_, err := r.l.Wait(r.events[:], until)
			r.ok(err)
		}
	})
}

func TestConformDetach(t *testing.T) {
	for _, network := range streams {
		t.Run(network, func(t *testing.T) {
			each(t, Config{}, func(r *rig) {
				h, peer := r.pair(network)
				in := pattern(10_000, 11)
				_, err := peer.Write(in[:3000])
				r.ok(err)
				r.wantGot(h, in[:3000])
				out := pattern(6<<20, 12)
				sent := 0
				for n := 1; n > 0; {
					n, err = r.l.Send(h, out[sent:])
					r.ok(err)
					sent += n
					r.step(time.Millisecond)
				}
				_, err = peer.Write(in[3000:6000])
				r.ok(err)
				r.ok(r.l.Detach(h))
				e := r.next(OpDetached, h)
				_, err = peer.Write(in[6000:])
				r.ok(err)
				c, err := net.FileConn(e.File)
				r.ok(err)
				e.File.Close()
				defer c.Close()
				// The new owner sends what is left, and receives what was not received.
				done := make(chan error, 1)
				go func() { done <- readFull(peer, out[:sent]) }()
				_, err = c.Write(e.Data)
				r.ok(err)
				r.background(func() error { return <-done })
				r.background(func() error { return readFull(c, in[len(r.got[h]):]) })
				if !bytes.Equal(r.got[h], in[:len(r.got[h])]) {
					r.Fatal("data before Detach is another")
				}
			})
		})
	}
}

func TestConformDetachListener(t *testing.T) {
	each(t, Config{}, func(r *rig) {
		ln, dial := r.listen("tcp")
		dial()
		r.next(OpAccept, ln)
		r.ok(r.l.Detach(ln))
		e := r.next(OpDetached, ln)
		l, err := net.FileListener(e.File)
		r.ok(err)
		e.File.Close()
		dial()
		h, err := r.l.Listener(l, "again")
		r.ok(err)
		if e := r.next(OpAccept, h); e.Tag != "again" {
			r.Fatalf("tag %v", e.Tag)
		}
	})
}

// A packet socket is detached while datagrams come in and others wait to be sent: none is lost, doubled or out of order.
func TestConformDetachPackets(t *testing.T) {
	for _, network := range []string{"udp4", "udp6", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			each(t, Config{SendQueue: 8192, Held: 4}, func(r *rig) {
				r.keep = true
				here, there := packetPair(r, network)
				name, to := here.LocalAddr(), stdAddr(there.LocalAddr())
				h, err := r.l.Packet(here, nil)
				r.ok(err)
				r.ok(r.l.Resume(h))
				in := 0
				more := func(n int) {
					for range n {
						_, err := there.WriteTo(pattern(100, byte(in)), name)
						r.ok(err)
						in++
					}
				}
				more(3)
				r.step(10 * time.Millisecond)
				// UDP over loopback takes, or drops, all; a Unix socket keeps the sender waiting.
				sent := 0
				for err == nil && (sent < 20 || network == "unixgram") {
					if err = r.l.SendTo(h, pattern(512, byte(sent)), to); err == nil {
						sent++
					}
				}
				if err != nil && !errors.Is(err, ErrBusy) {
					r.Fatal(err)
				}
				more(5) // up to what the endpoint may hold, and more
				r.step(0)
				r.ok(r.l.Detach(h))
				if err := r.l.SendTo(h, nil, to); !errors.Is(err, ErrClosed) {
					r.Fatalf("sending after Detach: %v", err)
				}
				more(1)
				e := r.next(OpDetached, h)
				if st := r.l.Stats(); st.Endpoints != 0 || st.Queued != 0 {
					r.Fatalf("left behind: %+v", st)
				}
				c, err := net.FilePacketConn(e.File)
				r.ok(err)
				e.File.Close()
				defer c.Close()
				more(1)
				got, b := 0, make([]byte, 1000)
				want := func(data []byte, from Addr) {
					if !bytes.Equal(data, pattern(100, byte(got))) || from != to {
						r.Fatalf("datagram %d is another, from %v", got, from)
					}
					got++
				}
				for _, u := range r.unread {
					if u.Op == OpRecv {
						want(u.Data, u.From)
						r.l.Release(u.Buf)
					}
				}
				_ = c.SetReadDeadline(time.Now().Add(bound))
				for got < in {
					n, from, err := c.ReadFrom(b)
					r.ok(err)
					want(b[:n], stdAddr(from))
				}
				// The new owner sends what is left, while the other end reads all.
				go func() {
					for _, g := range e.Grams {
						_, _ = c.WriteTo(g.Data, there.LocalAddr())
					}
				}()
				if r.l.Name() == "stdnet" && network == "unixgram" && len(e.Grams) == 0 {
					r.Fatal("nothing was left to be sent")
				}
				_ = there.SetReadDeadline(time.Now().Add(bound))
				for i := range sent {
					n, from, err := there.ReadFrom(b)
					r.ok(err)
					if !bytes.Equal(b[:n], pattern(512, byte(i))) || from.String() != name.String() {
						r.Fatalf("datagram %d of those sent is another, from %v", i, from)
					}
				}
				_ = there.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if n, _, err := there.ReadFrom(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					r.Fatalf("one more datagram of %d octets: %v", n, err)
				}
				if st := r.l.Stats(); st.Held != 0 {
					r.Fatalf("%d buffers held", st.Held)
				}
			})
		})
	}
}

// Stopping with everything under way leaves nothing.
func TestConformStop(t *testing.T) {
	for _, name := range Backends {
		t.Run(name, func(t *testing.T) {
			if err := Probe(name); err != nil {
				t.Skip(err)
			}
			before, fds := runtime.NumGoroutine(), countFDs(t)
			for range 5 {
				on(t, name, Config{}, func(r *rig) {
					r.listen("tcp")
					h, peer := r.pair("tcp")
					_, err := r.l.Send(h, pattern(200_000, 0))
					r.ok(err)
					_, err = peer.Write(pattern(1000, 1))
					r.ok(err)
					r.step(0)
					peer.Close()
					r.ok(r.l.Stop())
					if _, err := r.l.Wait(r.events[:], mono.Never); !errors.Is(err, ErrClosed) {
						r.Fatalf("waiting after the end: %v", err)
					}
					r.l.Wake()
				})
			}
			for end := time.Now().Add(bound); ; time.Sleep(5 * time.Millisecond) {
				g, f := runtime.NumGoroutine(), countFDs(t)
				if g <= before && f <= fds+2 { // the runtime's own poller and a pipe may have come
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%d goroutines and %d descriptors, were %d and %d", g, f, before, fds)
				}
			}
		})
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux
	}
	return len(d)
}
