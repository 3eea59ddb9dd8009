//go:build linux

package aem_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"midplane/aem"
)

// numbered is a handler of numbered datagrams that answers each, and a peer that sends them.
type numbered struct {
	t       *testing.T
	gates   map[uint32]chan struct{} // handlers of these numbers wait
	entered chan uint32              // and say so
	ends    bool                     // the socket may be closed when they answer

	mu  sync.Mutex
	got []uint32
}

func (n *numbered) handle(_ *aem.Ctx, p aem.Packet) {
	k := binary.BigEndian.Uint32(p.Data)
	if gate := n.gates[k]; gate != nil {
		n.entered <- k
		<-gate
	}
	n.mu.Lock()
	n.got = append(n.got, k)
	n.mu.Unlock()
	for { // the peer reads late, so that answers wait too
		err := p.Reply(p.Data)
		if err == nil || n.ends && errors.Is(err, net.ErrClosed) {
			return
		}
		if !errors.Is(err, aem.ErrPacketQueue) {
			n.t.Errorf("answer %d: %v", k, err)
			return
		}
	}
}

func (n *numbered) handled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.got)
}

func (n *numbered) inOrder(count int) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	want := make([]uint32, count)
	for i := range want {
		want[i] = uint32(i)
	}
	if !slices.Equal(n.got, want) {
		n.t.Fatalf("handled %v, want 0 to %d in order", n.got, count-1)
	}
}

// send sends numbers, and waits while the socket is full.
func (n *numbered) send(c net.PacketConn, to net.Addr, from, count int) {
	for k := from; k < from+count; k++ {
		if _, err := c.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(k)), to); err != nil {
			n.t.Error(err)
			return
		}
	}
}

func (n *numbered) answers(c net.PacketConn, count int) {
	n.t.Helper()
	b := make([]byte, 100)
	for k := range count {
		_ = c.SetReadDeadline(time.Now().Add(bound))
		m, _, err := c.ReadFrom(b)
		if err != nil || m != 4 || binary.BigEndian.Uint32(b) != uint32(k) {
			n.t.Fatalf("answer %d is %x, %v", k, b[:m], err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if m, _, err := c.ReadFrom(b); err == nil {
		n.t.Fatalf("one more answer: %x", b[:m])
	}
}

// Datagrams with the handler, in the queue of the class, in the loop, in the kernel and not sent yet, and answers that the
// peer does not take: each is handled once, in order, here while the other program does not confirm, and there when it does.
func TestHandoverPackets(t *testing.T) {
	const count = 90
	for name, cfg := range map[string]aem.ClassConfig{"inline": {Inline: true}, "worker": {Level: aem.Normal, Deadline: aem.NoDeadline, Workers: 1}} {
		t.Run(name, func(t *testing.T) {
			eachLoop(t, func(t *testing.T, l *aem.Loop) {
				other := newLoop(t, l.Backend())
				fds := openFDs(t)
				n := &numbered{t: t, entered: make(chan uint32), gates: map[uint32]chan struct{}{}}
				if name == "worker" {
					n.gates = map[uint32]chan struct{}{0: make(chan struct{}), 20: make(chan struct{}), 40: make(chan struct{})}
				}
				path := socketPath(t)
				src := aem.ListenPacket("unixgram", path)
				e := register(t, l, src, n.handle, aem.EventConfig{Class: classOf(t, l, "here", cfg)})
				must(t, e.Start())
				peer, err := net.ListenPacket("unixgram", socketPath(t))
				must(t, err)
				defer peer.Close()
				var sending sync.WaitGroup
				sending.Go(func() { n.send(peer, src.Addr(), 0, count) })
				over := func(try uint32, ctx context.Context, to *net.UnixConn) error {
					gate := n.gates[try]
					if gate == nil {
						return l.Handover(ctx, to, src)
					}
					if k := recv(t, n.entered); k != try {
						t.Fatalf("handler %d waits, want %d", k, try)
					}
					canceled := e.Stats().Fates[aem.Canceled]
					settle(t, "datagrams to wait for the worker", func() bool { return e.Stats().Pending > 2 })
					ended := make(chan error, 1)
					go func() { ended <- l.Handover(ctx, to, src) }()
					settle(t, "datagrams to be taken back", func() bool { return e.Stats().Fates[aem.Canceled] > canceled })
					if err := l.Handover(ctx, to, src); !errors.Is(err, aem.ErrStopped) {
						t.Errorf("a second one at once: %v", err)
					}
					close(gate)
					return <-ended
				}
				// It dies with everything.
				a, b := unixPair(t)
				go func(b *net.UnixConn) {
					all, _, err := aem.Takeover(t.Context(), b)
					if err != nil || len(all) != 1 || all[0].Packets == nil || all[0].Name != src.String() {
						t.Errorf("%+v, %v", all, err)
					}
					for _, i := range all {
						i.Close()
					}
					b.Close()
				}(b)
				if err := over(0, t.Context(), a); err == nil {
					t.Fatal("nobody confirmed")
				}
				a.Close()
				// It does not answer in time.
				a, b = unixPair(t)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if err := over(20, ctx, a); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				cancel()
				a.Close()
				b.Close()
				// It takes over.
				a, b = unixPair(t)
				next := aem.ListenPacket("unixgram", path)
				e2 := register(t, other, next, n.handle, aem.EventConfig{Class: classOf(t, other, "there", cfg)})
				taken := make(chan error, 1)
				go func() {
					all, confirm, err := aem.Takeover(t.Context(), b)
					if err == nil {
						next.Taken = all[0].Packets
						err = errors.Join(e2.Start(), confirm())
					}
					taken <- err
				}()
				must(t, over(40, t.Context(), a))
				must(t, recv(t, taken))
				a.Close()
				b.Close()
				if e.State() != aem.Registered {
					t.Fatalf("the event is %v", e.State())
				}
				if err := src.Send(nil, netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, net.ErrClosed) {
					t.Fatalf("sending after all: %v", err)
				}
				if _, err := os.Stat(path); err != nil {
					t.Fatal(err)
				}
				sending.Wait()
				settle(t, "all to be handled", func() bool { return n.handled() >= count })
				n.answers(peer, count)
				n.inOrder(count)
				if name == "worker" && e2.Stats().Fates[aem.Ran] == 0 {
					t.Error("the other program handled nothing")
				}
				must(t, e2.Shutdown())
				must(t, e.Shutdown())
				if _, err := os.Stat(path); err == nil {
					t.Error("the socket's path is left")
				}
				peer.Close()
				settle(t, "all to be given back", func() bool {
					return l.Stats().Held == 0 && other.Stats().Held == 0 && l.Stats().Conns == 0 && other.Stats().Conns == 0 && openFDs(t) <= fds
				})
			})
		})
	}
}

// What can come between ends in an error, and never in a socket that nobody has.
func TestHandoverPacketsEnds(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		n := &numbered{t: t, ends: true, entered: make(chan uint32), gates: map[uint32]chan struct{}{0: make(chan struct{})}}
		class := classOf(t, l, "worker", aem.ClassConfig{Level: aem.Normal, Deadline: aem.NoDeadline})
		src := aem.ListenPacket("udp", "127.0.0.1:0")
		e := register(t, l, src, n.handle, aem.EventConfig{Class: class})
		a, b := unixPair(t)
		defer b.Close()
		defer a.Close()
		if err := l.Handover(t.Context(), a, src); !errors.Is(err, aem.ErrStopped) {
			t.Fatalf("before Start: %v", err)
		}
		fds := openFDs(t)
		must(t, e.Start())
		must(t, e.Stop())
		if err := l.Handover(t.Context(), a, src); !errors.Is(err, aem.ErrStopped) {
			t.Fatalf("after Stop: %v", err)
		}
		// Stopped while a handler is waited for.
		must(t, e.Start())
		peer, err := net.Dial("udp", src.Addr().String())
		must(t, err)
		_, err = peer.Write(make([]byte, 4))
		must(t, err)
		recv(t, n.entered)
		ended := make(chan error, 2)
		for range 2 { // the one that comes second finds that there is a first, which waits
			go func() { ended <- l.Handover(t.Context(), a, src) }()
		}
		if err := recv(t, ended); !errors.Is(err, aem.ErrStopped) {
			t.Fatalf("while it is handed over: %v", err)
		}
		must(t, e.Stop())
		close(n.gates[0])
		b.Close() // in case that it came so far
		if err := recv(t, ended); err == nil {
			t.Fatal("a stopped source was handed over")
		}
		peer.Close()
		settle(t, "the socket to be closed", func() bool { return l.Stats().Conns == 0 && openFDs(t) <= fds-1 })
		must(t, e.Start()) // it is as new
		must(t, e.Shutdown())
	})
}

// TestTakeoverHostile: what is not as Handover sends it is refused, and every descriptor that came is closed.
func TestTakeoverHostile(t *testing.T) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	stream, err := net.Dial("tcp", tcp.Addr().String())
	must(t, err)
	gram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socketPath(t), Net: "unixgram"})
	must(t, err)
	pipe, pipe2, err := os.Pipe()
	must(t, err)
	files := map[string]*os.File{"pipe": pipe}
	for name, c := range map[string]interface{ File() (*os.File, error) }{"listener": tcp, "udp": udp, "stream": stream.(*net.TCPConn), "gram": gram} {
		files[name], err = c.File()
		must(t, err)
	}
	defer func() {
		for _, c := range []interface{ Close() error }{tcp, udp, stream, gram, pipe2} {
			c.Close()
		}
		for _, f := range files {
			f.Close()
		}
	}()
	type record struct {
		body string
		fds  []string
		size int // another than the body's
	}
	kind := func(k string, fds ...string) record { return record{body: `{"Kind":"` + k + `"}`, fds: fds} }
	grams := func(b ...byte) record {
		body, err := json.Marshal(map[string]any{"Kind": "packets", "Received": b})
		must(t, err)
		return record{body: string(body), fds: []string{"udp"}}
	}
	good := kind("packets", "udp")
	for name, c := range map[string]struct {
		records []record
		want    string
	}{
		"nothing":                    {nil, "EOF"},
		"no end":                     {[]record{good}, "EOF"},
		"a short record":             {[]record{good, {body: "{", fds: []string{"udp"}, size: 100}}, "unexpected EOF"},
		"too long a record":          {[]record{good, {body: "{", fds: []string{"udp"}, size: 300 << 20}}, "want at most"},
		"no JSON":                    {[]record{good, {body: "{", fds: []string{"udp"}}}, "JSON"},
		"no descriptor":              {[]record{good, kind("packets")}, "without a descriptor"},
		"a pipe as packets":          {[]record{good, kind("packets", "pipe")}, "non-socket"},
		"a listener as packets":      {[]record{good, kind("packets", "listener")}, `"packets" with a socket of type`},
		"a stream as packets":        {[]record{good, kind("packets", "stream")}, `"packets" with a socket of type`},
		"UDP as a listener":          {[]record{good, kind("listener", "udp")}, `"listener" with a socket of type`},
		"unixgram as a listener":     {[]record{good, kind("listener", "gram")}, `"listener" with a socket of type`},
		"a stream as a listener":     {[]record{good, kind("listener", "stream")}, `"listener" with a socket of type`},
		"UDP as a connection":        {[]record{good, kind("listener", "listener"), kind("conn", "udp")}, `"conn" with a socket of type`},
		"a listener as a connection": {[]record{good, kind("listener", "listener"), kind("conn", "listener")}, `"conn" with a socket of type`},
		"a connection alone":         {[]record{kind("conn", "stream")}, "without a listener"},
		"a connection of packets":    {[]record{good, kind("conn", "stream")}, "without a listener"},
		"an unknown kind":            {[]record{good, kind("x", "udp")}, `kind "x"`},
		"a descriptor at the end":    {[]record{good, kind("end", "udp")}, "the last record has a descriptor"},
		"several descriptors":        {[]record{kind("packets", "udp", "gram", "pipe"), kind("packets")}, "without a descriptor"},
		"more than fit":              {[]record{kind("packets", "udp", "gram", "pipe", "udp", "gram", "pipe"), kind("packets")}, "without a descriptor"},
		"grams: address too short":   {[]record{good, grams(1, 0, 0, 0)}, "malformed"},
		"grams: address cut":         {[]record{good, grams(6, 127, 0)}, "malformed"},
		"grams: no data":             {[]record{good, grams(2, 0, 0, 0)}, "malformed"},
		"grams: data cut":            {[]record{good, grams(2, 0, 0, 0, 5, 1)}, "malformed"},
		"grams: a number that grows": {[]record{good, grams(2, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255)}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			fds := openFDs(t)
			a, b := unixPair(t)
			ended := make(chan error, 1)
			go func() {
				all, confirm, err := aem.Takeover(t.Context(), b)
				if err == nil || all != nil || confirm != nil {
					err = fmt.Errorf("it took %v", all)
				}
				ended <- err
			}()
			for _, r := range c.records {
				head := binary.BigEndian.AppendUint32(nil, uint32(max(len(r.body), r.size)))
				var rights []int
				for _, f := range r.fds {
					rights = append(rights, int(files[f].Fd()))
				}
				var oob []byte
				if len(rights) > 0 {
					oob = syscall.UnixRights(rights...)
				}
				if _, _, err := a.WriteMsgUnix(head, oob, nil); err != nil {
					break // it was refused already
				}
				_, _ = a.Write([]byte(r.body))
			}
			must(t, a.CloseWrite())
			if err := recv(t, ended); !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			a.Close()
			b.Close()
			settle(t, "descriptors to be closed", func() bool { return openFDs(t) <= fds })
		})
	}
}
