package dev

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"midplane/tipc"
)

// Status is what the watching node sees.
type Status struct {
	Up       [Size]bool
	Server   string        // node that the service is bound on; empty: none
	Answers  int           // requests answered
	Failures int           // requests that failed
	Latency  time.Duration // of the last answer
	Alive    bool          // whether the home node runs; the watching node learns of its end later
	Next     time.Time     // when that changes
}

// Entry is something that happened.
type Entry struct {
	At   time.Duration // since the start
	Text string
}

// Story kills and revives the home node, watches what happens from the last node, and reports.
type Story struct {
	Cluster *Cluster
	Up      time.Duration // how long the home node lives
	Down    time.Duration // how long it stays dead

	// Report is called for each event, and with an empty Entry when only the status changed; never by two goroutines
	// at once.
	Report func(Entry, Status)
}

// Run plays until ctx ends.
func (s *Story) Run(ctx context.Context) error {
	start := time.Now()
	watcher := s.Cluster.Node(Size - 1)
	nodes, err := watcher.Subscribe(tipc.ServiceRange{Type: tipc.NodeStateType, Upper: 1<<32 - 1}, nil)
	if err != nil {
		return err
	}
	defer nodes.Close()
	names, err := watcher.Subscribe(Service.Range(), nil)
	if err != nil {
		return err
	}
	defer names.Close()

	type change func(*Status) string
	changes := make(chan change)
	send := func(f change) {
		select {
		case changes <- f:
		case <-ctx.Done():
		}
	}
	follow := func(sub *tipc.Subscription, f func(tipc.Event) change) {
		for {
			ev, err := sub.Next()
			if err != nil {
				return
			}
			send(f(ev))
		}
	}
	go follow(nodes, func(ev tipc.Event) change {
		name := s.Cluster.NameOf(tipc.NodeAddr(ev.Service.Lower))
		return func(st *Status) string {
			for i := range st.Up {
				if s.Cluster.Name(i) == name {
					st.Up[i] = ev.Kind == tipc.Published
				}
			}
			if ev.Kind == tipc.Published {
				return name + " is up"
			}
			return name + " is lost"
		}
	})
	bound := map[tipc.SocketAddr]bool{} // touched by the loop below only
	go follow(names, func(ev tipc.Event) change {
		return func(st *Status) string {
			name := s.Cluster.NameOf(ev.Socket.Node)
			if ev.Kind == tipc.Published {
				bound[ev.Socket] = true
				st.Server = name
				return fmt.Sprintf("service %v appears on %s", Service, name)
			}
			delete(bound, ev.Socket)
			st.Server = ""
			for a := range bound {
				st.Server = s.Cluster.NameOf(a.Node)
			}
			return fmt.Sprintf("service %v disappears from %s", Service, name)
		}
	})
	go s.ask(ctx, watcher, func(answer string, took time.Duration, err error) {
		send(func(st *Status) string {
			if err != nil {
				st.Failures++
				return ""
			}
			st.Answers++
			st.Latency = took
			return ""
		})
	})

	st := Status{Alive: true, Next: start.Add(s.Up)}
	next := time.NewTimer(s.Up)
	defer next.Stop()
	wait := func(d time.Duration) {
		next.Reset(d)
		st.Alive, st.Next = !st.Alive, time.Now().Add(d)
	}
	for {
		var text string
		select {
		case <-ctx.Done():
			return nil
		case f := <-changes:
			text = f(&st)
		case <-next.C:
			home := s.Cluster.Name(0)
			if st.Alive {
				s.Report(Entry{time.Since(start), "KILL " + home + ", without a goodbye"}, st)
				s.Cluster.Kill(0)
				wait(s.Down)
			} else {
				s.Report(Entry{time.Since(start), "START " + home + " again"}, st)
				if err := s.Cluster.Start(0); err != nil {
					return err
				}
				wait(s.Up)
			}
		}
		s.Report(Entry{time.Since(start), text}, st)
	}
}

// ask is a client of the service: it dials the same address again and again, and does not care where the service is.
func (s *Story) ask(ctx context.Context, n *tipc.Node, done func(string, time.Duration, error)) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		start := time.Now()
		answer, err := request(ctx, n)
		if ctx.Err() != nil {
			return
		}
		done(answer, time.Since(start), err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func request(ctx context.Context, n *tipc.Node) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := n.DialContext(ctx, Service, nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("ping\n")); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}
