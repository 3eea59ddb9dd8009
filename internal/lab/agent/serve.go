//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"midplane/internal/lab/proto"
)

// line is the serial line to the host. Write is safe for concurrent use.
type line struct {
	mu sync.Mutex
	f  *os.File
}

func (l *line) send(stream uint32, kind proto.Kind, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A host that went away takes the guest with it, so an error here has nobody to be told to.
	_ = proto.Write(l.f, proto.Frame{Stream: stream, Kind: kind, Data: data})
}

// crediting reads the line and tells the host what was taken off it.
type crediting struct{ l *line }

func (c crediting) Read(b []byte) (int, error) {
	n, err := c.l.f.Read(b)
	if n > 0 {
		c.l.send(0, proto.Credit, binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
	return n, err
}

// serve talks to the host until the line closes or the host asks for power off.
func serve() error {
	f, err := openLine()
	if err != nil {
		return err
	}
	l := &line{f: f}
	report := ""
	if len(os.Args) > 1 {
		report = os.Args[1]
	}
	l.send(0, proto.Hello, []byte(report)[:min(len(report), proto.MaxData)])
	programs := map[uint32]*program{}
	r := bufio.NewReaderSize(crediting{l}, proto.Window)
	for {
		f, err := proto.Read(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", l.f.Name(), err)
		}
		p := programs[f.Stream]
		switch f.Kind {
		case proto.Start:
			programs[f.Stream] = start(l, f)
		case proto.Stdin:
			if p != nil {
				p.stdin <- f.Data
			}
		case proto.EOF:
			if p != nil {
				close(p.stdin)
			}
		case proto.Signal:
			if p != nil && len(f.Data) == 1 {
				p.signal(syscall.Signal(f.Data[0]))
			}
		case proto.Poweroff:
			powerOff()
		}
	}
}

// openLine opens the line to the host.
func openLine() (*os.File, error) {
	name := "/dev/ttyS0"
	ports, _ := filepath.Glob("/dev/vport*")
	if len(ports) > 0 {
		name = ports[0]
	}
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if len(ports) == 0 {
		if err := raw(fd); err != nil {
			return nil, fmt.Errorf("%s raw: %w", name, err)
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// raw switches off everything that a terminal does to octets.
func raw(fd int) error {
	var t syscall.Termios
	if err := ioctl(fd, syscall.TCGETS, unsafe.Pointer(&t)); err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(syscall.CSIZE|syscall.PARENB) | syscall.CS8 | syscall.CREAD | syscall.CLOCAL
	t.Cc[syscall.VMIN], t.Cc[syscall.VTIME] = 1, 0
	return ioctl(fd, syscall.TCSETS, unsafe.Pointer(&t))
}

// program is one command that the host asked for.
type program struct {
	stdin chan []byte // the host has at most one unanswered Stdin frame a stream, so two slots never block the reader

	mu  sync.Mutex
	cmd *exec.Cmd // guarded by mu; nil once ended
}

// signal signals the program and whatever it started in its process group.
func (p *program) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

func start(l *line, f proto.Frame) *program {
	p := &program{stdin: make(chan []byte, 2)}
	fail := func(err error) *program {
		go p.feed(l, f.Stream, nopCloser{io.Discard})
		exited(l, f.Stream, proto.Status{Code: 127, Err: err.Error()})
		return p
	}
	var c proto.Command
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return fail(err)
	}
	if len(c.Argv) == 0 {
		return fail(errors.New("no program named"))
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Dir = c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a background child that holds standard output does not keep its shell from ending
	in, err := cmd.StdinPipe()
	if err != nil {
		return fail(err)
	}
	cmd.Stdout = &stream{l, f.Stream, proto.Stdout}
	cmd.Stderr = &stream{l, f.Stream, proto.Stderr}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	p.cmd = cmd
	go p.feed(l, f.Stream, in)
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		exited(l, f.Stream, status(cmd.ProcessState, err))
	}()
	return p
}

// feed moves standard input; it goes on swallowing after the program has closed its end.
func (p *program) feed(l *line, id uint32, w io.WriteCloser) {
	for b := range p.stdin {
		_, _ = w.Write(b)
		l.send(id, proto.Taken, nil)
	}
	_ = w.Close()
}

func status(s *os.ProcessState, err error) proto.Status {
	var exit *exec.ExitError
	switch {
	case s == nil:
		return proto.Status{Code: 127, Err: err.Error()}
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return proto.Status{Code: s.ExitCode(), Err: err.Error()}
	}
	if ws := s.Sys().(syscall.WaitStatus); ws.Signaled() {
		return proto.Status{Code: 128 + int(ws.Signal())}
	}
	return proto.Status{Code: s.ExitCode()}
}

func exited(l *line, id uint32, s proto.Status) {
	b, _ := json.Marshal(s)
	l.send(id, proto.Exit, b)
}

// stream sends what a program writes to the host, in frames.
type stream struct {
	l    *line
	id   uint32
	kind proto.Kind
}

func (s *stream) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), proto.MaxData)
		s.l.send(s.id, s.kind, b[:k])
		b = b[k:]
	}
	return n, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
