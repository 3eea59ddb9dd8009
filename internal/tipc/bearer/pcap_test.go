package bearer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/bearer/bearertest"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/wire"
)

// traced puts a capture around the bearers that open makes.
func traced(w func() *bytes.Buffer, open bearertest.Open) bearertest.Open {
	return func(t *testing.T, n int) []bearer.Bearer {
		bs := open(t, n)
		for i, b := range bs {
			c, err := bearer.NewCapture(w(), b.Media())
			if err != nil {
				t.Fatal(err)
			}
			bs[i] = bearer.Trace(b, c)
		}
		return bs
	}
}

// A traced bearer is a bearer like any other; allocations are the buffer's.
func TestTraced(t *testing.T) {
	w := func() *bytes.Buffer { b := new(bytes.Buffer); b.Grow(16 << 20); return b }
	t.Run("Mem", func(t *testing.T) { bearertest.Run(t, traced(w, openMem(&bearer.Hub{}))) })
	t.Run("UDP", func(t *testing.T) {
		bearertest.Run(t, traced(w, openList(bearer.UDPConfig{LocalIP: lo4})))
	})
}

// tipcMessage is a publication of n services, as any node sends it.
func tipcMessage(n int) []byte {
	m := make([]byte, 40+20*n)
	wire.Init(wire.Msg(m), 0x01001001, wire.UserNameDistr, 0, 40, 0x01001002)
	wire.Msg(m).SetSize(len(m))
	return m
}

type frame struct {
	src, dst string
	data     []byte
}

// readPcap takes a capture apart, independently of how it was written.
func readPcap(t *testing.T, file []byte) (link uint32, frames []frame) {
	t.Helper()
	le, be := binary.LittleEndian, binary.BigEndian
	if len(file) < 24 || le.Uint32(file) != 0xa1b23c4d {
		t.Fatalf("no pcap header: %x", file[:min(24, len(file))])
	}
	link = le.Uint32(file[20:])
	for file = file[24:]; len(file) > 0; {
		n := le.Uint32(file[8:])
		if le.Uint32(file[12:]) != n || int(n) > len(file)-16 {
			t.Fatalf("record of %d octets in %d", n, len(file))
		}
		p := file[16 : 16+n]
		file = file[16+n:]
		var f frame
		switch {
		case link == 1:
			if be.Uint16(p[12:]) != 0x88ca {
				t.Errorf("ethertype %x", p[12:14])
			}
			f = frame{fmt.Sprintf("%x", p[6:12]), fmt.Sprintf("%x", p[:6]), p[14:]}
		case p[0] == 0x45:
			s, _ := netip.AddrFromSlice(p[12:16])
			d, _ := netip.AddrFromSlice(p[16:20])
			u := p[20:]
			if int(be.Uint16(p[2:])) != len(p) || int(be.Uint16(u[4:])) != len(u) || p[9] != 17 {
				t.Errorf("lengths of IP and UDP do not fit: %x", p[:28])
			}
			f = frame{netip.AddrPortFrom(s, be.Uint16(u)).String(), netip.AddrPortFrom(d, be.Uint16(u[2:])).String(), u[8:]}
		case p[0]>>4 == 6:
			s, _ := netip.AddrFromSlice(p[8:24])
			d, _ := netip.AddrFromSlice(p[24:40])
			u := p[40:]
			if int(be.Uint16(p[4:])) != len(u) || int(be.Uint16(u[4:])) != len(u) || p[6] != 17 {
				t.Errorf("lengths of IP and UDP do not fit: %x", p[:48])
			}
			f = frame{netip.AddrPortFrom(s, be.Uint16(u)).String(), netip.AddrPortFrom(d, be.Uint16(u[2:])).String(), u[8:]}
		default:
			t.Fatalf("neither IPv4 nor IPv6: %x", p[:20])
		}
		frames = append(frames, f)
	}
	return link, frames
}

func TestCaptureContents(t *testing.T) {
	one, all := tipcMessage(1), tipcMessage(2)
	for _, tc := range []struct {
		name string
		link uint32
		open bearertest.Open
	}{
		{"eth", 1, openMem(&bearer.Hub{})},
		{"udp4", 101, openShared(bearer.UDPConfig{LocalIP: lo4})},
		{"list", 101, openList(bearer.UDPConfig{LocalIP: lo4})},
		{"udp6", 101, openList(bearer.UDPConfig{LocalIP: lo6})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "udp6" {
				need6(t)
			}
			var files []*bytes.Buffer
			bs := traced(func() *bytes.Buffer { files = append(files, new(bytes.Buffer)); return files[len(files)-1] }, tc.open)(t, 2)
			sink := bearertest.NewSink(bs[1], 4)
			var batch buf.Batch
			batch.Send(0, bs[1].Addr(), one)
			batch.Send(5, bs[1].Addr(), one) // of another bearer
			batch.Send(0, bs[0].BroadcastAddr(), all)
			if err := bs[0].WriteBatch(&batch, 0); err != nil {
				t.Fatal(err)
			}
			sink.Take(t, 2)
			bs[1].Close()
			sink.Ended(t)
			dst := func(a wire.MediaAddr) string {
				if a.Media == wire.MediaEth {
					return fmt.Sprintf("%x", a.MAC)
				}
				return a.IP.String()
			}
			group := dst(bs[0].BroadcastAddr())
			if !bs[0].BroadcastSupport() {
				group = dst(bs[1].Addr())
			}
			for i, file := range files {
				link, frames := readPcap(t, file.Bytes())
				if link != tc.link {
					t.Errorf("link type %d, want %d", link, tc.link)
				}
				want := []frame{{dst(bs[0].Addr()), dst(bs[1].Addr()), one}, {dst(bs[0].Addr()), group, all}}
				slices.SortFunc(frames, func(a, b frame) int { return len(a.data) - len(b.data) }) // two sockets, no order
				if len(frames) != 2 {
					t.Fatalf("capture %d has %d records, want 2", i, len(frames))
				}
				for k := range want {
					if frames[k].src != want[k].src || frames[k].dst != want[k].dst || !bytes.Equal(frames[k].data, want[k].data) {
						t.Errorf("capture %d record %d: %+v, want %+v", i, k, frames[k], want[k])
					}
				}
			}
		})
	}
}

// tshark's opinion: TIPC of version 2, nothing malformed, checksums right.
func TestCaptureReadByTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		skipUnlessCI(t, "needs tshark (apt-get install tshark)")
	}
	for name, open := range map[string]bearertest.Open{
		"eth":  openMem(&bearer.Hub{}),
		"udp4": openGroup(bearer.UDPConfig{}),
		"udp6": openList(bearer.UDPConfig{LocalIP: lo6}),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "udp6" {
				need6(t)
			}
			path := filepath.Join(t.TempDir(), "x.pcap")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			bs := open(t, 2)
			c, err := bearer.NewCapture(f, bs[0].Media())
			if err != nil {
				t.Fatal(err)
			}
			b := bearer.Trace(bs[0], c)
			var batch buf.Batch
			for n := range 5 {
				batch.Send(0, bs[1].Addr(), tipcMessage(n+1))
				batch.Send(0, b.BroadcastAddr(), tipcMessage(n+100))
			}
			if err := b.WriteBatch(&batch, 0); err != nil {
				t.Fatal(err)
			}
			args := []string{"-r", path, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
				"-T", "fields", "-e", "tipc.ver", "-e", "tipc.usr", "-e", "_ws.malformed", "-e", "udp.checksum.status", "-e", "ip.checksum.status"}
			if name != "eth" {
				args = append(args, "-d", fmt.Sprintf("udp.port==%d,tipc", b.Addr().IP.Port()))
			}
			cmd := exec.Command("tshark", args...)
			// Whose preferences there are must not matter.
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("tshark: %v\n%s", err, out)
			}
			want := map[string]string{
				"eth":  "2\t11\t\t\t",
				"udp4": "2\t11\t\t3\t1", // no UDP checksum, good IP checksum
				"udp6": "2\t11\t\t1\t",
			}[name]
			n := 0
			for line := range strings.Lines(string(out)) {
				line = strings.TrimSuffix(line, "\n")
				n++
				if line != want {
					t.Errorf("record %d: %q, want %q", n, line, want)
				}
			}
			if n != 10 {
				t.Errorf("%d records, want 10\n%s", n, out)
			}
		})
	}
}

type brokenWriter struct{ left int }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

// A full disk ends the capture but not the traffic.
func TestCaptureErrors(t *testing.T) {
	if _, err := bearer.NewCapture(&brokenWriter{10}, wire.MediaEth); err == nil {
		t.Error("no error from a writer that takes nothing")
	}
	if _, err := bearer.NewCapture(&brokenWriter{1000}, wire.MediaIB); err == nil {
		t.Error("InfiniBand was accepted")
	}
	bs := openMem(&bearer.Hub{})(t, 2)
	c, err := bearer.NewCapture(&brokenWriter{100}, wire.MediaEth)
	if err != nil {
		t.Fatal(err)
	}
	b := bearer.Trace(bs[0], c)
	var batch buf.Batch
	batch.Send(0, bs[1].Addr(), tipcMessage(0))
	for range 10 {
		if err := b.WriteBatch(&batch, 0); err != nil {
			t.Fatal(err)
		}
	}
	if c.Err() == nil {
		t.Error("the error was not kept")
	}
	if n := bs[0].Stats().TxDatagrams; n != 10 {
		t.Errorf("%d datagrams sent, want 10", n)
	}
	if b.Unwrap() != bs[0] {
		t.Error("Unwrap does not return the traced bearer")
	}
}
