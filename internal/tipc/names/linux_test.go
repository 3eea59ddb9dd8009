package names

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/mono"
	"midplane/internal/tipc/wire"
)

// step is a line of a transcript: a call made on a Linux kernel, and what came of it. See testdata/linux.py.
type step struct {
	Op     string
	Own    uint32
	Legacy bool
	Port   uint32
	Sock   int
	R      [3]uint32
	Scope  wire.Scope
	Node   uint32
	Err    int
	Got    [][2]int // socket, messages received
	Sub    int
	Rec    string
	Ms     int64
	Events [3][]string // of each subscriber
	Rows   [][5]any
}

func (s *step) rng() wire.ServiceRange { return sr(s.R[0], s.R[1], s.R[2]) }

// linux replays a transcript.
type linux struct {
	t     *Table
	now   mono.Time
	ports []uint32         // of each socket
	pubs  [][]*Publication // of each socket, newest first
	count []uint32         // bindings ever made
	subs  [3]*Subscriber
}

func (l *linux) bind(t *testing.T, s *step) {
	l.count[s.Sock]++
	port := l.ports[s.Sock]
	p, err := l.t.Publish(l.now, s.rng(), s.Scope, wire.SocketAddr{Port: port, Node: l.t.Own()}, port+l.count[s.Sock])
	if err != nil || s.Err != 0 {
		t.Fatalf("bind: %v, Linux says %d", err, s.Err)
	}
	l.pubs[s.Sock] = slices.Insert(l.pubs[s.Sock], 0, p)
}

func (l *linux) unbind(s *step) {
	i := slices.IndexFunc(l.pubs[s.Sock], func(p *Publication) bool { return p.Range == s.rng() && p.Scope == s.Scope })
	if i >= 0 && s.Err == 0 {
		l.t.Withdraw(l.now, l.pubs[s.Sock][i])
		l.pubs[s.Sock] = slices.Delete(l.pubs[s.Sock], i, i+1)
	}
}

func (l *linux) received(s *step) (ports []uint32) {
	for _, g := range s.Got {
		for range g[1] {
			ports = append(ports, l.ports[g[0]])
		}
	}
	return ports
}

func (l *linux) list() [][5]any {
	rows := [][5]any{}
	for p := range l.t.Publications() {
		if p.Range.Type >= 64 {
			scope := map[wire.Scope]string{wire.ScopeNode: "node", wire.ScopeCluster: "cluster"}[p.Scope]
			rows = append(rows, [5]any{float64(p.Range.Type), float64(p.Range.Lower), float64(p.Range.Upper), scope, float64(p.Addr.Port)})
		}
	}
	return rows
}

func (l *linux) do(t *testing.T, s *step) {
	switch s.Op {
	case "world":
		*l = linux{t: NewTable(Config{Own: s.Own, LegacyAddr: s.Legacy})}
		mustPublish(t, l.t, sr(TopSrv, 1, 1), wire.ScopeNode, s.Port, s.Port+1)
		for i := range l.subs {
			l.subs[i] = l.t.NewSubscriber(nil, 0)
		}
	case "open":
		l.ports, l.pubs, l.count = append(l.ports, s.Port), append(l.pubs, nil), append(l.count, 0)
	case "bind":
		l.bind(t, s)
	case "unbind":
		l.unbind(s)
	case "close":
		for _, p := range l.pubs[s.Sock] {
			l.t.Withdraw(l.now, p)
		}
	case "send":
		a, ok := l.t.Lookup(s.R[0], s.R[1], s.Node)
		if want := l.received(s); ok != (s.Err == 0) || ok && !slices.Equal(want, []uint32{a.Port}) {
			t.Fatalf("lookup of %v at %x: %v %v; Linux delivered to %v, error %d", s.R, s.Node, a, ok, want, s.Err)
		}
	case "mcast":
		got, want := l.t.AppendMulticastPorts(nil, s.rng(), ScopeAny), l.received(s)
		slices.Sort(got)
		slices.Sort(want)
		_, local := l.t.AppendMulticastNodes(nil, s.rng())
		if !slices.Equal(got, want) || local != (s.Err == 0) {
			t.Fatalf("multicast to %v: %v, local %v; Linux delivered to %v, error %d", s.R, got, local, want, s.Err)
		}
	case "subscribe":
		rec, err := hex.DecodeString(s.Rec)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.subs[s.Sub].Request(l.now, [wire.SubscrSize]byte(rec)); err != nil {
			t.Fatalf("subscribe: %v", err)
		}
	case "sleep":
		l.now = l.now.Add(time.Duration(s.Ms) * time.Millisecond)
		l.t.Tick(l.now)
	case "show":
		if d := cmp.Diff(s.Rows, l.list()); d != "" {
			t.Fatalf("tipc nametable show (-Linux +got):\n%s", d)
		}
	default:
		t.Fatalf("unknown operation %q", s.Op)
	}
	for i, sub := range l.subs {
		var got []string
		for e, ok := sub.Next(); ok; e, ok = sub.Next() {
			var b [wire.EventSize]byte
			wire.PutEvent(b[:], e.Event, e.Order)
			got = append(got, hex.EncodeToString(b[:]))
		}
		if !slices.Equal(got, s.Events[i]) {
			t.Fatalf("events of subscriber %d (-Linux +got):\n%s", i, cmp.Diff(s.Events[i], got))
		}
	}
}

// TestLikeLinuxKernel replays what programs did on a Linux 6.1 kernel: every lookup must find the same socket, every
// subscriber read the same octets, and every listing have the same order.
func TestLikeLinuxKernel(t *testing.T) {
	for _, name := range []string{"alone", "node", "legacy"} {
		t.Run(name, func(t *testing.T) {
			z, err := os.ReadFile(filepath.Join("testdata", "linux-"+name+".jsonl.gz"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := gzip.NewReader(bytes.NewReader(z))
			if err != nil {
				t.Fatal(err)
			}
			var l linux
			did := map[string]int{}
			sc := bufio.NewScanner(r)
			sc.Buffer(nil, 1<<20)
			line := 0
			defer func() {
				if t.Failed() {
					t.Logf("in line %d", line)
				}
			}()
			for sc.Scan() {
				line++
				var s step
				if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
					t.Fatal(err)
				}
				did[s.Op]++
				l.do(t, &s)
			}
			if sc.Err() != nil || did["world"] != 3 || did["send"] < 50 || did["bind"] < 50 || did["subscribe"] < 50 {
				t.Errorf("%v, transcript with %v", sc.Err(), did)
			}
		})
	}
}
