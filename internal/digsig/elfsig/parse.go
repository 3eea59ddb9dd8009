package elfsig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// From elf(5).
const (
	etRel  = 1
	etExec = 2
	etDyn  = 3

	shtNull   = 0
	shtStrtab = 3
	shtNote   = 7
	shtNobits = 8

	ptLoad    = 1
	ptInterp  = 3
	pnXnum    = 0xffff // the number of program headers is elsewhere
	shnLoRes  = 0xff00 // section numbers from here on are reserved
	shnUndef  = 0
	shnXindex = 0xffff // the number of the names' section is elsewhere
)

// ErrNotELF is returned for what does not begin like an ELF file.
var ErrNotELF = errors.New("not an ELF file")

// FormatError says what of an ELF file is not as it must be.
type FormatError struct{ What string }

// Error implements error.
func (e *FormatError) Error() string { return "malformed ELF: " + e.What }

func malformed(format string, a ...any) error { return &FormatError{fmt.Sprintf(format, a...)} }

// ReadError is an error of the file's reader, not of its content.
type ReadError struct{ Err error }

// Error implements error.
func (e *ReadError) Error() string { return "read: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// header is what is used of the ELF header.
type header struct {
	is64  bool
	order binary.ByteOrder
	typ   uint16
	phoff uint64
	shoff uint64
	phnum uint64
	shnum uint64
	names uint64 // e_shstrndx
}

func (h *header) headerSize() uint64 {
	if h.is64 {
		return 64
	}
	return 52
}

func (h *header) phentsize() uint64 {
	if h.is64 {
		return 56
	}
	return 32
}

func (h *header) shentsize() uint64 {
	if h.is64 {
		return 64
	}
	return 40
}

// segment and section are headers in either class.
type segment struct {
	typ         uint32
	off, filesz uint64
}

type section struct {
	name, typ              uint32
	flags, addr, off, size uint64
	link, info             uint32
	align, entsize         uint64
}

// extent returns the octets of the file that the section has.
func (s *section) extent() span {
	if s.typ == shtNull || s.typ == shtNobits {
		return span{}
	}
	return span{s.off, s.size}
}

// span is a range of the file; it may claim to be anywhere.
type span struct{ off, size uint64 }

// inside says whether the whole of s is within the first size octets.
func (s span) inside(size uint64) bool { return s.off <= size && s.size <= size-s.off }

// overlaps says whether two ranges, both inside some file, have an octet in common.
func (s span) overlaps(o span) bool {
	return s.size > 0 && o.size > 0 && s.off < o.off+o.size && o.off < s.off+s.size
}

// file reads one ELF file through windows.
type file struct {
	header
	size    uint64
	table   window // of headers
	strings window // of names and notes
}

// window is the part of the file that was read last.
type window struct {
	r    io.ReaderAt
	size uint64 // of the file
	off  uint64
	buf  []byte // what of it is valid
	want int    // octets to read at once
}

// at returns n octets at off, which must be inside the file. They are good until the next call.
func (w *window) at(off, n uint64) ([]byte, error) {
	if !(span{off, n}).inside(w.size) {
		return nil, malformed("%d octets at %d are beyond the end of the file", n, off)
	}
	if off < w.off || off-w.off > uint64(len(w.buf)) || n > uint64(len(w.buf))-(off-w.off) {
		want := min(uint64(max(w.want, int(n))), w.size-off)
		if uint64(cap(w.buf)) < want {
			w.buf = make([]byte, want)
		}
		w.off, w.buf = off, w.buf[:want]
		if err := readFull(w.r, w.buf, off); err != nil {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	i := off - w.off
	return w.buf[i : i+n], nil
}

func readFull(r io.ReaderAt, b []byte, off uint64) error {
	if off > 1<<63-1 {
		return &ReadError{io.ErrUnexpectedEOF}
	}
	n, err := r.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &ReadError{err}
}

// Windows: program headers are few and sections some dozens in real files.
const (
	tableWindow  = 8 << 10
	stringWindow = 4 << 10
)

func open(r io.ReaderAt, size int64) (*file, error) {
	if size < 16 {
		return nil, ErrNotELF
	}
	f := &file{size: uint64(size)}
	f.table = window{r: r, size: f.size, want: tableWindow}
	f.strings = window{r: r, size: f.size, want: stringWindow}
	b, err := f.table.at(0, 16)
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != "\x7fELF" {
		return nil, ErrNotELF
	}
	class, data, version := b[4], b[5], b[6]
	switch class {
	case 1, 2:
		f.is64 = class == 2
	default:
		return nil, malformed("class %d", class)
	}
	switch data {
	case 1:
		f.order = binary.LittleEndian
	case 2:
		f.order = binary.BigEndian
	default:
		return nil, malformed("data encoding %d", data)
	}
	if version != 1 {
		return nil, malformed("version %d", version)
	}
	if b, err = f.table.at(0, f.headerSize()); err != nil {
		return nil, err
	}
	return f, f.parse(b)
}

// parse reads the ELF header and checks that the tables are where the file is.
func (f *file) parse(b []byte) error {
	o := f.order
	f.typ = o.Uint16(b[16:])
	if v := o.Uint32(b[20:]); v != 1 {
		return malformed("e_version %d", v)
	}
	var rest []byte
	if f.is64 {
		f.phoff, f.shoff, rest = o.Uint64(b[32:]), o.Uint64(b[40:]), b[52:]
	} else {
		f.phoff, f.shoff, rest = uint64(o.Uint32(b[28:])), uint64(o.Uint32(b[32:])), b[40:]
	}
	half := func(i int) uint64 { return uint64(o.Uint16(rest[2*i:])) }
	ehsize, phentsize, shentsize := half(0), half(1), half(3)
	f.phnum, f.shnum, f.names = half(2), half(4), half(5)
	if ehsize != f.headerSize() {
		return malformed("e_ehsize %d", ehsize)
	}
	if f.phnum == pnXnum {
		return malformed("too many program headers")
	}
	if f.phnum > 0 {
		if phentsize != f.phentsize() {
			return malformed("e_phentsize %d", phentsize)
		}
		if !f.segments().inside(f.size) {
			return malformed("the program headers are beyond the end of the file")
		}
	}
	if f.shoff == 0 {
		if f.shnum != 0 || f.names != shnUndef {
			return malformed("sections without a table")
		}
		return nil
	}
	switch {
	case f.shnum == 0 || f.shnum >= shnLoRes || f.names == shnXindex:
		return malformed("extended section numbering")
	case shentsize != f.shentsize():
		return malformed("e_shentsize %d", shentsize)
	case !f.sections().inside(f.size):
		return malformed("the section table is beyond the end of the file")
	case f.names >= f.shnum:
		return malformed("e_shstrndx %d of %d sections", f.names, f.shnum)
	}
	return nil
}

// segments and sections are where the tables are.
func (f *file) segments() span { return span{f.phoff, f.phnum * f.phentsize()} }
func (f *file) sections() span { return span{f.shoff, f.shnum * f.shentsize()} }

func (f *file) segment(i uint64) (s segment, err error) {
	n := f.phentsize()
	b, err := f.table.at(f.phoff+i*n, n)
	if err != nil {
		return s, err
	}
	s.typ = f.order.Uint32(b)
	if f.is64 {
		s.off, s.filesz = f.order.Uint64(b[8:]), f.order.Uint64(b[32:])
	} else {
		s.off, s.filesz = uint64(f.order.Uint32(b[4:])), uint64(f.order.Uint32(b[16:]))
	}
	return s, nil
}

func (f *file) section(i uint64) (s section, err error) {
	n := f.shentsize()
	b, err := f.table.at(f.shoff+i*n, n)
	if err != nil {
		return s, err
	}
	o := f.order
	s.name, s.typ = o.Uint32(b), o.Uint32(b[4:])
	if f.is64 {
		s.flags, s.addr, s.off, s.size = o.Uint64(b[8:]), o.Uint64(b[16:]), o.Uint64(b[24:]), o.Uint64(b[32:])
		s.link, s.info, s.align, s.entsize = o.Uint32(b[40:]), o.Uint32(b[44:]), o.Uint64(b[48:]), o.Uint64(b[56:])
	} else {
		s.flags, s.addr, s.off, s.size = uint64(o.Uint32(b[8:])), uint64(o.Uint32(b[12:])), uint64(o.Uint32(b[16:])), uint64(o.Uint32(b[20:]))
		s.link, s.info, s.align, s.entsize = o.Uint32(b[24:]), o.Uint32(b[28:]), uint64(o.Uint32(b[32:])), uint64(o.Uint32(b[36:]))
	}
	return s, nil
}

// append encodes a section header.
func (f *file) append(b []byte, s *section) []byte {
	if f.is64 {
		o := f.order.(binary.AppendByteOrder)
		b = o.AppendUint32(o.AppendUint32(b, s.name), s.typ)
		for _, v := range []uint64{s.flags, s.addr, s.off, s.size} {
			b = o.AppendUint64(b, v)
		}
		b = o.AppendUint32(o.AppendUint32(b, s.link), s.info)
		return o.AppendUint64(o.AppendUint64(b, s.align), s.entsize)
	}
	o := f.order.(binary.AppendByteOrder)
	for _, v := range []uint32{s.name, s.typ, uint32(s.flags), uint32(s.addr), uint32(s.off), uint32(s.size), s.link, s.info, uint32(s.align), uint32(s.entsize)} {
		b = o.AppendUint32(b, v)
	}
	return b
}

// named says whether a section bears a name.
func (f *file) named(strtab span, s *section, name string) (bool, error) {
	n := uint64(len(name)) + 1
	at := span{strtab.off + uint64(s.name), n}
	if uint64(s.name) >= strtab.size || n > strtab.size-uint64(s.name) {
		return false, nil
	}
	b, err := f.strings.at(at.off, at.size)
	return err == nil && string(b[:n-1]) == name && b[n-1] == 0, err
}

// strtab returns where the names of sections are.
func (f *file) strtab() (span, error) {
	if f.names == shnUndef {
		return span{}, nil
	}
	s, err := f.section(f.names)
	if err != nil {
		return span{}, err
	}
	if s.typ != shtStrtab {
		return span{}, malformed("section %d, which should have the names of sections, is of type %d", f.names, s.typ)
	}
	if !s.extent().inside(f.size) {
		return span{}, malformed("the names of sections are beyond the end of the file")
	}
	return s.extent(), nil
}
