// Package audit writes the enforcer's log: a chain of records (package chain) in a file that is rotated by size, with the
// head of the chain beside it. Putting a record never waits: what the writer cannot keep up with is counted, and the count
// is a record of its own as soon as there is room.
package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"midplane/internal/digsig/audit/chain"
)

// The record and the place of a chain's end.
type (
	Record = chain.Record
	Head   = chain.Head
)

// Config says where and how much.
type Config struct {
	Path    string        // of the file; Path.head is the head, Path.1, Path.2… are older files, Path.1 the youngest of them
	MaxSize int64         // octets of a file before it is rotated; 0: 16 MiB, at least 64 KiB
	Keep    int           // older files; 0: 8, at most 1000
	Queue   int           // records that wait to be written; 0: 4096
	Sync    time.Duration // between syncs to the disk; 0: one second
}

func (c *Config) defaults() error {
	set := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	keep, queue, sync := int64(c.Keep), int64(c.Queue), int64(c.Sync)
	set(&c.MaxSize, 16<<20)
	set(&keep, 8)
	set(&queue, 4096)
	set(&sync, int64(time.Second))
	c.Keep, c.Queue, c.Sync = int(keep), int(queue), time.Duration(sync)
	switch {
	case c.Path == "":
		return errors.New("audit: Path is empty, want a file")
	case c.MaxSize < 64<<10:
		return fmt.Errorf("audit: MaxSize is %d, want %d or more", c.MaxSize, 64<<10)
	case c.Keep < 0 || c.Keep > 1000:
		return fmt.Errorf("audit: Keep is %d, want 1 to 1000", c.Keep)
	case c.Queue < 0 || c.Queue > 1<<20:
		return fmt.Errorf("audit: Queue is %d, want 1 to %d", c.Queue, 1<<20)
	case c.Sync < 0:
		return fmt.Errorf("audit: Sync is %v, want more than 0", c.Sync)
	}
	return nil
}

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	cfg   Config
	queue chan Record
	done  chan struct{}
	end   chan struct{}

	lost, written, failed atomic.Uint64

	mu     sync.Mutex
	subs   map[*Subscription]struct{} // guarded by mu
	closed bool                       // guarded by mu

	w writer // the goroutine's
}

// Stats counts records.
type Stats struct {
	Written uint64 `json:"written"`
	Lost    uint64 `json:"lost"`   // for which there was no room
	Failed  uint64 `json:"failed"` // attempts to write that failed; they are repeated
	Waiting int    `json:"waiting"`
}

// Open opens a log, finding the end of its chain, and starts its writer. An unfinished last line, left by a writer that
// was killed or by a full disk, is taken back.
func Open(cfg Config) (*Log, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, queue: make(chan Record, cfg.Queue), done: make(chan struct{}), end: make(chan struct{}), subs: map[*Subscription]struct{}{}}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o750); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l.w = writer{cfg: cfg}
	if err := l.w.open(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	go l.run()
	return l, nil
}

// Put hands a record over, without waiting. Its Seq and Prev are set by the writer; a zero Time is now.
func (l *Log) Put(r Record) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	select {
	case l.queue <- r:
	default:
		l.lost.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.subs {
		s.put(r)
	}
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	return Stats{l.written.Load(), l.lost.Load(), l.failed.Load(), len(l.queue)}
}

// Close writes what waits and ends the writer. Records put later are lost.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for s := range l.subs {
		delete(l.subs, s)
		close(s.c)
	}
	l.mu.Unlock()
	close(l.end)
	<-l.done
	return l.w.close()
}

// Subscription is a stream of records as they are put, before they are numbered. C has room for a while; what does not
// fit is counted, and who puts never waits. Cancel it when done.
type Subscription struct {
	C    <-chan Record // closed by Cancel and with the log
	c    chan Record
	lost atomic.Uint64
	l    *Log
}

// Subscribe begins a stream with room for n records.
func (l *Log) Subscribe(n int) *Subscription {
	c := make(chan Record, max(n, 1))
	s := &Subscription{C: c, c: c, l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		close(c)
	} else {
		l.subs[s] = struct{}{}
	}
	return s
}

// put is called with the log's mutex held.
func (s *Subscription) put(r Record) {
	select {
	case s.c <- r:
	default:
		s.lost.Add(1)
	}
}

// Lost says how many records did not fit.
func (s *Subscription) Lost() uint64 { return s.lost.Load() }

// Cancel ends the stream.
func (s *Subscription) Cancel() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if _, ok := s.l.subs[s]; ok {
		delete(s.l.subs, s)
		close(s.c)
	}
}

// run is the writer's goroutine.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(l.cfg.Sync)
	defer tick.Stop()
	var told uint64
	for ended := false; !ended; {
		var batch []Record
		select {
		case r := <-l.queue:
			batch = append(batch, r)
		case <-tick.C:
			if l.w.sync() != nil {
				l.failed.Add(1)
			}
			continue
		case <-l.end:
			ended = true
		}
		for more := true; more && len(batch) < 256; {
			select {
			case r := <-l.queue:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		if lost := l.lost.Load(); lost > told {
			batch = append(batch, Record{Time: time.Now(), Type: "lost", Count: lost - told})
			told = lost
		}
		for tries := 0; len(batch) > 0; tries++ {
			err := l.w.write(batch)
			if err == nil {
				l.written.Add(uint64(len(batch)))
				break
			}
			// A full disk: what comes meanwhile waits in the queue, and is counted when that is full.
			l.failed.Add(1)
			if ended && tries > 2 {
				l.lost.Add(uint64(len(batch)))
				break
			}
			select {
			case <-time.After(min(time.Second, 10*time.Millisecond<<min(tries, 7))):
			case <-l.end:
				ended = true
			}
		}
		ended = ended && len(l.queue) == 0
		if !ended {
			select {
			case <-l.end:
				ended = len(l.queue) == 0
			default:
			}
		}
	}
	_ = l.w.sync()
}

// exists says whether a file is there.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
