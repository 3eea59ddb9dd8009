// Package lab gives tests real hosts on one machine: network namespaces, a bridge between them, and guests that
// run Linux's own kernel with TIPC.
//
//	test process                 namespace mpPID-N
//	┌───────────┐      ┌──────────────────────────────────┐
//	│ Network   │      │             bridge br0           │
//	│ Capture ──┼──────┤    ┌───────────┼───────────┐     │
//	│ Guest ────┼─tty──┤  tap g1e0    tap g2e0   veth h1  │      namespace mpPID-M
//	│ Host  ────┼──────┤    │           │           └──────┼──── eth0: programs and sockets of the test
//	└───────────┘      │  UML guest   UML guest           │
//	                   │  eth0        eth0                │
//	                   └──────────────────────────────────┘
//
// A [Guest] is Debian's User-Mode Linux kernel, an ordinary process. It sees the root of this machine read-only
// under an overlay, so every program and file of this machine is there (a name that was looked up in the guest before
// the file existed stays absent: write new files under new names, or through [Guest.Share]). Programs run in it
// through a serial line, any number at a time.
//
// A [Host] is a namespace with an Ethernet device on the same bridge: our own node lives there, as a process or as
// sockets opened by the test itself.
//
// A [VM] is Debian 13's kernel under qemu, for what User-Mode Linux lacks (BPF LSM, fs-verity, fanotify of another
// version). It has the same files, disks of its own, and no network.
//
// Everything ends with the test that made it, also when the test panics; what a killed test binary leaves behind
// (namespaces only, as guests and processes die with it) the next one sweeps. Nothing outside the namespaces is
// touched. Downloads and built files are in $MIDPLANE_LAB_CACHE, else in midplane-lab under the user's cache directory.
//
// Two guests of one cluster by UDP, and a program in each:
//
//	lab.Require(t)
//	n := lab.NewNetwork(t)
//	a, b := n.Guest(lab.GuestConfig{}), n.Guest(lab.GuestConfig{})
//	a.EnableUDP(0)
//	b.EnableUDP(0)
//	a.WaitPeers(1)
//	server := b.Program("serve.py", "--type", "stream", "--service", "4711:1")
//	server.Expect("ready")
//	client := a.Program("client.py", "--type", "stream", "--to", "4711:1", "--send", "1000000")
//	sent := client.Expect("sent")
package lab
