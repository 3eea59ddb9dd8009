package fib_test

import (
	"fmt"
	"net/netip"

	"midplane/fib"
)

// Two customers with the same addresses, and one gateway each.
func Example() {
	var set fib.Set
	defer set.Close()
	blue, _ := set.Create(10, "blue")
	red, _ := set.Create(20, "red")
	gw1, _ := set.AddNextHop(fib.NextHop{Type: fib.Unicast, Gateway: netip.MustParseAddr("192.0.2.1"), Device: 3})
	gw2, _ := set.AddNextHop(fib.NextHop{Type: fib.Unicast, Gateway: netip.MustParseAddr("192.0.2.1"), Device: 4})
	blue.Insert(netip.MustParsePrefix("10.0.0.0/8"), gw1)
	red.Insert(netip.MustParsePrefix("10.0.0.0/8"), gw2)

	to := netip.MustParseAddr("10.1.2.3")
	fmt.Println(set.Resolve(blue, to, 0).NextHop)
	fmt.Println(set.Resolve(red, to, 0).NextHop)
	// Output:
	// via 192.0.2.1 dev 3
	// via 192.0.2.1 dev 4
}

// The flows of a group go to what is left of it when a gateway is lost, with one change for all routes.
func ExampleSet_SetDown() {
	set, err := fib.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	table, _ := set.Create(10, "blue")
	a, _ := set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: 3})
	b, _ := set.AddNextHop(fib.NextHop{Type: fib.Unicast, Device: 4})
	group, _ := set.AddGroup([]fib.Member{{NextHop: a}, {NextHop: b}})
	table.Insert(netip.MustParsePrefix("::/0"), group)

	flow := fib.Flow{Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"), Protocol: 6, SrcPort: 40000, DstPort: 80}
	set.SetDown(a, true)
	fmt.Println(set.Resolve(table, flow.Dst, fib.FlowHash(0, flow)).Device)
	set.SetDown(a, false)
	set.SetDown(b, true)
	fmt.Println(set.Resolve(table, flow.Dst, fib.FlowHash(0, flow)).Device)
	// Output:
	// 4
	// 3
}
