package enforcer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/fanotify"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gate"
	"midplane/internal/digsig/lease"
	"midplane/internal/mono"
)

// worker reads events and answers them.
type worker struct {
	cfg     Config
	groups  [2]*fanotify.Group
	control int
	alive   int // for the next supervisor
	keeper  *lease.Keeper
	log     *audit.Log
	started time.Time
	pid     int32
	boss    atomic.Int32 // the supervisor's process
	first   bool
	glass   string

	linkMu sync.Mutex
	link   link     // guarded by linkMu
	drops  []uint64 // guarded by linkMu: tokens that the supervisor must still be told of
	stop   int      // readable when the worker takes no more questions
	ready  atomic.Bool
	judge  atomic.Pointer[digsig.Verifier]
	rules  atomic.Pointer[rules]
	store  *digsig.Store
	kick   chan struct{} // the gate's deadline may have come nearer

	mu      sync.Mutex
	gate    *gate.Gate         // guarded by mu
	events  map[gate.ID]*event // guarded by mu: without an answer
	entries map[gate.Key]*file // guarded by mu: what the gate knows
	leases  map[int]*file      // guarded by mu: by descriptor
	tokens  uint64             // guarded by mu
	until   time.Time          // guarded by mu: when a verdict in use may change by itself
	next    mono.Time          // guarded by mu: what the timer is set to
	spare   []*event           // guarded by mu: not in use

	verity   map[bpflsm.Digest]enrolled // guarded by mu: content with fs-verity that was read
	lsm      *bpflsm.Gate               // guarded by mu: of tier bpf-lsm, nil in others
	told     map[[32]byte]int           // guarded by mu: how many files' content the kernel was told of, by SHA-256
	lsmReady bool                       // guarded by mu: it decides
	lsmUntil time.Time                  // guarded by mu: when a grant may change by itself
	lsmTimer *time.Timer                // guarded by mu

	reload  sync.Mutex // one change of lists or mode at a time
	info    atomic.Pointer[report]
	marks   atomic.Pointer[[]Marked]
	earlier atomic.Pointer[CheckReport]
	gaps    atomic.Pointer[gaps.Report]
	probing sync.Mutex // of who sets gaps: what is in force last is what they are of

	nEvents, nOwn, nGone, nUnopened, nOverflows, nMarkFails atomic.Uint64
	nEnrolled, nUnhanded                                    atomic.Uint64
	readers                                                 sync.WaitGroup
	draining                                                atomic.Bool
	drained                                                 chan struct{} // closed when every question was answered
	open                                                    atomic.Int64  // questions that are no events yet, or are answered by another goroutine
	reading                                                 chan struct{} // a place for each file that is read for its class
	subjects                                                chan struct{} // a place for each subject that is hashed
}

// report is what Status tells besides counters.
type report struct {
	supervisor Supervisor
	why        string // where the mode is from
	command    string // mode set by command
	storeError string
	lastGood   bool
	noBPF      string // why tier bpf-lsm is not in force
}

// file is an open file of an event. Its descriptor is closed when nobody uses it.
type file struct {
	key      gate.Key
	fd       int
	group    uint8
	refs     int // guarded by worker.mu, as all below
	leased   bool
	sealed   bool // nobody can write to it
	released bool
	token    uint64 // of the supervisor's hold, 0: none
	verdict  digsig.Verdict
	judged   bool
	path     string
	cancel   context.CancelFunc

	told      bool      // the kernel has a verdict about the inode
	handed    gate.Uses // that it has
	handedGen uint64    // of the lists by which
}

// event is a question without an answer.
type event struct {
	id    gate.ID
	op    gate.Op
	tid   int32 // that waits
	class gate.Class
	f     *file
}

func workerMain() error {
	l, groups, control, alive, b, err := inherit()
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	w := &worker{
		cfg: b.Config, groups: groups, control: control, alive: alive, link: l, started: time.Now().UTC(), pid: int32(os.Getpid()), first: b.First, glass: b.Mode,
		events: map[gate.ID]*event{}, entries: map[gate.Key]*file{}, leases: map[int]*file{}, verity: map[bpflsm.Digest]enrolled{}, told: map[[32]byte]int{}, kick: make(chan struct{}, 1), next: mono.Never,
		drained: make(chan struct{}), reading: make(chan struct{}, 64), subjects: make(chan struct{}, 4),
	}
	w.boss.Store(int32(b.Supervisor.PID))
	w.info.Store(&report{supervisor: b.Supervisor, command: b.Command})
	w.marks.Store(&[]Marked{})
	if err := w.run(); err != nil {
		_ = l.send(msgFail, []byte(err.Error()), -1)
		return err
	}
	return nil
}

// run is the worker's life. Events are read from the first moment on: the store may be on a file system that is watched,
// and what others ask waits for the store.
func (w *worker) run() error {
	// Above those who wait for it.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -15)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	var err error
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if w.gate, err = gate.New(w.cfg.Gate, gate.Enforce, 0); err != nil {
		return err
	}
	if w.keeper, err = lease.New(w.leaseBroken, w.leasesLost); err != nil {
		return err
	}
	begun := make(chan struct{})
	for i := range w.groups {
		w.readers.Go(func() { w.read(uint8(i), begun) })
	}
	go w.attend()
	if err := w.prepare(); err != nil {
		return err
	}
	close(begun)
	go w.ticks()
	go w.serve()
	go w.watchMounts()
	go w.watchSelf()
	w.ready.Store(true)
	if err := w.send(msgReady, nil); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	w.put(audit.Record{Type: "start", Mode: w.mode().String(), Generation: w.judge.Load().Generation(), Detail: w.startDetail()})
	if glass := w.glass; glass != "" {
		w.put(audit.Record{Type: "mode", Mode: glass, Detail: "by the kernel's command line"})
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	select {
	case <-term:
		w.put(audit.Record{Type: "stop"})
	case <-w.drained:
		w.put(audit.Record{Type: "worker", Reason: "replaced"})
	}
	return w.log.Close()
}

func (w *worker) startDetail() string {
	r := w.info.Load().supervisor.Restarts
	if len(r) == 0 {
		return ""
	}
	last := r[len(r)-1]
	return fmt.Sprintf("worker %d ended: %s; %d questions denied", last.PID, last.Why, last.Denied)
}

// prepare loads what is needed for verdicts, looks at what runs, and marks the file systems.
func (w *worker) prepare() error {
	v, err := w.load()
	if err != nil {
		return err
	}
	if w.log, err = audit.Open(w.cfg.Audit); err != nil {
		return err
	}
	w.install(v)
	if w.glass != "off" {
		earlier, err := w.check(v)
		if err != nil {
			return fmt.Errorf("look at what runs: %w", err)
		}
		w.earlier.Store(earlier)
		if w.first && !w.cfg.Force && w.mode() == gate.Enforce && len(earlier.Denied) > 0 {
			d := earlier.Denied[0]
			return fmt.Errorf("%d files that run now would be denied, the first is %s (%s: %s): sign them, or begin in permissive mode, or use force",
				len(earlier.Denied), d.Path, d.Reason, d.Detail)
		}
		if err := w.markAll(); err != nil {
			return err
		}
		if err := w.raise(); err != nil {
			return err
		}
	}
	go w.probe()
	return nil
}

// ticks wakes the gate when something is due, and judges what is known anew now and then, as time alone can end a
// verdict.
func (w *worker) ticks() {
	const often = 10 * time.Second
	t := time.NewTimer(0)
	sweep := time.Now().Add(often)
	for {
		select {
		case <-t.C:
		case <-w.kick:
		}
		now := time.Now()
		w.mu.Lock()
		if !w.until.IsZero() && w.until.Before(sweep) {
			sweep = w.until
		}
		if !now.Before(sweep) {
			sweep, w.until = now.Add(often), time.Time{}
			w.gate.Sweep()
		}
		at := mono.Now()
		w.gate.Tick(at)
		w.drain(at)
		next := w.gate.Deadline()
		w.next = next
		w.mu.Unlock()
		t.Reset(min(next.Until(at), time.Until(sweep), often))
	}
}

// deadline has the timer set anew if something is due earlier. The caller holds mu.
func (w *worker) deadline() {
	if d := w.gate.Deadline(); d < w.next {
		w.next = d
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

func (w *worker) mode() gate.Mode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gate.Mode()
}

// put logs a record.
func (w *worker) put(r audit.Record) { w.log.Put(r) }

// send tells the supervisor.
func (w *worker) send(kind byte, body []byte) error {
	w.linkMu.Lock()
	defer w.linkMu.Unlock()
	return w.link.send(kind, body, -1)
}

// say writes to the supervisor's log, or not at all.
func (w *worker) say(format string, a ...any) { _ = w.send(msgText, fmt.Appendf(nil, format, a...)) }

// attend does what the supervisor says, and starts another when it has ended and nobody else can be it.
func (w *worker) attend() {
	buf := make([]byte, maxMessage)
	var last time.Time
	for {
		w.linkMu.Lock()
		l := w.link
		w.linkMu.Unlock()
		kind, body, fd, err := l.recv(buf, -1)
		if fd >= 0 {
			unix.Close(fd)
		}
		if err == nil {
			switch kind {
			case msgAdopt:
				w.adopted(body)
			case msgDrain:
				if w.draining.CompareAndSwap(false, true) {
					go w.drainOut()
				}
			}
			continue
		}
		if err := w.newSupervisor(l); err != nil {
			w.note(audit.Record{Type: "worker", Reason: "no supervisor", Detail: err.Error()})
		}
		time.Sleep(time.Until(last.Add(time.Second)))
		last = time.Now()
	}
}

// note is put for what may come before there is a log.
func (w *worker) note(r audit.Record) {
	if w.ready.Load() {
		w.put(r)
	}
}

// newSupervisor starts a supervisor, which takes this worker over, and gives it what it must hold.
func (w *worker) newSupervisor(old link) error {
	l, end, err := newLink()
	if err != nil {
		return err
	}
	defer end.Close()
	info := w.info.Load()
	b, err := json.Marshal(begin{Config: w.cfg, Mode: w.glass, Command: info.command, Supervisor: info.supervisor, PID: int(w.pid)})
	if err == nil {
		err = l.send(msgBegin, b, -1)
	}
	if err != nil {
		unix.Close(l.fd)
		return err
	}
	p, err := start("supervisor", end, w.groups, w.control, w.alive)
	if err != nil {
		unix.Close(l.fd)
		return err
	}
	go func() { _, _ = p.Wait() }()
	w.boss.Store(int32(p.Pid))
	next := *info
	next.supervisor.PID = p.Pid
	w.info.Store(&next)
	w.mu.Lock()
	w.unheld()
	w.linkMu.Lock()
	w.link = l
	unix.Close(old.fd)
	w.linkMu.Unlock()
	w.mu.Unlock()
	w.note(audit.Record{Type: "worker", Reason: "new supervisor", PID: p.Pid, Detail: "the one before was killed"})
	return nil
}

// unheld takes back every mark, as nobody but this process holds the leases that they rely on. They come again, with holds
// by the next supervisor, as what they are for is asked about. The caller holds mu.
func (w *worker) unheld() {
	for _, f := range w.entries {
		f.token = 0
	}
	w.linkMu.Lock()
	w.drops = nil
	w.linkMu.Unlock()
	now := mono.Now()
	w.gate.SetGeneration(now, w.gate.Generation())
	w.drain(now)
}

// adopted takes a new supervisor at the other end of the same link.
func (w *worker) adopted(body []byte) {
	var a adopted
	if json.Unmarshal(body, &a) != nil {
		return
	}
	w.boss.Store(int32(a.PID))
	w.inform(func(r *report) { r.supervisor.PID, r.supervisor.Guardian = a.PID, a.Guardian })
	b, err := json.Marshal(here{int(w.pid), w.ready.Load()})
	if err != nil {
		return
	}
	w.mu.Lock()
	w.unheld()
	err = w.send(msgHere, b) // before any hold that is for it
	w.mu.Unlock()
	if err != nil {
		w.say("tell the new supervisor: %v", err)
	}
	w.note(audit.Record{Type: "worker", Reason: "new supervisor", PID: a.PID, Detail: "over the same link"})
}

// drainOut takes no more questions, answers those that were taken, and ends the worker: the next one takes the others.
func (w *worker) drainOut() {
	_, _ = unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	w.readers.Wait()
	for {
		// Those whose file is looked at become events, and events become records: all three at once, in this order.
		none := w.open.Load() == 0
		w.mu.Lock()
		none = none && len(w.events) == 0
		w.mu.Unlock()
		if none && w.open.Load() == 0 {
			close(w.drained)
			return
		}
		time.Sleep(time.Millisecond)
	}
}
