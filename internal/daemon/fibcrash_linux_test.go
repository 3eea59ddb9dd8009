package daemon_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"midplane/fib"
	"midplane/internal/api"
	"midplane/internal/api/fibapi"
	"midplane/internal/fib/service/spec"
	"midplane/internal/lab"
)

// box is a namespace with ports, and a daemon in it that is killed and started again.
type box struct {
	t      *testing.T
	ns     *lab.Namespace
	dir    string
	binary string
	args   []string
	proc   *lab.Proc
	client *fibapi.Client
	spaces string // with back end netns, the names of FIBs begin so: they are those of namespaces, which are this machine's
}

const boxPorts = 4

func newBox(t *testing.T, args ...string) *box {
	lab.RequireNamespaces(t)
	dir, err := os.MkdirTemp("", "mp") // short: a Unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, ns: lab.NewNamespace(t), dir: dir, binary: lab.Binary(t), args: args}
	for i := range boxPorts {
		b.ns.IP("link", "add", fmt.Sprint("p", i), "type", "veth", "peer", "name", fmt.Sprint("q", i))
		b.ns.IP("link", "set", fmt.Sprint("p", i), "up")
		b.ns.IP("link", "set", fmt.Sprint("q", i), "up")
	}
	b.client = fibapi.NewClient(filepath.Join(dir, "ctl"))
	return b
}

// start starts the daemon and returns at once.
func (b *box) start() {
	cmd := exec.Command(b.binary, append([]string{"node", "--control", filepath.Join(b.dir, "ctl"), "--fib-state", filepath.Join(b.dir, "state")}, b.args...)...)
	cmd.Env = append(os.Environ(), "MIDPLANE_FIB_DIR="+filepath.Join(b.dir, "run"))
	b.proc = b.ns.StartCmd(cmd)
}

// ready waits until the daemon answers.
func (b *box) ready() {
	b.t.Helper()
	if _, ok := lab.Until(lab.Patience, func() bool {
		_, err := b.client.FIBs(b.t.Context())
		return err == nil
	}); !ok {
		b.t.Fatalf("the daemon does not answer:\n%s", b.proc.Stderr.String())
	}
}

// kill kills the daemon as a power cut would its process, and waits for its end.
func (b *box) kill() {
	_ = b.proc.Signal(syscall.SIGKILL)
	<-b.proc.Done()
	b.client.Close()
}

// state is what the daemon has, a line each: what users set, in their words.
func (b *box) state() map[string]string {
	b.t.Helper()
	ctx := b.t.Context()
	s := map[string]string{}
	fibs, err := b.client.FIBs(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range fibs {
		s["fib "+f.ID.String()] = f.Name
	}
	err = b.client.Routes(ctx, spec.RouteQuery{Hidden: true}, func(r spec.RouteInfo) bool {
		if r.Proto != "kernel" {
			s[fmt.Sprintf("route %d %s", r.FIB, r.Dst)] = routeWords(r)
		}
		return true
	})
	if err != nil {
		b.t.Fatal(err)
	}
	hops, err := b.client.NextHops(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range hops {
		s[fmt.Sprint("nexthop ", n.ID)] = n.Hop.Gateway.String() + " " + n.Hop.Dev
	}
	ports, err := b.client.Ports(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range ports {
		s["port "+p.Dev] = p.FIB.String()
	}
	neighs, err := b.client.Neighs(ctx, "", "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range neighs {
		if slices.Contains(n.State, "PERMANENT") {
			s[fmt.Sprintf("neigh %d %s %s", n.FIB, n.Dev, n.Dst)] = n.LLAddr
		}
	}
	return s
}

func routeWords(r spec.RouteInfo) string {
	if r.NHID != 0 {
		return fmt.Sprint("nhid ", r.NHID)
	}
	var l []string
	for _, h := range r.Hops {
		l = append(l, fmt.Sprintf("via %s dev %s", h.Gateway, h.Dev))
	}
	if l == nil {
		return r.Type
	}
	return strings.Join(l, ", ")
}

// then is the state after an operation was carried out.
func then(before map[string]string, op spec.Op) map[string]string {
	s := maps.Clone(before)
	switch op.Do {
	case spec.FIBAdd:
		s["fib "+op.NewFIB.ID.String()] = op.NewFIB.Name
	case spec.FIBDel:
		maps.DeleteFunc(s, func(k, _ string) bool {
			return k == "fib "+op.FIB || strings.HasPrefix(k, "route "+op.FIB+" ") || strings.HasPrefix(k, "neigh "+op.FIB+" ")
		})
	case spec.PortAdd:
		s["port "+op.Port.Dev] = op.FIB
	case spec.PortDel:
		of := s["port "+op.Port.Dev]
		maps.DeleteFunc(s, func(k, _ string) bool {
			return k == "port "+op.Port.Dev || strings.HasPrefix(k, "neigh "+of+" "+op.Port.Dev+" ")
		})
	case spec.RouteAdd, spec.RouteReplace:
		i := spec.RouteInfo{Type: op.Route.Type, NHID: op.Route.NHID}
		for _, h := range op.Route.Hops {
			i.Hops = append(i.Hops, spec.HopInfo{Gateway: h.Gateway, Dev: h.Dev})
		}
		s[fmt.Sprintf("route %s %s", op.FIB, op.Route.Dst)] = routeWords(i)
	case spec.RouteDel:
		delete(s, fmt.Sprintf("route %s %s", op.FIB, op.Route.Dst))
	case spec.NextHopAdd, spec.NextHopReplace:
		s[fmt.Sprint("nexthop ", op.NextHop.ID)] = op.NextHop.Hop.Gateway.String() + " " + op.NextHop.Hop.Dev
	case spec.NextHopDel:
		delete(s, fmt.Sprint("nexthop ", op.NextHop.ID))
	case spec.NeighAdd, spec.NeighReplace:
		s[fmt.Sprintf("neigh %s %s %s", op.FIB, op.Neigh.Dev, op.Neigh.Dst)] = op.Neigh.LLAddr
	case spec.NeighDel:
		delete(s, fmt.Sprintf("neigh %s %s %s", op.FIB, op.Neigh.Dev, op.Neigh.Dst))
	}
	return s
}

// name is that of a FIB.
func (b *box) name(id fib.ID) string { return fmt.Sprint(cmp.Or(b.spaces, "f"), id) }

// randomOp draws an operation; many of them will be refused.
func (b *box) randomOp(r *rand.Rand) spec.Op {
	id := fib.ID(10 + r.IntN(4))
	dev := fmt.Sprint("p", r.IntN(boxPorts))
	gw := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + r.IntN(4))})
	op := spec.Op{FIB: id.String()}
	switch r.IntN(12) {
	case 0:
		return spec.Op{Do: spec.FIBAdd, NewFIB: &spec.FIB{ID: id, Name: b.name(id)}}
	case 1:
		op.Do = spec.FIBDel
	case 2:
		op.Do, op.Port = spec.PortAdd, &spec.Port{Dev: dev, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
	case 3:
		return spec.Op{Do: spec.PortDel, Port: &spec.Port{Dev: dev}}
	case 4:
		return spec.Op{Do: []spec.Verb{spec.NextHopAdd, spec.NextHopReplace, spec.NextHopDel}[r.IntN(3)],
			NextHop: &spec.NextHop{ID: uint32(1 + r.IntN(3)), Hop: &spec.Hop{Gateway: gw, Dev: dev}}}
	case 5, 6:
		op.Do = []spec.Verb{spec.NeighAdd, spec.NeighReplace, spec.NeighDel}[r.IntN(3)]
		op.Neigh = &spec.Neigh{Dst: gw, Dev: dev, LLAddr: fmt.Sprintf("02:00:00:00:00:%02x", r.IntN(256))}
	default:
		op.Do = []spec.Verb{spec.RouteAdd, spec.RouteReplace, spec.RouteReplace, spec.RouteDel}[r.IntN(4)]
		op.Route = &spec.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(20)), 0, 0}), 16)}
		switch r.IntN(4) {
		case 0:
			op.Route.Type = spec.Blackhole
		case 1:
			op.Route.NHID = uint32(1 + r.IntN(3))
		default:
			op.Route.Hops = []spec.Hop{{Gateway: gw, Dev: dev}}
		}
		if op.Do == spec.RouteDel {
			op.Route = &spec.Route{Dst: op.Route.Dst}
		}
	}
	return op
}

// ask is what ip(8) shows in a namespace of this machine.
func (b *box) ask(ns string, args ...string) (l []map[string]any) {
	b.t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", ns, "-j"}, args...)...).Output()
	if err == nil && len(bytes.TrimSpace(out)) > 0 {
		err = json.Unmarshal(out, &l)
	}
	if err != nil {
		b.t.Fatalf("ip %v in %s: %v\n%s", args, ns, err, out)
	}
	return l
}

// spacesThere are the namespaces of FIBs that there are.
func (b *box) spacesThere() []string {
	l, _ := filepath.Glob("/run/netns/" + b.spaces + "*")
	for i := range l {
		l[i] = filepath.Base(l[i])
	}
	return l
}

// inSpaces is what the kernel has of FIBs that are namespaces: those, their ports, static routes and permanent neighbours.
func (b *box) inSpaces() map[string]bool {
	b.t.Helper()
	s := map[string]bool{}
	for _, ns := range b.spacesThere() {
		id := strings.TrimPrefix(ns, b.spaces)
		s["namespace "+id] = true
		for _, l := range b.ask(ns, "link", "show") {
			if l["link_type"] == "ether" {
				s[fmt.Sprintf("port %v in %s", l["ifname"], id)] = true
			}
		}
		for _, r := range b.ask(ns, "route", "show", "table", "all", "proto", "74") {
			s[fmt.Sprintf("route %s %v", id, r["dst"])] = true
		}
		for _, n := range b.ask(ns, "neigh", "show", "nud", "permanent") {
			s[fmt.Sprintf("neigh %v %v %v", n["dev"], n["dst"], n["lladdr"])] = true
		}
	}
	return s
}

// kernelState is what the kernel has of ours: rules, static routes and permanent neighbours.
func (b *box) kernelState() map[string]bool {
	b.t.Helper()
	if b.spaces != "" {
		return b.inSpaces()
	}
	s := map[string]bool{}
	ask := func(args ...string) []map[string]any { return b.ask(b.ns.Name(), args...) }
	for _, r := range ask("rule", "show") {
		if r["fwmark"] != nil || r["iif"] != nil || r["oif"] != nil {
			s[fmt.Sprintf("rule iif %v oif %v fwmark %v table %v", r["iif"], r["oif"], r["fwmark"], r["table"])] = true
		}
	}
	for _, r := range ask("route", "show", "table", "all", "proto", "74") {
		s[fmt.Sprintf("route %v %v", r["table"], r["dst"])] = true
	}
	for _, n := range ask("neigh", "show", "nud", "permanent") {
		s[fmt.Sprintf("neigh %v %v %v", n["dev"], n["dst"], n["lladdr"])] = true
	}
	return s
}

// wantKernel is what the kernel is to have for a state of the daemon.
func (b *box) wantKernel(state map[string]string) map[string]bool {
	b.t.Helper()
	s := map[string]bool{}
	for k, v := range state {
		w := strings.Fields(k)
		switch {
		case w[0] == "fib" && b.spaces != "":
			s["namespace "+w[1]] = true
		case w[0] == "port" && b.spaces != "":
			s[fmt.Sprintf("port %s in %s", w[1], v)] = true
		case w[0] == "fib":
			var id int
			fmt.Sscan(w[1], &id)
			s[fmt.Sprintf("rule iif <nil> oif <nil> fwmark %#x table %d", id, id)] = true
		case w[0] == "port":
			s[fmt.Sprintf("rule iif %s oif <nil> fwmark <nil> table %s", w[1], v)] = true
			s[fmt.Sprintf("rule iif <nil> oif %s fwmark <nil> table %s", w[1], v)] = true
		case w[0] == "neigh":
			s[fmt.Sprintf("neigh %s %s %s", w[2], w[3], v)] = true
		}
	}
	err := b.client.Routes(b.t.Context(), spec.RouteQuery{}, func(r spec.RouteInfo) bool {
		if r.Proto == "static" {
			s[fmt.Sprintf("route %d %s", r.FIB, r.Dst)] = true
		}
		return true
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// The daemon is killed at random moments, also while it starts. After each start it has every change that it
// acknowledged, and of the one that was under way all or nothing; the kernel has what the daemon has, and nothing else;
// and when all is removed nothing is left.
func TestIntegrationFIBsSurviveKills(t *testing.T) {
	surviveKills(t, newBox(t, "--fib-backend", "rules"), 100)
}

func TestIntegrationNetnsSurvivesKills(t *testing.T) {
	b := newBox(t, "--fib-backend", "netns")
	b.spaces = fmt.Sprintf("mp%d-f", os.Getpid()) // package lab removes those of a test that was killed
	t.Cleanup(func() {
		for _, ns := range b.spacesThere() {
			_ = exec.Command("ip", "netns", "del", ns).Run() // after a failure
		}
	})
	surviveKills(t, b, 30)
}

func surviveKills(t *testing.T, b *box, kills int) {
	rules, links := b.ns.IP("rule", "show"), len(b.ask(b.ns.Name(), "link", "show", "up"))
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	acked := map[string]string{}
	var underway *spec.Op
	done, refused := 0, 0
	for round := 0; round < kills || done < 2*kills; round++ { // a change takes what it takes
		b.start()
		if r.IntN(5) == 0 { // in the middle of putting things in order
			time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
			b.kill()
			b.start()
		}
		b.ready()
		state := b.state()
		if d := gocmp.Diff(acked, state); d != "" {
			if underway == nil || gocmp.Diff(then(acked, *underway), state) != "" {
				t.Fatalf("round %d: what was acknowledged and what there is (-want +got; under way: %+v):\n%s\nlog:\n%s", round, underway, d, b.proc.Stderr.String())
			}
			acked = state
		}
		underway = nil
		if d := gocmp.Diff(b.wantKernel(state), b.kernelState()); d != "" {
			t.Fatalf("round %d: the kernel has not what the daemon has (-want +got):\n%s\nlog:\n%s", round, d, b.proc.Stderr.String())
		}
		killed := make(chan struct{})
		after := time.Duration(r.IntN(100_000)) * time.Microsecond
		go func() {
			time.Sleep(after)
			b.kill()
			close(killed)
		}()
		for alive := true; alive; {
			op := b.randomOp(r)
			err := b.client.Apply(t.Context(), op)
			var e *api.Error
			switch {
			case err == nil:
				acked = then(acked, op)
				done++
			case errors.As(err, &e):
				refused++
			default: // the daemon died
				underway, alive = &op, false
			}
		}
		<-killed
	}
	t.Logf("%d changes acknowledged, %d refused", done, refused)

	b.start()
	b.ready()
	b.removeAll()
	if got := b.ns.IP("rule", "show"); got != rules {
		t.Errorf("rules at the end:\n%s\nat the beginning:\n%s", got, rules)
	}
	if got := len(b.ask(b.ns.Name(), "link", "show", "up")); got != links {
		t.Errorf("%d devices are up at the end, %d at the beginning", got, links)
	}
	if out := b.ns.IP("route", "show", "table", "all", "proto", "73"); out != "" {
		t.Errorf("routes are left:\n%s", out)
	}
	if left := b.kernelState(); len(left) > 0 {
		t.Errorf("left in the kernel: %v", left)
	}
	if l, _ := os.ReadDir(filepath.Join(b.dir, "state")); len(l) > 3 {
		t.Errorf("files in the state directory: %v", l)
	}
	b.kill()
}

// removeAll removes everything, in an order in which nothing is in use.
func (b *box) removeAll() {
	b.t.Helper()
	ctx := context.WithoutCancel(b.t.Context())
	must := func(err error) {
		if err != nil {
			b.t.Error(err)
		}
	}
	ports, err := b.client.Ports(ctx)
	must(err)
	for _, p := range ports {
		must(b.client.Apply(ctx, spec.Op{Do: spec.PortDel, Port: &spec.Port{Dev: p.Dev}}))
	}
	fibs, err := b.client.FIBs(ctx)
	must(err)
	for _, f := range fibs {
		must(b.client.Apply(ctx, spec.Op{Do: spec.FIBDel, FIB: f.ID.String()}))
	}
	hops, err := b.client.NextHops(ctx)
	must(err)
	for _, n := range hops {
		must(b.client.Apply(ctx, spec.Op{Do: spec.NextHopDel, NextHop: &spec.NextHop{ID: n.ID}}))
	}
}
