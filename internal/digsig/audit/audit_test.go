package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"midplane/internal/digsig/audit/chain"
)

func open(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "sub", "log")}
	l := open(t, cfg)
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for n := range 100 {
				l.Put(Record{Type: "verdict", Verdict: "deny", PID: 1000*i + n})
			}
		})
	}
	wait.Wait()
	shut(t, l)
	shut(t, l) // again does nothing
	r, err := Verify(cfg.Path, nil)
	if err != nil || r.Records != 400 || r.First != 1 || r.Head.Seq != 400 {
		t.Fatalf("%+v, %v", r, err)
	}
	if s := l.Stats(); s.Written != 400 || s.Lost != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}

	l = open(t, cfg) // goes on
	l.Put(Record{Type: "start"})
	shut(t, l)
	if r, err = Verify(cfg.Path, nil); err != nil || r.Records != 401 {
		t.Fatalf("after a restart: %+v, %v", r, err)
	}
	if fi, err := os.Stat(cfg.Path); err != nil || fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("others may read it: %v, %v", fi.Mode(), err)
	}
}

// A log is whole from the moment that it is there.
func TestYoung(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "log"), Sync: time.Hour}
	l := open(t, cfg)
	defer shut(t, l)
	if r, err := Verify(cfg.Path, nil); err != nil || r.Records != 0 {
		t.Errorf("empty: %+v, %v", r, err)
	}
	l.Put(Record{Type: "start"})
	for end := time.Now().Add(time.Minute); l.Stats().Written == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if r, err := Verify(cfg.Path, nil); err != nil || r.Records != 1 {
		t.Errorf("before its first sync: %+v, %v", r, err)
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []Config{
		{}, {Path: dir + "/x", MaxSize: 10}, {Path: dir + "/x", Keep: 2000}, {Path: dir + "/x", Keep: -1}, {Path: dir + "/x", Queue: -1},
		{Path: dir + "/x", Queue: 1 << 30}, {Path: dir + "/x", Sync: -1}, {Path: dir},
	} {
		if l, err := Open(c); err == nil {
			shut(t, l)
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestRotate(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 64 << 10, Keep: 3, Sync: time.Hour}
	l := open(t, cfg)
	const n = 3000
	for i := range n {
		for l.Stats().Waiting > 1000 {
			time.Sleep(time.Millisecond)
		}
		l.Put(Record{Type: "verdict", Detail: fmt.Sprintf("%0100d", i)})
	}
	shut(t, l)
	r, err := Verify(cfg.Path, nil)
	if err != nil || len(r.Files) != 4 || r.Head.Seq != n || r.First == 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, f := range r.Files {
		fi, err := os.Stat(f)
		if err != nil || fi.Size() > cfg.MaxSize+256*(chain.MaxLine/100) {
			t.Errorf("%s: %v, %v", f, fi.Size(), err)
		}
	}
	if err := os.Remove(cfg.Path + ".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(cfg.Path, nil); err == nil {
		t.Error("a file in the middle is gone, and nothing noticed")
	}
}

func TestVerifyFinds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Config{Path: path})
	for i := range 20 {
		l.Put(Record{Type: "verdict", PID: i})
	}
	shut(t, l)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	for name, change := range map[string][]byte{
		"edited":    bytes.Replace(good, []byte(`"pid":7`), []byte(`"pid":8`), 1),
		"deleted":   bytes.Join(append(append([][]byte{}, lines[:5]...), lines[6:]...), nil),
		"beginning": bytes.Join(lines[1:], nil),
		"truncated": bytes.Join(lines[:10], nil),
		"cut":       good[:len(good)-10],
		"empty":     nil,
	} {
		if err := os.WriteFile(path, change, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(path, nil)
		var f *FileError
		if !errors.As(err, &f) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	head := Head{Seq: 20}
	if _, err := Verify(path, &head); err == nil {
		t.Error("another head fits")
	}
	if err := os.Remove(path + ".head"); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(path, nil); err == nil {
		t.Error("without a head it verifies")
	}
}

// A writer that was killed in the middle of a line leaves half of it.
func TestUnfinishedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Config{Path: path})
	l.Put(Record{Type: "start"})
	shut(t, l)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seq":2,"time":`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = open(t, Config{Path: path})
	l.Put(Record{Type: "stop"})
	shut(t, l)
	if r, err := Verify(path, nil); err != nil || r.Records != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A queue that is full loses records, says how many, and never waits.
func TestLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Config{Path: path, Queue: 1})
	var put uint64
	for l.Stats().Lost == 0 {
		l.Put(Record{Type: "verdict", Detail: "x"})
		put++
	}
	for l.Stats().Waiting > 0 {
		time.Sleep(time.Millisecond)
	}
	shut(t, l)
	s := l.Stats()
	var told, seen uint64
	if err := Tail(t.Context(), path, 1<<30, false, func(r Record) bool {
		if r.Type == "lost" {
			told += r.Count
		} else {
			seen++
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if told != s.Lost || seen+told != put {
		t.Errorf("%d put, %d written, %d lost, %d told", put, seen, s.Lost, told)
	}
}

func TestSubscribe(t *testing.T) {
	l := open(t, Config{Path: filepath.Join(t.TempDir(), "log")})
	s := l.Subscribe(2)
	for i := range 5 {
		l.Put(Record{Type: "verdict", PID: i})
	}
	if r := <-s.C; r.PID != 0 || s.Lost() != 3 {
		t.Errorf("%+v, %d lost", r, s.Lost())
	}
	s.Cancel()
	s.Cancel()
	other := l.Subscribe(1)
	shut(t, l)
	if _, ok := <-other.C; ok {
		t.Error("open after the log was closed")
	}
	if _, ok := <-l.Subscribe(1).C; ok {
		t.Error("a subscription of a closed log is open")
	}
}

// Tail follows the log over a rotation.
func TestTail(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 64 << 10}
	l := open(t, cfg)
	l.Put(Record{Type: "start"})
	for l.Stats().Written < 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	got := make(chan Record, 10000)
	done := make(chan error, 1)
	go func() {
		n := 0
		done <- Tail(ctx, cfg.Path, 10, true, func(r Record) bool { got <- r; n++; return n < 1001 })
	}()
	<-got
	for i := range 1000 {
		l.Put(Record{Type: "verdict", PID: i + 1, Detail: fmt.Sprintf("%0200d", i)})
		if i%100 == 0 {
			time.Sleep(2 * time.Millisecond) // so that the rotation comes while it is followed
		}
	}
	for i := range 1000 {
		select {
		case r := <-got:
			if r.PID != i+1 {
				t.Fatalf("record %d has PID %d", i, r.PID)
			}
		case <-ctx.Done():
			t.Fatalf("after %d records: %v", i, ctx.Err())
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	shut(t, l)
}
