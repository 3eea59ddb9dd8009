package elfsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Plan says how a file becomes another: Head replaces its first octets, Keep of it stay, and Tail follows them.
type Plan struct {
	Head []byte
	Keep int64
	Tail []byte
	Slot int64 // where the slot is then; 0: there is none
}

// Size returns the size of the file when the plan is carried out.
func (p *Plan) Size() int64 { return p.Keep + int64(len(p.Tail)) }

// Apply returns the new content, which reads the old one.
func (p *Plan) Apply(old io.ReaderAt) io.ReaderAt { return &planned{p, old} }

type planned struct {
	*Plan
	old io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (p *planned) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	for n < len(b) {
		at := off + int64(n)
		var m int
		switch head := int64(len(p.Head)); {
		case at < head:
			m = copy(b[n:], p.Head[at:])
		case at < p.Keep:
			part := b[n:min(int64(len(b)), int64(n)+p.Keep-at)]
			if m, err = p.old.ReadAt(part, at); m < len(part) {
				if err == nil || err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return n + m, err
			}
		case at < p.Size():
			m = copy(b[n:], p.Tail[at-p.Keep:])
		default:
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// CannotEmbedError says why a file takes no embedded signature, though a manifest may list it.
type CannotEmbedError struct{ Why string }

// Error implements error.
func (e *CannotEmbedError) Error() string {
	return "cannot embed a signature: " + e.Why + "; list the file in a manifest"
}

func cannot(format string, a ...any) error { return &CannotEmbedError{fmt.Sprintf(format, a...)} }

// maxNames bounds the names of sections that are copied.
const maxNames = 16 << 20

// Embed plans a file with a slot, all zeros. A note that passes every check is used again; else, also where there are
// notes that do not pass, section table and names are written anew behind the file, with the note last.
func Embed(r io.ReaderAt, size int64) (*Plan, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, embedError(err)
	}
	s, err := f.scan()
	if err != nil {
		return nil, embedError(err)
	}
	if len(s.ours) > 0 {
		slot, _, err := f.slot(s)
		if err == nil {
			return &Plan{Keep: slot, Tail: make([]byte, SlotSize), Slot: slot}, nil
		}
		var bad *SlotError
		if !errors.As(err, &bad) {
			return nil, embedError(err)
		}
	}
	if err := f.refuse(s); err != nil {
		return nil, err
	}
	return f.rebuild(s)
}

func embedError(err error) error {
	var read *ReadError
	if errors.As(err, &read) {
		return err
	}
	return cannot("%v", err)
}

// refuse says no to files of which something would no longer work, or which have no place for a note.
func (f *file) refuse(s scanned) error {
	switch {
	case s.modinfo:
		return cannot("it is a kernel module, and the kernel wants its own signature at the end")
	case f.typ == etRel:
		return cannot("it is an object file, and a linker would copy the note")
	case f.typ != etExec && f.typ != etDyn:
		return cannot("it is neither a program nor a shared library (e_type %d)", f.typ)
	case f.shoff == 0:
		return cannot("it has no section table")
	case slices.Contains(s.ours, f.names):
		return cannot("the section with the names of sections pretends to be a signature")
	case f.names == shnUndef:
		return cannot("its sections have no names")
	case f.shnum+1 >= shnLoRes:
		return cannot("it has %d sections", f.shnum)
	case s.strtab.size > maxNames:
		return cannot("the names of its sections take %d octets", s.strtab.size)
	}
	// Linkers may leave a few zeros behind; anything else belongs to a program that looks for it at the end.
	rest := f.size - s.end
	if rest >= page {
		return cannot("%d octets follow the end of the ELF file (an archive or script data that the program reads?)", rest)
	}
	b, err := f.table.at(s.end, rest)
	if err != nil {
		return err
	}
	for _, c := range b {
		if c != 0 {
			return cannot("%d octets follow the end of the ELF file (an archive or script data that the program reads?)", rest)
		}
	}
	return nil
}

// rebuild plans names, section table and note behind the file.
func (f *file) rebuild(s scanned) (*Plan, error) {
	start := (max(f.size, s.loadEnd) + 7) &^ 7
	names := make([]byte, s.strtab.size, s.strtab.size+64)
	if err := readFull(f.table.r, names, s.strtab.off); err != nil {
		return nil, err
	}
	if n := len(names); n == 0 || names[n-1] != 0 {
		names = append(names, 0)
	}
	name := uint32(len(names))
	empty := name - 1
	names = append(append(names, SectionName...), 0)
	table := (start + uint64(len(names)) + 7) &^ 7
	note := table + (f.shnum+1)*f.shentsize()
	total := note + NoteSize
	if !f.is64 && total > math.MaxUint32 {
		return nil, cannot("a 32-bit ELF file of %d octets", total)
	}

	tail := make([]byte, start-f.size, total-f.size)
	tail = append(tail, names...)
	tail = append(tail, make([]byte, table-start-uint64(len(names)))...)
	for i := range f.shnum {
		h, err := f.section(i)
		if err != nil {
			return nil, err
		}
		if slices.Contains(s.ours, i) {
			h = section{} // its number stays, as others refer to numbers
		}
		if uint64(h.name) >= s.strtab.size || bytes.HasPrefix(names[h.name:], []byte(SectionName+"\x00")) {
			h.name = empty // it had no name, and the longer names must not give it one
		}
		if i == f.names {
			h.off, h.size = start, uint64(len(names))
		}
		tail = f.append(tail, &h)
	}
	tail = f.append(tail, &section{name: name, typ: shtNote, off: note, size: NoteSize, align: 4})
	o := f.order.(binary.AppendByteOrder)
	tail = o.AppendUint32(tail, uint32(len(Owner)+1))
	tail = o.AppendUint32(tail, descSize)
	tail = o.AppendUint32(tail, NoteType)
	tail = append(tail, owner...)
	tail = binary.BigEndian.AppendUint64(tail, f.size)
	tail = binary.BigEndian.AppendUint64(tail, f.shoff)
	tail = binary.BigEndian.AppendUint32(tail, uint32(f.shnum))
	tail = binary.BigEndian.AppendUint32(tail, uint32(f.names))
	tail = append(tail, make([]byte, SlotSize)...)

	head, err := f.withTable(table, f.shnum+1, f.names)
	if err != nil {
		return nil, err
	}
	return &Plan{Head: head, Keep: int64(f.size), Tail: tail, Slot: int64(total - SlotSize)}, nil
}

// withTable returns the ELF header with another section table.
func (f *file) withTable(shoff, shnum, names uint64) ([]byte, error) {
	b, err := f.table.at(0, f.headerSize())
	if err != nil {
		return nil, err
	}
	head := append([]byte(nil), b...)
	rest := head[40:]
	if f.is64 {
		f.order.PutUint64(head[40:], shoff)
		rest = head[52:]
	} else {
		f.order.PutUint32(head[32:], uint32(shoff))
	}
	f.order.PutUint16(rest[8:], uint16(shnum))
	f.order.PutUint16(rest[10:], uint16(names))
	return head, nil
}

// ErrUnsigned is returned for an ELF file in which there is no signature to remove.
var ErrUnsigned = errors.New("there is no embedded signature")

// Remove plans the file as it was before a note was embedded, to the octet. Errors are those of Find, and ErrUnsigned.
func Remove(r io.ReaderAt, size int64) (*Plan, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, err
	}
	s, err := f.scan()
	if err != nil {
		return nil, err
	}
	if len(s.ours) == 0 {
		return nil, ErrUnsigned
	}
	slot, o, err := f.slot(s)
	if err != nil {
		return nil, err
	}
	was := *f
	was.shoff, was.shnum, was.names = o.Shoff, uint64(o.Shnum), uint64(o.Names)
	note := uint64(slot) - OriginSize - noteHead
	if o.Size < f.headerSize() || o.Size > note || o.Shnum >= shnLoRes || o.Names >= o.Shnum || !was.sections().inside(o.Size) {
		return nil, badSlot("what it says of the unsigned file cannot be")
	}
	head, err := f.withTable(o.Shoff, uint64(o.Shnum), uint64(o.Names))
	if err != nil {
		return nil, err
	}
	return &Plan{Head: head, Keep: int64(o.Size)}, nil
}
