// Command bench measures Midplane's TIPC against TCP and NATS core, side by side: every round runs all of them one
// after the other, so that what else happens on the machine meets each alike, and the medians of the rounds are
// compared as ratios. See docs/performance.md.
//
//	go run . [-rounds 7] [-sizes 64,1400,16384,65536] [-only tipc-seqpacket,tcp] [-where two,one] [-json]
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"midplane/bench/internal/stat"
)

// A peer is one transport under test.
type peer struct {
	name string
	// serve starts the answering side; it returns what dial needs and runs until the process or stop ends.
	serve func() (addr string, stop func(), err error)
	dial  func(addr string) (endpoint, error)
}

var peers = []peer{
	{"tcp", serveTCP, dialTCP},
	{"nats", serveNATS, dialNATS},
	{"tipc-seqpacket", serveTIPC("seqpacket"), dialTIPC("seqpacket")},
	{"tipc-stream", serveTIPC("stream"), dialTIPC("stream")},
}

type result struct {
	Where string  `json:"where"` // "two" processes or "one"
	Peer  string  `json:"peer"`
	Size  int     `json:"size"`
	P50us float64 `json:"rtt_p50_us"`
	P99us float64 `json:"rtt_p99_us"`
	MsgS  float64 `json:"msgs_per_s"`
	MBs   float64 `json:"mbytes_per_s"`
}

func main() {
	serve := flag.String("serve", "", "internal: be the answering process of this peer")
	rounds := flag.Int("rounds", 7, "rounds; medians are reported")
	sizesFlag := flag.String("sizes", "64,1400,16384,65536", "message sizes, octets")
	only := flag.String("only", "", "comma-separated peers; empty: all")
	where := flag.String("where", "two,one", "two: over loopback between two processes; one: inside one process")
	asJSON := flag.Bool("json", false, "print all results as JSON")
	scale := flag.Float64("scale", 1, "multiplies the number of messages")
	flag.Parse()
	if *serve != "" {
		child(*serve)
		return
	}
	var sizes []int
	for s := range strings.SplitSeq(*sizesFlag, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 16 || n > 66000 {
			fatal("-sizes: %q is not a size from 16 to 66000", s)
		}
		sizes = append(sizes, n)
	}
	var run []peer
	for _, p := range peers {
		if *only == "" || slices.Contains(strings.Split(*only, ","), p.name) {
			run = append(run, p)
		}
	}
	var all []result
	for w := range strings.SplitSeq(*where, ",") {
		res := measure(w, run, sizes, *rounds, *scale)
		all = append(all, res...)
		if !*asJSON {
			print(w, run, sizes, res)
		}
	}
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(all)
	}
}

func measure(where string, run []peer, sizes []int, rounds int, scale float64) []result {
	ends := make([]endpoint, len(run))
	for i, p := range run {
		var addr string
		var err error
		if where == "two" {
			var stop func()
			addr, stop, err = spawn(p.name)
			if stop != nil {
				defer stop()
			}
		} else {
			var stop func()
			addr, stop, err = p.serve()
			if stop != nil {
				defer stop()
			}
		}
		if err == nil {
			ends[i], err = p.dial(addr)
		}
		if err != nil {
			fatal("%s: %v", p.name, err)
		}
		defer ends[i].Close()
	}
	samples := map[[2]int][]result{}
	for r := range rounds + 1 {
		for si, size := range sizes {
			for pi := range run {
				var x result
				x.P50us, x.P99us = rtt(ends[pi], size, max(200, int(4000*scale)))
				n := int(scale * float64(clamp(400<<20/size/8, 4000, 200000)))
				x.MsgS = oneway(ends[pi], size, n)
				if r > 0 { // the first round warms up
					samples[[2]int{pi, si}] = append(samples[[2]int{pi, si}], x)
				}
			}
		}
	}
	var out []result
	for si, size := range sizes {
		for pi, p := range run {
			s := samples[[2]int{pi, si}]
			x := result{Where: where, Peer: p.name, Size: size}
			x.P50us = stat.MedianOf(s, func(r result) float64 { return r.P50us })
			x.P99us = stat.MedianOf(s, func(r result) float64 { return r.P99us })
			x.MsgS = stat.MedianOf(s, func(r result) float64 { return r.MsgS })
			x.MBs = x.MsgS * float64(size) / 1e6
			out = append(out, x)
		}
	}
	return out
}

func print(where string, run []peer, sizes []int, res []result) {
	title := map[string]string{"two": "two processes over loopback", "one": "inside one process"}[where]
	fmt.Printf("%s; ratios against tcp: above 1.00 is more messages, for RTT below 1.00 is faster\n", title)
	fmt.Printf("%7s  %-15s %10s %10s %12s %10s %8s %8s\n", "size", "peer", "p50 us", "p99 us", "messages/s", "MB/s", "rate/tcp", "p50/tcp")
	for i, r := range res {
		base := slices.IndexFunc(res, func(x result) bool { return x.Peer == "tcp" && x.Size == r.Size })
		rate, lat := "-", "-"
		if base >= 0 {
			rate = fmt.Sprintf("%.2f", r.MsgS/res[base].MsgS)
			lat = fmt.Sprintf("%.2f", r.P50us/res[base].P50us)
		}
		if i > 0 && i%len(run) == 0 {
			fmt.Println()
		}
		fmt.Printf("%7d  %-15s %10.1f %10.1f %12.0f %10.0f %8s %8s\n", r.Size, r.Peer, r.P50us, r.P99us, r.MsgS, r.MBs, rate, lat)
	}
	fmt.Println()
}

// spawn runs this program as the answering process of a peer and waits until it says where it listens.
func spawn(name string) (addr string, stop func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(exe, "-serve", name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // closes with this process: the child ends
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { in.Close(); cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", stop, fmt.Errorf("answering process: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

func child(name string) {
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name })
	if i < 0 {
		fatal("-serve: no peer %q", name)
	}
	addr, stop, err := peers[i].serve()
	if err != nil {
		fatal("%s: %v", name, err)
	}
	fmt.Println(addr)
	os.Stdin.Read(make([]byte, 1))
	stop()
}

func clamp(v, lo, hi int) int { return max(lo, min(hi, v)) }

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func fatal(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", a...)
	os.Exit(1)
}
