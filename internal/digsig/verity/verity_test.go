package verity

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// pattern is the content that testdata is about.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*167 + (i>>8)*31 + i>>16)
	}
	return b
}

func TestLikeFsverity(t *testing.T) {
	text, err := os.ReadFile("testdata/fsverity.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		lines++
		size, _ := strconv.Atoi(f[0])
		block, _ := strconv.Atoi(f[1])
		salt, _ := hex.DecodeString(strings.TrimPrefix(f[2], "-"))
		want, err := ParseDigest(f[3])
		if err != nil {
			t.Fatal(err)
		}
		p := Params{Algorithm: want.Algorithm, BlockSize: block, Salt: salt}
		if got, err := Sum(bytes.NewReader(pattern(size)), p); err != nil || got != want {
			t.Errorf("%s: %v, %v", strings.TrimSpace(line), got, err)
		}
	}
	if lines != 20 {
		t.Errorf("%d lines", lines)
	}
}

// reference builds the whole tree in memory, as Documentation/filesystems/fsverity.rst tells it.
func reference(content []byte, p Params) []byte {
	sum := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	pad := 64
	if p.Algorithm == SHA512 {
		sum = func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }
		pad = 128
	}
	var salt []byte
	if len(p.Salt) > 0 {
		salt = append(bytes.Clone(p.Salt), make([]byte, pad-len(p.Salt))...)
	}
	row := content
	root := make([]byte, 64)
	for len(row) > 0 {
		var above []byte
		for len(row) > 0 {
			block := make([]byte, p.BlockSize)
			n := copy(block, row)
			row = row[n:]
			above = append(above, sum(append(bytes.Clone(salt), block...))...)
		}
		if len(above) == p.Algorithm.Size() {
			copy(root, above)
			break
		}
		row = above
	}
	log := byte(0)
	for 1<<log != p.BlockSize {
		log++
	}
	descriptor := append([]byte{1, byte(p.Algorithm), log, byte(len(p.Salt)), 0, 0, 0, 0}, binary.LittleEndian.AppendUint64(nil, uint64(len(content)))...)
	descriptor = append(descriptor, root...)
	descriptor = append(descriptor, p.Salt...)
	descriptor = append(descriptor, make([]byte, 256-len(descriptor))...)
	return sum(descriptor)
}

func TestLikeReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params{
			Algorithm: rapid.SampledFrom([]Algorithm{SHA256, SHA512}).Draw(t, "algorithm"),
			BlockSize: rapid.SampledFrom([]int{1024, 2048, 4096}).Draw(t, "block size"),
			Salt:      rapid.SliceOfN(rapid.Byte(), 0, MaxSalt).Draw(t, "salt"),
		}
		// Sizes near whole blocks and whole rows are the ones that matter.
		size := rapid.IntRange(0, 70).Draw(t, "blocks")*p.BlockSize + rapid.IntRange(-1, 1).Draw(t, "more")
		content := pattern(max(size, 0))
		d, err := NewDigester(p)
		if err != nil {
			t.Fatal(err)
		}
		for rest := content; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			if m, err := d.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if got, want := d.Sum().Bytes(), reference(content, p); !bytes.Equal(got, want) {
			t.Fatalf("%d octets, %+v: %x, want %x", len(content), p, got, want)
		}
	})
}

func TestParams(t *testing.T) {
	for _, c := range []struct {
		p    Params
		says string
	}{
		{Params{}, ""},
		{Params{Algorithm: 3}, "hash 3"},
		{Params{BlockSize: 512}, "block size 512"},
		{Params{BlockSize: 128 << 10}, "block size 131072"},
		{Params{BlockSize: 5000}, "power of two"},
		{Params{BlockSize: -4096}, "block size -4096"},
		{Params{Salt: make([]byte, 33)}, "33 octets"},
		{Params{Algorithm: SHA512, BlockSize: 64 << 10, Salt: make([]byte, 32)}, ""},
	} {
		_, err := NewDigester(c.p)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.says)
		}
		if _, again := Sum(strings.NewReader(""), c.p); (again == nil) != (err == nil) {
			t.Errorf("%+v: Sum says %v", c.p, again)
		}
	}
	if _, err := Sum(iotest.ErrReader(io.ErrUnexpectedEOF), Params{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a reader that fails: %v", err)
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	d, err := NewDigester(Params{BlockSize: 1024, Salt: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	piece := pattern(1500)
	for range 1000 { // the rows are there
		d.Write(piece)
	}
	if n := testing.AllocsPerRun(500, func() { d.Write(piece) }); n != 0 {
		t.Errorf("%v allocations for each Write", n)
	}
}

func TestDigestText(t *testing.T) {
	for _, a := range []Algorithm{SHA256, SHA512} {
		d, err := NewDigest(a, pattern(a.Size()))
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseDigest(d.String())
		if err != nil || back != d || !bytes.Equal(back.Bytes(), pattern(a.Size())) {
			t.Errorf("%v: %v, %v", d, back, err)
		}
		if sum, ok := d.SHA256(); ok != (a == SHA256) || !bytes.Equal(sum[:], pattern(32)) {
			t.Errorf("%v: SHA256 is %x, %v", d, sum, ok)
		}
		if _, err := NewDigest(a, pattern(a.Size()-1)); err == nil {
			t.Errorf("%v of too few octets", a)
		}
	}
	if _, err := NewDigest(9, nil); err == nil {
		t.Error("a digest of no algorithm")
	}
	if s := Algorithm(9).String(); s != "algorithm(9)" {
		t.Error(s)
	}
}

func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{"", "sha256:", "sha256:00", "sha512:zz", "sha1:00", "sha256:" + strings.Repeat("0a", 32), "sha512:" + strings.Repeat("0A", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && !strings.EqualFold(d.String(), s) {
			t.Errorf("%q became %q", s, d)
		}
	})
}
