package enforcer

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"

	"midplane/internal/digsig/gate"
)

// headSize is how much of a file tells its class.
const headSize = 256

// classOf says what a file is by its first octets. An ELF file that is no program and no shared object is data: neither
// the kernel nor a loader takes it.
func classOf(head []byte) gate.Class {
	switch {
	case len(head) >= 2 && head[0] == '#' && head[1] == '!':
		return gate.ClassScript
	case len(head) < 4 || string(head[:4]) != "\x7fELF":
		return gate.ClassData
	case len(head) < 18:
		return gate.ClassELF
	}
	const relocatable, core = 1, 4
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	switch kind := order.Uint16(head[16:]); kind {
	case relocatable, core:
		if head[5] == 1 || head[5] == 2 {
			return gate.ClassData
		}
	}
	return gate.ClassELF
}

// interpreterOf returns the program that a script names (fs/binfmt_script.c).
func interpreterOf(head []byte) string {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	line = bytes.TrimLeft(bytes.TrimPrefix(line, []byte("#!")), " \t")
	if i := bytes.IndexAny(line, " \t\x00"); i >= 0 {
		line = line[:i]
	}
	return string(line)
}

// isLoader says whether an ELF file is a loader: a shared object with an entry, a name of its own (DT_SONAME) and no
// interpreter. Executed by itself it opens what it is told to load, and that is asked about.
func isLoader(r io.ReaderAt, head []byte) bool {
	const (
		dyn = 3
		// Of program headers.
		dynamic, interp = 2, 3
		// Of the dynamic section.
		soname = 14
	)
	if len(head) < 64 || string(head[:4]) != "\x7fELF" || head[4] < 1 || head[4] > 2 {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	wide := head[4] == 2
	word := func(b []byte) uint64 {
		if wide {
			return order.Uint64(b)
		}
		return uint64(order.Uint32(b))
	}
	at := func(narrow, broad int) int {
		if wide {
			return broad
		}
		return narrow
	}
	entry, phoff := word(head[24:]), word(head[at(28, 32):])
	phsize, phnum := int(order.Uint16(head[at(42, 54):])), int(order.Uint16(head[at(44, 56):]))
	if order.Uint16(head[16:]) != dyn || entry == 0 || phsize < at(32, 56) || phnum == 0 || phnum > 64 || phoff > 1<<40 {
		return false
	}
	table := make([]byte, phsize*phnum)
	if n, _ := r.ReadAt(table, int64(phoff)); n < len(table) {
		return false
	}
	var off, size uint64
	for i := range phnum {
		p := table[i*phsize:]
		switch order.Uint32(p) {
		case interp:
			return false
		case dynamic:
			off, size = word(p[at(4, 8):]), word(p[at(16, 32):])
		}
	}
	entrySize := uint64(at(8, 16))
	if off > 1<<40 || size > 1<<16 || size < entrySize {
		return false
	}
	d := make([]byte, size)
	if n, _ := r.ReadAt(d, int64(off)); n < len(d) {
		return false
	}
	for ; uint64(len(d)) >= entrySize; d = d[entrySize:] {
		if word(d) == soname {
			return true
		}
	}
	return false
}

// useOf names a use as records and explanations do.
func useOf(u gate.Uses) string {
	var words []string
	for _, n := range []struct {
		u gate.Uses
		s string
	}{{gate.MayExec, "exec"}, {gate.MayInterp, "interp"}, {gate.MayLib, "lib"}, {gate.MayScript, "script"}, {gate.MayCheck, "check"}, {gate.MayRead, "open"}} {
		if u&n.u != 0 {
			words = append(words, n.s)
		}
	}
	return strings.Join(words, "|")
}
