package mirror

import (
	"errors"
	"strconv"
	"time"

	"midplane/fib"
	"midplane/internal/fib/feed"
	"midplane/internal/fib/rtnl"
)

// Config says what is mirrored. Set and Tables are required.
type Config struct {
	Set    *fib.Set
	Tables map[uint32]fib.ID // which FIB each kernel table goes to, up to MaxTables; FIBs must exist, and no two tables go to one

	// Open returns what writes to a table's FIB when others write there too, see feed.Config; nil: the FIB itself.
	Open func(table uint32) (feed.Table, fib.ID, error)

	// Skip says which routes are not mirrored, such as those that a FIB's own kernel side made; nil: none.
	Skip func(*rtnl.Route) bool

	// Namespace is the path of the network namespace's file, such as /run/netns/blue; "" is the caller's own. Another
	// one needs CAP_SYS_ADMIN.
	Namespace string

	// ReadBuffer is the size of the socket's buffer (SO_RCVBUFFORCE, or SO_RCVBUF without CAP_NET_ADMIN), 0:
	// DefaultReadBuffer. What is lost when it is too small costs a dump, nothing else.
	ReadBuffer int

	// Queue bounds the notifications that wait while a dump is read, 0: DefaultQueue. When there are more, the dump is
	// taken again.
	Queue int

	// Alternates bounds the routes that wait behind a better one of the same prefix, 0: feed.DefaultMaxAlternates.
	Alternates int

	// Adopt takes over what the FIBs hold already, as after a restart: what the kernel does not have goes with the
	// first dump. Otherwise routes that are there and not the mirror's are left alone.
	Adopt bool

	// Keep leaves the routes in the FIBs when the mirror is closed.
	Keep bool
}

// Bounds.
const (
	MaxTables         = 65536
	DefaultReadBuffer = 8 << 20
	DefaultQueue      = 1 << 18 // notifications; some 200 octets each

	settle     = 100 * time.Millisecond // how long the second of two resynchronisations waits after the first
	settleMost = 5 * time.Second        // and at most, when they follow each other
	unclean    = 4                      // dumps that were not of one moment, after which one is believed
)

// validate returns a *fib.FieldError.
func (c *Config) validate() error {
	if c.Set == nil {
		return &fib.FieldError{Field: "set", Value: "nil", Want: "the Set of the FIBs"}
	}
	if n := len(c.Tables); n == 0 || n > MaxTables {
		return &fib.FieldError{Field: "tables", Value: strconv.Itoa(n), Want: "1 to 65536 of them"}
	}
	from := map[fib.ID]uint32{}
	for n, id := range c.Tables {
		if n == 0 {
			return &fib.FieldError{Field: "tables", Value: "0", Want: "the number of a routing table, from 1"}
		}
		if other, twice := from[id]; twice {
			return &fib.FieldError{Field: "tables", Value: strconv.Itoa(int(n)), Want: "a FIB of its own, not that of table " + strconv.Itoa(int(other))}
		}
		from[id] = n
		if _, ok := c.Set.Table(id); !ok {
			return &fib.FieldError{Field: "fib", Value: id.String(), Want: "one that exists"}
		}
	}
	for _, b := range []struct {
		field string
		v     int
	}{{"readbuffer", c.ReadBuffer}, {"queue", c.Queue}, {"alternates", c.Alternates}} {
		if b.v < 0 {
			return &fib.FieldError{Field: b.field, Value: strconv.Itoa(b.v), Want: "a positive number, or 0 for the default"}
		}
	}
	return nil
}

// Status is what a Mirror is doing.
type Status struct {
	Counters
	Feed   feed.Counters
	Synced bool  // all that was read is in the FIBs, and no dump is due
	Err    error // why the last dump failed; nil after one that did not
}

// ErrClosed is returned by a Mirror that was closed.
var ErrClosed = errors.New("the mirror is closed")
