package elfsig_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/elfsig/elftest"
)

// noted carries out Embed.
func noted(t testing.TB, b []byte) []byte {
	t.Helper()
	p, err := elfsig.Embed(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, p.Size())
	if _, err := p.Apply(bytes.NewReader(b)).ReadAt(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

func find(b []byte) (elfsig.Info, error) { return elfsig.Find(bytes.NewReader(b), int64(len(b))) }

// In both classes and byte orders a note goes in, is found, is used again, and comes out leaving the file as it was.
func TestEmbedFindRemove(t *testing.T) {
	for name, m := range elftest.Every(elftest.Spec{Interp: "/lib/ld.so", Sections: []elftest.Section{{Name: ".data", Type: 1, Data: []byte("data")}}}) {
		t.Run(name, func(t *testing.T) {
			if info, err := find(m.Bytes); err != nil || info.Slot != 0 || !info.Interp || !info.Exec || !info.Sections {
				t.Fatalf("%+v, %v", info, err)
			}
			b := noted(t, m.Bytes)
			info, err := find(b)
			if err != nil || info.Slot != int64(len(b)-elfsig.SlotSize) {
				t.Fatalf("%+v, %v: want a slot at the end of %d octets", info, err, len(b))
			}
			want := elfsig.Origin{Size: uint64(len(m.Bytes)), Shoff: uint64(m.Shoff), Shnum: uint32(m.Shnum), Names: uint32(m.Strtab)}
			if info.Origin != want {
				t.Errorf("origin %+v, want %+v", info.Origin, want)
			}
			copy(b[info.Slot:], "an envelope")
			again := noted(t, b)
			if !bytes.Equal(again[:info.Slot], b[:info.Slot]) || !bytes.Equal(again[info.Slot:], make([]byte, elfsig.SlotSize)) {
				t.Error("a note that is there is not just emptied")
			}
			p, err := elfsig.Remove(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			out := make([]byte, p.Size())
			if _, err := p.Apply(bytes.NewReader(b)).ReadAt(out, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, m.Bytes) {
				t.Error("without its note it is not what it was")
			}

			// The second opinion.
			f, err := elf.NewFile(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range f.Sections {
				names = append(names, s.Name)
			}
			if got := strings.Join(names, " "); got != " .text .interp .data .shstrtab .note.midplane.sig" {
				t.Errorf("debug/elf sees the sections %s", got)
			}
			if got, _ := f.Section(".data").Data(); string(got) != "data" {
				t.Errorf("debug/elf reads %q", got)
			}
		})
	}
}

// What was changed after the note went in gets a new one, and nothing of the old is left in the section table.
func TestRebuild(t *testing.T) {
	m := elftest.Build(elftest.Spec{})
	b := noted(t, m.Bytes)
	b = append(b, 0, 0, 0, 0)
	var bad *elfsig.SlotError
	if _, err := find(b); !errors.As(err, &bad) {
		t.Fatal(err)
	}
	b = noted(t, b)
	info, err := find(b)
	if err != nil || info.Slot == 0 {
		t.Fatal(info, err)
	}
	image := elftest.Parse(b)
	if got := image.Section(image.Shnum-2, "sh_type"); got != 0 {
		t.Errorf("the old note is of type %d still", got)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.Sections); n != m.Shnum+2 {
		t.Errorf("%d sections", n)
	}
}

// note returns the number of the note's section.
func note(m *elftest.Image) int { return m.Shnum - 1 }

// Each demand on the note is one that a file can fail.
func TestSlotDemands(t *testing.T) {
	for name, m := range elftest.Every(elftest.Spec{Sections: []elftest.Section{{Name: ".data", Type: 1, Data: []byte("some data")}}}) {
		signed := elftest.Parse(noted(t, m.Bytes))
		size := uint64(len(signed.Bytes))
		start := size - elfsig.NoteSize
		cases := []struct {
			what   string
			change func(m *elftest.Image)
			want   string // a part of the message
		}{
			{"other name", func(m *elftest.Image) { m.SetSection(note(m), "sh_name", m.Section(1, "sh_name")) }, "another name"},
			{"other type", func(m *elftest.Image) { m.SetSection(note(m), "sh_type", 1) }, "type 1"},
			{"loaded", func(m *elftest.Image) { m.SetSection(note(m), "sh_flags", 2) }, "plain note"},
			{"address", func(m *elftest.Image) { m.SetSection(note(m), "sh_addr", 0x1000) }, "plain note"},
			{"link", func(m *elftest.Image) { m.SetSection(note(m), "sh_link", 1) }, "plain note"},
			{"info", func(m *elftest.Image) { m.SetSection(note(m), "sh_info", 1) }, "plain note"},
			{"entsize", func(m *elftest.Image) { m.SetSection(note(m), "sh_entsize", 1) }, "plain note"},
			{"alignment", func(m *elftest.Image) { m.SetSection(note(m), "sh_addralign", 8) }, "plain note"},
			{"too short", func(m *elftest.Image) { m.SetSection(note(m), "sh_size", elfsig.NoteSize-4) }, "octets: want"},
			{"too long", func(m *elftest.Image) {
				m.SetSection(note(m), "sh_size", elfsig.NoteSize+4)
				m.SetSection(note(m), "sh_offset", start-4)
			}, "octets: want"},
			{"not at the end", func(m *elftest.Image) { m.SetSection(note(m), "sh_offset", start-4) }, "not at the end"},
			{"unaligned", func(m *elftest.Image) {
				m.Bytes = slices.Insert(m.Bytes, int(start), 0)
				m.SetSection(note(m), "sh_offset", start+1)
			}, "not aligned"},
			{"octets behind", func(m *elftest.Image) { m.Bytes = append(m.Bytes, make([]byte, 4)...) }, "not at the end"},
			{"owner", func(m *elftest.Image) { m.Bytes[start+12] = 'm' }, "header"},
			{"owner's zeros", func(m *elftest.Image) { m.Bytes[start+23] = 1 }, "header"},
			{"owner's length", func(m *elftest.Image) { m.Order.PutUint32(m.Bytes[start:], 8) }, "header"},
			{"descriptor's length", func(m *elftest.Image) { m.Order.PutUint32(m.Bytes[start+4:], 1024) }, "header"},
			{"note type", func(m *elftest.Image) { m.Order.PutUint32(m.Bytes[start+8:], 2) }, "header"},
			{"twice by name", func(m *elftest.Image) { m.SetSection(2, "sh_name", m.Section(note(m), "sh_name")) }, "there are 2"},
			{"twice by owner", func(m *elftest.Image) {
				m.SetSection(2, "sh_type", 7)
				m.SetSection(2, "sh_offset", start)
				m.SetSection(2, "sh_size", 24)
			}, "there are 2"},
			{"section over it", func(m *elftest.Image) { m.SetSection(1, "sh_offset", size-4); m.SetSection(1, "sh_size", 4) }, "overlaps section"},
			{"section into it", func(m *elftest.Image) { m.SetSection(1, "sh_size", start+1-m.Section(1, "sh_offset")) }, "overlaps section"},
			{"segment over it", func(m *elftest.Image) { m.SetSegment(0, "p_filesz", size) }, "overlaps segment"},
			{"other segment over it", func(m *elftest.Image) {
				m.SetSegment(0, "p_type", 4)
				m.SetSegment(0, "p_offset", size-1)
				m.SetSegment(0, "p_filesz", 1)
			}, "overlaps segment"},
			{"segment's last page", func(m *elftest.Image) { m.SetSegment(0, "p_filesz", start&^4095+1) }, "overlaps segment"},
			{"program headers in it", func(m *elftest.Image) {
				copy(m.Bytes[size-200:], m.Bytes[m.Phoff:m.Phoff+m.Phentsize()])
				m.SetHeader("e_phoff", size-200)
			}, "program headers"},
			{"section table in it", func(m *elftest.Image) {
				table := slices.Clone(m.Bytes[m.Shoff : m.Shoff+m.Shnum*m.Shentsize()])
				copy(m.Bytes[size-uint64(len(table)):], table)
				m.SetHeader("e_shoff", size-uint64(len(table)))
			}, "section table"},
		}
		for _, c := range cases {
			t.Run(name+"/"+c.what, func(t *testing.T) {
				x := signed.Clone()
				c.change(x)
				info, err := find(x.Bytes)
				var bad *elfsig.SlotError
				if !errors.As(err, &bad) || !strings.Contains(bad.Error(), c.want) || info.Slot != 0 {
					t.Errorf("slot %d, error %v: want a SlotError with %q", info.Slot, err, c.want)
				}
				// Embed makes a good one, or says that it cannot.
				if p, err := elfsig.Embed(bytes.NewReader(x.Bytes), int64(len(x.Bytes))); err == nil {
					out := make([]byte, p.Size())
					if _, err := p.Apply(bytes.NewReader(x.Bytes)).ReadAt(out, 0); err != nil {
						t.Fatal(err)
					}
					if info, err := find(out); err != nil || info.Slot != p.Slot {
						t.Errorf("after Embed: %+v, %v", info, err)
					}
				}
			})
		}
	}
}

// Files that break the rules of ELF are told from files that have no note.
func TestMalformed(t *testing.T) {
	huge := uint64(math.MaxUint64)
	for name, m := range elftest.Every(elftest.Spec{Interp: "/lib/ld.so"}) {
		for _, c := range []struct {
			what   string
			change func(m *elftest.Image)
			want   string
		}{
			{"class", func(m *elftest.Image) { m.Bytes[4] = 3 }, "class"},
			{"encoding", func(m *elftest.Image) { m.Bytes[5] = 0 }, "encoding"},
			{"version", func(m *elftest.Image) { m.Bytes[6] = 0 }, "version"},
			{"e_version", func(m *elftest.Image) { m.SetHeader("e_version", 2) }, "e_version"},
			{"cut in the header", func(m *elftest.Image) { m.Bytes = m.Bytes[:40] }, "beyond the end"},
			{"e_ehsize", func(m *elftest.Image) { m.SetHeader("e_ehsize", 60) }, "e_ehsize"},
			{"e_phentsize", func(m *elftest.Image) { m.SetHeader("e_phentsize", 8) }, "e_phentsize"},
			{"e_phnum", func(m *elftest.Image) { m.SetHeader("e_phnum", 0xffff) }, "too many program headers"},
			{"many program headers", func(m *elftest.Image) { m.SetHeader("e_phnum", 0xfffe) }, "beyond the end"},
			{"e_phoff", func(m *elftest.Image) { m.SetHeader("e_phoff", huge) }, "beyond the end"},
			{"e_shoff", func(m *elftest.Image) { m.SetHeader("e_shoff", huge) }, "beyond the end"},
			{"e_shoff near the end", func(m *elftest.Image) { m.SetHeader("e_shoff", uint64(len(m.Bytes)-1)) }, "beyond the end"},
			{"e_shoff zero", func(m *elftest.Image) { m.SetHeader("e_shoff", 0) }, "without a table"},
			{"e_shnum reserved", func(m *elftest.Image) { m.SetHeader("e_shnum", 0xff00) }, "extended"},
			{"e_shnum zero", func(m *elftest.Image) { m.SetHeader("e_shnum", 0) }, "extended"},
			{"e_shstrndx extended", func(m *elftest.Image) { m.SetHeader("e_shstrndx", 0xffff) }, "extended"},
			{"e_shentsize", func(m *elftest.Image) { m.SetHeader("e_shentsize", 1) }, "e_shentsize"},
			{"e_shstrndx", func(m *elftest.Image) { m.SetHeader("e_shstrndx", uint64(m.Shnum)) }, "e_shstrndx"},
			{"names of other type", func(m *elftest.Image) { m.SetSection(m.Strtab, "sh_type", 1) }, "of type 1"},
			{"names nowhere", func(m *elftest.Image) { m.SetSection(m.Strtab, "sh_offset", huge) }, "beyond the end"},
			{"segment nowhere", func(m *elftest.Image) { m.SetSegment(1, "p_offset", huge) }, "beyond the end"},
			{"segment too long", func(m *elftest.Image) { m.SetSegment(1, "p_filesz", huge) }, "beyond the end"},
			{"section nowhere", func(m *elftest.Image) { m.SetSection(1, "sh_offset", huge) }, "beyond the end"},
			{"section of 4 GB", func(m *elftest.Image) { m.SetSection(1, "sh_size", math.MaxUint32) }, "beyond the end"},
			{"sum overflows", func(m *elftest.Image) { m.SetSection(1, "sh_size", huge-m.Section(1, "sh_offset")+2) }, "beyond the end"},
		} {
			t.Run(name+"/"+c.what, func(t *testing.T) {
				x := m.Clone()
				c.change(x)
				_, err := find(x.Bytes)
				var bad *elfsig.FormatError
				if !errors.As(err, &bad) || !strings.Contains(bad.Error(), c.want) {
					t.Errorf("%v: want a FormatError with %q", err, c.want)
				}
				if _, err := elfsig.Embed(bytes.NewReader(x.Bytes), int64(len(x.Bytes))); err == nil {
					t.Error("a note was embedded")
				}
				if _, err := elfsig.Remove(bytes.NewReader(x.Bytes), int64(len(x.Bytes))); err == nil {
					t.Error("a note was removed")
				}
			})
		}
	}
	for _, b := range []string{"", "\x7fELF", "#!/bin/sh\necho hello", strings.Repeat("x", 100)} {
		if _, err := find([]byte(b)); !errors.Is(err, elfsig.ErrNotELF) {
			t.Errorf("%q: %v", b, err)
		}
	}
	bare := elftest.Build(elftest.Spec{NoTable: true})
	if info, err := find(bare.Bytes); err != nil || info.Slot != 0 || info.Sections {
		t.Errorf("without a section table: %+v, %v", info, err)
	}
}

// Files that would no longer work, or have no place for a note, are refused in words.
func TestCannotEmbed(t *testing.T) {
	appended := elftest.Build(elftest.Spec{})
	appended.Bytes = append(appended.Bytes, "PK\x03\x04 an archive"...)
	nameless := elftest.Build(elftest.Spec{})
	nameless.SetHeader("e_shstrndx", 0)
	pretender := elftest.Build(elftest.Spec{Sections: []elftest.Section{{Name: elfsig.SectionName, Type: 1}}})
	pretender.SetSection(pretender.Strtab, "sh_name", pretender.Section(2, "sh_name"))
	padded := elftest.Build(elftest.Spec{})
	padded.Bytes = append(padded.Bytes, make([]byte, 5000)...)
	for _, c := range []struct {
		m    *elftest.Image
		want string
	}{
		{appended, "follow the end"},
		{padded, "follow the end"},
		{nameless, "no names"},
		{pretender, "pretends"},
		{elftest.Build(elftest.Spec{NoTable: true}), "no section table"},
		{elftest.Build(elftest.Spec{Type: 1, Sections: []elftest.Section{{Name: ".modinfo", Type: 1, Data: []byte("license=GPL\x00")}}}), "kernel module"},
		{elftest.Build(elftest.Spec{Type: 1}), "object file"},
		{elftest.Build(elftest.Spec{Type: 4}), "neither a program nor a shared library"},
		{elftest.Build(elftest.Spec{Sections: make([]elftest.Section, 0xff00-4)}), "sections"},
	} {
		_, err := elfsig.Embed(bytes.NewReader(c.m.Bytes), int64(len(c.m.Bytes)))
		var cannot *elfsig.CannotEmbedError
		if !errors.As(err, &cannot) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "manifest") {
			t.Errorf("%v: want a CannotEmbedError with %q", err, c.want)
		}
	}
	names := elftest.Build(elftest.Spec{})
	names.SetSection(names.Strtab, "sh_offset", 0)
	names.SetSection(names.Strtab, "sh_size", 17<<20)
	huge := elftest.Build(elftest.Spec{Bits32: true})
	const size = math.MaxUint32 - 100
	huge.SetSection(1, "sh_size", size-huge.Section(1, "sh_offset"))
	for want, c := range map[string]struct {
		m    *elftest.Image
		size int64
	}{"names of its sections": {names, 17 << 20}, "32-bit ELF file of": {huge, size}} {
		if _, err := elfsig.Embed(sparse(c.m.Bytes), c.size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want an error with %q", err, want)
		}
	}
	few := elftest.Build(elftest.Spec{})
	few.Bytes = append(few.Bytes, make([]byte, 12)...)
	noted(t, few.Bytes) // zeros of a linker
}

// A name is one only inside the section of names.
func TestNamesEnd(t *testing.T) {
	m := elftest.Build(elftest.Spec{})
	m.SetSection(1, "sh_name", uint64(len(m.Bytes))-m.Section(m.Strtab, "sh_offset"))
	m.Bytes = append(m.Bytes, elfsig.SectionName+"\x00"...)
	if info, err := find(m.Bytes); err != nil || info.Slot != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	p, err := elfsig.Embed(bytes.NewReader(m.Bytes[:m.Shoff+m.Shnum*m.Shentsize()]), int64(m.Shoff+m.Shnum*m.Shentsize()))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, p.Size()+1)
	if n, err := p.Apply(bytes.NewReader(m.Bytes)).ReadAt(b, 0); n != len(b)-1 || err != io.EOF {
		t.Errorf("%d octets, %v", n, err)
	}
	if n, err := p.Apply(bytes.NewReader(m.Bytes)).ReadAt(b, -1); n != 0 || err == nil {
		t.Errorf("%d octets before the first, %v", n, err)
	}
	if _, err := p.Apply(bytes.NewReader(nil)).ReadAt(b, 0); err != io.ErrUnexpectedEOF {
		t.Errorf("from nothing: %v", err)
	}
}

// What is left of a note when no section leads to it is seen, in either byte order and in files that are no longer ELF.
func TestRemains(t *testing.T) {
	for name, m := range elftest.Every(elftest.Spec{}) {
		b := noted(t, m.Bytes)
		for _, c := range []struct {
			b    []byte
			want bool
		}{{b, true}, {m.Bytes, false}, {b[len(b)-elfsig.NoteSize:], true}, {b[len(b)-elfsig.NoteSize+1:], false}, {b[:len(b)-1], false}, {nil, false}} {
			if got, err := elfsig.Remains(bytes.NewReader(c.b), int64(len(c.b))); got != c.want || err != nil {
				t.Errorf("%s, %d octets: %v, %v", name, len(c.b), got, err)
			}
		}
		if _, err := elfsig.Remains(&failing{r: bytes.NewReader(b)}, int64(len(b))); !errors.Is(err, errDisk) {
			t.Error(err)
		}
	}
}

// sparse is a file with nothing but zeros behind these octets.
type sparse []byte

func (s sparse) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(s)) {
		copy(b, s[off:])
	}
	return len(b), nil
}

// What a note says of the file before is used only if it can be.
func TestRemoveHostile(t *testing.T) {
	b := noted(t, elftest.Build(elftest.Spec{}).Bytes)
	at := len(b) - elfsig.SlotSize - elfsig.OriginSize
	for i := range elfsig.OriginSize {
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			x := slices.Clone(b)
			x[at+i] = v
			p, err := elfsig.Remove(bytes.NewReader(x), int64(len(x)))
			if err != nil {
				continue
			}
			if p.Keep > int64(len(x)) || int64(len(p.Head)) > p.Keep {
				t.Errorf("octet %d = %d: %d octets are kept", i, v, p.Keep)
			}
		}
	}
	if _, err := elfsig.Remove(bytes.NewReader(b[:0]), 0); err == nil {
		t.Error("nothing had a note")
	}
}

// A reader that fails gives its own error, and one that ends early too.
func TestReadErrors(t *testing.T) {
	b := noted(t, elftest.Build(elftest.Spec{}).Bytes)
	for n := range int64(40) {
		r := &failing{r: bytes.NewReader(b), after: n}
		_, err := elfsig.Find(r, int64(len(b)))
		if r.failed != (err != nil) {
			t.Errorf("reader failed: %v, Find: %v", r.failed, err)
		}
		var read *elfsig.ReadError
		if err != nil && (!errors.As(err, &read) || !errors.Is(err, errDisk)) {
			t.Errorf("%v: want a ReadError", err)
		}
	}
	var read *elfsig.ReadError
	if _, err := elfsig.Find(bytes.NewReader(b[:100]), int64(len(b))); !errors.As(err, &read) {
		t.Errorf("%v: want a ReadError", err)
	}
}

var errDisk = errors.New("disk on fire")

type failing struct {
	r      io.ReaderAt
	after  int64
	failed bool
}

func (f *failing) ReadAt(b []byte, off int64) (int, error) {
	if f.after == 0 {
		f.failed = true
		return 0, errDisk
	}
	f.after--
	return f.r.ReadAt(b, off)
}

// Memory is taken in windows, whatever the file says of itself.
func TestFindIsBounded(t *testing.T) {
	sections := make([]elftest.Section, 60000)
	for i := range sections {
		sections[i] = elftest.Section{Name: fmt.Sprintf(".text.function%d", i), Type: 1}
	}
	m := elftest.Build(elftest.Spec{Sections: sections})
	r := bytes.NewReader(m.Bytes)
	got := testing.AllocsPerRun(1, func() {
		if _, err := elfsig.Find(r, int64(len(m.Bytes))); err != nil {
			t.Error(err)
		}
	})
	if got > 20 {
		t.Errorf("%v allocations for 60,000 sections", got)
	}
}

// FuzzELF gives any octets to the parser. It ends without a panic; a slot that it finds is where the demands say; what Embed
// makes is found, and what Remove makes has no note.
func FuzzELF(f *testing.F) {
	for _, m := range elftest.Every(elftest.Spec{Interp: "/lib/ld.so", Sections: []elftest.Section{{Name: ".note.x", Type: 7, Data: make([]byte, 32)}}}) {
		f.Add(m.Bytes)
		f.Add(noted(f, m.Bytes))
	}
	f.Add(elftest.Build(elftest.Spec{NoTable: true}).Bytes)
	f.Fuzz(func(t *testing.T, b []byte) {
		size := int64(len(b))
		info, err := find(b)
		if info.Slot != 0 && (err != nil || info.Slot != size-elfsig.SlotSize) {
			t.Fatalf("slot at %d of %d octets, error %v", info.Slot, size, err)
		}
		if p, err := elfsig.Embed(bytes.NewReader(b), size); err == nil {
			out := make([]byte, p.Size())
			if _, err := p.Apply(bytes.NewReader(b)).ReadAt(out, 0); err != nil {
				t.Fatal(err)
			}
			after, err := find(out)
			if err != nil || after.Slot != p.Slot {
				t.Fatalf("after Embed: %+v, %v", after, err)
			}
			if info.Slot == 0 && err == nil && after.Origin.Size != uint64(size) {
				t.Fatalf("origin %+v of %d octets", after.Origin, size)
			}
		}
		if p, err := elfsig.Remove(bytes.NewReader(b), size); err == nil {
			out := make([]byte, p.Size())
			if _, err := p.Apply(bytes.NewReader(b)).ReadAt(out, 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}
