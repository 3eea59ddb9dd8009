//go:build unix

package aem_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"midplane/aem"
)

// A supervisor: each service is a process of an event, and one that ends is started again, after a pause, until it has failed too
// often. The services here are shell scripts; one of them fails twice and then does its work, the other is hopeless.
func Example_supervisor() {
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

	type service struct {
		name, script string
		failures     int
	}
	const most = 3
	todo, over := make(chan *service, 10), make(chan string, 10)
	running := map[*exec.Cmd]*service{} // of the one handler at a time that the class has
	starts := make(chan func(), 10)     // so that one goroutine has the map
	go func() {
		for f := range starts {
			f()
		}
	}()
	one, err := ex.Class("supervisor", aem.ClassConfig{Level: aem.Normal, Workers: 1, Deadline: aem.NoDeadline})
	if err != nil {
		fmt.Println(err)
		return
	}
	run := aem.Run(10, func(_ *aem.Ctx, s *service) *exec.Cmd {
		cmd := exec.Command("sh", "-c", s.script, s.name, fmt.Sprint(s.failures))
		starts <- func() { running[cmd] = s }
		return cmd
	}, func(x aem.Exit) {
		if errors.Is(x.Err, aem.ErrDown) {
			return
		}
		starts <- func() {
			s := running[x.Cmd]
			delete(running, x.Cmd)
			if x.Err == nil {
				over <- s.name + ": has done its work"
				return
			}
			if s.failures++; s.failures == most {
				over <- s.name + ": given up"
				return
			}
			time.AfterFunc(time.Duration(s.failures)*time.Millisecond, func() { todo <- s })
		}
	})
	ev, err := aem.Register(loop, aem.Chan(todo), run, aem.EventConfig{Name: "services", Class: one})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := ev.Start(); err != nil {
		fmt.Println(err)
		return
	}
	todo <- &service{name: "worker", script: `test "$1" -ge 2`}
	fmt.Println(<-over)
	todo <- &service{name: "hopeless", script: "exit 1"}
	fmt.Println(<-over)
	if err := ev.Shutdown(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// worker: has done its work
	// hopeless: given up
}

// An echo server whose connections are events.
func ExampleListen() {
	ex, err := aem.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	loop, err := aem.NewLoop(ex, nil) // io_uring, epoll, or package net: the best there is
	if err != nil {
		fmt.Println(err)
		return
	}
	defer loop.Close()
	inline, err := ex.Class("echo", aem.ClassConfig{Inline: true}) // on the loop itself: for handlers of microseconds
	if err != nil {
		fmt.Println(err)
		return
	}
	server := aem.Listen("tcp", "127.0.0.1:0")
	ev, err := aem.Register(loop, server, func(_ *aem.Ctx, e aem.StreamEvent) {
		if e.Kind == aem.StreamReceived {
			_, _ = e.Conn.Send(e.Data)
		}
	}, aem.EventConfig{Class: inline})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := ev.Start(); err != nil { // registered events are disabled until then
		fmt.Println(err)
		return
	}
	c, err := loop.Dial(context.Background(), "tcp", server.Addr().String()) // a net.Conn on the same loop
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Fprint(c, "hello")
	b := make([]byte, 5)
	n, err := c.Read(b)
	fmt.Printf("%s %v\n", b[:n], err)
	// Output: hello <nil>
}
