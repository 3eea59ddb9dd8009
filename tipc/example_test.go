package tipc_test

import (
	"fmt"
	"io"
	"log"
	"net/netip"

	"midplane/tipc"
)

// A server binds to a service, a client dials it by the same numbers, wherever it is.
func Example() {
	node, err := tipc.NewNode(tipc.Config{}) // add Bearers to be part of a cluster
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	hello := tipc.ServiceAddr{Type: 4711, Instance: 7}
	l, err := node.Listen(hello, nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "hello from ", l.Addr())
	}()

	c, err := node.Dial(hello, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	fmt.Println(string(text), err)
	// Output: hello from 4711:7 <nil>
}

// Messages go to one socket of a service, or to all in a range.
func ExampleNode_ListenPacket() {
	node, err := tipc.NewNode(tipc.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	for i := range uint32(3) {
		p, err := node.ListenPacket(tipc.ServiceAddr{Type: 4711, Instance: i}, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer p.Close()
		defer func() {
			buf := make([]byte, 100)
			n, info, err := p.ReadMsg(buf)
			fmt.Printf("%s sent to %v, %v\n", buf[:n], info.Dest, err)
		}()
	}
	out, err := node.ListenPacket(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer out.Close()
	if _, err := out.WriteTo([]byte("all of you"), tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 99}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// all of you sent to 4711:0:99, <nil>
	// all of you sent to 4711:0:99, <nil>
	// all of you sent to 4711:0:99, <nil>
}

// Two nodes on one network; in memory here, with tipc.UDP or tipc.Ethernet in its place between machines.
func ExampleNode_Subscribe() {
	var network tipc.Network
	a, err := tipc.NewNode(tipc.Config{Bearers: []tipc.Bearer{tipc.Memory{Name: "m", Network: &network}}})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := tipc.NewNode(tipc.Config{Bearers: []tipc.Bearer{tipc.Memory{Name: "m", Network: &network}}})
	if err != nil {
		log.Fatal(err)
	}

	sub, err := a.Subscribe(tipc.ServiceRange{Type: 4711, Lower: 0, Upper: 99}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	if _, err := b.Listen(tipc.ServiceAddr{Type: 4711, Instance: 7}, nil); err != nil {
		log.Fatal(err)
	}
	ev, err := sub.Next()
	fmt.Println(ev.Kind, ev.Service, err)
	b.Close() // or its process ends, or its machine
	ev, err = sub.Next()
	fmt.Println(ev.Kind, ev.Service, err)
	// Output:
	// published 4711:7:7 <nil>
	// withdrawn 4711:7:7 <nil>
}

func ExampleNewNode() {
	node, err := tipc.NewNode(tipc.Config{
		Identity: tipc.MustParseNodeID("node1"),
		Bearers:  []tipc.Bearer{tipc.UDP{Name: "u1", LocalIP: netip.MustParseAddr("127.0.0.1"), LocalPort: tipc.AnyPort, PeerList: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	fmt.Println(node.Identity())
	// Output: node1
}
