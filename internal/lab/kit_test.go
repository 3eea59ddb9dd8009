//go:build linux

package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestIntegrationKit proves the guests' programs on two kernels, so that a later test of ours can blame our node.
func TestIntegrationKit(t *testing.T) {
	_, a, b := cluster(t, func(g *Guest) { g.EnableUDP(0) })
	a.WaitPeers(1)
	b.WaitPeers(1)

	for _, kind := range []string{"stream", "seqpacket", "rdm", "dgram"} {
		t.Run("echo by "+kind, func(t *testing.T) {
			server := b.Program("serve.py", "--type", kind, "--service", "5000:1", "--mode", "echo")
			server.Expect("ready")
			for _, size := range []string{"1", "1400", "66000"} {
				client := a.Program("client.py", "--type", kind, "--to", "5000:1", "--size", size, "--count", "5", "--echo")
				client.Expect("sent")
				if out := client.Finish(); strings.Contains(out, "mismatch") {
					t.Errorf("%s octets come back changed: %s", size, out)
				}
			}
			server.Kill()
		})
	}
	t.Run("implied connect", func(t *testing.T) {
		server := b.Program("serve.py", "--type", "seqpacket", "--service", "5000:2", "--mode", "echo", "--exit-after", "1")
		server.Expect("ready")
		a.Program("client.py", "--type", "seqpacket", "--to", "5000:2", "--implied", "--count", "3", "--echo").Finish()
		if got := server.Expect("received"); got.Int("messages") != 3 || got.Text("end") != "eof" {
			t.Errorf("%v, want 3 messages and a clean end", got)
		}
	})
	t.Run("server that sends, order checked", func(t *testing.T) {
		server := b.Program("serve.py", "--service", "5000:3", "--mode", "source", "--numbered", "--size", "500", "--count", "2000", "--exit-after", "1")
		server.Expect("ready")
		client := a.Program("client.py", "--to", "5000:3", "--count", "0", "--receive", "--numbered", "--size", "500")
		if got := client.Expect("received"); got.Int("messages") != 2000 || got.Int("disorder") != 0 || got.Text("end") != "eof" {
			t.Errorf("%v, want 2000 messages in order", got)
		}
	})
	t.Run("endless until told", func(t *testing.T) {
		server := b.Program("serve.py", "--service", "5000:4", "--numbered", "--exit-after", "1")
		server.Expect("ready")
		client := a.Program("client.py", "--to", "5000:4", "--numbered", "--endless", "--interval", "0.001")
		client.Expect("connected")
		_ = client.Stdin.Close()
		sent, got := client.Expect("sent"), server.Expect("received")
		if sent.Int("messages") != got.Int("messages") || got.Int("disorder") != 0 {
			t.Errorf("sent %v, received %v", sent, got)
		}
	})
	t.Run("multicast", func(t *testing.T) {
		args := []string{"receive", "--service", "5001:1", "--service", "5001:2:9", "--service", "5001:20"}
		ra, rb := a.Program("mcast.py", args...), b.Program("mcast.py", args...)
		ra.Expect("ready")
		rb.Expect("ready")
		for _, method := range []string{"broadcast", "replicast"} {
			a.Program("mcast.py", "send", "--to", "5001:0:10", "--count", "20", "--size", "3000", "--method", method).Finish()
			for _, r := range []*Proc{ra, rb} {
				seen := map[string]int{}
				for range 40 {
					e := r.Expect("message")
					seen[fmt.Sprintf("socket %d number %d", e.Int("socket"), e.Int("number"))]++
				}
				if len(seen) != 40 {
					t.Errorf("%s: %d different messages of 40: %v", method, len(seen), slices.Sorted(maps.Keys(seen)))
				}
			}
		}
		for _, r := range []*Proc{ra, rb} {
			_ = r.Stdin.Close()
			for socket, want := range []int{40, 40, 0} {
				if got := r.Expect("total"); got.Int("socket") != socket || got.Int("messages") != want {
					t.Errorf("%v, want %d messages on socket %d", got, want, socket)
				}
			}
		}
	})
	t.Run("topology", func(t *testing.T) {
		address := b.NodeAddress()
		watch := map[string]*Proc{
			"own":                a.Program("topology.py", "--subscribe", "5002:10:20"),
			"big-endian":         a.Program("topology.py", "--subscribe", "5002:10:20", "--order", "big"),
			"the other node's":   a.Program("topology.py", "--subscribe", "5002:10:20", "--node", fmt.Sprint(address)),
			"services not ports": a.Program("topology.py", "--subscribe", "5002:10:20", "--filter", "service"),
		}
		for _, w := range watch {
			w.Expect("subscribed")
		}
		h := b.Program("hold.py", "--service", "5002:5:15")
		h.Expect("ready")
		for name, w := range watch {
			// The kernel reports the whole range that was bound, not the part that overlaps.
			if e := w.Expect("published"); e.Int("found_lower") != 5 || e.Int("found_upper") != 15 || uint32(e.Int("node")) != address ||
				e.Text("usr") != "0011223344556677" {
				t.Errorf("%s: %v", name, e)
			}
		}
		_ = h.Stdin.Close()
		for name, w := range watch {
			w.Expect("withdrawn")
			_ = w.Stdin.Close()
			if _, err := w.Stdout.Line(t.Context()); err == nil {
				t.Errorf("%s: more events than two: %s", name, w.Stdout)
			}
		}
		a.Program("topology.py", "--subscribe", "5003", "--timeout", "100").Expect("timeout")
		nodes := a.Program("topology.py", "--subscribe", "0", "--subscribe", "2")
		nodes.ExpectFunc("node up", func(e Event) bool { return e.Int("type") == 0 && uint32(e.Int("found_lower")) == address })
		nodes.ExpectFunc("link up", func(e Event) bool { return e.Int("type") == 2 && uint32(e.Int("found_lower")) == address })
		nodes.Kill()
	})
	t.Run("returned messages", func(t *testing.T) {
		h := b.Program("hold.py", "--service", "5004:1")
		socket := h.Expect("ready").Text("socket")
		if _, err := h.Stdin.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		h.Expect("closed")
		r := a.Program("returned.py", "--to", socket, "--size", "300")
		sent, e := r.Expect("sent"), r.Expect("returned")
		if e.Int("error") != 2 || e.Int("length") != 300 || e.Int("octets") != 300 || e.Text("sha256") != sent.Text("sha256") {
			t.Errorf("%v, want error 2 (TIPC_ERR_NO_PORT) and the data of %v", e, sent)
		}
		a.Program("returned.py", "--to", "5004:77").ExpectFunc("refusal", func(e Event) bool { return e.Text("errno") == "EHOSTUNREACH" })
	})
	t.Run("tables", func(t *testing.T) {
		h := b.Program("hold.py", "--service", "5005:1:3")
		ready := h.Expect("ready")
		var node, port uint32
		if _, err := fmt.Sscanf(ready.Text("socket"), "@%d:%d", &node, &port); err != nil {
			t.Fatal(err)
		}
		want := Publication{Type: 5005, Lower: 1, Upper: 3, Scope: "cluster", Port: port, Node: node, Identity: b.Name}
		if _, ok := Until(Patience, func() bool { return slices.Contains(a.NameTable(), want) }); !ok {
			t.Errorf("%v lacks %v", a.NameTable(), want)
		}
		var links []map[string]string
		if a.JSON(&links, "link list"); len(links) != 1 || len(links[0]) != 2 || len(a.Links()) != 2 {
			t.Errorf("links %v as JSON, %v as text", links, a.Links())
		}
	})
}
