// Package bsign reads the signatures that bsign, the signer of the original DigSig, put into ELF files: an OpenPGP
// signature in a section of its own type. It is for telling what an old file was signed with and for moving it to a
// signature of today, never for letting it run: the content is hashed with SHA-1, of which collisions can be made, so
// the signature vouches only for files whose author meant no harm when they were signed.
//
// The section has the type 0x80736967, is not loaded, and holds, 512 octets in all:
//
//	header line   "#1; bsign v" and the version, ended by a newline
//	20 octets     SHA-1 of the whole file, the section's octets taken as zeros
//	2 octets      length of the packet, network order
//	the packet    a detached OpenPGP signature of the header line and the 20 octets
//	zeros         to the end
//
// bsign finds the section by its type alone and takes any size it has. So a section that the type names but that lies
// over code, or is bigger than it must be, would leave that out of the hash; this package refuses such files, and
// anything but zeros behind the packet, which nothing covers.
package bsign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Specification constants.
const (
	sectionType = 0x80736967
	sectionSize = 512
	headerStart = "#1; bsign v"
	hashSize    = 20
)

// Limits of the ELF files that are read; the tables are read entry by entry.
const (
	maxSections = 1 << 12
	maxSegments = 1 << 12
	maxHeader   = 64
)

var (
	// ErrNone says that there is no signature of bsign in it; the file may be no ELF file at all.
	ErrNone = errors.New("no bsign signature")
	// ErrHazard is what a hazard wraps: there is a signature, but it does not cover the file as it must.
	ErrHazard = errors.New("the bsign signature does not cover the whole file")
)

// Section is a signature that was found and not yet verified.
type Section struct {
	Offset  int64
	Version string // of bsign, as its header line has it
	Hash    [hashSize]byte
	signed  []byte // header line and hash
	packet  []byte
}

func hazard(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrHazard, fmt.Sprintf(format, args...))
}

// span is a part of the file, [from, to).
type span struct {
	what     string
	from, to uint64
}

// elf is what is needed of an ELF header.
type elf struct {
	order                 binary.ByteOrder
	wide                  bool // 64 bits
	size                  uint64
	phoff, shoff          uint64
	phnum, phsize         uint64
	shnum, shsize, ehsize uint64
}

// Find looks for the signature in a file of the given size.
func Find(r io.ReaderAt, size int64) (*Section, error) {
	e, err := header(r, size)
	if err != nil {
		return nil, err
	}
	spans := []span{{"the ELF header", 0, e.ehsize}, {"the section table", e.shoff, e.shoff + e.shnum*e.shsize}}
	if e.phnum > 0 {
		spans = append(spans, span{"the program headers", e.phoff, e.phoff + e.phnum*e.phsize})
	}
	var found []span
	var flags uint64
	for i := range e.shnum {
		s, err := e.section(r, i)
		if err != nil {
			return nil, err
		}
		switch {
		case s.kind == sectionType:
			found = append(found, span{"", s.offset, s.offset + s.size})
			flags = s.flags
			if s.offset > e.size || s.size > e.size-s.offset {
				return nil, hazard("its section is not within the file")
			}
			if s.size != sectionSize {
				return nil, hazard("its section has %d octets: want %d", s.size, sectionSize)
			}
		case s.kind != 0 && s.kind != 8 && s.size > 0: // SHT_NULL, SHT_NOBITS
			if s.offset > e.size || s.size > e.size-s.offset {
				return nil, fmt.Errorf("ELF: section %d is not within the file", i)
			}
			spans = append(spans, span{fmt.Sprintf("section %d", i), s.offset, s.offset + s.size})
		}
	}
	switch {
	case len(found) == 0:
		return nil, ErrNone
	case len(found) > 1:
		return nil, hazard("there are %d sections of its type", len(found))
	case flags&2 != 0: // SHF_ALLOC
		return nil, hazard("its section is loaded")
	}
	for i := range e.phnum {
		s, err := e.segment(r, i)
		if err != nil {
			return nil, err
		}
		spans = append(spans, s)
	}
	for _, s := range spans {
		if s.from < found[0].to && found[0].from < s.to {
			return nil, hazard("its section lies over %s", s.what)
		}
	}
	return parse(r, int64(found[0].from))
}

// parse reads the content of the section.
func parse(r io.ReaderAt, offset int64) (*Section, error) {
	b := make([]byte, sectionSize)
	if err := readAt(r, b, offset); err != nil {
		return nil, err
	}
	line := bytes.IndexByte(b[:maxHeader], '\n')
	if line < 0 || !strings.HasPrefix(string(b), headerStart) {
		// bsign can put in a section without a signature too, to hold a place.
		if bytes.Equal(b, make([]byte, sectionSize)) {
			return nil, ErrNone
		}
		return nil, fmt.Errorf("bsign: its section does not begin with %q", headerStart)
	}
	line++
	rest := b[line:]
	n := int(binary.BigEndian.Uint16(rest[hashSize:]))
	packet := rest[hashSize+2:]
	if n == 0 || n > len(packet) {
		return nil, fmt.Errorf("bsign: a packet of %d octets in a section with room for %d", n, len(packet))
	}
	if len(bytes.Trim(packet[n:], "\x00")) > 0 {
		return nil, hazard("there is something behind its packet")
	}
	return &Section{
		Offset: offset, Version: string(b[len(headerStart) : line-1]), Hash: [hashSize]byte(rest), signed: b[:line+hashSize], packet: packet[:n],
	}, nil
}

func readAt(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func header(r io.ReaderAt, size int64) (*elf, error) {
	var b [64]byte
	if size < 52 {
		return nil, ErrNone
	}
	if err := readAt(r, b[:52], 0); err != nil {
		return nil, err
	}
	if string(b[:4]) != "\x7fELF" {
		return nil, ErrNone
	}
	e := &elf{size: uint64(size), wide: b[4] == 2}
	if b[4] != 1 && b[4] != 2 || b[5] != 1 && b[5] != 2 {
		return nil, fmt.Errorf("ELF: class %d, data %d", b[4], b[5])
	}
	e.order = binary.LittleEndian
	if b[5] == 2 {
		e.order = binary.BigEndian
	}
	half := func(at int) uint64 { return uint64(e.order.Uint16(b[at:])) }
	wantPh, wantSh := uint64(32), uint64(40)
	if e.wide {
		if size < 64 {
			return nil, ErrNone
		}
		if err := readAt(r, b[:], 0); err != nil {
			return nil, err
		}
		e.phoff, e.shoff = e.order.Uint64(b[32:]), e.order.Uint64(b[40:])
		e.ehsize, e.phsize, e.phnum, e.shsize, e.shnum = half(52), half(54), half(56), half(58), half(60)
		wantPh, wantSh = 56, 64
	} else {
		e.phoff, e.shoff = uint64(e.order.Uint32(b[28:])), uint64(e.order.Uint32(b[32:]))
		e.ehsize, e.phsize, e.phnum, e.shsize, e.shnum = half(40), half(42), half(44), half(46), half(48)
	}
	if e.shoff == 0 {
		return nil, ErrNone
	}
	// Extended numbers (0 sections, the number being in the first) bsign never knew.
	if e.shsize != wantSh || e.shnum == 0 || e.shnum > maxSections || e.shoff > e.size || e.shnum*e.shsize > e.size-e.shoff {
		return nil, fmt.Errorf("ELF: section table of %d entries of %d octets at %#x in a file of %d", e.shnum, e.shsize, e.shoff, size)
	}
	if e.phnum > 0 && (e.phsize != wantPh || e.phnum > maxSegments || e.phoff > e.size || e.phnum*e.phsize > e.size-e.phoff) {
		return nil, fmt.Errorf("ELF: program headers, %d of %d octets at %#x in a file of %d", e.phnum, e.phsize, e.phoff, size)
	}
	if e.ehsize > maxHeader || e.ehsize < 52 {
		return nil, fmt.Errorf("ELF: header of %d octets", e.ehsize)
	}
	return e, nil
}

type sectionHeader struct {
	kind                uint32
	flags, offset, size uint64
}

func (e *elf) section(r io.ReaderAt, i uint64) (s sectionHeader, err error) {
	var b [64]byte
	if err := readAt(r, b[:e.shsize], int64(e.shoff+i*e.shsize)); err != nil {
		return s, err
	}
	s.kind = e.order.Uint32(b[4:])
	if e.wide {
		s.flags, s.offset, s.size = e.order.Uint64(b[8:]), e.order.Uint64(b[24:]), e.order.Uint64(b[32:])
	} else {
		s.flags, s.offset, s.size = uint64(e.order.Uint32(b[8:])), uint64(e.order.Uint32(b[16:])), uint64(e.order.Uint32(b[20:]))
	}
	return s, nil
}

// segment is the part of the file that a program header names.
func (e *elf) segment(r io.ReaderAt, i uint64) (s span, err error) {
	var b [56]byte
	if err := readAt(r, b[:e.phsize], int64(e.phoff+i*e.phsize)); err != nil {
		return s, err
	}
	offset, size := uint64(0), uint64(0)
	if e.wide {
		offset, size = e.order.Uint64(b[8:]), e.order.Uint64(b[32:])
	} else {
		offset, size = uint64(e.order.Uint32(b[4:])), uint64(e.order.Uint32(b[16:]))
	}
	if size > 0 && (offset > e.size || size > e.size-offset) {
		return s, fmt.Errorf("ELF: segment %d is not within the file", i)
	}
	return span{fmt.Sprintf("segment %d", i), offset, offset + size}, nil
}
