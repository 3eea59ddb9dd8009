package socket

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/buf"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// world is several nodes, joined by lossless links with a delay, in virtual time.
type world struct {
	t     testing.TB
	now   mono.Time
	delay time.Duration
	mtu   int
	nodes map[uint32]*node
	pubs  []*names.Publication // all bindings of all nodes, seen by all at once
	turn  map[wire.ServiceRange]int

	events   events
	seq      int
	services uint32
	trace    []string
	tracing  bool
	check    func(from uint32, m wire.Msg) // sees each message that leaves a node
	lose     func(from, to uint32, m wire.Msg) bool
}

// node is one node's Table and the Net below it.
type node struct {
	*Table
	w         *world
	addr      uint32
	caps      wire.Caps
	up        bool
	congested map[uint32]bool // links that say so
	wakeups   []wakeup
	rand      uint32
	reasm     map[uint32]*msg.Reassembler
	xmits     int
}

type wakeup struct{ port, node uint32 }

type event struct {
	at  mono.Time
	seq int
	to  uint32
	mc  bool
	b   *buf.Buf
	f   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { x := (*e)[len(*e)-1]; *e = (*e)[:len(*e)-1]; return x }

// newWorld makes a world with nodes of the given addresses.
func newWorld(t testing.TB, addrs ...uint32) *world {
	w := &world{t: t, now: 1e9, delay: time.Millisecond, mtu: 1428, nodes: map[uint32]*node{}, turn: map[wire.ServiceRange]int{}}
	for _, a := range addrs {
		n := &node{w: w, addr: a, caps: wire.CapsAll, up: true, congested: map[uint32]bool{}, rand: a * 1000, reasm: map[uint32]*msg.Reassembler{}}
		n.Table = NewTable(n, Config{Own: a, Rand: func() uint32 { n.rand += 7; return n.rand }})
		w.nodes[a] = n
	}
	return w
}

// multicast lets n receive a multicast message to {500,1,1} from a socket of another node.
func (n *node) multicast(from, port uint32, data string, syn bool, code wire.ErrCode) {
	b := msg.Create(wire.UserLow, wire.TypeMcast, wire.McastHeaderSize, len(data), 0, from, 0, port, code)
	copy(b.Msg[wire.McastHeaderSize:], data)
	b.Msg.SetSyn(syn)
	b.Msg.SetNameType(500)
	b.Msg.SetNameLower(1)
	b.Msg.SetNameUpper(1)
	var q buf.Queue
	q.PushBack(b)
	n.ReceiveMulticast(n.w.now, &q)
}

func (w *world) at(d time.Duration, e event) {
	e.at, e.seq = w.now.Add(d), w.seq
	w.seq++
	heap.Push(&w.events, e)
}

// nextTimer is the earliest deadline of all nodes.
func (w *world) nextTimer() mono.Time {
	next := mono.Never
	for _, n := range w.nodes {
		next = next.Min(n.Deadline())
	}
	return next
}

// step does the next thing that happens, up to a time; false if there is none.
func (w *world) step(until mono.Time) bool {
	timer, ev := w.nextTimer(), mono.Never
	if len(w.events) > 0 {
		ev = w.events[0].at
	}
	next := timer.Min(ev)
	if next > until {
		w.now = until
		return false
	}
	w.now = max(next, w.now)
	if ev > timer {
		for _, a := range w.addrs() {
			if n := w.nodes[a]; n.Deadline() <= w.now {
				n.Tick(w.now)
				if n.Deadline() <= w.now {
					w.t.Fatal("timer did not go away")
				}
			}
		}
		return true
	}
	e := heap.Pop(&w.events).(event)
	if e.f != nil {
		e.f()
		return true
	}
	n := w.nodes[e.to]
	if !n.up {
		e.b.Release()
		return true
	}
	if e.mc {
		var q buf.Queue
		q.PushBack(e.b)
		n.ReceiveMulticast(w.now, &q)
	} else {
		n.Receive(w.now, e.b)
	}
	return true
}

func (w *world) addrs() []uint32 {
	var a []uint32
	for x := range w.nodes {
		a = append(a, x)
	}
	slices.Sort(a)
	return a
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for until := w.now.Add(d); w.step(until); {
	}
}

// settle delivers everything that is under way, without waiting for timers.
func (w *world) settle() { w.run(20 * time.Millisecond) }

// down takes a node away; the others notice at once.
func (w *world) down(addr uint32) {
	w.nodes[addr].up = false
	w.pubs = slices.DeleteFunc(w.pubs, func(p *names.Publication) bool { return p.Addr.Node == addr })
	for _, a := range w.addrs() {
		if a != addr {
			w.nodes[a].NodeDown(w.now, addr)
		}
	}
}

// uncongest ends all congestion of a node and wakes its senders.
func (n *node) uncongest() {
	clear(n.congested)
	ws := n.wakeups
	n.wakeups = nil
	for _, k := range ws {
		n.Receive(n.w.now, msg.Create(wire.UserSockWakeup, 0, wire.IntHeaderSize, 0, n.addr, k.node, k.port, 0, 0))
	}
}

func (n *node) log(to string, m wire.Msg) {
	if n.w.check != nil {
		n.w.check(n.addr, m)
	}
	if n.w.tracing {
		n.w.trace = append(n.w.trace, fmt.Sprintf("%d>%s %s", n.addr, to, describe(m)))
	}
}

// describe is a message in one line. Ports are left out.
func describe(m wire.Msg) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v type=%d hdr=%d data=%d", m.User(), m.Type(), m.Hdrsz(), m.DataSize())
	if m.IsSyn() {
		s.WriteString(" syn")
	}
	if m.ErrCode() != wire.CodeOK {
		fmt.Fprintf(&s, " %v", m.ErrCode())
	}
	switch {
	case m.User() == wire.UserConnManager && m.Type() == wire.TypeConnAck:
		fmt.Fprintf(&s, " ack=%d win=%d", m.ConnAck(), m.AdvWin())
		if m.NagleAck() {
			s.WriteString(" nagle")
		}
	case m.IsData() && m.IsNamed():
		fmt.Fprintf(&s, " {%d,%d} scope=%d reroute=%d", m.NameType(), m.NameInst(), m.LookupScope(), m.RerouteCnt())
	case m.IsData() && m.Type() == wire.TypeMcast:
		fmt.Fprintf(&s, " {%d,%d,%d}", m.NameType(), m.NameLower(), m.NameUpper())
	case m.IsData() && m.IsConnected() && m.AckRequired():
		s.WriteString(" ackreq")
	}
	if m.IsData() && m.DestDroppable() {
		s.WriteString(" destdrop")
	}
	return s.String()
}

// Net.

func (n *node) Xmit(now mono.Time, q *buf.Queue, dnode, selector uint32) error {
	n.xmits++
	if now != n.w.now {
		n.w.t.Fatal("time is wrong")
	}
	local := dnode == 0 || dnode == n.addr
	peer := n.w.nodes[dnode]
	if !local && (peer == nil || !peer.up || !n.up) {
		q.Purge()
		return ErrHostUnreach
	}
	port := q.Front().Msg.OrigPort()
	r := n.reasm[dnode]
	if r == nil {
		r = &msg.Reassembler{}
		n.reasm[dnode] = r
	}
	for b := q.PopFront(); b != nil; b = q.PopFront() {
		if !local && len(b.Msg) > n.w.mtu {
			q.Purge()
			return ErrMsgSize
		}
		if b.Msg.User() == wire.UserFragmenter {
			whole, err := r.Append(b.Msg)
			if err != nil {
				n.w.t.Fatalf("fragment: %v", err)
			}
			b.Release()
			if b = whole; b == nil {
				continue
			}
		}
		if m, err := wire.Validate(b.Msg); err != nil || len(m) != len(b.Msg) {
			n.w.t.Fatalf("sent an invalid message (%d octets): %v: %x", len(b.Msg), err, b.Msg)
		}
		if !b.Msg.IsShort() && b.Msg.RerouteCnt() == 0 && b.Msg.DestNode() != dnode {
			n.w.t.Fatalf("message for %d sent to %d", b.Msg.DestNode(), dnode)
		}
		if local {
			n.log("self", b.Msg)
			n.Receive(now, b)
			continue
		}
		n.log(fmt.Sprint(dnode), b.Msg)
		if n.w.lose != nil && n.w.lose(n.addr, dnode, b.Msg) {
			b.Release()
			continue
		}
		n.w.at(n.w.delay, event{to: dnode, b: b})
	}
	if !local && n.congested[dnode] {
		n.wakeups = append(n.wakeups, wakeup{port, dnode})
		return ErrLinkCong
	}
	return nil
}

func (n *node) Multicast(now mono.Time, q *buf.Queue, m *Method, d *Dests) (int, error) {
	if q.Len() != 1 {
		n.w.t.Fatal("multicast in fragments is not for this test")
	}
	b := q.PopFront()
	cong := 0
	if d.Local {
		var l buf.Queue
		l.PushBack(b.Clone())
		n.log("self*", b.Msg)
		n.ReceiveMulticast(now, &l)
	}
	for _, to := range d.Remote {
		n.log(fmt.Sprint(to, "*"), b.Msg)
		c := b.Clone()
		c.Msg.SetDestNode(to)
		n.w.at(n.w.delay, event{to: to, b: c, mc: true})
		if n.congested[to] {
			cong++
			n.wakeups = append(n.wakeups, wakeup{b.Msg.OrigPort(), to})
		}
	}
	b.Release()
	return cong, nil
}

// FilterMcast holds messages that are marked SYN until one comes that is not.
func (n *node) FilterMcast(defq, inputq *buf.Queue) {
	if inputq.Front().Msg.IsSyn() {
		defq.PushBack(inputq.PopFront())
		return
	}
	inputq.Splice(defq)
}

func (n *node) MTU(dnode, selector uint32) int {
	if dnode == 0 || dnode == n.addr || n.w.nodes[dnode] == nil || !n.w.nodes[dnode].up {
		return wire.MaxMsgSize
	}
	return n.w.mtu
}

func (n *node) BcastMTU() int { return wire.MaxMsgSize }

const patience = 30 * time.Second

func (n *node) UnderWay(now mono.Time, _ uint32, since mono.Time, _ bool) bool {
	return now < since.Add(patience)
}

func (n *node) Caps(dnode uint32) wire.Caps {
	if dnode == 0 {
		return n.caps
	}
	if p := n.w.nodes[dnode]; p != nil {
		return p.caps
	}
	return wire.CapsAll
}

func (n *node) Publish(now mono.Time, r wire.ServiceRange, scope wire.Scope, addr wire.SocketAddr, key uint32) (*names.Publication, error) {
	p := &names.Publication{Range: r, Scope: scope, Addr: addr, Key: key}
	n.w.pubs = append(n.w.pubs, p)
	return p, nil
}

func (n *node) Withdraw(now mono.Time, p *names.Publication) {
	i := slices.Index(n.w.pubs, p)
	if i < 0 {
		n.w.t.Error("withdrawn twice")
		return
	}
	n.w.pubs = slices.Delete(n.w.pubs, i, i+1)
}

// Lookup takes turns among the bindings that contain the instance.
func (n *node) Lookup(typ, inst, at uint32) (wire.SocketAddr, bool) {
	if at != 0 && at != n.addr {
		return wire.SocketAddr{Node: at}, true
	}
	var found []wire.SocketAddr
	for _, p := range n.w.pubs {
		own := p.Addr.Node == n.addr
		if p.Range.Type == typ && p.Range.Lower <= inst && inst <= p.Range.Upper && (own || p.Scope == wire.ScopeCluster && at == 0) {
			found = append(found, p.Addr)
		}
	}
	if len(found) == 0 {
		return wire.SocketAddr{}, false
	}
	k := wire.ServiceRange{Type: typ, Lower: inst}
	n.w.turn[k]++
	return found[n.w.turn[k]%len(found)], true
}

func (n *node) AppendMulticastPorts(dst []uint32, r wire.ServiceRange, scope wire.Scope) []uint32 {
	for _, p := range n.w.pubs {
		if p.Addr.Node == n.addr && overlap(p.Range, r) && (scope == names.ScopeAny || scope == p.Scope) && !slices.Contains(dst, p.Addr.Port) {
			dst = append(dst, p.Addr.Port)
		}
	}
	return dst
}

func (n *node) AppendMulticastNodes(dst []uint32, r wire.ServiceRange) ([]uint32, bool) {
	local := false
	for _, p := range n.w.pubs {
		switch {
		case !overlap(p.Range, r):
		case p.Addr.Node == n.addr:
			local = true
		case p.Scope == wire.ScopeCluster && !slices.Contains(dst, p.Addr.Node):
			dst = append(dst, p.Addr.Node)
		}
	}
	return dst, local
}

func overlap(a, b wire.ServiceRange) bool {
	return a.Type == b.Type && a.Lower <= b.Upper && b.Lower <= a.Upper
}

// Helpers.

func service(typ, inst uint32) Dest {
	return Dest{Kind: ServiceDest, Range: wire.ServiceRange{Type: typ, Lower: inst, Upper: inst}}
}

func serviceOn(typ, inst, node uint32) Dest {
	d := service(typ, inst)
	d.Addr.Node = node
	return d
}

func rangeOf(typ, lower, upper uint32) wire.ServiceRange {
	return wire.ServiceRange{Type: typ, Lower: lower, Upper: upper}
}

func to(a wire.SocketAddr) Dest { return Dest{Kind: SocketDest, Addr: a} }

func (n *node) create(typ Type) *Sock {
	n.w.t.Helper()
	s, err := n.Create(n.w.now, typ)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return s
}

// bound makes a socket that is bound to {typ, inst}.
func (n *node) bound(typ Type, svc, inst uint32) *Sock {
	n.w.t.Helper()
	s := n.create(typ)
	if err := s.Bind(n.w.now, rangeOf(svc, inst, inst), wire.ScopeCluster); err != nil {
		n.w.t.Fatal(err)
	}
	return s
}

// listener makes a listening socket bound to {typ, inst}.
func (n *node) listener(typ Type, svc, inst uint32) *Sock {
	n.w.t.Helper()
	s := n.bound(typ, svc, inst)
	if err := s.Listen(0); err != nil {
		n.w.t.Fatal(err)
	}
	return s
}

// connect makes a connection from a to b.
func (w *world) connect(typ Type, a, b *node) (client, server, listener *Sock) {
	w.t.Helper()
	svc := 1000 + w.services
	w.services++
	l := b.listener(typ, svc, b.addr)
	c := a.create(typ)
	if err := c.Connect(w.now, service(svc, b.addr)); err != ErrInProgress {
		w.t.Fatalf("connect: %v", err)
	}
	w.settle()
	s, err := l.Accept(w.now)
	if err != nil {
		w.t.Fatalf("accept: %v", err)
	}
	w.settle()
	if err := c.ConnectResult(); err != nil {
		w.t.Fatalf("connect result: %v", err)
	}
	return c, s, l
}

// send sends p as a whole.
func (w *world) send(s *Sock, p string, d Dest) {
	w.t.Helper()
	if n, err := s.Send(w.now, []byte(p), d); err != nil || n != len(p) {
		w.t.Fatalf("send: %d, %v", n, err)
	}
}

// recv receives one message or error.
func (w *world) recv(s *Sock) (string, RecvInfo, error) {
	p := make([]byte, 70000)
	n, info, err := s.Recv(w.now, p, 0)
	return string(p[:n]), info, err
}

// expect receives p.
func (w *world) expect(s *Sock, p string) RecvInfo {
	w.t.Helper()
	got, info, err := w.recv(s)
	if err != nil || got != p {
		w.t.Fatalf("received %.40q, %v; want %.40q", got, err, p)
	}
	return info
}

// expectErr receives an error.
func (w *world) expectErr(s *Sock, want error) RecvInfo {
	w.t.Helper()
	got, info, err := w.recv(s)
	if err != want {
		w.t.Fatalf("received %.40q, %v; want %v", got, err, want)
	}
	return info
}

// transcript returns what was sent since the last call.
func (w *world) transcript() string {
	s := strings.Join(w.trace, "\n")
	w.trace = nil
	return s
}

// wantTrace compares what was sent.
func (w *world) wantTrace(want string) {
	w.t.Helper()
	var lines []string
	for l := range strings.Lines(want) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	if got := w.transcript(); got != strings.Join(lines, "\n") {
		w.t.Errorf("sent:\n%s\nwant:\n%s", got, strings.Join(lines, "\n"))
	}
}

// leakCheck fails if sockets hold anything although nothing should.
func (w *world) leakCheck() {
	w.t.Helper()
	for _, n := range w.nodes {
		if len(n.socks) != 0 || n.timers.Len() != 0 || len(n.peers) != 0 || !n.inq.Empty() || !n.xmitq.Empty() || !n.mcastq.Empty() || n.busy {
			w.t.Errorf("node %d: %d sockets, %d timers, %d peers left", n.addr, len(n.socks), n.timers.Len(), len(n.peers))
		}
	}
}
