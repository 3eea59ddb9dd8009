package tipctool

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/api"
	"midplane/internal/cli/grammar"
	"midplane/tipc"
)

// fixture answers with what a Linux node knew when its tool was watched, and records changes.
type fixture struct {
	names   []api.Name
	sockets []api.Socket
	reset   bool // link counters are zero
	calls   []any
	err     error
}

var (
	nodeA = tipc.MustParseNodeID("nodeA")
	nodeB = tipc.MustParseNodeID("nodeB")
)

func (f *fixture) record(v any) error { f.calls = append(f.calls, v); return f.err }

func (f *fixture) Node(context.Context) (api.Node, error) {
	return api.Node{Identity: nodeA, Address: nodeA.Addr(), NetID: 4711}, f.err
}
func (f *fixture) SetNode(_ context.Context, s api.NodeSet) error           { return f.record(s) }
func (f *fixture) SetKey(_ context.Context, s api.KeySet) error             { return f.record(s) }
func (f *fixture) FlushKeys(context.Context) error                          { return f.record("flush") }
func (f *fixture) RemovePeer(_ context.Context, p api.PeerRemove) error     { return f.record(p) }
func (f *fixture) EnableBearer(_ context.Context, b api.BearerEnable) error { return f.record(b) }
func (f *fixture) DisableBearer(_ context.Context, name string) error       { return f.record(name) }
func (f *fixture) AddRemote(_ context.Context, r api.BearerRemote) error    { return f.record(r) }
func (f *fixture) SetBearer(_ context.Context, s api.PropertySet) error     { return f.record(s) }
func (f *fixture) SetMedium(_ context.Context, s api.PropertySet) error     { return f.record(s) }
func (f *fixture) SetLink(_ context.Context, s api.PropertySet) error       { return f.record(s) }
func (f *fixture) ResetLink(_ context.Context, name string) error           { return f.record(name) }
func (f *fixture) SetBroadcast(_ context.Context, b api.Broadcast) error    { return f.record(b) }
func (f *fixture) SetMonitor(_ context.Context, n uint32) error             { return f.record(n) }

func (f *fixture) Peers(context.Context) ([]api.Peer, error) {
	return []api.Peer{{Identity: nodeB, Address: nodeB.Addr(), Up: true}}, nil
}

func (f *fixture) Bearers(context.Context) ([]api.Bearer, error) {
	return []api.Bearer{{Name: "udp:u1", Properties: api.Properties{Priority: 10, Tolerance: 1500, Window: 50, MTU: 14000},
		UDP: &api.UDP{LocalIP: "10.98.0.2", LocalPort: 6118, RemoteIP: "228.0.18.103", RemotePort: 6118}}}, nil
}

func (f *fixture) Media(context.Context) ([]api.Medium, error) {
	return []api.Medium{
		{Name: "eth", Properties: api.Properties{Priority: 10, Tolerance: 1500, Window: 8191}},
		{Name: "udp", Properties: api.Properties{Priority: 10, Tolerance: 1500, Window: 50, MTU: 14000}},
	}, nil
}

func (f *fixture) Links(_ context.Context, all bool) ([]api.Link, error) {
	bc := api.Link{Name: "broadcast-link", Up: true, Broadcast: true, Properties: api.Properties{Window: 50}}
	l := api.Link{Name: "nodeA:u1-nodeB:u1", Up: true, Active: true, Properties: api.Properties{Priority: 10, Tolerance: 1500, Window: 50, MTU: 14000}}
	if !f.reset {
		l.Stats = api.LinkStats{RxPackets: 2, TxPackets: 2, RxStates: 100, RxProbes: 49, TxStates: 100, TxProbes: 49, TxAcks: 1,
			Profile: api.Profile{Messages: 1, Octets: 40, Packets: 1, Lengths: [7]uint32{1}}}
	}
	if all {
		peer := bc
		peer.Name = "broadcast-link:nodeB"
		return []api.Link{bc, peer, l}, nil
	}
	return []api.Link{bc, l}, nil
}

func (f *fixture) Broadcast(context.Context) (api.Broadcast, error) {
	ten := uint32(10)
	return api.Broadcast{Method: "AUTOSELECT", Ratio: &ten}, nil
}

func (f *fixture) Monitors(context.Context) (api.Monitors, error) {
	return api.Monitors{Threshold: 32, Bearers: []api.Monitor{{Bearer: "udp:u1", Generation: 1, ClusterSize: 2, Peers: []api.MonitorPeer{
		{Address: nodeA.Addr(), Up: true, Direct: true, Generation: 1, Applied: 1, Members: []tipc.NodeAddr{nodeB.Addr()}, UpMap: 1},
		{Address: nodeB.Addr(), Up: true, Direct: true},
	}}}}, nil
}

func (f *fixture) Names(context.Context) ([]api.Name, error)     { return f.names, nil }
func (f *fixture) Sockets(context.Context) ([]api.Socket, error) { return f.sockets, nil }

func newFixture() *fixture {
	name := func(typ, lower, upper uint32, scope tipc.Scope, port uint32, node *tipc.NodeID) api.Name {
		return api.Name{Range: tipc.ServiceRange{Type: typ, Lower: lower, Upper: upper}, Scope: scope, Socket: tipc.SocketAddr{Port: port, Node: node.Addr()}, Identity: node}
	}
	b := uint32(nodeB.Addr())
	a := uint32(nodeA.Addr())
	return &fixture{
		names: []api.Name{
			name(0, b, b, tipc.ClusterScope, 0, &nodeB), name(0, a, a, tipc.ClusterScope, 0, &nodeA),
			name(1, 1, 1, tipc.NodeScope, 292310688, &nodeA), name(2, b, b, tipc.NodeScope, 0, &nodeA),
		},
		sockets: []api.Socket{{Port: 292310688, Type: tipc.SeqPacket, Bound: []tipc.ServiceRange{{Type: 1, Lower: 1, Upper: 1}}}},
	}
}

// serve runs a control socket for c, and returns a function that runs command lines against it.
func serve(t *testing.T, c api.Control) func(args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api.Handler(c)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return func(args ...string) (string, string, int) {
		var out, errs bytes.Buffer
		tool := &Tool{Name: "tipc", Control: path, Stdout: &out, Stderr: &errs, Connect: func(p string) api.Control { return api.NewClient(p) }}
		code := tool.Run(t.Context(), args)
		return out.String(), errs.String(), code
	}
}

// What the real tool printed about a real node, ours prints about the same facts, to the octet.
func TestOutputOfTheRealTool(t *testing.T) {
	check := func(f *fixture, file string) {
		run := serve(t, f)
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, part := range strings.Split(string(b), "\n$ ")[1:] {
			line, want, _ := strings.Cut(part, "\n")
			want, _, ok := strings.Cut("\n"+want, "\n.")
			if !ok {
				t.Fatalf("%s: %q has no end", file, line)
			}
			if want = strings.TrimPrefix(want, "\n"); want != "" {
				want += "\n"
			}
			n++
			t.Run(line, func(t *testing.T) {
				got, errs, code := run(strings.Fields(line)...)
				if code != 0 || errs != "" {
					t.Fatalf("exit %d, %s", code, errs)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-real +ours\n%s", diff)
				}
			})
		}
		if n < 6 {
			t.Fatalf("%s has %d commands", file, n)
		}
	}
	check(newFixture(), "node.txt")
	f := newFixture()
	f.reset = true
	f.names = append(f.names,
		api.Name{Range: tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 99}, Scope: tipc.ClusterScope, Socket: tipc.SocketAddr{Port: 696500894}, Identity: &nodeA},
		api.Name{Range: tipc.ServiceRange{Type: 4712, Lower: 5, Upper: 5}, Scope: tipc.NodeScope, Socket: tipc.SocketAddr{Port: 696500894}, Identity: &nodeA})
	f.sockets = append(f.sockets,
		api.Socket{Port: 696500894, Type: tipc.Stream, Bound: []tipc.ServiceRange{{Type: 4712, Lower: 5, Upper: 5}, {Type: 4711, Lower: 0, Upper: 99}}},
		api.Socket{Port: 3746757006, Type: tipc.Stream})
	check(f, "bound.txt")
}

// Every JSON answer is JSON, also where the real tool's is not or where it has none.
func TestJSONIsValid(t *testing.T) {
	f := newFixture()
	f.sockets = append(f.sockets, api.Socket{Port: 9, Type: tipc.Stream, Peer: &tipc.SocketAddr{Port: 1, Node: 2}, Via: &tipc.ServiceAddr{Type: 4711, Instance: 7}})
	run := serve(t, f)
	for _, line := range []string{
		"bearer list", "node list", "link list", "nametable show", "socket list", "media list", "link stat show link all",
		"link mon summary", "link mon list", "link mon get threshold", "link get broadcast", "node get address", "node get identity",
		"node get netid", "node get clusterid", "bearer get priority media udp name u1", "bearer get media udp name u1 localip",
		"bearer get media udp name u1 remoteport", "media get mtu media udp", "link get window link nodeA:u1-nodeB:u1",
	} {
		for _, opt := range []string{"-j", "-jp"} {
			out, errs, code := run(append(strings.Fields(line), opt)...)
			var v []map[string]any
			if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil {
				t.Errorf("%s %s: exit %d %s, %v\n%s", line, opt, code, errs, err, out)
			}
		}
	}
}

func TestChanges(t *testing.T) {
	p := func(n uint32) *uint32 { return &n }
	addr := tipc.MustParseNodeAddr("1.2.3")
	tests := []struct {
		line string
		want any
	}{
		{"bearer enable media udp name u1 localip 10.0.0.1", api.BearerEnable{Media: "udp", Name: "u1", LocalIP: "10.0.0.1"}},
		{"bearer enable domain 1.1.0 prio 5 media udp name u1 localip ::1 remoteip fe80::2 localp 7 remotep 8",
			api.BearerEnable{Media: "udp", Name: "u1", LocalIP: "::1", RemoteIP: "fe80::2", LocalPort: 7, RemotePort: 8, Domain: 0x01001000, Priority: p(5)}},
		{"bearer en me udp na u1 dev eth0", api.BearerEnable{Media: "udp", Name: "u1", Device: "eth0"}},
		{"bearer enable media eth device eth0 priority 0", api.BearerEnable{Media: "eth", Device: "eth0", Priority: p(0)}},
		{"bearer add media udp name u1 remoteip 10.0.0.2", api.BearerRemote{Name: "udp:u1", RemoteIP: "10.0.0.2"}},
		{"bearer disable media eth device eth0", "eth:eth0"},
		{"bearer set window 60 media udp name u1", api.PropertySet{Name: "udp:u1", Property: api.Window, Value: 60}},
		{"media set tol 2000 media eth", api.PropertySet{Name: "eth", Property: api.Tolerance, Value: 2000}},
		{"link set priority 15 link a:b-c:d", api.PropertySet{Name: "a:b-c:d", Property: api.Priority, Value: 15}},
		{"link set broadcast REPL", api.Broadcast{Method: "REPLICAST"}},
		{"link set broadcast AUTO ratio 25", api.Broadcast{Method: "AUTOSELECT", Ratio: p(25)}},
		{"link set broadcast ratio 25", api.Broadcast{Ratio: p(25)}},
		{"link stat reset link x", "x"},
		{"link mon set thr 7", uint32(7)},
		{"node set identity nodeB", api.NodeSet{Identity: &nodeB}},
		{"node set address 1.2.3", api.NodeSet{Address: &addr}},
		{"node set netid 5", api.NodeSet{NetID: p(5)}},
		{"node set clusterid 6", api.NodeSet{NetID: p(6)}},
		{"node set key this_is_a_key16_salt", api.KeySet{Key: []byte("this_is_a_key16_salt"), Algname: "gcm(aes)"}},
		{"node set key 0x746869735F69735F615F6B657931365F73616C74 master", api.KeySet{Key: []byte("this_is_a_key16_salt"), Algname: "gcm(aes)", Master: true}},
		{"node set key this_is_a_key16_salt nodeid nodeB algname x", api.KeySet{Key: []byte("this_is_a_key16_salt"), Algname: "x", Node: &nodeB}},
		{"node set key rekeying 600", api.KeySet{Algname: "gcm(aes)", Rekeying: p(600)}},
		{"node set key rekeying now", api.KeySet{Algname: "gcm(aes)", RekeyNow: true}},
		{"node flush key", "flush"},
		{"peer remove address 1.2.3", api.PeerRemove{Address: &addr}},
		{"peer remove address 01002003", api.PeerRemove{Address: &addr}},
		{"peer remove identity nodeB", api.PeerRemove{Identity: &nodeB}},
	}
	for _, tt := range tests {
		f := &fixture{}
		out, errs, code := serve(t, f)(strings.Fields(tt.line)...)
		if code != 0 || out != "" || errs != "" {
			t.Errorf("%s: exit %d, %q, %q", tt.line, code, out, errs)
		}
		if diff := cmp.Diff([]any{tt.want}, f.calls); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.line, diff)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	f := &fixture{}
	run := serve(t, f)
	for line, want := range map[string]string{
		"":                                  "command is missing",
		"foo":                               `"foo"`,
		"n":                                 `ambiguous command "n"`, // nametable, node
		"link":                              "command is missing",
		"link get foo":                      `"foo"`,
		"link get tolerance":                "missing link",
		"link set tolerance":                "missing value",
		"link set tolerance x link y":       "want a number",
		"link set tolerance 1":              "missing link",
		"link get tol link":                 "link needs a value",
		"link set broadcast":                "missing method",
		"link set broadcast BROAD REPL":     "exclude",
		"link set broadcast AUTO ratio 101": "from 0 to 100",
		"link list x":                       `unexpected "x"`,
		"bearer enable":                     "missing media",
		"bearer enable media xx":            `"xx"`,
		"bearer enable media udp":           "missing name",
		"bearer enable media udp name u2":   "localip",
		"bearer enable media udp name u2 localip 1.2.3.4 device eth0":     "not both",
		"bearer enable media udp name u2 localip x":                       "want an IPv4",
		"bearer enable media udp name u2 localip 1.2.3.4 localport 65536": "65535",
		"bearer enable media udp name u2 localip 1.2.3.4 remoteip ::1":    "different IP versions",
		"bearer enable media udp name u2 localip 1.2.3.4 priority 32":     "from 0 to 31",
		"bearer enable media eth device eth0 localip 1.2.3.4":             "udp bearers only",
		"bearer get mtu media eth device eth0":                            "udp bearers only",
		"bearer get media udp name u1":                                    "missing localip",
		"media get mtu media eth":                                         "udp only",
		"media get tol":                                                   "missing media",
		"node set identity x!y":                                           "node identity",
		"node set address 1.2":                                            "Z.C.N",
		"node set address 0.0.0":                                          "Z.C.N",
		"node set key short":                                              "20, 28 or 36",
		"node set key":                                                    "missing key",
		"node set key this_is_a_key16_salt master nodeid x":               "master",
		"peer remove address x":                                           "want Z.C.N",
		"-x":                                                              "unknown option",
		"--control":                                                       "--control needs a value",
	} {
		out, errs, code := run(strings.Fields(line)...)
		if code != grammar.ExitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, out %q, want %q in %q", line, code, out, want, errs)
		}
	}
	if len(f.calls) != 0 {
		t.Errorf("the node was asked: %v", f.calls)
	}
}

func TestExitCodes(t *testing.T) {
	f := &fixture{err: &api.Error{Code: api.Unsupported, Message: "encryption is not built in"}}
	run := serve(t, f)
	if _, errs, code := run("node", "flush", "key"); code != grammar.ExitFailed || !strings.Contains(errs, "encryption is not built in") {
		t.Errorf("refusal: exit %d, %q", code, errs)
	}
	absent := filepath.Join(t.TempDir(), "nobody")
	if _, errs, code := run("node", "list", "--control", absent); code != grammar.ExitNoNode || !strings.Contains(errs, absent) {
		t.Errorf("no node: exit %d, %q", code, errs)
	}
	if _, errs, code := run("link", "get", "window", "link", "nope"); code != grammar.ExitFailed || !strings.Contains(errs, "no link nope") {
		t.Errorf("no such link: exit %d, %q", code, errs)
	}
}

// Help for the last word that is a command, wherever -h stands.
func TestHelp(t *testing.T) {
	run := serve(t, &fixture{})
	for line, want := range map[string]string{
		"-h":                  "usage: tipc [-h]",
		"link --help":         "usage: tipc link COMMAND",
		"-h link foo":         "usage: tipc link COMMAND",
		"link stat -h show":   "usage: tipc link statistics show [link",
		"bearer enable --he":  "usage: tipc bearer enable [domain",
		"node set key --help": "usage: tipc node set key KEY",
	} {
		out, errs, code := run(strings.Fields(line)...)
		if code != 0 || errs != "" || !strings.HasPrefix(out, want) {
			t.Errorf("%q: exit %d, %q, %q", line, code, out, errs)
		}
	}
	// Each command explains itself.
	var walk func(words []string, c *command)
	walk = func(words []string, c *command) {
		if c.Name != "" && c.Short == "" || (c.Run == nil) == (len(c.Sub) == 0) {
			t.Errorf("%v: incomplete", words)
		}
		if out, _, code := run(append(words, "-h")...); code != 0 || !strings.Contains(out, c.Short) {
			t.Errorf("%v -h: exit %d, %q", words, code, out)
		}
		for _, s := range c.Sub {
			walk(append(words[:len(words):len(words)], s.Name), s)
		}
	}
	walk(nil, root)
}
