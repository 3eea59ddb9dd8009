package aemtipc_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/aem"
	"midplane/aem/aemtipc"
	"midplane/tipc"
)

const bound = 30 * time.Second

func setUp(t testing.TB) (*tipc.Node, *aem.Loop) {
	t.Helper()
	n, err := tipc.NewNode(tipc.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	ex, err := aem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ex.Close() })
	l, err := aem.NewLoop(ex, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return n, l
}

func start[T any](t testing.TB, l *aem.Loop, src aem.Source[T], f func(*aem.Ctx, T), cfg aem.EventConfig) *aem.Event {
	t.Helper()
	cfg.Deadline = aem.NoDeadline
	e, err := aem.Register(l, src, f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	return e
}

func recv[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(bound):
		t.Fatal("nothing happened")
	}
	return v
}

func TestTopologyAndMessages(t *testing.T) {
	n, l := setUp(t)
	events := make(chan tipc.Event, 10)
	service := tipc.ServiceAddr{Type: 4711, Instance: 7}
	topo := start(t, l, aemtipc.Topology(n, tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 99}, nil), func(_ *aem.Ctx, e tipc.Event) { events <- e }, aem.EventConfig{})
	echo := start(t, l, aemtipc.Messages(n, service, nil), func(_ *aem.Ctx, m aemtipc.Message) {
		if err := m.Reply([]byte("re: " + string(m.Data))); err != nil {
			t.Error(err)
		}
	}, aem.EventConfig{})
	if e := recv(t, events); e.Kind != tipc.Published || e.Service.Lower != 7 {
		t.Fatalf("%v", e)
	}
	c, err := n.ListenPacket(tipc.ServiceAddr{Type: 9999, Instance: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("hello"), service); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(bound))
	k, _, err := c.ReadMsg(b)
	if err != nil || string(b[:k]) != "re: hello" {
		t.Fatalf("%q, %v", b[:k], err)
	}
	if err := echo.Stop(); err != nil { // the binding is withdrawn
		t.Fatal(err)
	}
	if e := recv(t, events); e.Kind != tipc.Withdrawn {
		t.Fatalf("%v", e)
	}
	if err := topo.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

// A service that reacts to topology events by class: that a database goes is critical and handled at once; that caches come and
// go is background work that may wait, and be shed when there is too much of it.
func Example() {
	node, err := tipc.NewNode(tipc.Config{}) // add Bearers to be part of a cluster
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	ex, err := aem.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	loop, err := aem.NewLoop(ex, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer loop.Close()

	const databases, caches = 4711, 4712
	var all aem.Group
	var mu sync.Mutex
	var lines []string
	note := func(c *aem.Ctx, e tipc.Event) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf("%s: %v %v", c.Class().Name(), e.Kind, e.Service))
	}
	for _, s := range []struct {
		service uint32
		class   *aem.Class
	}{{databases, ex.Critical()}, {caches, ex.Background()}} {
		ev, err := aem.Register(loop, aemtipc.Topology(node, tipc.ServiceRange{Type: s.service, Upper: 1<<32 - 1}, nil), note,
			aem.EventConfig{Class: s.class, Deadline: time.Minute, KeepAlive: true})
		if err != nil {
			fmt.Println(err)
			return
		}
		all.Add(ev)
	}
	if err := all.Start(); err != nil {
		fmt.Println(err)
		return
	}
	// What the rest of the cluster does: a database comes and goes.
	told := func(what string) {
		for range 3000 {
			mu.Lock()
			found := strings.Contains(strings.Join(lines, "\n"), what)
			mu.Unlock()
			if found {
				fmt.Println(what)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println("nobody told", what)
	}
	db, err := node.ListenPacket(tipc.ServiceAddr{Type: databases, Instance: 1}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	told("critical: published 4711:1")
	cache, err := node.ListenPacket(tipc.ServiceAddr{Type: caches, Instance: 5}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	told("background: published 4712:5")
	cache.Close()
	db.Close()
	told("critical: withdrawn 4711:1")
	// Output:
	// critical: published 4711:1
	// background: published 4712:5
	// critical: withdrawn 4711:1
}
