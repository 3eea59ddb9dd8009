package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"midplane/internal/digsig/pkcs11/proto"
)

// maxComplaint bounds what is kept of the helper's standard error.
const maxComplaint = 4 << 10

// grace is how long a helper may take to end by itself, so that the library can close its session.
const grace = 2 * time.Second

// helper is a running midplane-pkcs11. Its owner calls ask and close one at a time; kill may come from anywhere.
type helper struct {
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       io.ReadCloser
	complaint *tail
	timeout   time.Duration
	ended     chan struct{}
	failed    error // what ended it, for later askers
}

func startHelper(c Config) (*helper, error) {
	path, err := findHelper(c)
	if err != nil {
		return nil, err
	}
	h := &helper{cmd: exec.Command(path), complaint: &tail{}, timeout: c.Timeout, ended: make(chan struct{})}
	// Libraries find their configuration by the environment. Secrets of ours that may be in it are not for them.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.Contains(name, "PASSPHRASE") && name != "CREDENTIALS_DIRECTORY" {
			h.cmd.Env = append(h.cmd.Env, v)
		}
	}
	h.cmd.Stderr = h.complaint
	// A library may leave a child behind that holds the standard error open.
	h.cmd.WaitDelay = grace
	// Pipes of our own, since Wait closes those that exec makes while they are read.
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close())
	}
	h.in, h.out, h.cmd.Stdin, h.cmd.Stdout = in, out, theirIn, theirOut
	err = h.cmd.Start()
	if closing := errors.Join(theirIn.Close(), theirOut.Close()); err == nil {
		err = closing
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrHelper, err), h.in.Close(), h.out.Close())
	}
	go func() {
		defer close(h.ended)
		_ = h.cmd.Wait() // its state is in cmd.ProcessState
	}()
	return h, nil
}

// kill ends the helper now; who waits for its answer gets an error.
func (h *helper) kill() { _ = h.cmd.Process.Kill() }

// ask sends a request and returns the answer to it. After an error that is none of the helper's own telling the helper
// is dead, and so is every later request.
func (h *helper) ask(q *proto.Request) (*proto.Response, error) {
	if h.failed != nil {
		return nil, h.failed
	}
	late := time.AfterFunc(h.timeout, h.kill)
	var a proto.Response
	err := proto.Write(h.in, q)
	if err == nil {
		err = proto.Read(h.out, &a)
	}
	if err != nil {
		inTime := late.Stop()
		h.kill()
		<-h.ended
		h.failed = h.why(err, !inTime)
		return nil, h.failed
	}
	late.Stop()
	return &a, told(&a)
}

// why says what happened to the helper, as far as one can see from here.
func (h *helper) why(err error, late bool) error {
	said := strings.TrimSpace(h.complaint.String())
	if said != "" {
		said = ": " + said
	}
	if late {
		return fmt.Errorf("%w: no answer within %v%s", ErrHelper, h.timeout, said)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, os.ErrClosed) && !isPipe(err) {
		return fmt.Errorf("%w: %w%s", ErrHelper, err, said)
	}
	return fmt.Errorf("%w: it ended (%v)%s", ErrHelper, h.cmd.ProcessState, said)
}

// told makes an error of one that the helper reports.
func told(a *proto.Response) error {
	if a.Code == "" {
		return nil
	}
	base := map[proto.Code]error{
		proto.CodeModule: ErrModule, proto.CodeToken: ErrToken, proto.CodeKey: ErrKey, proto.CodeNoPIN: ErrNoPIN, proto.CodePIN: ErrPIN, proto.CodeLocked: ErrLocked,
	}[a.Code]
	text := a.Error
	if len(text) > maxComplaint {
		text = text[:maxComplaint]
	}
	text = printable(text)
	if base == nil {
		return fmt.Errorf("PKCS #11: %s", text)
	}
	return fmt.Errorf("PKCS #11: %w: %s", base, text)
}

// close lets the helper end, and ends it if it does not.
func (h *helper) close() {
	_ = h.in.Close() // that is how it learns
	select {
	case <-h.ended:
	case <-time.After(grace):
		h.kill()
		<-h.ended
	}
	_ = h.out.Close()
}

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-maxComplaint):]...)
	if n := len(t.buf) - maxComplaint; n > 0 {
		t.buf = bytes.Clone(t.buf[n:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printable(string(t.buf))
}

// printable keeps a library's words from playing with the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
