//go:build linux && amd64

// Command fibxdp measures the XDP forwarder against the kernel's own means with a full Internet table: bpf_fib_lookup on
// the kernel's table, BPF_MAP_TYPE_LPM_TRIE, and, end to end over veth, the kernel's forwarding of the same traffic.
// Every round runs all of them one after the other, so that what else happens on the machine meets each alike; medians
// of the rounds are compared as ratios. It needs root; everything is in namespaces that end with it.
//
//	go run ./fibxdp [-rounds 9] [-repeat 400000] [-only lookup|e2e]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

func main() {
	rounds := flag.Int("rounds", 9, "rounds; medians are reported")
	repeat := flag.Int("repeat", 400000, "packets a program and round")
	frames := flag.Int("frames", 2000000, "packets a round end to end")
	only := flag.String("only", "", "lookup or e2e; empty: both")
	child := flag.Bool("child", false, "internal: in namespaces of its own")
	flag.Parse()
	if !*child {
		os.Exit(inNamespaces())
	}
	runtime.LockOSThread()
	if err := measure(*rounds, *repeat, *frames, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fibxdp:", err)
		os.Exit(1)
	}
}

// inNamespaces runs this program again in a network and a mount namespace, which end with it.
func inNamespaces() int {
	cmd := exec.Command("/proc/self/exe", append([]string{"-child"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "fibxdp:", err)
		return 1
	}
	return 0
}
