package cli

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"midplane/internal/dev"
)

// The commands that dev prints work as they are printed, in a shell in another directory.
func TestDevHints(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the hints are for a Unix shell")
	}
	dir, err := os.MkdirTemp("", "mp") // short: a Unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "midplane"), "midplane/cmd/midplane").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("./midplane", "dev", "--up", "1h")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var hints []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "appears on node1") {
			break
		}
		if strings.HasPrefix(lines.Text(), "  ") && len(hints) > 0 || strings.HasPrefix(lines.Text(), "  export ") {
			hints = append(hints, strings.TrimSpace(lines.Text()))
		}
	}
	answers := []string{"", "node1 ", "Type ", "node1: answer ", "published 4711:1:1 "}
	hints = hints[:min(len(hints), len(answers))] // then come events, which are indented too
	if len(hints) != len(answers) {
		t.Fatalf("hints: %q", hints)
	}
	for i, want := range answers {
		if i == 0 {
			continue
		}
		// pipe waits for an answer for a second: on a busy machine it is asked again.
		for end := time.Now().Add(2 * time.Minute); ; {
			if tryHint(t, hints[0], hints[i], want) {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s does not answer %q", hints[i], want)
				break
			}
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("dev ended with %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "midplane-dev-*")); len(left) > 0 {
		t.Errorf("%q stays", left)
	}
}

// tryHint runs a line of the hints after the first of them, and says whether a line of what it prints begins as wanted.
func tryHint(t *testing.T, export, hint, want string) (found bool) {
	t.Helper()
	sh := exec.Command("sh", "-c", export+"\n"+hint)
	sh.Dir = t.TempDir()
	sh.Stderr = os.Stderr
	answer, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(2*time.Minute, func() { sh.Process.Kill() })
	defer deadline.Stop()
	for lines := bufio.NewScanner(answer); !found && lines.Scan(); {
		found = strings.HasPrefix(lines.Text(), want)
	}
	if strings.Contains(hint, "subscribe") {
		sh.Process.Kill()
		_ = sh.Wait() // killed
		return found
	}
	if err := sh.Wait(); err != nil {
		t.Errorf("%s: %v", hint, err)
	}
	return found
}

// output is what a command writes, for others to read meanwhile.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// The demonstration, as lines: the service moves when its node is killed, and moves home. It goes on until all was seen,
// for on a busy machine the others may notice late.
func TestDevStory(t *testing.T) {
	dir, err := os.MkdirTemp("", "mp") // short: Unix sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs output
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, []string{"midplane", "dev", "--up", "6s", "--down", "8s", "--dir", filepath.Join(dir, "dev")}, nil, &out, &errs)
	}()
	rest := func(from int) string { return out.String()[from:] }
	at := 0
	for _, want := range []string{`node3  .*/dev/node3`, `export MIDPLANE_CONTROL=.*/dev/node3\n`, `\n  .* tipc node list\n`, `service 4711:1 appears on node1`, `KILL node1`, `node1 is lost`,
		`service 4711:1 appears on node[23]`, `START node1`, `service 4711:1 appears on node1`, `service 4711:1 disappears from node[23]`} {
		re := regexp.MustCompile(want)
		for end := time.Now().Add(4 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if loc := re.FindStringIndex(rest(at)); loc != nil {
				at += loc[1] - 1 // a line's end may be the next one's beginning
				break
			}
			if time.Now().After(end) {
				t.Fatalf("no %q in %q after\n%s\n%s", want, rest(at), out.String()[:at], errs.String())
			}
		}
	}
	stop()
	if c := <-code; c != 0 || errs.String() != "" {
		t.Errorf("exit code %d, %s", c, errs.String())
	}
	if s := out.String(); !regexp.MustCompile(`[1-9]\d* requests answered`).MatchString(s) || strings.Contains(s, "\x1b") {
		t.Errorf("the end:\n%s", s)
	}
}

// The screen fits a terminal of 80 columns and 24 lines, and says what is so.
func TestDevScreen(t *testing.T) {
	cl, err := dev.NewCluster("", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	now := time.Now()
	v := &devView{cluster: cl, program: "/home/somebody/src/midplane/bin/midplane", live: true, w: &strings.Builder{}}
	st := dev.Status{Up: [3]bool{true, true, true}, Server: "node1", Answers: 123456, Failures: 1234, Latency: 1234567 * time.Microsecond, Next: now.Add(4 * time.Second)}
	for range 20 {
		v.report(dev.Entry{At: 12345 * time.Second, Text: "service 4711:1 disappears from node1"}, st)
	}
	escape := regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")
	for _, want := range []struct {
		alive, up bool
		says      []string
	}{
		{true, true, []string{"node1  up    service 4711:1\n", "node1 is killed in 4s", "123456 requests answered, 1234 failed"}},
		{false, true, []string{"node1  up    service 4711:1  (killed; the others have not noticed yet)\n", "node1 comes back in 4s"}},
		{false, false, []string{"node1  down"}},
	} {
		st.Alive, st.Up[0] = want.alive, want.up
		text := escape.ReplaceAllString(v.screen(st, now), "")
		rows := 0
		for line := range strings.Lines(text) {
			rows += 1 + len([]rune(strings.TrimSuffix(line, "\n")))/81
		}
		if rows > 24 {
			t.Errorf("%d lines:\n%s", rows, text)
		}
		for _, s := range want.says {
			if !strings.Contains(text, s) {
				t.Errorf("the screen does not say %q:\n%s", s, text)
			}
		}
	}
	v.end()
	if s := v.w.(*strings.Builder).String(); !strings.HasSuffix(s, "\n123456 requests answered, 1234 failed\n") || strings.Count(s, "\x1b[?1049l") != 1 {
		t.Errorf("the end: %q", s)
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c.d": "/a/b-c.d", "/a b": "'/a b'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := shellWord(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
