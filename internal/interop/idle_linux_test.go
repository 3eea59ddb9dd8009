//go:build linux

package interop

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/tipc"
)

// TestIntegrationIdle leaves a cluster of one node of each kind, with a link over UDP and one over Ethernet, alone for
// the time in MIDPLANE_IDLE, ten seconds by default: no link may go down, on either side.
func TestIntegrationIdle(t *testing.T) {
	idle := 10 * time.Second
	if v := os.Getenv("MIDPLANE_IDLE"); v != "" {
		var err error
		if idle, err = time.ParseDuration(v); err != nil {
			t.Fatalf("MIDPLANE_IDLE: %v", err)
		}
	}
	c := newCluster(t, mixed, 1, 1, 2)
	c.waitUp()
	g, n := c.guests[0], c.nodes[0]
	g.WaitLinks(2)
	watch, err := n.Subscribe(tipc.ServiceRange{Type: tipc.LinkStateType, Lower: 0, Upper: 1<<32 - 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for range 2 {
		if e, err := watch.NextContext(within(t, 10*time.Second)); err != nil || e.Kind != tipc.Published {
			t.Fatalf("link event %v, %v", e, err)
		}
	}
	theirs := g.Program("topology.py", "--subscribe", "2")
	theirs.Expect("published")
	theirs.Expect("published")
	ctx, cancel := context.WithTimeout(t.Context(), idle)
	defer cancel()
	if e, err := watch.NextContext(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("link event %v, %v while idle", e, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if e, err := theirs.NextEvent(ctx); err == nil {
		t.Errorf("link event on Linux while idle: %v", e)
	}
	linuxToOurs(t, g, n, tipc.Stream, 1, 10, 65536)
}

// mixed is UDP on the first device and Ethernet on the second.
var mixed = medium{"mixed", func(g *lab.Guest, nic int) { media[nic].guest(g, nic) },
	func(h *lab.Host, nic int) tipc.Bearer { return media[nic].ours(h, nic) }}
