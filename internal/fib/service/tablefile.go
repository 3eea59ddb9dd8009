package service

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"

	"midplane/internal/fib/service/journal"
	"midplane/internal/fib/service/spec"
)

// A loaded table on disk: records of entries, each a way ('w', length, the JSON of a route without destination), which
// counts from 0, or a route ('4' or '6', prefix length, address, number of the way as a varint).

// Bounds of a loaded table.
const (
	MaxLoad = 8_000_000 // routes
	maxWays = 1 << 20   // different ways
	chunk   = 32 << 10
)

type tableWriter struct {
	emit  func([]byte) error
	ways  map[string]uint64
	buf   []byte
	count int
}

func (w *tableWriter) add(r spec.Route) error {
	dst := r.Dst
	r.Dst = netip.Prefix{}
	key, err := json.Marshal(r)
	if err != nil {
		return err
	}
	n, ok := w.ways[string(key)]
	if !ok {
		if len(w.ways) >= maxWays {
			return fmt.Errorf("more than %d different next hops", maxWays)
		}
		n = uint64(len(w.ways))
		w.ways[string(key)] = n
		w.buf = append(w.buf, 'w')
		w.buf = binary.AppendUvarint(w.buf, uint64(len(key)))
		w.buf = append(w.buf, key...)
	}
	if w.count++; w.count > MaxLoad {
		return fmt.Errorf("more than %d routes", MaxLoad)
	}
	kind := byte('6')
	if dst.Addr().Is4() {
		kind = '4'
	}
	w.buf = append(w.buf, kind, byte(dst.Bits()))
	w.buf = append(w.buf, dst.Addr().AsSlice()...)
	w.buf = binary.AppendUvarint(w.buf, n)
	if len(w.buf) < chunk {
		return nil
	}
	return w.flush()
}

func (w *tableWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.emit(w.buf)
	w.buf = w.buf[:0]
	return err
}

// writeTable writes a file of the routes that next returns until it is done.
func writeTable(name string, sync bool, next func() (r spec.Route, done bool, err error)) (count int, err error) {
	err = journal.WriteFile(name, sync, func(emit func([]byte) error) error {
		w := &tableWriter{emit: emit, ways: map[string]uint64{}}
		for {
			r, done, err := next()
			if err != nil {
				return err
			}
			if done {
				count = w.count
				return w.flush()
			}
			if err := w.add(r); err != nil {
				return err
			}
		}
	})
	return count, err
}

// readTable hands the ways and routes of a file to f; of a way index is its number and p is not valid.
func readTable(name string, f func(r spec.Route, p netip.Prefix, way int) error) error {
	ways := 0
	return journal.ReadFile(name, func(b []byte) error { return readEntries(b, &ways, f) })
}

// readEntries reads the entries of one record; ways counts those of the file.
func readEntries(b []byte, ways *int, f func(r spec.Route, p netip.Prefix, way int) error) error {
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch kind {
		case 'w':
			n, k := binary.Uvarint(b)
			if k <= 0 || n > uint64(len(b)-k) || *ways >= maxWays {
				return journal.ErrCorrupt
			}
			var r spec.Route
			if err := json.Unmarshal(b[k:k+int(n)], &r); err != nil {
				return journal.ErrCorrupt
			}
			if err := f(r, netip.Prefix{}, *ways); err != nil {
				return err
			}
			*ways++
			b = b[k+int(n):]
		case '4', '6':
			size := 16
			if kind == '4' {
				size = 4
			}
			if len(b) < 1+size {
				return journal.ErrCorrupt
			}
			a, _ := netip.AddrFromSlice(b[1 : 1+size])
			p := netip.PrefixFrom(a, int(b[0]))
			n, k := binary.Uvarint(b[1+size:])
			if k <= 0 || n >= uint64(*ways) || spec.CheckPrefix("dst", p) != nil {
				return journal.ErrCorrupt
			}
			if err := f(spec.Route{}, p, int(n)); err != nil {
				return err
			}
			b = b[1+size+k:]
		default:
			return journal.ErrCorrupt
		}
	}
	return nil
}
