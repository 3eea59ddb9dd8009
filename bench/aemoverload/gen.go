package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"midplane/internal/aem/hist"

	"golang.org/x/sys/unix"
)

// plan is what the generator does: an open loop, whose requests leave by a schedule whatever comes back.
type plan struct {
	Addr         string
	Light, Heavy float64 // requests a second
	Warm, Run    time.Duration
	Burst        int // heavy requests that come together; 1: each by itself
	Slow         int // connections that ask for much and read nothing
	Idle         int // connections that do nothing
	Seed         uint64
}

const (
	lightConns = 16
	heavyConns = 64
	// straggle is how long the generator waits for replies after the last request.
	straggle = time.Second
)

// result is what came of it. Latencies run from when a request was to leave by the schedule; one that was not answered counts
// with the time until the end.
type result struct {
	LightP50, LightP99, LightP999 time.Duration
	HeavyP50, HeavyP99            time.Duration // of those that were answered
	LightSent, LightAnswered      int
	HeavySent                     int
	HeavyAnswered                 int
	HeavyShed                     int
	HeavyInTime                   int           // answered within the deadline
	Late                          time.Duration // 99th percentile of how late the generator sent
	Seconds                       float64
}

// started is told when all connections are there and the schedule begins.
type started struct{}

// sent is one request.
type sent struct {
	due  time.Duration
	done atomic.Int64 // when the reply came, 0 for not yet
	ok   bool
	kind byte
}

func connect(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return -1, fmt.Errorf("connect: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, unix.SetNonblock(fd, true)
}

// schedule makes the arrivals: two Poisson processes, the heavy one in bursts when asked for.
func (p *plan) schedule() []*sent {
	r := rand.New(rand.NewPCG(p.Seed, 1))
	end := p.Warm + p.Run
	var all []*sent
	next := func(t time.Duration, rate float64) time.Duration {
		return t + time.Duration(r.ExpFloat64()/rate*float64(time.Second))
	}
	l, h := next(0, p.Light), next(0, p.Heavy/float64(p.Burst))
	for l < end || h < end {
		if l <= h {
			all = append(all, &sent{due: l, kind: light})
			l = next(l, p.Light)
			continue
		}
		for range p.Burst {
			all = append(all, &sent{due: h, kind: heavy})
		}
		h = next(h, p.Heavy/float64(p.Burst))
	}
	return all
}

// generate waits past the runtime, in all of its threads: else each wait makes sysmon look every 20 us, which takes the time of a server's
// threads, and a thread that wakes is late for want of a P.
func generate(p plan) error {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(5) // two send, one receives
	ta, err := net.ResolveTCPAddr("tcp", p.Addr)
	if err != nil {
		return err
	}
	addr := ta.AddrPort()
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		lim.Cur = lim.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
	fds := map[byte][]int{}
	for kind, n := range map[byte]int{light: lightConns, heavy: heavyConns, 0: p.Slow + p.Idle} {
		for range n {
			fd, err := connect(addr)
			if err != nil {
				return err
			}
			fds[kind] = append(fds[kind], fd)
		}
	}
	all := p.schedule()
	if err := json.NewEncoder(os.Stdout).Encode(started{}); err != nil {
		return err
	}
	start := time.Now().Add(20 * time.Millisecond)
	go receive(append(append([]int(nil), fds[light]...), fds[heavy]...), all, start)

	senders := map[byte]*sender{light: {conns: fds[light], slow: fds[0][:p.Slow]}, heavy: {conns: fds[heavy], slow: fds[0][:p.Slow]}}
	var busy sync.WaitGroup
	for kind, s := range senders {
		busy.Go(func() { s.send(all, kind, start) })
	}
	busy.Wait()
	if rest := p.Warm + p.Run + straggle - time.Since(start); rest > 0 {
		time.Sleep(rest)
	}
	if n := senders[light].unsent + senders[heavy].unsent; n > 0 {
		fmt.Fprintf(os.Stderr, "aemoverload: %d requests did not fit into the sockets\n", n)
	}
	late := max(senders[light].late.Quantile(0.99), senders[heavy].late.Quantile(0.99))
	return json.NewEncoder(os.Stdout).Encode(p.result(all, late, time.Since(start)))
}

// sender sends the requests of one kind, so that a burst of the others does not make it late.
type sender struct {
	conns  []int
	slow   []int // connections that ask for much and read nothing
	late   hist.Hist
	unsent int
}

func (s *sender) send(all []*sent, kind byte, start time.Time) {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	b, ask := make(request, header), make(request, header)
	b[0], ask[0] = kind, light
	ask.size(len(zeros))
	ask.setSeq(len(all))
	turn, last := 0, time.Duration(-1)
	for i, r := range all {
		if r.kind != kind {
			continue
		}
		sleepUntil(start.Add(r.due))
		if r.due != last { // those of a burst are sent one after the other
			s.late.Add(time.Since(start) - r.due)
		}
		last = r.due
		b.setSeq(i)
		turn++
		if !write(s.conns[turn%len(s.conns)], b) {
			s.unsent++
		}
		if len(s.slow) > 0 && i%20 == 0 {
			write(s.slow[turn%len(s.slow)], ask)
		}
	}
}

// write reports whether the socket, which does not block, took all of b.
func write(fd int, b []byte) bool {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return errno == 0 && int(n) == len(b)
}

func (p *plan) result(all []*sent, late, end time.Duration) result {
	var lightLatency, heavyLatency hist.Hist
	r := result{Late: late, Seconds: p.Run.Seconds()}
	for _, s := range all {
		if s.due < p.Warm {
			continue
		}
		at := time.Duration(s.done.Load())
		d := at - s.due
		switch {
		case s.kind == light:
			r.LightSent++
			if at == 0 {
				d = end - s.due
			} else {
				r.LightAnswered++
			}
			lightLatency.Add(d)
		default:
			r.HeavySent++
			switch {
			case at == 0:
			case !s.ok:
				r.HeavyShed++
			default:
				r.HeavyAnswered++
				heavyLatency.Add(d)
				if d <= deadline {
					r.HeavyInTime++
				}
			}
		}
	}
	r.LightP50, r.LightP99, r.LightP999 = lightLatency.Quantile(0.5), lightLatency.Quantile(0.99), lightLatency.Quantile(0.999)
	r.HeavyP50, r.HeavyP99 = heavyLatency.Quantile(0.5), heavyLatency.Quantile(0.99)
	return r
}

// receive notes when replies come.
func receive(fds []int, all []*sent, start time.Time) {
	runtime.LockOSThread()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err)
	}
	bufs := make([][]byte, len(fds))
	for i, fd := range fds {
		bufs[i] = make([]byte, 0, 64<<10)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			panic(err)
		}
	}
	events := make([]unix.EpollEvent, 128)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno != 0 { // EINTR
			continue
		}
		now := int64(time.Since(start))
		for _, e := range events[:n] {
			i := int(e.Fd)
			b := bufs[i]
			m, err := unix.Read(fds[i], b[len(b):cap(b)])
			if m <= 0 {
				if err != unix.EAGAIN {
					unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fds[i], nil)
				}
				continue
			}
			b = b[:len(b)+m]
			rest := b
			for ; len(rest) >= header; rest = rest[header:] {
				if q := request(rest).seq(); q < uint64(len(all)) {
					all[q].ok = rest[1] == answered
					all[q].done.Store(now)
				}
			}
			bufs[i] = append(b[:0], rest...)
		}
	}
}
