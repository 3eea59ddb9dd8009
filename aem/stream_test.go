package aem_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"midplane/aem"
)

// eachClass runs a test on every back end with a class that runs on the loop, and with one that has workers.
func eachClass(t *testing.T, f func(t *testing.T, l *aem.Loop, c *aem.Class)) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		for name, cfg := range map[string]aem.ClassConfig{"inline": {Inline: true}, "workers": {Level: aem.Normal, Deadline: aem.NoDeadline, Workers: 4}} {
			t.Run(name, func(t *testing.T) { f(t, l, classOf(t, l, name, cfg)) })
		}
	})
}

// echoState is what the echo of a connection has yet to send.
type echoState struct{ rest []byte }

// echo answers with what it hears, however slowly the peer reads.
func echo(c *aem.Ctx, e aem.StreamEvent) {
	st, _ := e.Conn.Value.(*echoState)
	if st == nil {
		st = &echoState{}
		e.Conn.Value = st
	}
	switch e.Kind {
	case aem.StreamTaken:
		st.rest = bytes.Clone(e.Data)
	case aem.StreamReceived:
		st.rest = append(st.rest, e.Data...)
	case aem.StreamEnded:
		if len(st.rest) == 0 {
			e.Conn.Close()
			return
		}
	case aem.StreamClosed:
		return
	}
	n, _ := e.Conn.Send(st.rest)
	if st.rest = st.rest[n:]; len(st.rest) > 0 {
		e.Conn.Pause()
	} else {
		st.rest = nil
		e.Conn.Resume()
	}
}

func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "aem")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestStreams(t *testing.T) {
	eachClass(t, func(t *testing.T, l *aem.Loop, c *aem.Class) {
		for _, network := range []string{"tcp", "unix"} {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = socketPath(t)
			}
			src := aem.Listen(network, addr)
			e := register(t, l, src, echo, aem.EventConfig{Class: c, Deadline: aem.NoDeadline})
			must(t, e.Start())
			var wg sync.WaitGroup
			for peer := range 8 {
				wg.Go(func() {
					conn, err := net.Dial(network, src.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(bound))
					want := bytes.Repeat([]byte{byte(peer), 1, 2, 3, 5, 8, 13}, 40_000)
					go func() {
						_, _ = conn.Write(want)
					}()
					got := make([]byte, len(want))
					if _, err := io.ReadFull(conn, got); err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
						t.Errorf("%s peer %d: %v, or other octets", network, peer, err)
					}
				})
			}
			wg.Wait()
			must(t, e.Shutdown())
			if s := e.Stats(); s.Refused > 0 || s.Fates[aem.Ran]+s.Fates[aem.Canceled] != s.Happened {
				t.Errorf("%+v", s)
			}
			if network == "unix" {
				if _, err := os.Stat(addr); err == nil {
					t.Error("the path is left")
				}
			}
			settle(t, "connections to end", func() bool { return l.Stats().Conns == 0 && l.Stats().Held == 0 })
		}
	})
}

// The occurrences of a connection come one after the other, opened first and closed last, whatever the class.
func TestStreamOrder(t *testing.T) {
	eachClass(t, func(t *testing.T, l *aem.Loop, c *aem.Class) {
		src := aem.Listen("tcp", "127.0.0.1:0")
		var mu sync.Mutex
		kinds := map[*aem.Conn][]aem.StreamKind{}
		var running sync.Map
		var closed atomic.Int64
		e := register(t, l, src, func(_ *aem.Ctx, e aem.StreamEvent) {
			if _, twice := running.LoadOrStore(e.Conn, true); twice {
				t.Error("two occurrences of one connection at once")
			}
			defer running.Delete(e.Conn)
			mu.Lock()
			kinds[e.Conn] = append(kinds[e.Conn], e.Kind)
			mu.Unlock()
			if e.Kind == aem.StreamEnded {
				e.Conn.Close()
			}
			if e.Kind == aem.StreamClosed {
				closed.Add(1)
			}
		}, aem.EventConfig{Class: c})
		must(t, e.Start())
		for range 20 {
			conn, err := net.Dial("tcp", src.Addr().String())
			must(t, err)
			for range 5 {
				_, err = conn.Write([]byte("x"))
				must(t, err)
			}
			must(t, conn.(*net.TCPConn).CloseWrite())
			defer conn.Close()
		}
		settle(t, "the ends", func() bool { return closed.Load() == 20 })
		mu.Lock()
		defer mu.Unlock()
		for _, k := range kinds {
			if k[0] != aem.StreamOpened || k[len(k)-1] != aem.StreamClosed || k[len(k)-2] != aem.StreamEnded {
				t.Fatalf("order %v", k)
			}
		}
	})
}

// A handler that panics loses its connection and no other.
func TestStreamPanic(t *testing.T) {
	eachClass(t, func(t *testing.T, l *aem.Loop, c *aem.Class) {
		src := aem.Listen("tcp", "127.0.0.1:0")
		e := register(t, l, src, func(c *aem.Ctx, e aem.StreamEvent) {
			if e.Kind == aem.StreamReceived && e.Data[0] == '!' {
				panic("as asked for")
			}
			echo(c, e)
		}, aem.EventConfig{Class: c})
		must(t, e.Start())
		good, err := net.Dial("tcp", src.Addr().String())
		must(t, err)
		defer good.Close()
		bad, err := net.Dial("tcp", src.Addr().String())
		must(t, err)
		defer bad.Close()
		_, err = bad.Write([]byte("!"))
		must(t, err)
		_ = bad.SetReadDeadline(time.Now().Add(bound))
		if _, err := bad.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection of a panic lives: %v", err)
		}
		_, err = good.Write([]byte("still"))
		must(t, err)
		_ = good.SetReadDeadline(time.Now().Add(bound))
		if _, err := io.ReadFull(good, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		must(t, e.Shutdown())
	})
}

// A connection whose occurrence is lost to overload is aborted: its octets cannot be left out.
func TestStreamShed(t *testing.T) {
	l := newLoop(t, "")
	c := classOf(t, l, "small", aem.ClassConfig{Level: aem.Normal, Workers: 1, Queue: 1, Deadline: aem.NoDeadline})
	hold := make(chan struct{})
	src := aem.Listen("tcp", "127.0.0.1:0")
	var closed atomic.Int64
	e := register(t, l, src, func(_ *aem.Ctx, e aem.StreamEvent) { <-hold }, aem.EventConfig{Class: c, OnFate: func(f aem.Fate) {
		if f == aem.Rejected {
			closed.Add(1)
		}
	}})
	must(t, e.Start())
	var peers []net.Conn
	lost := 0
	for range 5 {
		p, err := net.Dial("tcp", src.Addr().String())
		if err != nil {
			lost++ // it was aborted so soon
			continue
		}
		defer p.Close()
		peers = append(peers, p)
	}
	settle(t, "refusals", func() bool { return closed.Load() >= 3 })
	close(hold)
	for _, p := range peers {
		_ = p.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := p.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("nobody was told")
	}
	must(t, e.Shutdown())
}

func TestPackets(t *testing.T) {
	eachClass(t, func(t *testing.T, l *aem.Loop, c *aem.Class) {
		for _, network := range []string{"udp", "unixgram"} {
			addr, from := "127.0.0.1:0", "127.0.0.1:0"
			if network == "unixgram" {
				addr, from = socketPath(t), socketPath(t)
			}
			src := aem.ListenPacket(network, addr)
			e := register(t, l, src, func(_ *aem.Ctx, p aem.Packet) {
				if err := p.Reply(append([]byte("re: "), p.Data...)); err != nil {
					t.Error(err)
				}
			}, aem.EventConfig{Class: c})
			must(t, e.Start())
			peer, err := net.ListenPacket(network, from)
			must(t, err)
			defer peer.Close()
			for i := range 50 {
				msg := fmt.Sprintf("message %d", i)
				_, err := peer.WriteTo([]byte(msg), src.Addr())
				must(t, err)
				b := make([]byte, 100)
				_ = peer.SetReadDeadline(time.Now().Add(bound))
				n, _, err := peer.ReadFrom(b)
				if err != nil || string(b[:n]) != "re: "+msg {
					t.Fatalf("%s: %q, %v", network, b[:n], err)
				}
			}
			if network == "udp" {
				to := netip.MustParseAddrPort(peer.LocalAddr().String())
				must(t, src.Send([]byte("unasked"), to))
				b := make([]byte, 100)
				if n, _, err := peer.ReadFrom(b); err != nil || string(b[:n]) != "unasked" {
					t.Fatalf("%q, %v", b[:n], err)
				}
			}
			must(t, e.Shutdown())
			settle(t, "the socket to close", func() bool { return l.Stats().Conns == 0 && l.Stats().Held == 0 })
		}
	})
}
