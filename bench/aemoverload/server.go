package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"

	"midplane/bench/internal/garbage"
	"midplane/internal/aem/worker"
)

// A server listens on loopback, tells its address, and serves until its standard input ends.
type server struct {
	name string
	what string
	run  func(ready func(addr string)) error
}

var servers = []server{
	{"net", "std net, a goroutine for each connection", serveNet},
	{"net+sem", "std net, heavy work behind a semaphore of as many as processors", serveSemaphore},
	{"net+failsafe", "std net, failsafe-go's adaptive limiter with priorities", serveFailsafe},
	{"gnet", "gnet, handlers on its loops", serveGnet},
	{"gnet+ants", "gnet, heavy work in an ants pool of as many as processors", serveAnts},
	{"netpoll", "cloudwego/netpoll with its own goroutine pool", serveNetpoll},
	{"aem", "std net, aem's executor", serveAEM},
	{"aem/epoll", "aem's loop on epoll", serveLoop("epoll")},
	{"aem/uring", "aem's loop on io_uring", serveLoop("io_uring")},
}

func runServer(name string, churn bool) error {
	for _, s := range servers {
		if s.name != name {
			continue
		}
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		if !ours(name) { // the executor does it itself
			if err := takeHeap(); err != nil {
				return err
			}
		}
		if churn {
			go garbage.Make(new(atomic.Bool))
		}
		return s.run(func(addr string) { fmt.Println(addr) })
	}
	return fmt.Errorf("no server %q", name)
}

// takeHeap gives the heap its budget, and the memory for it where there will be garbage.
func takeHeap() error {
	if *budget <= 0 {
		return nil
	}
	_, err := worker.TakeHeap(uint64(*budget)<<20, *churn)
	return err
}

// serveConns accepts connections and serves each in a goroutine: handle does the work of a request and returns the status.
func serveConns(ready func(string), handle func(kind byte) byte) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready(l.Addr().String())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			in := make([]byte, header)
			var out []byte
			for {
				if _, err := io.ReadFull(c, in); err != nil {
					return
				}
				out = reply(out[:0], in, handle(in[0]))
				if _, err := c.Write(out); err != nil {
					return
				}
			}
		}()
	}
}

func serveNet(ready func(string)) error {
	return serveConns(ready, func(kind byte) byte { work(kind); return answered })
}

func serveSemaphore(ready func(string)) error {
	sem := make(chan struct{}, runtime.NumCPU())
	return serveConns(ready, func(kind byte) byte {
		if kind == heavy {
			sem <- struct{}{}
			defer func() { <-sem }()
		}
		work(kind)
		return answered
	})
}
