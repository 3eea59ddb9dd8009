// Package feed is what all feeds of FIBs have in common: an Applier takes routes, and next-hop objects by the numbers
// that the sender gives them, and makes the tables of a fib.Set hold them. It has no socket, goroutine or clock: FPM,
// the kernel mirror and BGP bring their own.
//
// Nothing is kept per route. Each Applier makes next hops of its own, never shared with others, so that the next hop of
// a route in a table says whose the route is, of which session, and with which metric. Resynchronisation is by that:
// [Applier.Mark] begins a new generation of next hops; what the peer still has comes again and gets new ones;
// [Applier.Sweep] removes the routes that still hold old ones. Forwarding goes on all the while.
package feed

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"midplane/fib"
)

// Path is one way that a route leads.
type Path struct {
	Hop    fib.NextHop
	Weight uint16 // 1 to 256; 0 is 1
}

// Route is one route as a feed tells it. Either Object or Paths says where it leads.
type Route struct {
	Table  uint32       // the sender's number of the table
	Prefix netip.Prefix // masked by the tables
	Metric uint32       // with Config.Metrics: of several routes of one prefix the lowest counts
	Mode   Mode         // with Config.Metrics
	Object uint32       // number of a next-hop object, 0: Paths
	Paths  []Path       // belongs to the caller; 1 to fib.MaxMembers
}

// Mode says what becomes of a route of the same prefix and metric.
type Mode uint8

// Modes.
const (
	Replace Mode = iota // it is replaced
	Append              // it stays, and counts before this one
	Prepend             // it stays, and counts after this one
)

// Object is a next hop, or a group of next hops, that routes name by a number.
type Object struct {
	ID      uint32 // not 0
	Hop     fib.NextHop
	Members []Member // not empty: a group; belongs to the caller
}

// Member is one next hop of a group. One that is not defined yet takes no flows until it is.
type Member struct {
	ID     uint32
	Weight uint16 // 1 to 256; 0 is 1
}

// Config is how an Applier treats what a peer says. The zero value is ready to use.
type Config struct {
	FIB func(table uint32) fib.ID // which FIB a table is, 0: none, its routes are refused. nil: that of the same number
	// Open returns the table that a sender's table goes to, for senders that share a FIB with others; nil: that of FIB in
	// the Set. It is asked for each route. An error that is fib.ErrNotFound says that there is none now.
	Open          func(table uint32) (Table, fib.ID, error)
	Create        bool // make FIBs that are not there; otherwise their routes are refused
	Metrics       bool // prefixes may have several routes; otherwise each replaces the one before
	MaxFIBs       int  // how many FIBs a peer may write to, 0: DefaultMaxFIBs
	MaxObjects    int  // how many next-hop objects a peer may define, 0: DefaultMaxObjects
	MaxAlternates int  // how many routes may wait behind a better one, 0: DefaultMaxAlternates
}

// Table is what an Applier does with a FIB; *fib.Table is one. Tables of Open must be comparable.
type Table interface {
	Get(netip.Prefix) (fib.NextHopID, bool)
	Insert(netip.Prefix, fib.NextHopID) (old fib.NextHopID, replaced bool, err error)
	Delete(netip.Prefix) (old fib.NextHopID, deleted bool, err error)
	All() iter.Seq[fib.Route]
}

var _ Table = (*fib.Table)(nil)

// Bounds unless configured.
const (
	DefaultMaxFIBs       = 10000
	DefaultMaxObjects    = 1 << 17
	DefaultMaxAlternates = 1 << 20
)

// Reasons for refusing what a peer says. Others come from package fib.
var (
	ErrTable      = errors.New("routes of this table are not taken")
	ErrBound      = errors.New("a bound of the feed is reached")
	ErrNested     = errors.New("a group in a group")
	ErrNotForFIBs = errors.New("no FIB can hold this")
)

// Counters tell what an Applier did. They only grow, but Routes and Objects.
type Counters struct {
	Routes    int64  // of this feed, in all FIBs, as far as the feed knows
	Objects   int64  // next-hop objects that the peer has defined
	Added     uint64 // routes of new prefixes
	Replaced  uint64 // routes that lead elsewhere now
	Refreshed uint64 // routes of before Mark that the peer told again
	Unchanged uint64 // routes that were there already
	Deleted   uint64 // routes that the peer deleted
	Missing   uint64 // deletions of what was not there
	Foreign   uint64 // routes of others: taken over by an addition, left alone by a deletion
	Swept     uint64 // routes removed because the peer has them no longer
	Refused   uint64 // routes and objects refused
	Full      uint64 // of these: because the FIBs have no room
}

// Applier applies what one peer says to the FIBs of one Set. It is not safe for concurrent use; the FIBs are.
type Applier struct {
	set    *fib.Set
	conf   Config
	n      Counters
	gen    uint32
	tables map[uint32]*table // by the sender's number
	fibs   map[fib.ID]*table

	hops    map[fib.NextHopID]*hop // all that this feed made
	singles map[singleKey]*hop     // of this generation, by what they are
	groups  map[string]*hop
	objects map[uint32]*object // of this generation
	garbage []*hop             // perhaps not held any longer
	key     []byte             // scratch

	alternates map[altKey][]*hop // all routes of prefixes that have several, the one that counts first
	waiting    int               // how many are in alternates
	doomed     bool              // routes hold hops that are moved or gone
}

type table struct {
	id fib.ID
	t  Table
}

type altKey struct {
	fib    fib.ID
	prefix netip.Prefix
}

// New makes an Applier for the FIBs of a Set.
func New(set *fib.Set, c Config) *Applier {
	if c.FIB == nil {
		c.FIB = func(n uint32) fib.ID { return fib.ID(n) }
	}
	for _, b := range []struct {
		of       *int
		default_ int
	}{{&c.MaxFIBs, DefaultMaxFIBs}, {&c.MaxObjects, DefaultMaxObjects}, {&c.MaxAlternates, DefaultMaxAlternates}} {
		if *b.of <= 0 {
			*b.of = b.default_
		}
	}
	a := &Applier{set: set, conf: c, gen: 1, tables: map[uint32]*table{}, fibs: map[fib.ID]*table{}, hops: map[fib.NextHopID]*hop{}}
	a.fresh()
	return a
}

func (a *Applier) fresh() {
	a.singles, a.groups, a.objects, a.alternates = map[singleKey]*hop{}, map[string]*hop{}, map[uint32]*object{}, map[altKey][]*hop{}
	a.waiting = 0
}

// Counters returns what was done so far.
func (a *Applier) Counters() Counters {
	c := a.n
	c.Objects = int64(len(a.objects))
	return c
}

// table finds the FIB of a sender's table, and makes it where that is wanted.
func (a *Applier) table(n uint32, create bool) (*table, error) {
	if a.conf.Open != nil {
		return a.open(n)
	}
	if t := a.tables[n]; t != nil {
		if cur, ok := a.set.Table(t.id); ok && cur == t.t {
			return t, nil
		}
		delete(a.tables, n) // it was removed, and perhaps made again
		delete(a.fibs, t.id)
	}
	id := a.conf.FIB(n)
	if id == 0 {
		return nil, fmt.Errorf("table %d: %w", n, ErrTable)
	}
	t, ok := a.set.Table(id)
	switch {
	case ok:
	case !create || !a.conf.Create:
		return nil, fmt.Errorf("table %d: %w", n, fib.ErrNotFound)
	case len(a.fibs) >= a.conf.MaxFIBs:
		return nil, fmt.Errorf("table %d: more than %d FIBs: %w", n, a.conf.MaxFIBs, ErrBound)
	default:
		var err error
		if t, err = a.set.Create(id, ""); err != nil {
			return nil, err
		}
	}
	return a.enter(n, id, t), nil
}

// open is table with Config.Open.
func (a *Applier) open(n uint32) (*table, error) {
	t, id, err := a.conf.Open(n)
	if err != nil {
		return nil, fmt.Errorf("table %d: %w", n, err)
	}
	if e := a.tables[n]; e != nil && e.t == t {
		return e, nil
	}
	if e := a.fibs[id]; (e == nil || e.t != t) && len(a.fibs) >= a.conf.MaxFIBs {
		return nil, fmt.Errorf("table %d: more than %d FIBs: %w", n, a.conf.MaxFIBs, ErrBound)
	}
	return a.enter(n, id, t), nil
}

// enter notes which FIB a table is.
func (a *Applier) enter(n uint32, id fib.ID, t Table) *table {
	if len(a.tables) > 2*a.conf.MaxFIBs { // many numbers of one FIB
		clear(a.tables)
	}
	e := a.fibs[id]
	if e == nil || e.t != t {
		e = &table{id, t}
		a.fibs[id] = e
	}
	a.tables[n] = e
	return e
}

// refuse counts an error.
func (a *Applier) refuse(err error) error {
	a.n.Refused++
	if errors.Is(err, fib.ErrFull) || errors.Is(err, fib.ErrTooMany) || errors.Is(err, ErrBound) {
		a.n.Full++
	}
	return err
}
