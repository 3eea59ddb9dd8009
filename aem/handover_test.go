//go:build linux

package aem_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"midplane/aem"
)

// saveEcho is what the next program must know of an echo: what it has not sent yet.
func saveEcho(c *aem.Conn) []byte {
	if st, ok := c.Value.(*echoState); ok {
		return st.rest
	}
	return nil
}

// TestHandover: a hundred programs, one after the other, serve the same listener and connections under load, and nobody
// loses an octet or a connection.
func TestHandover(t *testing.T) {
	if gen := os.Getenv("AEM_GENERATION"); gen != "" {
		generation(t, gen)
		return
	}
	upgrades := 100
	if testing.Short() {
		upgrades = 10
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			n := upgrades
			if backend != "io_uring" {
				n = min(n, 20) // the hundred once, the other back ends shorter
			}
			handOver(t, backend, n)
		})
	}
}

type program struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startGeneration(t *testing.T, dir, backend string, gen int) *program {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	p := &program{cmd: exec.Command(os.Args[0], "-test.run=^TestHandover$", "-test.v")}
	p.cmd.Env = append(os.Environ(), "AEM_GENERATION="+strconv.Itoa(gen), "AEM_DIR="+dir, "AEM_BACKEND="+backend, "GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = &p.out, &p.out, []*os.File{w}
	must(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(bound))
	if b, err := io.ReadAll(r); err != nil || string(b) != "ready" {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		t.Fatalf("generation %d: %q, %v\n%s", gen, b, err, p.out.String())
	}
	return p
}

func handOver(t *testing.T, backend string, upgrades int) {
	dir := filepath.Dir(socketPath(t))
	current := startGeneration(t, dir, backend, 0)
	text, err := os.ReadFile(filepath.Join(dir, "addr"))
	must(t, err)
	addrs := bytes.Fields(text)
	addr := addrs[0]
	var stop atomic.Bool
	var wg sync.WaitGroup
	var echoes, dials, grams atomic.Int64
	for peer := range 8 { // connections that live through all
		wg.Go(func() {
			n, err := talk(string(addr), peer, func() bool { return stop.Load() })
			echoes.Add(int64(n))
			if err != nil {
				t.Errorf("peer %d: %v", peer, err)
			}
		})
	}
	wg.Go(func() { // and connections that come and go
		for !stop.Load() {
			once := false
			if _, err := talk(string(addr), 100, func() bool { was := once; once = true; return was }); err != nil {
				t.Errorf("a new connection: %v", err)
				return
			}
			dials.Add(1)
		}
	})
	for network, to := range map[string]string{"udp": string(addrs[1]), "unixgram": filepath.Join(dir, "grams")} { // and datagrams
		for peer := range 2 {
			from := "127.0.0.1:0"
			if network == "unixgram" {
				from = filepath.Join(dir, "peer."+strconv.Itoa(peer))
			}
			wg.Go(func() {
				n, err := exchange(network, from, to, stop.Load)
				grams.Add(int64(n))
				if err != nil {
					t.Errorf("%s peer %d: %v", network, peer, err)
				}
			})
		}
	}
	for gen := 1; gen <= upgrades; gen++ {
		next := startGeneration(t, dir, backend, gen)
		if err := current.cmd.Wait(); err != nil {
			t.Fatalf("generation %d: %v\n%s", gen-1, err, current.out.String())
		}
		current = next
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d upgrades, %d echoes on 8 connections, %d new connections, %d datagrams", upgrades, echoes.Load(), dials.Load(), grams.Load())
	if echoes.Load() == 0 || dials.Load() == 0 || grams.Load() == 0 {
		t.Error("there was no load")
	}
}

// talk sends numbered messages, several at a time, and wants them back in order.
func talk(addr string, peer int, done func() bool) (n int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	const window = 4
	msg, back := make([]byte, 1024), make([]byte, 1024)
	for !done() {
		for i := range window {
			binary.BigEndian.PutUint64(msg[i*256:], uint64(n+i)<<8|uint64(peer))
		}
		_ = c.SetDeadline(time.Now().Add(bound))
		if _, err := c.Write(msg); err != nil {
			return n, fmt.Errorf("after %d echoes: %w", n, err)
		}
		if _, err := io.ReadFull(c, back); err != nil {
			return n, fmt.Errorf("after %d echoes: %w", n, err)
		}
		if !bytes.Equal(msg, back) {
			return n, fmt.Errorf("after %d echoes another message came back", n)
		}
		n += window
	}
	return n, nil
}

// exchange sends numbered datagrams, so many at a time that no kernel drops one, and wants each back once and in order.
func exchange(network, from, to string, done func() bool) (n int, err error) {
	local, err := net.ListenPacket(network, from)
	if err != nil {
		return 0, err
	}
	defer local.Close()
	var peer net.Addr = &net.UnixAddr{Name: to, Net: network}
	if network == "udp" {
		if peer, err = net.ResolveUDPAddr(network, to); err != nil {
			return 0, err
		}
	}
	const window = 8
	back := make([]byte, 100)
	for sent := 0; !done() || n < sent; {
		for sent < n+window && !done() {
			_ = local.SetWriteDeadline(time.Now().Add(bound))
			if _, err := local.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(sent)), peer); err != nil {
				return n, fmt.Errorf("after %d: %w", n, err)
			}
			sent++
		}
		_ = local.SetReadDeadline(time.Now().Add(bound))
		k, _, err := local.ReadFrom(back)
		if err != nil {
			return n, fmt.Errorf("after %d of %d: %w", n, sent, err)
		}
		if k != 8 || binary.BigEndian.Uint64(back) != uint64(n) {
			return n, fmt.Errorf("%x came back, want %d", back[:k], n)
		}
		n++
	}
	return n, nil
}

// generation is one of the programs.
func generation(t *testing.T, gen string) {
	k, err := strconv.Atoi(gen)
	must(t, err)
	dir := os.Getenv("AEM_DIR")
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "ctl."+gen), Net: "unix"})
	must(t, err)
	defer control.Close()
	l := newLoop(t, os.Getenv("AEM_BACKEND"))
	src := aem.Listen("tcp", "127.0.0.1:0")
	udp, unix := aem.ListenPacket("udp", "127.0.0.1:0"), aem.ListenPacket("unixgram", filepath.Join(dir, "grams"))
	confirm := func() error { return nil }
	if k > 0 {
		from, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "ctl."+strconv.Itoa(k-1)), Net: "unix"})
		must(t, err)
		defer from.Close()
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		taken, ok, err := aem.Takeover(ctx, from)
		must(t, err)
		if len(taken) != 3 {
			t.Fatalf("%d sources came", len(taken))
		}
		src.Listener, src.Conns, confirm = taken[1].Listener, taken[1].Conns, ok
		udp.Taken, unix.Taken = taken[0].Packets, taken[2].Packets
	}
	src.Save = saveEcho
	// Every other program handles on workers, so that occurrences wait when it is replaced.
	class := classOf(t, l, "echo", aem.ClassConfig{Inline: k%2 == 0, Level: aem.Normal, Deadline: aem.NoDeadline})
	e := register(t, l, src, echo, aem.EventConfig{Class: class})
	must(t, e.Start())
	for name, p := range map[string]*aem.Packets{"udp": udp, "unixgram": unix} {
		// One worker, because these are to be in order, and none of theirs waits for another's.
		class := classOf(t, l, name, aem.ClassConfig{Inline: k%2 == 0, Level: aem.Normal, Deadline: aem.NoDeadline, Workers: 1})
		must(t, register(t, l, p, func(_ *aem.Ctx, p aem.Packet) {
			if err := p.Reply(p.Data); err != nil {
				t.Errorf("answer to %v%s: %v", p.From, p.Path, err)
			}
		}, aem.EventConfig{Class: class}).Start())
	}
	must(t, confirm())
	if k == 0 {
		must(t, os.WriteFile(filepath.Join(dir, "addr"), []byte(src.Addr().String()+" "+udp.Addr().String()), 0o600))
	}
	ready := os.NewFile(3, "ready")
	_, err = ready.WriteString("ready")
	must(t, err)
	ready.Close()
	_ = control.SetDeadline(time.Now().Add(2 * bound))
	to, err := control.AcceptUnix()
	if err != nil {
		return // nobody comes: the last one
	}
	defer to.Close()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	must(t, l.Handover(ctx, to, udp, src, unix))
	if e.State() != aem.Registered {
		t.Fatalf("the event is %v", e.State())
	}
}

// When the other program does not confirm, this one goes on with everything.
func TestHandoverRefused(t *testing.T) {
	eachClass(t, func(t *testing.T, l *aem.Loop, c *aem.Class) {
		src := aem.Listen("tcp", "127.0.0.1:0")
		src.Save = saveEcho
		e := register(t, l, src, echo, aem.EventConfig{Class: c})
		must(t, e.Start())
		conn, err := net.Dial("tcp", src.Addr().String())
		must(t, err)
		defer conn.Close()
		say := func(what string) {
			t.Helper()
			_ = conn.SetDeadline(time.Now().Add(bound))
			if _, err := conn.Write([]byte(what)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, len(what))
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != what {
				t.Fatalf("%q, %v", b, err)
			}
		}
		say("before")
		fds := openFDs(t)
		for try := range 10 {
			a, b := unixPair(t)
			go func() {
				if try%2 == 0 {
					all, _, _ := aem.Takeover(t.Context(), b) // takes all, and dies
					for _, i := range all {
						i.Close()
					}
				}
				b.Close()
			}()
			if err := l.Handover(t.Context(), a, src); err == nil {
				t.Fatal("nobody confirmed")
			}
			a.Close()
			say(fmt.Sprintf("after try %d", try))
		}
		if other, err := net.Dial("tcp", src.Addr().String()); err != nil {
			t.Fatal(err)
		} else {
			other.Close()
		}
		if e.State() != aem.Started {
			t.Fatalf("the event is %v", e.State())
		}
		settle(t, "descriptors to be closed", func() bool { return openFDs(t) <= fds })
		must(t, e.Shutdown())
	})
}

func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(t), Net: "unix"})
	must(t, err)
	defer ln.Close()
	a, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr))
	must(t, err)
	b, err = ln.AcceptUnix()
	must(t, err)
	return a, b
}
