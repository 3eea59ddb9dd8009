package dev

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"midplane/tipc"
)

// worker is the program on each node that can be the service. It is what an application would write: it watches the
// service's bindings, serves when nobody else does, and gives way to a lower rank.
//
// Rank 0 is home, and serves whenever it can. When the service disappears, the others wait for a time that grows with
// their rank, so that the lowest is first.
type worker struct {
	node *tipc.Node
	name string
	rank int
	wg   sync.WaitGroup
}

const turn = 100 * time.Millisecond

func startWorker(n *tipc.Node, name string, rank int) *worker {
	w := &worker{node: n, name: name, rank: rank}
	w.wg.Go(w.run)
	return w
}

// wait returns when the worker has noticed that its node is gone.
func (w *worker) wait() { w.wg.Wait() }

// run ends with the node, whose end all calls report.
func (w *worker) run() {
	if w.node.Ready(context.Background()) != nil {
		return
	}
	sub, err := w.node.Subscribe(Service.Range(), nil)
	if err != nil {
		return
	}
	defer sub.Close()
	bound := map[tipc.SocketAddr]bool{}
	var own *tipc.Listener
	for {
		// Nobody there, or nobody yet: wait for our turn, and be the service if it is still so.
		wait := time.Time{}
		if len(bound) == 0 {
			wait = time.Now().Add(time.Duration(w.rank+1) * turn)
		}
		if w.rank == 0 && own == nil {
			wait = time.Now().Add(turn)
		}
		sub.SetDeadline(wait)
		ev, err := sub.Next()
		switch {
		case err == nil && ev.Kind == tipc.Published:
			bound[ev.Socket] = true
		case err == nil && ev.Kind == tipc.Withdrawn:
			delete(bound, ev.Socket)
		case isTimeout(err) && own == nil:
			if own, err = w.serve(); err != nil {
				return
			}
			bound[own.SocketAddr()] = true
		case isTimeout(err):
		default:
			return
		}
		if own != nil && w.outranked(bound) {
			own.Close()
			delete(bound, own.SocketAddr())
			own = nil
		}
	}
}

func (w *worker) outranked(bound map[tipc.SocketAddr]bool) bool {
	for i := range w.rank {
		addr := identity(i).Addr()
		for b := range bound {
			if b.Node == addr {
				return true
			}
		}
	}
	return false
}

func isTimeout(err error) bool {
	ne, ok := err.(*tipc.OpError)
	return ok && ne.Timeout()
}

// serve answers each line with a number and the node's name.
func (w *worker) serve() (*tipc.Listener, error) {
	l, err := w.node.Listen(Service, nil)
	if err != nil {
		return nil, err
	}
	w.wg.Go(func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			w.wg.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for n := 1; lines.Scan(); n++ {
					if _, err := fmt.Fprintf(c, "%s: answer %d to %q\n", w.name, n, strings.TrimSpace(lines.Text())); err != nil {
						return
					}
				}
			})
		}
	})
	return l, nil
}
