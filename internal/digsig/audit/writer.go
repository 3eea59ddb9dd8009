package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"midplane/internal/digsig/audit/chain"
)

// writer owns the file. It is used by one goroutine at a time.
type writer struct {
	cfg   Config
	f     *os.File
	size  int64
	head  Head
	dirty bool
	buf   []byte
}

// open opens the file and finds the head.
func (w *writer) open() error {
	head, _ := readHead(w.cfg.Path + ".head")
	w.head = head
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	end, last, err := scan(f)
	if err != nil {
		f.Close()
		return err
	}
	if last.Seq > 0 && last.Seq >= w.head.Seq {
		w.head = last // the head is written after the lines
	}
	if err := f.Truncate(end); err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, end
	if !exists(w.cfg.Path + ".head") {
		// A log without a head is one whose end may be gone. A full disk is for later.
		w.dirty = true
		_ = w.sync()
	}
	return nil
}

// scan finds the end of the last finished line and its place in the chain. Whether the chain holds is for Verify to say;
// the writer goes on from what is there.
func scan(f *os.File) (end int64, last Head, err error) {
	r := bufio.NewReaderSize(f, chain.MaxLine+2)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return end, last, nil
		}
		if err != nil {
			return 0, last, fmt.Errorf("%s: after %d octets: %w", f.Name(), end, err)
		}
		end += int64(len(line))
		c := chain.Any()
		if _, err := c.Line(bytes.TrimSuffix(line, []byte("\n"))); err == nil {
			last = c.Head
		}
	}
}

func readHead(name string) (h Head, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return h, err
	}
	return h, json.Unmarshal(b, &h)
}

// write appends records; either all of them are in the file or none.
func (w *writer) write(batch []Record) error {
	if w.f == nil {
		return fs.ErrClosed
	}
	if w.size > w.cfg.MaxSize {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	head := w.head
	b := w.buf[:0]
	for i := range batch {
		var err error
		if b, head, err = chain.Append(b, head, &batch[i]); err != nil {
			return err
		}
	}
	w.buf = b
	if n, err := w.f.Write(b); err != nil {
		if n > 0 {
			if back := w.f.Truncate(w.size); back != nil {
				return errors.Join(err, back)
			}
		}
		return err
	}
	w.size += int64(len(b))
	w.head, w.dirty = head, true
	return nil
}

// rotate renames the file and its elders, and begins a new one.
func (w *writer) rotate() error {
	if err := w.sync(); err != nil {
		return err
	}
	name := func(i int) string { return w.cfg.Path + "." + strconv.Itoa(i) }
	for i := w.cfg.Keep; i >= 1; i-- {
		from := name(i)
		if !exists(from) {
			continue
		}
		var err error
		if i == w.cfg.Keep {
			err = os.Remove(from)
		} else {
			err = os.Rename(from, name(i+1))
		}
		if err != nil {
			return err
		}
	}
	if err := os.Rename(w.cfg.Path, name(1)); err != nil {
		return err
	}
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	w.f.Close()
	w.f, w.size = f, 0
	return nil
}

// sync puts what was written on the disk, and then the head.
func (w *writer) sync() error {
	if !w.dirty {
		return nil
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	b, err := json.Marshal(w.head)
	if err != nil {
		return err
	}
	tmp := w.cfg.Path + ".head.new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o640); err != nil {
		return err
	}
	if err := os.Rename(tmp, w.cfg.Path+".head"); err != nil {
		return err
	}
	w.dirty = false
	return nil
}

func (w *writer) close() error {
	err := w.f.Close()
	w.f = nil
	return err
}
