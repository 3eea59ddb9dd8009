package setfib

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"midplane/fib"
	"midplane/internal/fib/binding"
	"midplane/internal/fib/kernel"
	"midplane/internal/lab"
)

// toolMain are the small programs that tests run in FIBs beside unmodified ones.
//
//	fib-get NETWORK ADDRESS [LOCAL]   connects, prints what it reads until the end
//	fib-miss NETWORK ADDRESS          the same where no connection is expected, so that it does not wait for long
//	fib-serve NETWORK ADDRESS TEXT    listens, prints "listening ADDRESS", answers each connection with TEXT
//	fib-identify DIR PID              prints the FIB of a process and how it is known
//	fib-pids DIR FIB                  prints how many processes are in a FIB
//	fib-refresh DIR                   prints what Refresh removed
//	fib-ask ADDRESS LOCAL             sends a datagram until one comes back, and prints it
//	fib-dns ADDRESS ANSWER            answers every query for an IPv4 address with ANSWER, prints "listening"
//
//	fib-dial DIR FIB NETWORK ADDRESS [LOCAL]     fib-get by fib.Dialer
//	fib-listen DIR FIB NETWORK ADDRESS TEXT      fib-serve by fib.ListenConfig; prints the listener's type
//	fib-packet DIR FIB NETWORK ADDRESS TEXT      answers each datagram with TEXT, by fib.ListenConfig; prints the type
//
//	fib-sockets                       prints "ready", opens sockets until standard input ends, and says what was wrong with them
//	fib-apply DIR FIBS                sets FIBs up, in JSON
//	fib-child CMD…                    runs a command as a child, so that it is a grandchild
func toolMain(verb string, args []string) error {
	switch verb {
	case "fib-get":
		return get(args, lab.Patience)
	case "fib-miss":
		return get(args, 300*time.Millisecond)
	case "fib-serve":
		return serveText(args)
	case "fib-identify":
		pid, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		m, err := Identify(args[0], pid)
		if err == nil {
			fmt.Println(m.FIB, m.Name, m.How)
		}
		return err
	case "fib-pids":
		b, err := binding.Find(args[0], args[1])
		if err != nil {
			return err
		}
		pids, err := Pids(args[0], b)
		fmt.Println(len(pids))
		return err
	case "fib-refresh":
		r, err := Refresh(args[0])
		fmt.Println(len(r.Removed))
		return err
	case "fib-ask":
		return ask(args)
	case "fib-dns":
		return serveNames(args)
	case "fib-dial":
		d := fib.Dialer{Dir: args[0], FIB: args[1]}
		d.Timeout = lab.Patience
		return getBy(&d.Dialer, d.Dial, args[2:])
	case "fib-listen":
		lc := fib.ListenConfig{Dir: args[0], FIB: args[1]}
		l, err := lc.Listen(context.Background(), args[2], args[3])
		if err != nil {
			return err
		}
		fmt.Printf("listening %v %T\n", l.Addr(), l)
		return answerAll(l, args[4])
	case "fib-packet":
		lc := fib.ListenConfig{Dir: args[0], FIB: args[1]}
		c, err := lc.ListenPacket(context.Background(), args[2], args[3])
		if err != nil {
			return err
		}
		fmt.Printf("listening %v %T\n", c.LocalAddr(), c)
		for b := make([]byte, 100); ; {
			if _, from, err := c.ReadFrom(b); err != nil {
				return err
			} else if _, err := c.WriteTo([]byte(args[4]), from); err != nil {
				return err
			}
		}
	case "fib-sockets":
		return openSockets()
	case "fib-apply":
		var l []kernel.FIB
		if err := json.Unmarshal([]byte(args[1]), &l); err != nil {
			return err
		}
		k, err := kernel.Open(kernel.Config{Dir: args[0]})
		if err != nil {
			return err
		}
		defer k.Close()
		_, err = k.Apply(context.Background(), l)
		return err
	case "fib-child":
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	return fmt.Errorf("no tool %s", verb)
}

func get(args []string, patience time.Duration) error {
	d := net.Dialer{Timeout: patience}
	return getBy(&d, d.Dial, args)
}

func getBy(d *net.Dialer, dial func(network, address string) (net.Conn, error), args []string) error {
	if len(args) > 2 {
		a, err := net.ResolveTCPAddr(args[0], args[2])
		if err != nil {
			return err
		}
		d.LocalAddr = a
	}
	c, err := dial(args[0], args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Printf("%s\n", b)
	return err
}

func serveText(args []string) error {
	l, err := net.Listen(args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println("listening", l.Addr())
	return answerAll(l, strings.Join(args[2:], " "))
}

func answerAll(l net.Listener, text string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = io.WriteString(c, text)
		_ = c.Close()
	}
}

func ask(args []string) error {
	local, err := net.ResolveUDPAddr("udp", args[1])
	if err != nil {
		return err
	}
	to, err := net.ResolveUDPAddr("udp", args[0])
	if err != nil {
		return err
	}
	c, err := net.DialUDP("udp", local, to)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 100)
	for range 100 {
		if _, err := c.Write([]byte("?")); err != nil {
			continue // an ICMP error of the one before
		}
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := c.Read(b); err == nil {
			fmt.Printf("%s\n", b[:n])
			return nil
		}
	}
	return errors.New("no answer")
}

func serveNames(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening", c.LocalAddr())
	for b := make([]byte, 1500); ; {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[:n]); err != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.Authoritative, m.Additionals = true, true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(args[1]).As4()},
			}}
		}
		reply, err := m.Pack()
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(reply, from); err != nil {
			return err
		}
	}
}

// openSockets opens sockets on several threads at once, and checks that each is one and that none is left in the end.
func openSockets() error {
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var stop atomic.Bool
	var opened atomic.Int64
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			for !stop.Load() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					errs <- fmt.Errorf("socket: %w", err)
					return
				}
				if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
					errs <- fmt.Errorf("socket returned file %d: %w", fd, err)
					return
				}
				if device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || device == "" {
					errs <- fmt.Errorf("socket %d is bound to %q: %w", fd, device, err)
					return
				}
				_ = unix.Close(fd)
				opened.Add(1)
			}
			errs <- nil
		}()
	}
	_, _ = io.ReadAll(os.Stdin)
	stop.Store(true)
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	after, rerr := os.ReadDir("/proc/self/fd")
	if len(after) > len(before)+2 { // the runtime may have opened its own
		err = errors.Join(err, fmt.Errorf("%d files before, %d after", len(before), len(after)))
	}
	fmt.Println("opened", opened.Load())
	return errors.Join(err, rerr)
}
