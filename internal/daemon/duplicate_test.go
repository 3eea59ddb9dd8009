package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/internal/api"
	"midplane/internal/tipc/bearer"
	"midplane/tipc"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// An address that another node uses too shows in the log and in what the node tells of itself.
func TestDuplicateAddress(t *testing.T) {
	var log syncBuffer
	var ds [2]*Daemon
	var addrs [2]netip.AddrPort
	for i := range ds {
		var err error
		ds[i], err = Start(Config{
			Address: tipc.MustParseNodeAddr("1.1.7"), Control: filepath.Join(t.TempDir(), "control"),
			Bearers: []tipc.Bearer{tipc.UDP{Name: "u", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, PeerList: true}},
		}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer ds[i].Close()
		b, _ := ds[i].Node().Internals().Bearer("udp:u")
		addrs[i] = b.Addr().IP
	}
	for i, d := range ds {
		b, _ := d.Node().Internals().Bearer("udp:u")
		if err := b.(*bearer.UDP).AddPeer(addrs[1-i]); err != nil {
			t.Log("learnt already:", err)
		}
	}
	c := api.NewClient(ds[0].Control())
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		n, err := c.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Contains(log.String(), "another node uses the address of this node")
		if n.Duplicates > 0 && said {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d duplicates counted; in the log: %v", n.Duplicates, said)
		}
	}
}
