// Package journal keeps the state of a daemon in a directory: a snapshot and, behind it, a journal of what was changed
// since. What is appended and waited for is there after a crash of the process at any moment and, unless synchronisation
// is off, of the machine. A journal that ends in the middle of a record, as after a crash, is read up to there; what is
// behind is kept in the file journal.damaged. Files have a generation; compaction writes the next snapshot beside the old
// one and begins an empty journal, so the directory holds at most two snapshots and two journals.
package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Store is an open directory. It is safe for concurrent use.
type Store struct {
	dir  string
	lock *os.File
	sync bool

	mu      sync.Mutex
	cond    sync.Cond
	gen     uint64
	file    *os.File
	size    int64 // of the journal
	base    int64 // of the snapshot
	ticket  uint64
	synced  uint64
	syncing bool
	err     error // the journal cannot be written any more
	buf     []byte
}

// Report is what Open found.
type Report struct {
	Records int   // read
	Dropped int64 // octets behind the last whole record of the journal
}

// ErrCorrupt says that no snapshot is whole.
var ErrCorrupt = errors.New("the snapshot is damaged")

// Open opens a directory, which it makes if it is not there, and hands each record of the snapshot and then of the
// journal to replay; payloads are valid until replay returns, and its error ends Open. With sync, Wait returns when the
// disk has what was appended (fdatasync(2)); without, a crash of the machine may lose what the system had not written,
// 30 s as a rule. One process at a time has a directory open.
func Open(dir string, sync bool, replay func(payload []byte) error) (*Store, Report, error) {
	var rep Report
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, rep, err
	}
	s := &Store{dir: dir, sync: sync}
	s.cond.L = &s.mu
	var err error
	if s.lock, err = lockDir(dir); err != nil {
		return nil, rep, err
	}
	if rep, err = s.load(replay); err != nil {
		s.Close()
		return nil, rep, err
	}
	return s, rep, nil
}

func (s *Store) path(kind string, gen uint64) string {
	return filepath.Join(s.dir, kind+"."+strconv.FormatUint(gen, 10))
}

// generations returns the generations that there are files of one kind of, newest first.
func (s *Store) generations(kind string) ([]uint64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var l []uint64
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), kind+"."); ok {
			if g, err := strconv.ParseUint(n, 10, 64); err == nil {
				l = append(l, g)
			}
		}
	}
	slices.Sort(l)
	slices.Reverse(l)
	return l, nil
}

// load reads the newest snapshot and its journal. A snapshot gets its name when it is whole, so one that is not is damage,
// which is not passed over: an older state would bring back what was removed.
func (s *Store) load(replay func([]byte) error) (rep Report, err error) {
	gens, err := s.generations("snapshot")
	if err != nil {
		return rep, err
	}
	count := func(p []byte) error { rep.Records++; return replay(p) }
	if len(gens) > 0 {
		s.gen = gens[0]
		if s.base, err = s.readSnapshot(count); err != nil {
			return rep, err
		}
	}
	if err := s.openJournal(count, &rep); err != nil {
		return rep, err
	}
	return rep, s.sweep()
}

func (s *Store) readSnapshot(replay func([]byte) error) (int64, error) {
	return readWhole(s.path("snapshot", s.gen), snapshotMagic, s.gen, replay)
}

// readWhole reads a file that was written by writeWhole.
func readWhole(name, magic string, gen uint64, replay func([]byte) error) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	if err := checkHead(r, magic, gen); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	// The last record, a single zero octet, says that nothing is missing.
	ended := false
	good, err := scan(r, gen, func(p []byte) error {
		if ended {
			return ErrCorrupt
		}
		if ended = len(p) == 1 && p[0] == 0; ended {
			return nil
		}
		return replay(p)
	})
	if err == nil && !ended || errors.Is(err, errTorn) {
		err = ErrCorrupt
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return good + fileHead, nil
}

func checkHead(r io.Reader, magic string, gen uint64) error {
	var head [fileHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || string(head[:8]) != magic || binary.LittleEndian.Uint64(head[8:]) != gen {
		return ErrCorrupt
	}
	return nil
}

func newHead(magic string, gen uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte(magic), gen)
}

// openJournal reads the journal, cuts off what is not whole, and goes on behind it.
func (s *Store) openJournal(replay func([]byte) error, rep *Report) error {
	name := s.path("journal", s.gen)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.file = f
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(f, 256<<10)
	good := int64(0)
	if fi.Size() >= fileHead {
		if err := checkHead(r, journalMagic, s.gen); err != nil {
			return fmt.Errorf("%s: %w", name, errors.New("the file is not a journal of this generation"))
		}
		n, err := scan(r, s.gen, replay)
		if err != nil && !errors.Is(err, errTorn) {
			return fmt.Errorf("%s: %w", name, err)
		}
		good = n + fileHead
	}
	if rep.Dropped = fi.Size() - good; rep.Dropped > 0 && good > 0 {
		if err := s.keepDamaged(good); err != nil {
			return err
		}
	}
	if good == 0 {
		if err := s.begin(f, s.gen); err != nil {
			return err
		}
		good = fileHead
	} else if err := f.Truncate(good); err != nil {
		return err
	}
	if _, err := f.Seek(good, io.SeekStart); err != nil {
		return err
	}
	s.size = good
	return s.flush(f)
}

// begin makes f an empty journal.
func (s *Store) begin(f *os.File, gen uint64) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(newHead(journalMagic, gen), 0); err != nil {
		return err
	}
	if err := s.flush(f); err != nil {
		return err
	}
	return s.flushDir()
}

// keepDamaged copies what is behind the last whole record to a file for people to look at, 1 MiB of it at most.
func (s *Store) keepDamaged(from int64) error {
	if _, err := s.file.Seek(from, io.SeekStart); err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(s.file, 1<<20))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "journal.damaged"), b, 0o600)
}

// sweep removes files of other generations, and what a crash left of a snapshot.
func (s *Store) sweep() error {
	for _, kind := range []string{"snapshot", "journal"} {
		gens, err := s.generations(kind)
		if err != nil {
			return err
		}
		for _, g := range gens {
			if g != s.gen {
				if err := os.Remove(s.path(kind, g)); err != nil {
					return err
				}
			}
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "snapshot.new")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Store) flush(f *os.File) error {
	if !s.sync {
		return nil
	}
	return datasync(f)
}

func (s *Store) flushDir() error {
	if !s.sync {
		return nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Append adds a record. A crash of the process does not lose it when Append has returned, one of the machine does not
// when Wait for the ticket has. After an error nothing can be appended any more.
func (s *Store) Append(payload []byte) (ticket uint64, err error) {
	if len(payload) == 0 || len(payload) > MaxRecord {
		return 0, fmt.Errorf("journal: a record of %d octets: want 1 to %d", len(payload), MaxRecord)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.buf = appendRecord(s.buf[:0], s.gen, payload)
	if _, err := s.file.Write(s.buf); err != nil {
		// Part of it may be there: what follows would be behind a record that is not whole.
		if terr := s.file.Truncate(s.size); terr != nil {
			s.err = fmt.Errorf("journal: %w", errors.Join(err, terr))
			return 0, s.err
		}
		if _, serr := s.file.Seek(s.size, io.SeekStart); serr != nil {
			s.err = fmt.Errorf("journal: %w", errors.Join(err, serr))
		}
		return 0, fmt.Errorf("journal: %w", err)
	}
	s.size += int64(len(s.buf))
	if cap(s.buf) > 1<<20 {
		s.buf = nil
	}
	s.ticket++
	return s.ticket, nil
}

// Wait waits until the disk has the record of a ticket. Those who wait at once share one synchronisation.
func (s *Store) Wait(ticket uint64) error {
	if !s.sync {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.synced < ticket {
		if s.err != nil {
			return s.err
		}
		if s.syncing {
			s.cond.Wait()
			continue
		}
		s.syncing = true
		upTo, f := s.ticket, s.file
		s.mu.Unlock()
		err := datasync(f)
		s.mu.Lock()
		s.syncing = false
		if err != nil { // the kernel may have dropped the pages: nobody knows what is there (fsync(2))
			s.err = fmt.Errorf("journal: %w", err)
		} else {
			s.synced = max(s.synced, upTo)
		}
		s.cond.Broadcast()
	}
	return nil
}

// Sizes returns how many octets the snapshot and the journal have.
func (s *Store) Sizes() (snapshot, journal int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base, s.size
}

// Compact replaces the snapshot by what write emits, which must be all that is in the journal too, and begins an empty
// journal. Nothing can be appended meanwhile. After an error the old files are still there and in use.
func (s *Store) Compact(write func(emit func(payload []byte) error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.syncing {
		s.cond.Wait()
	}
	if s.err != nil {
		return s.err
	}
	gen := s.gen + 1
	size, err := s.writeSnapshot(gen, write)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	j, err := os.OpenFile(s.path("journal", gen), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = s.begin(j, gen)
	}
	if err == nil {
		_, err = j.Seek(fileHead, io.SeekStart)
	}
	if err == nil { // from here on the new generation counts
		err = os.Rename(filepath.Join(s.dir, "snapshot.new"), s.path("snapshot", gen))
	}
	if err != nil {
		if j != nil {
			j.Close()
			os.Remove(j.Name())
		}
		return fmt.Errorf("snapshot: %w", err)
	}
	s.file.Close()
	s.file, s.gen, s.base, s.size = j, gen, size, fileHead
	if err := s.flushDir(); err != nil {
		s.err = fmt.Errorf("snapshot: %w", err)
		return s.err
	}
	s.synced = s.ticket
	s.cond.Broadcast()
	return s.sweep()
}

func (s *Store) writeSnapshot(gen uint64, write func(emit func([]byte) error) error) (size int64, err error) {
	return writeWhole(filepath.Join(s.dir, "snapshot.new"), snapshotMagic, gen, s.sync, write)
}

// writeWhole writes a file of records with one at the end that says that nothing is missing.
func writeWhole(name, magic string, gen uint64, sync bool, write func(emit func([]byte) error) error) (size int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 256<<10)
	w.Write(newHead(magic, gen)) // an error stays in w
	size = fileHead
	var buf []byte
	emit := func(p []byte) error {
		if len(p) == 0 || len(p) > MaxRecord {
			return fmt.Errorf("a record of %d octets: want 1 to %d", len(p), MaxRecord)
		}
		buf = appendRecord(buf[:0], gen, p)
		size += int64(len(buf))
		_, err := w.Write(buf)
		return err
	}
	if err := write(emit); err != nil {
		return 0, err
	}
	if err := emit([]byte{0}); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	if !sync {
		return size, nil
	}
	return size, datasync(f)
}

// tableMagic begins files of tables; see WriteFile.
const tableMagic = "MPFIBT1\n"

// WriteFile writes a file of checksummed records by its own, not in a Store: what write emits. With sync the disk has it
// when it returns.
func WriteFile(name string, sync bool, write func(emit func(payload []byte) error) error) error {
	_, err := writeWhole(name, tableMagic, 0, sync, write)
	return err
}

// ReadFile hands each record of a file of WriteFile to f; payloads are valid until f returns. The error is ErrCorrupt when
// something is missing or damaged; what was right before it was handed over then.
func ReadFile(name string, f func(payload []byte) error) error {
	_, err := readWhole(name, tableMagic, 0, f)
	return err
}

// Close closes the directory. What was appended stays.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.syncing {
		s.cond.Wait()
	}
	var errs []error
	if s.file != nil {
		if s.err == nil {
			errs = append(errs, s.flush(s.file))
		}
		errs = append(errs, s.file.Close())
	}
	if s.err == nil {
		s.err = errors.New("journal: closed")
	}
	s.cond.Broadcast()
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	s.file = nil
	return errors.Join(errs...)
}
