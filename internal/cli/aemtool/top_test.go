package aemtool

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"midplane/aem"
	"midplane/aem/aemview"
)

// program is one that lets itself be seen.
func program(t *testing.T) (path string, s *aemview.Server) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ex, err := aem.New(nil)
	must(err)
	t.Cleanup(func() { ex.Close() })
	l, err := aem.NewLoop(ex, nil)
	must(err)
	t.Cleanup(func() { l.Close() })
	e, err := aem.Register(l, aem.Every(time.Millisecond), func(*aem.Ctx, aem.Tick) {}, aem.EventConfig{Name: "heartbeat"})
	must(err)
	must(e.Start())
	dir, err := os.MkdirTemp("", "aem")
	must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "view")
	s, err = aemview.Serve(path, ex, l)
	must(err)
	t.Cleanup(func() { s.Close() })
	return path, s
}

func TestTopText(t *testing.T) {
	path, _ := program(t)
	var out bytes.Buffer
	top := &Top{Path: path, Interval: aemview.MinInterval, Count: 2, Out: &out}
	if err := top.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oldest", "heartbeat", "ran/s", "conns", "waiting"} {
		if strings.Count(out.String(), want) != 2 {
			t.Errorf("%q is not there twice:\n%s", want, out.String())
		}
	}
	out.Reset()
	top.JSON, top.Count = true, 1
	if err := top.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var s aemview.Snapshot
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || len(s.Executor.Classes) != 3 || len(s.Events) != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
}

// The live view: what keys do, and that it ends with the program.
func TestTopModel(t *testing.T) {
	_, server := program(t)
	var m tea.Model = model{path: "there", screen: Screen{Events: true}}
	if v := m.View(); !strings.Contains(v.Content, "waiting for there") {
		t.Fatal(v.Content)
	}
	one, two := server.Snapshot(), server.Snapshot()
	two.Program = "another"
	m, _ = m.Update(snapshotMsg{one})
	if v := m.View(); !strings.Contains(v.Content, "heartbeat") || !v.AltScreen {
		t.Fatal(v.Content)
	}
	m, _ = m.Update(tea.KeyPressMsg{Code: 'e', Text: "e"})
	if v := m.View(); strings.Contains(v.Content, "heartbeat") {
		t.Fatal(v.Content)
	}
	m, _ = m.Update(tea.KeyPressMsg{Code: 'p', Text: "p"})
	m, _ = m.Update(snapshotMsg{two})
	if v := m.View(); strings.Contains(v.Content, "another") || !strings.Contains(v.Content, "frozen") {
		t.Fatal(v.Content)
	}
	m, _ = m.Update(tea.WindowSizeMsg{Width: 20, Height: 10})
	for line := range strings.Lines(m.View().Content) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 20 {
			t.Fatalf("%q is longer than the window", line)
		}
	}
	if _, cmd := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil {
		t.Fatal("q does nothing")
	}
	gone := errors.New("gone")
	m, cmd := m.Update(endMsg{gone})
	if cmd == nil || !errors.Is(m.(model).err, gone) {
		t.Fatal("the end is not told")
	}
}

// The whole of it, on what is not a terminal.
func TestTopLive(t *testing.T) {
	path, _ := program(t)
	var out bytes.Buffer
	top := &Top{Path: path, Interval: aemview.MinInterval, Count: 2, Live: true, In: strings.NewReader(""), Out: &out}
	if err := top.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	top.Path += "-not"
	if err := top.Run(t.Context()); err == nil {
		t.Fatal("nobody is there, and nobody says so")
	}
}

func TestScreenWithoutBefore(t *testing.T) {
	s := &aemview.Snapshot{Loops: []aem.LoopStats{{Backend: "epoll", Busy: true}}}
	text := (&Screen{Now: s}).String()
	if !strings.Contains(text, "busy") {
		t.Fatal(text)
	}
	for d, want := range map[time.Duration]string{0: "-", 15: "15ns", 1500: "1.5us", 2_500_000: "2.5ms", 3_000_000_000: "3s"} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %q, want %q", d, got, want)
		}
	}
	if got := size(3 << 30); got != "3.0 GiB" {
		t.Error(got)
	}
}
