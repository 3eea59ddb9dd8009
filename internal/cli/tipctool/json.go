package tipctool

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// jsonWriter writes JSON the way iproute2 lays it out, so that the output compares equal with the real tool's: compact,
// or pretty with four blanks a level, arrays opening and closing on the line of their neighbours.
type jsonWriter struct {
	buf    bytes.Buffer
	pretty bool
	depth  int
	comma  bool // a value stands before the next one on this level
}

func (w *jsonWriter) newline() {
	if !w.pretty {
		return
	}
	w.buf.WriteByte('\n')
	for range w.depth {
		w.buf.WriteString("    ")
	}
}

// before puts what must stand before a value or a name.
func (w *jsonWriter) before() {
	if w.comma {
		w.buf.WriteByte(',')
	}
	w.comma = true
}

func (w *jsonWriter) quote(s string) {
	enc := json.NewEncoder(&w.buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	w.buf.Truncate(w.buf.Len() - 1)
}

func (w *jsonWriter) name(s string) {
	w.before()
	w.newline()
	w.quote(s)
	w.buf.WriteByte(':')
	if w.pretty {
		w.buf.WriteByte(' ')
	}
	w.comma = false
}

func (w *jsonWriter) beginObject() {
	w.before()
	w.buf.WriteByte('{')
	w.depth++
	w.comma = false
}

func (w *jsonWriter) endObject() {
	w.depth--
	if w.comma {
		w.newline()
	}
	w.buf.WriteByte('}')
	w.comma = true
}

func (w *jsonWriter) beginArray() {
	w.before()
	w.buf.WriteByte('[')
	if w.pretty {
		w.buf.WriteByte(' ')
	}
	w.depth++
	w.comma = false
}

func (w *jsonWriter) endArray() {
	w.depth--
	if w.pretty && w.comma {
		w.buf.WriteByte(' ')
	}
	w.buf.WriteByte(']')
	w.comma = true
}

func (w *jsonWriter) str(s string) {
	w.before()
	w.quote(s)
}

func (w *jsonWriter) uint(n uint32) {
	w.before()
	w.buf.WriteString(strconv.FormatUint(uint64(n), 10))
}

func (w *jsonWriter) field(name string, v any) {
	w.name(name)
	switch v := v.(type) {
	case string:
		w.str(v)
	case uint32:
		w.uint(v)
	}
}
