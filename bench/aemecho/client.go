//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// measure starts a server, connects, and counts echoes.
func measure(name string, conns int, length time.Duration) (r result, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pin(0) // the child inherits it
	s, err := startServer(name)
	pin(runtime.NumCPU() - 1)
	if err != nil {
		return r, err
	}
	defer s.stop()
	c, err := connect(s.addr, conns)
	if err != nil {
		return r, err
	}
	defer c.close()
	if err := c.run(length / 8); err != nil { // every connection has spoken, and memory is what it will be
		return r, err
	}
	time.Sleep(100 * time.Millisecond) // silence
	if r.idle, err = s.resident(); err != nil {
		return r, err
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	c.echoes = 0
	began := time.Now()
	if err := c.run(length); err != nil {
		return r, err
	}
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	r.rate = float64(c.echoes) / took.Seconds()
	r.cpu = float64((after - before).Nanoseconds()) / 1000 / float64(c.echoes)
	return r, nil
}

func pin(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

type server struct {
	cmd  *exec.Cmd
	in   io.Closer // the server ends when this does, also if this program is killed
	addr *net.TCPAddr
}

func startServer(name string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", name)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in}
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		if addr, ok := strings.CutPrefix(scan.Text(), "listening "); ok {
			s.addr, err = net.ResolveTCPAddr("tcp", addr)
			return s, err
		}
	}
	s.stop()
	return nil, errors.New("the server did not start")
}

func (s *server) stop() {
	s.in.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// cpu is the processor time of all threads of the server so far, to the nanosecond (the scheduler's account).
func (s *server) cpu() (total time.Duration, err error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", s.cmd.Process.Pid, t.Name()))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

func (s *server) resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// client is an epoll loop with one message in flight on each connection.
type client struct {
	ep     int
	fds    []int
	msg    []byte
	buf    []byte
	got    []int // octets of the echo under way, by descriptor
	echoes int
}

func connect(to *net.TCPAddr, n int) (*client, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	c := &client{ep: ep, msg: make([]byte, messageSize), buf: make([]byte, messageSize)}
	sa := &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			c.fds = append(c.fds, fd)
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			// A reset at the end, so that no ports wait.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			err = unix.Connect(fd, sa)
		}
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		if err == nil {
			err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("connection %d: %w", len(c.fds), err)
		}
		for len(c.got) <= fd {
			c.got = append(c.got, 0)
		}
	}
	return c, nil
}

// run keeps a message in flight on every connection for that long, and then waits for the last echoes.
func (c *client) run(length time.Duration) error {
	flying := 0
	for _, fd := range c.fds {
		if _, err := unix.Write(fd, c.msg); err != nil {
			return err
		}
		flying++
	}
	events := make([]unix.EpollEvent, 512)
	end := time.Now().Add(length)
	for stop := false; flying > 0; {
		n, err := unix.EpollWait(c.ep, events, 30_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%d echoes are missing after 30 s", flying)
		}
		stop = stop || time.Now().After(end)
		for _, e := range events[:n] {
			fd := int(e.Fd)
			k, err := unix.Read(fd, c.buf)
			if err != nil || k == 0 {
				return fmt.Errorf("the server closed: %v", err)
			}
			if c.got[fd] += k; c.got[fd] < messageSize {
				continue
			}
			c.got[fd] = 0
			c.echoes++
			if stop {
				flying--
				continue
			}
			if _, err := unix.Write(fd, c.msg); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *client) close() {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	unix.Close(c.ep)
}
