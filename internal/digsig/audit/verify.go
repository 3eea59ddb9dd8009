package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"midplane/internal/digsig/audit/chain"
)

// Report is what Verify found.
type Report struct {
	Files   []string `json:"files"` // oldest first
	Records uint64   `json:"records"`
	First   uint64   `json:"first"` // number of the oldest record that is kept
	Head    Head     `json:"head"`  // of the last
}

// Verify reads a log with its older files and says whether its chain holds. head is what is known of its end from
// elsewhere; nil takes the one beside the file. The error is a *FileError that says where the chain breaks.
func Verify(path string, head *Head) (Report, error) {
	return Read(path, head, func(*Record) {})
}

// Read is Verify that calls each for every record, oldest first. What each was called for counts only if there is no error.
func Read(path string, head *Head, each func(*Record)) (Report, error) {
	var r Report
	if head == nil {
		h, err := readHead(path + ".head")
		if err != nil && exists(path) {
			return r, &FileError{path + ".head", fmt.Errorf("the head is not there: %w", err)}
		}
		head = &h
	}
	for i := 1; exists(path + "." + strconv.Itoa(i)); i++ {
		r.Files = append([]string{path + "." + strconv.Itoa(i)}, r.Files...)
	}
	r.Files = append(r.Files, path)
	c := chain.Checker{}
	if len(r.Files) > 1 {
		c = chain.Any() // the oldest are gone by rotation
	}
	for _, name := range r.Files {
		before := max(c.Lines, 0)
		err := checkFile(name, &c, func(rec *Record) {
			if r.Records == 0 {
				r.First = rec.Seq
			}
			r.Records++
			each(rec)
		})
		var b *chain.BrokenError
		if errors.As(err, &b) {
			b.Line -= before
		}
		if err != nil && !(errors.Is(err, chain.ErrUnfinished) && name == path) {
			return r, &FileError{name, err}
		}
	}
	r.Head = c.Head
	if r.First > 1 && len(r.Files) == 1 {
		return r, &FileError{path, errors.New("it does not begin with number 1, and older files are gone")}
	}
	if err := c.End(*head); err != nil {
		return r, &FileError{path, err}
	}
	return r, nil
}

// FileError says in which file a chain breaks.
type FileError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *FileError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

func checkFile(name string, c *chain.Checker, each func(*Record)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, chain.MaxLine+2)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return chain.ErrUnfinished
		case err != nil:
			return err
		}
		rec, err := c.Line(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return err
		}
		each(&rec)
	}
}

// Tail calls each for the last n records of a log, and then, when follow is set, for those that come, until ctx ends or
// each returns false. It waits by looking again, as a log may be rotated meanwhile. The records are not verified.
func Tail(ctx context.Context, path string, n int, follow bool, each func(Record) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	var last []Record
	var c chain.Checker
	var rest []byte
	read := func(use func(Record) bool) (bool, error) {
		b, err := io.ReadAll(io.LimitReader(f, 4<<20))
		rest = append(rest, b...)
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			c = chain.Any()
			rec, bad := c.Line(rest[:i])
			rest = rest[i+1:]
			if bad == nil && !use(rec) {
				return false, nil
			}
		}
		if len(rest) > chain.MaxLine {
			return false, fmt.Errorf("%s: a line is longer than %d octets", path, chain.MaxLine)
		}
		return len(b) > 0, err
	}
	for more := true; more; {
		if more, err = read(func(r Record) bool {
			if last = append(last, r); len(last) > n {
				last = last[1:]
			}
			return true
		}); err != nil {
			return err
		}
	}
	for _, r := range last {
		if !each(r) {
			return nil
		}
	}
	stopped := false
	for follow && !stopped {
		more, err := read(func(r Record) bool { stopped = !each(r); return !stopped })
		if err != nil {
			return err
		}
		if more || stopped {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		younger, err := after(path, f)
		if err != nil {
			return err
		}
		i := 0
		for len(younger) > 0 && !stopped {
			var more bool
			if more, err = read(func(r Record) bool { stopped = !each(r); return !stopped }); err != nil {
				break
			}
			if more {
				continue
			}
			if i == len(younger) {
				break
			}
			f.Close()
			f, rest = younger[i], nil
			i++
		}
		closeAll(younger[i:])
		if err != nil {
			return err
		}
	}
	return nil
}

// after opens the files that followed f by rotation, oldest first; there are none while f is the youngest.
func after(path string, f *os.File) (younger []*os.File, err error) {
	was, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		next, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) && i == 0 {
			return nil, nil // it is being rotated
		}
		var info os.FileInfo
		if err == nil {
			info, err = next.Stat()
		}
		if err != nil { // f is older than what is kept
			return younger, nil
		}
		if os.SameFile(info, was) {
			next.Close()
			return younger, nil
		}
		younger = append([]*os.File{next}, younger...)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
