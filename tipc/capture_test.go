package tipc_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"midplane/internal/tipc/tipctest"
	"midplane/tipc"
)

// A capture has what the bearer carried, both ways, and the bearer is otherwise as without.
func TestCapture(t *testing.T) {
	service := tipc.ServiceAddr{Type: 4711, Instance: 7}
	text := []byte("a message that is in the capture")
	// talk sends a message from b to a, and returns when it is there.
	talk := func(t *testing.T, a, b *tipc.Node) {
		l, err := a.ListenPacket(service, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		published(t, b, service.Range())
		c, err := b.ListenPacket(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.WriteTo(text, service); err != nil {
			t.Fatal(err)
		}
		l.SetReadDeadline(time.Now().Add(2 * time.Minute))
		buf := make([]byte, 100)
		if n, _, err := l.ReadFrom(buf); err != nil || !bytes.Equal(buf[:n], text) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	node := func(t *testing.T, b tipc.Bearer) *tipc.Node {
		t.Helper()
		n, err := tipc.NewNode(tipc.Config{Bearers: []tipc.Bearer{b}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}

	t.Run("Memory", func(t *testing.T) {
		var net tipc.Network
		path := filepath.Join(t.TempDir(), "a.pcap")
		a := node(t, tipc.Memory{Name: "m", Network: &net, BearerSettings: tipc.BearerSettings{Capture: path}})
		b := node(t, tipc.Memory{Name: "m", Network: &net})
		talk(t, a, b)
		a.Close()
		from := map[string]int{}
		found := false
		for _, f := range tipctest.Capture(t, path) {
			from[f.Src.String()]++
			found = found || bytes.Equal(f.Msg.Data(), text)
		}
		if len(from) != 2 || !found {
			t.Errorf("packets by source: %v; the message is there: %v", from, found)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%v, %v: others can read it", fi.Mode(), err)
		}
	})

	// The list of peers of a UDP bearer is learnt through the capture too.
	t.Run("UDP", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "u.pcap")
		u, err := tipc.ParseBearer("udp,name=u,localip=127.0.0.1,capture=" + path)
		if err != nil {
			t.Fatal(err)
		}
		first := u.(tipc.UDP)
		first.LocalPort, first.PeerList = tipc.AnyPort, true
		a := node(t, first)
		d, _ := a.Internals().Bearer("udp:u")
		b := node(t, tipc.UDP{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, Remotes: []netip.AddrPort{d.Addr().IP}})
		talk(t, a, b)
		a.Close()
		if got, err := os.ReadFile(path); err != nil || !bytes.Contains(got, text) {
			t.Errorf("%v: the message is not in %d octets", err, len(got))
		}
	})

	t.Run("no file", func(t *testing.T) {
		b := tipc.UDP{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, PeerList: true}
		b.Capture = filepath.Join(t.TempDir(), "gone", "x.pcap")
		if n, err := tipc.NewNode(tipc.Config{Bearers: []tipc.Bearer{b}}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, %v", n, err)
		}
	})
}
