//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TIPC runs iproute2's tipc in the guest with a shell line's arguments, and fails the test when it fails. A listing
// during which the kernel's table changed (NLM_F_DUMP_INTR, which the tool tells as EINTR) is asked for again.
func (g *Guest) TIPC(format string, args ...any) string {
	g.t.Helper()
	command := "tipc " + fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	for {
		r, err := g.Run(ctx, command)
		if err == nil && strings.Contains(r.Stderr, "Interrupted system call") {
			continue
		}
		return g.succeeded(command, r, err)
	}
}

// EnableUDP enables the bearer "udp:uN" with the IPv4 address of device number nic, discovering by multicast.
// options are appended, such as "remoteip 10.99.0.3" or "priority 20".
func (g *Guest) EnableUDP(nic int, options ...string) {
	g.t.Helper()
	g.TIPC("bearer enable media udp name u%d localip %s %s", nic, g.Addr(nic), strings.Join(options, " "))
}

// EnableUDP6 is EnableUDP with the IPv6 address.
func (g *Guest) EnableUDP6(nic int, options ...string) {
	g.t.Helper()
	g.TIPC("bearer enable media udp name u%d localip %s %s", nic, g.Addr6(nic), strings.Join(options, " "))
}

// EnableEth enables the Ethernet bearer of device number nic.
func (g *Guest) EnableEth(nic int, options ...string) {
	g.t.Helper()
	g.TIPC("bearer enable media eth device eth%d %s", nic, strings.Join(options, " "))
}

// NodeAddress returns the node's own address, 0 while it has none: the kernel takes one by trial, a second after the first
// bearer is enabled.
func (g *Guest) NodeAddress() uint32 {
	g.t.Helper()
	n, _ := parseHash(strings.TrimSpace(g.TIPC("node get identity | tail -n 1 | awk '{print $NF}'")))
	return n
}

func parseHash(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err
}

// Nodes returns what `tipc node list` says: the addresses of the peers the kernel knows, and which are up.
func (g *Guest) Nodes() map[uint32]bool {
	g.t.Helper()
	return parseNodes(g.TIPC("node list"))
}

// parseNodes reads lines of identity, hash and state after a heading. The identity column may be empty, the hash is
// the last but one word.
func parseNodes(text string) map[uint32]bool {
	nodes := map[uint32]bool{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || (words[len(words)-1] != "up" && words[len(words)-1] != "down") {
			continue
		}
		if n, err := parseHash(words[len(words)-2]); err == nil {
			nodes[n] = words[len(words)-1] == "up"
		}
	}
	return nodes
}

// Links returns what `tipc link list` says: names and states ("up", "down").
func (g *Guest) Links() map[string]string {
	g.t.Helper()
	links := map[string]string{}
	for line := range strings.Lines(g.TIPC("link list")) {
		if name, state, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			links[name] = state
		}
	}
	return links
}

// JSON runs `tipc -j` with a shell line's arguments and decodes its answer into v.
func (g *Guest) JSON(v any, format string, args ...any) {
	g.t.Helper()
	out := g.TIPC("-j "+format, args...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		g.t.Fatalf("%s: tipc -j %s: %v\n%s", g.Name, fmt.Sprintf(format, args...), err, out)
	}
}

// Publication is one row of `tipc nametable show`.
type Publication struct {
	Type, Lower, Upper uint32
	Scope              string // "cluster" or "node"
	Port, Node         uint32
	Identity           string // of the node: text where it is one, else hexadecimal digits, as the tool shows it
}

func (p Publication) key() string {
	return fmt.Sprintf("%010d %010d %010d %08x %010d", p.Type, p.Lower, p.Upper, p.Node, p.Port)
}

// NameTable returns the rows of `tipc nametable show`, sorted. The tool shows identities; the addresses come from
// `tipc node list`, and Node is 0 for a node that it does not list.
func (g *Guest) NameTable() []Publication {
	g.t.Helper()
	addresses := map[string]uint32{}
	for line := range strings.Lines(g.TIPC("node list") + g.TIPC("node get identity")) {
		if w := strings.Fields(line); len(w) >= 2 {
			if n, err := parseHash(w[1]); err == nil {
				addresses[w[0]] = n
			}
		}
	}
	rows, err := parseNameTable(g.TIPC("nametable show"))
	if err != nil {
		g.t.Fatalf("%s: %v", g.Name, err)
	}
	for i := range rows {
		rows[i].Node = addresses[rows[i].Identity]
	}
	slices.SortFunc(rows, func(a, b Publication) int { return strings.Compare(a.key(), b.key()) })
	return rows
}

// parseNameTable reads lines of type, lower, upper, scope, port and node after a heading.
func parseNameTable(text string) (rows []Publication, err error) {
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 5 || w[0] == "Type" {
			continue
		}
		p := Publication{Scope: w[3]}
		for i, to := range map[int]*uint32{0: &p.Type, 1: &p.Lower, 2: &p.Upper, 4: &p.Port} {
			n, bad := strconv.ParseUint(w[i], 10, 32)
			if bad != nil {
				err = errors.Join(err, fmt.Errorf("nametable row %q: %w", line, bad))
			}
			*to = uint32(n)
		}
		if len(w) > 5 {
			p.Identity = w[5]
		}
		rows = append(rows, p)
	}
	return rows, err
}

// WaitPeers waits until exactly count peers are up, and fails the test after Patience. It returns how long it took,
// with the resolution of one `tipc node list` (about 30 ms).
func (g *Guest) WaitPeers(count int) time.Duration {
	g.t.Helper()
	var last map[uint32]bool
	took, ok := Until(Patience, func() bool {
		last = g.Nodes()
		up := 0
		for _, is := range last {
			if is {
				up++
			}
		}
		return up == count
	})
	if !ok {
		g.t.Fatalf("%s: peers %s, want %d up", g.Name, describe(last), count)
	}
	return took
}

// WaitPeer waits until the node address is up, or not up, and fails the test after Patience.
func (g *Guest) WaitPeer(address uint32, up bool) time.Duration {
	g.t.Helper()
	var last map[uint32]bool
	took, ok := Until(Patience, func() bool { last = g.Nodes(); return last[address] == up })
	if !ok {
		g.t.Fatalf("%s: peers %s, want %08x up=%v", g.Name, describe(last), address, up)
	}
	return took
}

func describe(nodes map[uint32]bool) string {
	var words []string
	for n, up := range nodes {
		words = append(words, fmt.Sprintf("%08x up=%v", n, up))
	}
	slices.Sort(words)
	return fmt.Sprint(words)
}

// WaitLinks waits until exactly count links other than the broadcast link are up, and fails the test after Patience.
func (g *Guest) WaitLinks(count int) time.Duration {
	g.t.Helper()
	var last map[string]string
	took, ok := Until(Patience, func() bool {
		last = g.Links()
		up := 0
		for name, state := range last {
			if name != "broadcast-link" && state == "up" {
				up++
			}
		}
		return up == count
	})
	if !ok {
		g.t.Fatalf("%s: links %v, want %d up", g.Name, slices.Sorted(maps.Keys(last)), count)
	}
	return took
}

// Until asks again and again until a condition holds that nothing announces, at most for a duration. It returns how
// long it took and whether the condition held.
func Until(limit time.Duration, holds func() bool) (time.Duration, bool) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for {
		if holds() {
			return time.Since(start), true
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return time.Since(start), false
		}
	}
}
