// Package elftest makes small ELF files for tests, in every class and byte order, and changes single fields of them.
package elftest

import "encoding/binary"

// Section is one more section of a file that is made.
type Section struct {
	Name  string
	Type  uint32
	Flags uint64
	Data  []byte
}

// Spec says what file to make. The zero value is a 64-bit little-endian x86-64 program that ends with status 0.
type Spec struct {
	Bits32, BigEndian bool
	Type              uint16 // e_type; 0: ET_EXEC
	Machine           uint16 // e_machine; 0: x86-64, or 386 with Bits32
	Interp            string // PT_INTERP
	Text              []byte // nil: exit(0)
	Sections          []Section
	NoTable           bool // no section table
}

// exit0 is mov edi, 0 and mov eax, 60 (exit) and syscall on x86-64; on 386 mov ebx, 0 and mov eax, 1 and int 0x80.
var (
	exit64 = []byte{0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}
	exit32 = []byte{0xbb, 0, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80}
)

const base = 0x400000

// Image is an ELF file and where its parts are.
type Image struct {
	Bytes  []byte
	Is64   bool
	Order  binary.ByteOrder
	Phoff  int
	Phnum  int
	Shoff  int
	Shnum  int
	Strtab int // number of the section with the names
}

// Parse finds the tables of a well-formed file.
func Parse(b []byte) *Image {
	m := &Image{Bytes: b, Is64: b[4] == 2, Order: binary.LittleEndian}
	if b[5] == 2 {
		m.Order = binary.BigEndian
	}
	if m.Is64 {
		m.Phoff, m.Shoff = int(m.Order.Uint64(b[32:])), int(m.Order.Uint64(b[40:]))
		m.Phnum, m.Shnum, m.Strtab = m.half(56), m.half(60), m.half(62)
	} else {
		m.Phoff, m.Shoff = int(m.Order.Uint32(b[28:])), int(m.Order.Uint32(b[32:]))
		m.Phnum, m.Shnum, m.Strtab = m.half(44), m.half(48), m.half(50)
	}
	return m
}

func (m *Image) half(at int) int { return int(m.Order.Uint16(m.Bytes[at:])) }

// Clone returns a copy to change.
func (m *Image) Clone() *Image {
	c := *m
	c.Bytes = append([]byte(nil), m.Bytes...)
	return &c
}

// field is where a field is in a header of either class.
type field struct{ off64, len64, off32, len32 int }

// Fields of headers, by their names in elf(5).
var (
	headerFields = map[string]field{
		"e_type": {16, 2, 16, 2}, "e_version": {20, 4, 20, 4}, "e_entry": {24, 8, 24, 4}, "e_phoff": {32, 8, 28, 4}, "e_shoff": {40, 8, 32, 4},
		"e_ehsize": {52, 2, 40, 2}, "e_phentsize": {54, 2, 42, 2}, "e_phnum": {56, 2, 44, 2}, "e_shentsize": {58, 2, 46, 2}, "e_shnum": {60, 2, 48, 2},
		"e_shstrndx": {62, 2, 50, 2},
	}
	segmentFields = map[string]field{
		"p_type": {0, 4, 0, 4}, "p_flags": {4, 4, 24, 4}, "p_offset": {8, 8, 4, 4}, "p_vaddr": {16, 8, 8, 4}, "p_filesz": {32, 8, 16, 4}, "p_memsz": {40, 8, 20, 4},
	}
	sectionFields = map[string]field{
		"sh_name": {0, 4, 0, 4}, "sh_type": {4, 4, 4, 4}, "sh_flags": {8, 8, 8, 4}, "sh_addr": {16, 8, 12, 4}, "sh_offset": {24, 8, 16, 4}, "sh_size": {32, 8, 20, 4},
		"sh_link": {40, 4, 24, 4}, "sh_info": {44, 4, 28, 4}, "sh_addralign": {48, 8, 32, 4}, "sh_entsize": {56, 8, 36, 4},
	}
)

func (m *Image) place(at int, fields map[string]field, name string) []byte {
	f, ok := fields[name]
	if !ok {
		panic("no field " + name)
	}
	if m.Is64 {
		return m.Bytes[at+f.off64:][:f.len64]
	}
	return m.Bytes[at+f.off32:][:f.len32]
}

func (m *Image) put(b []byte, v uint64) {
	switch len(b) {
	case 2:
		m.Order.PutUint16(b, uint16(v))
	case 4:
		m.Order.PutUint32(b, uint32(v))
	default:
		m.Order.PutUint64(b, v)
	}
}

func (m *Image) get(b []byte) uint64 {
	switch len(b) {
	case 2:
		return uint64(m.Order.Uint16(b))
	case 4:
		return uint64(m.Order.Uint32(b))
	}
	return m.Order.Uint64(b)
}

// SetHeader changes a field of the ELF header.
func (m *Image) SetHeader(name string, v uint64) { m.put(m.place(0, headerFields, name), v) }

// SetSegment changes a field of a program header.
func (m *Image) SetSegment(i int, name string, v uint64) {
	m.put(m.place(m.Phoff+i*m.Phentsize(), segmentFields, name), v)
}

// SetSection changes a field of a section header.
func (m *Image) SetSection(i int, name string, v uint64) {
	m.put(m.place(m.Shoff+i*m.Shentsize(), sectionFields, name), v)
}

// Section returns a field of a section header.
func (m *Image) Section(i int, name string) uint64 {
	return m.get(m.place(m.Shoff+i*m.Shentsize(), sectionFields, name))
}

// Phentsize and Shentsize return the sizes of table entries.
func (m *Image) Phentsize() int {
	if m.Is64 {
		return 56
	}
	return 32
}

// Shentsize returns the size of a section header.
func (m *Image) Shentsize() int {
	if m.Is64 {
		return 64
	}
	return 40
}

// Build makes the file: ELF header, program headers, text, interpreter, sections, names, section table.
func Build(s Spec) *Image {
	m := &Image{Is64: !s.Bits32, Order: binary.LittleEndian}
	ehsize, class, data := 64, byte(2), byte(1)
	if s.Bits32 {
		ehsize, class = 52, 1
	}
	if s.BigEndian {
		data, m.Order = 2, binary.BigEndian
	}
	machine, typ, text := s.Machine, s.Type, s.Text
	if machine == 0 {
		machine = 62
		if s.Bits32 {
			machine = 3
		}
	}
	if typ == 0 {
		typ = 2
	}
	if text == nil {
		text = exit64
		if s.Bits32 {
			text = exit32
		}
	}
	m.Phnum, m.Phoff = 1, ehsize
	if s.Interp != "" {
		m.Phnum = 2
	}
	textAt := ehsize + m.Phnum*m.Phentsize()
	b := make([]byte, textAt)
	copy(b, "\x7fELF")
	b[4], b[5], b[6] = class, data, 1
	b = append(b, text...)
	interpAt := len(b)
	if s.Interp != "" {
		b = append(append(b, s.Interp...), 0)
	}
	loaded := len(b)
	type entry struct {
		Section
		off int
	}
	table := []entry{{}, {Section{Name: ".text", Type: 1, Flags: 6, Data: text}, textAt}}
	if s.Interp != "" {
		table = append(table, entry{Section{Name: ".interp", Type: 1, Flags: 2, Data: b[interpAt:loaded]}, interpAt})
	}
	for _, x := range s.Sections {
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		table = append(table, entry{x, len(b)})
		b = append(b, x.Data...)
	}
	names := []byte{0}
	at := make([]int, len(table)+1)
	for i, e := range table {
		if e.Name != "" {
			at[i] = len(names)
			names = append(append(names, e.Name...), 0)
		}
	}
	at[len(table)] = len(names)
	names = append(names, ".shstrtab\x00"...)
	m.Strtab = len(table)
	table = append(table, entry{Section{Name: ".shstrtab", Type: 3, Data: names}, len(b)})
	b = append(b, names...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	m.Shoff, m.Shnum = len(b), len(table)
	m.Bytes = b
	if s.NoTable {
		m.Bytes, m.Shoff, m.Shnum, m.Strtab = b[:loaded], 0, 0, 0
	} else {
		m.Bytes = append(m.Bytes, make([]byte, len(table)*m.Shentsize())...)
		for i, e := range table {
			m.SetSection(i, "sh_name", uint64(at[i]))
			m.SetSection(i, "sh_type", uint64(e.Type))
			m.SetSection(i, "sh_flags", e.Flags)
			if i > 0 {
				m.SetSection(i, "sh_offset", uint64(e.off))
				m.SetSection(i, "sh_size", uint64(len(e.Data)))
				m.SetSection(i, "sh_addralign", 1)
			}
		}
	}
	m.Order.PutUint16(m.Bytes[18:], machine)
	for name, v := range map[string]int{
		"e_type": int(typ), "e_version": 1, "e_entry": base + textAt, "e_phoff": m.Phoff, "e_shoff": m.Shoff, "e_ehsize": ehsize,
		"e_phentsize": m.Phentsize(), "e_phnum": m.Phnum, "e_shentsize": m.Shentsize(), "e_shnum": m.Shnum, "e_shstrndx": m.Strtab,
	} {
		m.SetHeader(name, uint64(v))
	}
	load := m.Phnum - 1
	for name, v := range map[string]int{"p_type": 1, "p_flags": 5, "p_offset": 0, "p_vaddr": base, "p_filesz": loaded, "p_memsz": loaded} {
		m.SetSegment(load, name, uint64(v))
	}
	if s.Interp != "" {
		for name, v := range map[string]int{"p_type": 3, "p_flags": 4, "p_offset": interpAt, "p_filesz": loaded - interpAt, "p_memsz": loaded - interpAt} {
			m.SetSegment(0, name, uint64(v))
		}
	}
	return m
}

// Every returns the same file in both classes and byte orders, by a name.
func Every(s Spec) map[string]*Image {
	all := map[string]*Image{}
	for name, x := range map[string]struct{ bits32, be bool }{"64le": {false, false}, "64be": {false, true}, "32le": {true, false}, "32be": {true, true}} {
		s.Bits32, s.BigEndian = x.bits32, x.be
		all[name] = Build(s)
	}
	return all
}
