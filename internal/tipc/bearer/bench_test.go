package bearer_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/bearer/bearertest"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

var benchModes = []struct {
	name string
	c    bearer.UDPConfig
}{
	{"plain", bearer.UDPConfig{LocalIP: lo4, MTU: bearer.MaxUDPMTU, Plain: true}},
	{"mmsg", bearer.UDPConfig{LocalIP: lo4, MTU: bearer.MaxUDPMTU, NoOffload: true}},
	{"gso", bearer.UDPConfig{LocalIP: lo4, MTU: bearer.MaxUDPMTU}},
}

func benchPair(b *testing.B, c bearer.UDPConfig) (x, y *bearer.UDP) {
	c.Name, c.LocalPort, c.PeerList = "u", bearer.EphemeralPort, true
	return mustUDP(b, c), mustUDP(b, c)
}

// BenchmarkOneWay sends datagrams in batches, as fast as the receiver takes them.
func BenchmarkOneWay(b *testing.B) {
	for _, size := range []int{64, 1400, 14000, 65000} {
		for _, batchLen := range []int{1, 64} {
			for _, m := range benchModes {
				b.Run(fmt.Sprintf("%d/batch%d/%s", size, batchLen, m.name), func(b *testing.B) {
					x, y := benchPair(b, m.c)
					oneWay(b, x, y, size, batchLen)
				})
			}
		}
	}
}

func oneWay(b *testing.B, x, y bearer.Bearer, size, batchLen int) {
	var got atomic.Int64
	go func() {
		var pkts [bearer.BatchSize]bearer.Packet
		for {
			n, err := y.Readers()[0].ReadBatch(pkts[:])
			if err != nil {
				return
			}
			got.Add(int64(n))
		}
	}()
	var batch buf.Batch
	for k := range batchLen {
		batch.Send(0, y.Addr(), []byte(bearertest.Payload(k, size)))
	}
	window := int64(max(2<<20/(size+2000), 2*batchLen)) // fits into the receive queue
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	sent, last := int64(0), time.Now()
	for sent < int64(b.N) {
		x.WriteBatch(&batch, 0)
		sent += int64(batchLen)
		last = time.Now()
		for sent-got.Load() > window && time.Since(last) < 100*time.Millisecond {
			runtime.Gosched()
		}
	}
	for sent > got.Load() && time.Since(last) < 100*time.Millisecond {
		runtime.Gosched()
	}
	b.StopTimer()
	b.ReportMetric(float64(got.Load())/b.Elapsed().Seconds(), "pkt/s")
	if lost := sent - got.Load(); lost > 0 {
		b.ReportMetric(float64(lost)/float64(sent), "lost")
	}
}

// BenchmarkRTT is a ping-pong of one datagram between two processes.
func BenchmarkRTT(b *testing.B) {
	for _, m := range benchModes {
		b.Run("64/"+m.name, func(b *testing.B) {
			c := m.c
			c.Name, c.LocalPort, c.PeerList = "u", bearer.EphemeralPort, true
			x := mustUDP(b, c)
			ap := netip.MustParseAddrPort(startEcho(b, m.name))
			rtt(b, x, wire.MediaAddr{Media: wire.MediaUDP, IP: ap})
		})
	}
	b.Run("64/tcp", func(b *testing.B) { rttTCP(b, startEcho(b, "tcp")) })
	b.Run("64/memory", func(b *testing.B) { // in this process, of course
		h := &bearer.Hub{}
		x, y := h.Open("eth:a"), h.Open("eth:b")
		defer x.Close()
		defer y.Close()
		go echo(y)
		rtt(b, x, y.Addr())
	})
}

// startEcho runs this program as the other end and returns its address.
func startEcho(b *testing.B, mode string) string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestEchoProcess$")
	cmd.Env = append(os.Environ(), "BEARER_ECHO="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestEchoProcess is the other process of BenchmarkRTT, not a test.
func TestEchoProcess(t *testing.T) {
	mode := os.Getenv("BEARER_ECHO")
	if mode == "" {
		t.Skip("only a helper of BenchmarkRTT")
	}
	if mode == "tcp" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(l.Addr())
		go echoTCP(l)
	}
	for _, m := range benchModes {
		if m.name == mode {
			c := m.c
			c.Name, c.LocalPort, c.PeerList = "u", bearer.EphemeralPort, true
			y := mustUDP(t, c)
			fmt.Println(y.Addr().IP)
			go echo(y)
		}
	}
	io.Copy(io.Discard, os.Stdin) // until the benchmark closes it
}

func echo(y bearer.Bearer) {
	var pkts [1]bearer.Packet
	var batch buf.Batch
	for {
		if _, err := y.Readers()[0].ReadBatch(pkts[:]); err != nil {
			return
		}
		batch.Reset()
		batch.Send(0, pkts[0].Src, pkts[0].Data)
		y.WriteBatch(&batch, 0)
	}
}

func echoTCP(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	var p [64]byte
	for {
		if _, err := io.ReadFull(c, p[:]); err != nil {
			return
		}
		c.Write(p[:])
	}
}

func rtt(b *testing.B, x bearer.Bearer, y wire.MediaAddr) {
	var pkts [1]bearer.Packet
	var batch buf.Batch
	batch.Send(0, y, []byte(bearertest.Payload(1, 64)))
	times := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		x.WriteBatch(&batch, 0)
		if _, err := x.Readers()[0].ReadBatch(pkts[:]); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	reportP50(b, times)
}

func rttTCP(b *testing.B, addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var p [64]byte
	times := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		c.Write(p[:])
		if _, err := io.ReadFull(c, p[:]); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	reportP50(b, times)
}

func reportP50(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds()), "p99-ns")
}
