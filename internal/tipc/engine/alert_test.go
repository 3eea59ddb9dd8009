package engine

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/bearer"
	"midplane/internal/tipc/stack"
	"midplane/internal/tipc/wire"
)

// lines is a log that a test can read.
type lines struct {
	mu sync.Mutex
	l  []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.l = append(l.l, string(p))
	return len(p), nil
}

func (l *lines) with(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.l), func(s string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(s, w) })
	})
}

// Nodes that have the same fixed address are told so once an hour, however often they hear each other.
func TestDuplicateAddressIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub bearer.Hub
		var log lines
		logger := slog.New(slog.NewTextHandler(&log, nil))
		const addr, other = 1<<24 | 1<<12 | 7, 1<<24 | 1<<12 | 8
		for i, a := range []uint32{addr, addr, other} {
			cfg := Config{Addr: a}
			if i == 0 {
				cfg.Logger = logger
			}
			e, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err := e.EnableBearer(hub.Open("eth:m"), linkDefaults); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				defer func() {
					e.Do(func(_ mono.Time, s *stack.Stack) {
						if n := s.Discovery().Stats().Duplicates; n < 10 {
							t.Errorf("%d duplicates counted: they did not hear each other", n)
						}
					})
				}()
			}
		}
		time.Sleep(50 * time.Minute)
		if got := log.with("WARN"); len(got) != 1 || len(log.with("WARN", "this node", "address=1001007", "bearer=eth:m")) != 1 {
			t.Fatalf("told %q; want the own address, once", got)
		}
		time.Sleep(30 * time.Minute)
		if got := log.with("WARN"); len(got) != 2 {
			t.Fatalf("told %q in 80 minutes", got)
		}
	})
}

// Whoever feigns duplicates fills neither the log nor the memory.
func TestAlertsAreBounded(t *testing.T) {
	var a alerts
	told := 0
	for i := range 10 * maxAlerts {
		d := stack.Duplicate{Addr: 7, Media: wire.MediaAddr{Media: wire.MediaUDP, IP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 6118)}}
		if a.due(mono.Time(i), d) {
			told++
		}
	}
	if told != maxAlerts || len(a) != maxAlerts {
		t.Errorf("%d told, %d remembered; want %d", told, len(a), maxAlerts)
	}
	later := mono.Time(0).Add(alertAgain + time.Second)
	if d := (stack.Duplicate{Addr: 8}); !a.due(later, d) || a.due(later, d) {
		t.Error("room is not made for new ones after an hour, or one is told twice")
	}
}
