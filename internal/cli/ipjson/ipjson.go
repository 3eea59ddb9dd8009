// Package ipjson writes JSON as iproute2 lays it out.
package ipjson

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Writer writes JSON the way iproute2 lays it out, so that the output compares equal with the real tool's: compact, or
// pretty with four blanks a level, arrays opening and closing on the line of their neighbours. The zero value is compact
// and ready; the text is in Buf, which its user may empty at any time.
type Writer struct {
	Buf    bytes.Buffer
	Pretty bool
	depth  int
	comma  bool // a value stands before the next one on this level
}

func (w *Writer) newline() {
	if !w.Pretty {
		return
	}
	w.Buf.WriteByte('\n')
	for range w.depth {
		w.Buf.WriteString("    ")
	}
}

// before puts what must stand before a value or a name.
func (w *Writer) before() {
	if w.comma {
		w.Buf.WriteByte(',')
	}
	w.comma = true
}

func (w *Writer) quote(s string) {
	enc := json.NewEncoder(&w.Buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	w.Buf.Truncate(w.Buf.Len() - 1)
}

// Name begins a member of an object.
func (w *Writer) Name(s string) {
	w.before()
	w.newline()
	w.quote(s)
	w.Buf.WriteByte(':')
	if w.Pretty {
		w.Buf.WriteByte(' ')
	}
	w.comma = false
}

// BeginObject begins an object.
func (w *Writer) BeginObject() {
	w.before()
	w.Buf.WriteByte('{')
	w.depth++
	w.comma = false
}

// EndObject ends it.
func (w *Writer) EndObject() {
	w.depth--
	if w.comma {
		w.newline()
	}
	w.Buf.WriteByte('}')
	w.comma = true
}

// BeginArray begins an array.
func (w *Writer) BeginArray() {
	w.before()
	w.Buf.WriteByte('[')
	if w.Pretty {
		w.Buf.WriteByte(' ')
	}
	w.depth++
	w.comma = false
}

// EndArray ends it.
func (w *Writer) EndArray() {
	w.depth--
	if w.Pretty && w.comma {
		w.Buf.WriteByte(' ')
	}
	w.Buf.WriteByte(']')
	w.comma = true
}

// Str writes a text.
func (w *Writer) Str(s string) {
	w.before()
	w.quote(s)
}

// Int writes a number.
func (w *Writer) Int(n int64) {
	w.before()
	w.Buf.WriteString(strconv.FormatInt(n, 10))
}

// Null writes null.
func (w *Writer) Null() {
	w.before()
	w.Buf.WriteString("null")
}

// Field writes a member: a text, a number, a truth value, or null.
func (w *Writer) Field(name string, v any) {
	w.Name(name)
	switch v := v.(type) {
	case string:
		w.Str(v)
	case uint32:
		w.Int(int64(v))
	case int:
		w.Int(int64(v))
	case uint64:
		w.before()
		w.Buf.WriteString(strconv.FormatUint(v, 10))
	case bool:
		w.before()
		w.Buf.WriteString(strconv.FormatBool(v))
	case nil:
		w.Null()
	}
}

// Strings writes a member that is a list of texts.
func (w *Writer) Strings(name string, l []string) {
	w.Name(name)
	w.BeginArray()
	for _, s := range l {
		w.Str(s)
	}
	w.EndArray()
}
