package elfsig

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The note: header, owner, and a descriptor of the origin record and the slot.
const (
	SectionName = ".note.midplane.sig"
	Owner       = "Midplane"
	NoteType    = 1

	OriginSize = 24   // where the unsigned file ended and its section table was
	SlotSize   = 1024 // the envelope and zeros after it: the only octets that the digest takes as zeros

	noteHead = 12 + 12 // header, and owner with its zeros
	descSize = OriginSize + SlotSize
	NoteSize = noteHead + descSize

	// page is what the kernel maps at least: what stands in the same page as the end of a loaded segment is in memory too,
	// and of the slot nothing shall be.
	page = 4096
)

// Origin says what the file was before it had a note. It is a claim of the signer's, and covered by the signature.
type Origin struct {
	Size  uint64 // of the file
	Shoff uint64 // of its section table
	Shnum uint32
	Names uint32 // e_shstrndx
}

// Info is what Find tells of a file.
type Info struct {
	Slot     int64 // offset of the slot; 0: there is none
	Origin   Origin
	Dynamic  bool // ET_DYN
	Exec     bool // ET_EXEC
	Interp   bool // there is a PT_INTERP
	Reloc    bool // ET_REL
	Module   bool // ET_REL with .modinfo: a kernel module
	Sections bool // there is a section table
}

// SlotError says why a note that bears our name is none: the file was changed after it was signed, or made by an attacker.
type SlotError struct{ What string }

// Error implements error.
func (e *SlotError) Error() string { return "signature note: " + e.What }

func badSlot(format string, a ...any) error { return &SlotError{fmt.Sprintf(format, a...)} }

// Find looks for the note in a file of the given size. Errors are ErrNotELF, *FormatError, *SlotError and *ReadError; with a
// *SlotError Info is complete except for the slot.
func Find(r io.ReaderAt, size int64) (Info, error) {
	f, err := open(r, size)
	if err != nil {
		return Info{}, err
	}
	s, err := f.scan()
	if err != nil {
		return Info{}, err
	}
	info := Info{Dynamic: f.typ == etDyn, Exec: f.typ == etExec, Reloc: f.typ == etRel, Module: s.modinfo, Interp: s.interp, Sections: f.shoff != 0}
	if len(s.ours) == 0 {
		return info, nil
	}
	info.Slot, info.Origin, err = f.slot(s)
	return info, err
}

// Remains says whether a file in which Find found no slot ends with what was one.
func Remains(r io.ReaderAt, size int64) (bool, error) {
	if size < NoteSize {
		return false, nil
	}
	b := make([]byte, NoteSize)
	if err := readFull(r, b, uint64(size-NoteSize)); err != nil {
		return false, err
	}
	le, be := binary.LittleEndian.Uint32(b), binary.BigEndian.Uint32(b)
	return string(b[12:noteHead]) == owner && (le == uint32(len(Owner)+1) || be == uint32(len(Owner)+1)), nil
}

// scanned is what one pass over the tables found.
type scanned struct {
	ours    []uint64 // sections that are, or pretend to be, the note
	strtab  span
	end     uint64 // where the last part of the ELF file ends
	loadEnd uint64 // where the last loaded page ends
	interp  bool
	modinfo bool // it is a kernel module
}

// scan reads both tables. Everything that it returns lies inside the file.
func (f *file) scan() (s scanned, err error) {
	s.end = max(f.headerSize(), f.segments().off+f.segments().size, f.sections().off+f.sections().size)
	for i := range f.phnum {
		p, err := f.segment(i)
		if err != nil {
			return s, err
		}
		if p.filesz == 0 {
			continue
		}
		x := span{p.off, p.filesz}
		if !x.inside(f.size) {
			return s, malformed("program header %d: %d octets at %d are beyond the end of the file", i, p.filesz, p.off)
		}
		s.end = max(s.end, x.off+x.size)
		switch p.typ {
		case ptLoad:
			s.loadEnd = max(s.loadEnd, pages(x).off+pages(x).size)
		case ptInterp:
			s.interp = true
		}
	}
	if f.shoff == 0 {
		return s, nil
	}
	if s.strtab, err = f.strtab(); err != nil {
		return s, err
	}
	for i := range f.shnum {
		h, err := f.section(i)
		if err != nil {
			return s, err
		}
		if x := h.extent(); x.size > 0 {
			if !x.inside(f.size) {
				return s, malformed("section %d: %d octets at %d are beyond the end of the file", i, h.size, h.off)
			}
			s.end = max(s.end, x.off+x.size)
		}
		ours, err := f.ours(s.strtab, &h)
		if err != nil {
			return s, err
		}
		if ours {
			s.ours = append(s.ours, i)
		}
		if f.typ == etRel && !s.modinfo {
			if s.modinfo, err = f.named(s.strtab, &h, ".modinfo"); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

// ours says whether a section has the note's name, or is a note of its owner.
func (f *file) ours(strtab span, h *section) (bool, error) {
	if h.typ != shtNull {
		if named, err := f.named(strtab, h, SectionName); named || err != nil {
			return named, err
		}
	}
	if h.typ != shtNote || h.size < noteHead {
		return false, nil
	}
	b, err := f.strings.at(h.off, noteHead)
	return err == nil && f.order.Uint32(b) == uint32(len(Owner)+1) && string(b[12:noteHead]) == owner, err
}

const owner = Owner + "\x00\x00\x00\x00"

// pages widens a range to whole pages. The range is inside a file, so nothing overflows.
func pages(x span) span {
	off := x.off &^ (page - 1)
	return span{off, (x.off+x.size+page-1)&^(page-1) - off}
}

// slot checks the one note and returns where its slot is.
func (f *file) slot(s scanned) (int64, Origin, error) {
	var o Origin
	if n := len(s.ours); n != 1 {
		return 0, o, badSlot("there are %d", n)
	}
	h, err := f.section(s.ours[0])
	if err != nil {
		return 0, o, err
	}
	named, err := f.named(s.strtab, &h, SectionName)
	if err != nil {
		return 0, o, err
	}
	where := h.extent()
	switch {
	case !named:
		return 0, o, badSlot("its section has another name")
	case h.typ != shtNote:
		return 0, o, badSlot("its section is of type %d", h.typ)
	case h.flags != 0 || h.addr != 0 || h.link != 0 || h.info != 0 || h.entsize != 0 || h.align != 4:
		return 0, o, badSlot("its section is not a plain note that is not loaded")
	case h.size != NoteSize:
		return 0, o, badSlot("%d octets: want %d", h.size, NoteSize)
	case h.off%4 != 0:
		return 0, o, badSlot("it is not aligned")
	case h.off+h.size != f.size:
		return 0, o, badSlot("it is not at the end of the file: the file was changed after it was signed")
	}
	b, err := f.strings.at(h.off, noteHead+OriginSize)
	if err != nil {
		return 0, o, err
	}
	if namesz, descsz, typ := f.order.Uint32(b), f.order.Uint32(b[4:]), f.order.Uint32(b[8:]); namesz != uint32(len(Owner)+1) ||
		descsz != descSize || typ != NoteType || string(b[12:noteHead]) != owner {
		return 0, o, badSlot("its header is not that of a signature")
	}
	d := b[noteHead:]
	o = Origin{Size: binary.BigEndian.Uint64(d), Shoff: binary.BigEndian.Uint64(d[8:]), Shnum: binary.BigEndian.Uint32(d[16:]), Names: binary.BigEndian.Uint32(d[20:])}
	if err := f.alone(where, s.ours[0]); err != nil {
		return 0, o, err
	}
	return int64(h.off + noteHead + OriginSize), o, nil
}

// alone checks that no other part of the file has an octet of the note.
func (f *file) alone(note span, index uint64) error {
	for _, x := range []struct {
		what string
		span
	}{{"the ELF header", span{0, f.headerSize()}}, {"the program headers", f.segments()}, {"the section table", f.sections()}} {
		if x.overlaps(note) {
			return badSlot("it overlaps %s", x.what)
		}
	}
	for i := range f.phnum {
		p, err := f.segment(i)
		if err != nil {
			return err
		}
		x := span{p.off, p.filesz}
		if x.overlaps(note) || (p.typ == ptLoad && p.filesz > 0 && pages(x).overlaps(note)) {
			return badSlot("it overlaps segment %d", i)
		}
	}
	for i := range f.shnum {
		if i == index {
			continue
		}
		h, err := f.section(i)
		if err != nil {
			return err
		}
		if h.extent().overlaps(note) {
			return badSlot("it overlaps section %d", i)
		}
	}
	return nil
}
