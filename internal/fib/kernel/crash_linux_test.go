package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/fib/kernel/plan"
	"midplane/internal/lab"
)

// victim tells a test binary that it is to be killed, and where it works.
const victim = "MIDPLANE_FIB_VICTIM"

// ports of the site of crash tests.
const crashPorts = 4

// randomFIBs are FIBs of back ends, of the site's ports.
func randomFIBs(r *rand.Rand, l []Backend) []FIB {
	var fibs []FIB
	ports := r.Perm(crashPorts)
	for i, id := range []uint32{10, 20, 70000} {
		f := FIB{ID: id, Name: fmt.Sprintf("c%d", id), Backend: l[r.IntN(len(l))], Forward: r.IntN(2) == 0}
		for _, p := range ports[i : i+1+r.IntN(2)*(1-min(i, 1))] {
			var a []string
			if r.IntN(3) > 0 {
				a = append(a, "198.51.100.1/24", "2001:db8::1/64")
			}
			if r.IntN(2) > 0 {
				a = append(a, "192.0.2.1/25", "2001:db8:1::1/64")
			}
			f.Ports = append(f.Ports, Port{Device: port(p), Addresses: prefixes(a...), NoDAD: true})
		}
		if r.IntN(4) > 0 && plan.Validate(append(fibs, f)) == nil {
			fibs = append(fibs, f)
		}
	}
	return fibs
}

// TestIntegrationVictim applies FIBs until it is killed.
func TestIntegrationVictim(t *testing.T) {
	where := os.Getenv(victim)
	if where == "" {
		return // testCrash starts it
	}
	var c struct {
		Config   Config
		Backends []Backend
		Seed     uint64
	}
	if err := json.Unmarshal([]byte(where), &c); err != nil {
		t.Fatal(err)
	}
	k, err := Open(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(c.Seed, 1))
	fmt.Println("victim: ready")
	for {
		if _, err := k.Apply(context.Background(), randomFIBs(r, c.Backends)); err != nil {
			fmt.Println("victim:", err)
			return
		}
		fmt.Println("victim: applied")
	}
}

// kill starts a victim and kills it at some moment.
func (s *site) kill(t *testing.T, r *rand.Rand, l []Backend, span time.Duration) {
	t.Helper()
	c, err := json.Marshal(map[string]any{"Config": s.config(), "Backends": l, "Seed": r.Uint64()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestIntegrationVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victim+"="+string(c))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := &strings.Builder{}
	ready := make(chan struct{})
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := pipe.Read(b)
			out.Write(b[:n])
			if ready != nil && strings.Contains(out.String(), "victim: ready") {
				close(ready)
				ready = nil
			}
			if err != nil {
				return
			}
		}
	}()
	wait := ready
	select {
	case <-wait:
	case <-done:
	case <-time.After(lab.Patience):
	}
	time.Sleep(time.Duration(r.Int64N(int64(span)))) // the moment; nothing waits for it
	_ = cmd.Process.Kill()
	<-done
	_ = cmd.Wait()
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "victim:") && !strings.Contains(line, "ready") && !strings.Contains(line, "applied") {
			t.Errorf("the victim failed: %s", line)
		}
	}
}

// testCrash kills a process that changes FIBs at random moments. Each time the next one recovers what was asked for last;
// at the end nothing is left.
func testCrash(t *testing.T, moments int, l []Backend) {
	s := newSite(t, crashPorts)
	s.box.IP("link", "set", "p0", "group", "5", "up")
	s.box.IP("addr", "add", "203.0.113.9/24", "dev", "p0")
	s.box.IP("addr", "add", "2001:db8:9::9/64", "dev", "p0", "nodad")
	s.box.IP("route", "add", "192.0.2.0/24", "via", "203.0.113.1", "dev", "p0")
	before := settled(t, s.box.Name())
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	began := time.Now()
	s.apply(t, randomFIBs(r, l)...)
	s.remove(t, before)
	span := 2 * time.Since(began) // some changes, on a machine as it is
	recovered, asked := 0, 0
	for i := 0; i < moments || recovered == 0 && i < 10*moments; i++ {
		if err := s.k.Close(); err != nil {
			t.Fatal(err)
		}
		s.kill(t, r, l, span)
		s.open(t)
		fibs := s.k.FIBs()
		rep, err := s.k.Recover(t.Context())
		if err != nil {
			t.Fatalf("moment %d: %v", i, err)
		}
		if len(rep.Operations) > 0 {
			recovered++
		}
		if len(rep.Orphans) > 0 || len(rep.Missing) > 0 {
			t.Errorf("moment %d: orphans %v, missing %v", i, rep.Orphans, rep.Missing)
		}
		again := s.apply(t, fibs...)
		if l := undone(again); len(l) > 0 {
			t.Errorf("moment %d: after Recover there was left to do: %s", i, strings.Join(l, "\n"))
		}
		asked += len(fibs)
		if i%6 == 5 {
			now := s.all(t, fibs)
			s.remove(t, before)
			s.apply(t, fibs...)
			if d := cmp.Diff(s.all(t, fibs), now); d != "" {
				t.Errorf("moment %d: recovered is not as applied: %s", i, d)
			}
		}
	}
	t.Logf("%d of %d moments left something to do, for %d FIBs", recovered, moments, asked)
	if recovered == 0 || asked == 0 {
		t.Error("no crash fell into a change: this proves nothing")
	}
	s.remove(t, before)
}

func (s *site) remove(t *testing.T, before map[string]any) {
	t.Helper()
	if r, err := s.k.Remove(t.Context()); err != nil {
		t.Fatalf("%v\nafter %s", err, strings.Join(r.Operations, "\n"))
	}
	asBefore(t, before, settled(t, s.box.Name()))
}

// all is what there is, in all namespaces.
func (s *site) all(t *testing.T, fibs []FIB) map[string]any {
	t.Helper()
	m := map[string]any{"": settled(t, s.box.Name())}
	for _, f := range fibs {
		if f.Backend == Netns {
			m[f.Title()] = settled(t, s.inside(f))
		}
	}
	return m
}

// inside is what ip(8) takes for a FIB's namespace: a path from where it looks.
func (s *site) inside(f FIB) string { return "../.." + s.k.spacePath(f.Title()) }

func TestIntegrationCrash(t *testing.T) { testCrash(t, 24, []Backend{Rules, Netns}) }

func TestGuestCrash(t *testing.T) {
	requireGuest(t)
	testCrash(t, 6, backends)
}

// A crash between the file of a namespace and the namespace leaves the file: it is removed, or finished if the FIB is wanted.
func TestIntegrationHalfASpace(t *testing.T) {
	s := newSite(t, 0)
	wanted, gone := FIB{ID: 10, Name: "red", Backend: Netns}, FIB{ID: 20, Name: "blue", Backend: Netns}
	s.apply(t, wanted, gone)
	if err := s.k.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []FIB{wanted, gone} {
		if err := syscall.Unmount(s.k.spacePath(f.Title()), syscall.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	s.open(t)
	s.apply(t, wanted)
	if out, err := run("nsenter", "--net="+s.k.spacePath(wanted.Title()), "ip", "link", "show", "up", "lo"); err != nil || !strings.Contains(out, "lo") {
		t.Errorf("the FIB that is wanted: %v, %s", err, out)
	}
	if _, err := os.Lstat(s.k.spacePath(gone.Title())); !os.IsNotExist(err) {
		t.Errorf("the file of the other is there: %v", err)
	}
}
