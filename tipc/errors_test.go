package tipc

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestOpError(t *testing.T) {
	addr := ServiceAddr{Type: 4711, Instance: 7}
	e := &OpError{Op: "dial", Addr: addr, Code: CodeNoName, Err: syscall.ECONNREFUSED}
	if !errors.Is(e, syscall.ECONNREFUSED) || !errors.Is(e, CodeNoName) || errors.Is(e, CodeNoPort) {
		t.Error("matching of cause and code")
	}
	if s := e.Error(); !strings.HasPrefix(s, "tipc: dial 4711:7: ") || !strings.HasSuffix(s, "(no such service)") {
		t.Error(s)
	}
	for err, want := range map[error]bool{
		os.ErrDeadlineExceeded: true, context.DeadlineExceeded: true, syscall.ETIMEDOUT: true,
		net.ErrClosed: false, context.Canceled: false, syscall.EPIPE: false,
	} {
		var ne net.Error = &OpError{Op: "read", Err: err}
		if ne.Timeout() != want {
			t.Errorf("%v: Timeout %v", err, !want)
		}
		if !errors.Is(ne, err) {
			t.Errorf("%v: not matched", err)
		}
	}
	if errors.Is(&OpError{Op: "x", Err: syscall.EPIPE}, Code(0)) {
		t.Error("no code matches code 0")
	}
	if !errors.Is(&OpError{Op: "dial", Err: ErrNodeClosed}, net.ErrClosed) {
		t.Error("a closed node is closed")
	}
}
