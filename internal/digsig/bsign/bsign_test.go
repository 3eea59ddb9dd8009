package bsign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var then = time.Date(2004, 2, 1, 12, 0, 0, 0, time.UTC)

// newEntity makes a key; RSA keys of 2,048 bits are the biggest that bsign's section has room for besides.
var newEntity = sync.OnceValue(func() *openpgp.Entity { return entity(then, 0) })

func entity(created time.Time, lifetime uint32) *openpgp.Entity {
	e, err := openpgp.NewEntity("Old Signer", "", "old@example.org", &packet.Config{
		Time: func() time.Time { return created }, RSABits: 2048, Algorithm: packet.PubKeyAlgoRSA, KeyLifetimeSecs: lifetime,
	})
	if err != nil {
		panic(err)
	}
	return e
}

func ring(t testing.TB, e *openpgp.Entity) *KeyRing {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	k, err := ParseKeyRing(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// image is an ELF file as bsign left it: header, one program header, code, section names, the signature section, the
// section table. Fields can be changed before build.
type image struct {
	order       binary.ByteOrder
	wide        bool
	sectionKind uint32
	flags       uint64
	from, size  int // of the signature section; 0: where it belongs
	twice       bool
	hash        crypto.Hash
	header      string
	kind        packet.SignatureType
	packets     int
	after       []byte // behind the packet
	bad         bool   // the hash is of something else
}

const (
	codeAt   = 256
	codeSize = 128
)

func newImage() *image {
	return &image{order: binary.LittleEndian, sectionKind: sectionType, hash: crypto.SHA1, header: headerStart + "0.4.5\n", kind: packet.SigTypeBinary, packets: 1}
}

// build returns the signed file.
func (m *image) build(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	ehsize, phsize, shsize := 52, 32, 40
	if m.wide {
		ehsize, phsize, shsize = 64, 56, 64
	}
	sigAt := codeAt + codeSize
	shoff := sigAt + sectionSize
	sections := 3
	if m.twice {
		sections++
	}
	b := make([]byte, shoff+sections*shsize)
	copy(b, "\x7fELF")
	b[4], b[5], b[6] = 1, 1, 1
	if m.wide {
		b[4] = 2
	}
	if m.order == binary.BigEndian {
		b[5] = 2
	}
	o := m.order
	o.PutUint16(b[16:], 2)
	word := func(at int, v uint64) int {
		if m.wide {
			o.PutUint64(b[at:], v)
			return at + 8
		}
		o.PutUint32(b[at:], uint32(v))
		return at + 4
	}
	at := word(24, 0x1000) // entry
	at = word(at, uint64(ehsize))
	at = word(at, uint64(shoff)) + 4 // flags
	for i, v := range []int{ehsize, phsize, 1, shsize, sections, 0} {
		o.PutUint16(b[at+2*i:], uint16(v))
	}
	// PT_LOAD over the code.
	ph := ehsize
	o.PutUint32(b[ph:], 1)
	if m.wide {
		o.PutUint64(b[ph+8:], codeAt)
		o.PutUint64(b[ph+32:], codeSize)
	} else {
		o.PutUint32(b[ph+4:], codeAt)
		o.PutUint32(b[ph+16:], codeSize)
	}
	for i := range codeSize {
		b[codeAt+i] = byte(i*7 + 1)
	}
	section := func(i int, kind uint32, flags uint64, from, size int) {
		s := shoff + i*shsize
		o.PutUint32(b[s+4:], kind)
		next := word(s+8, flags)
		next += next - s - 8 // sh_addr
		next = word(next, uint64(from))
		word(next, uint64(size))
	}
	section(1, 1, 6, codeAt, codeSize)
	from, size := sigAt, sectionSize
	if m.size != 0 {
		from, size = m.from, m.size
	}
	section(2, m.sectionKind, m.flags, from, size)
	if m.twice {
		section(3, m.sectionKind, 0, sigAt, sectionSize)
	}
	m.sign(t, e, b, sigAt)
	return b
}

func (m *image) sign(t testing.TB, e *openpgp.Entity, b []byte, at int) {
	t.Helper()
	sum := sha1.Sum(b) // the section is still zeros
	if m.bad {
		sum[0] ^= 1
	}
	content := append([]byte(m.header), sum[:]...)
	var p bytes.Buffer
	for range m.packets {
		sig := &packet.Signature{Version: 4, SigType: m.kind, PubKeyAlgo: e.PrimaryKey.PubKeyAlgo, Hash: m.hash, CreationTime: then.Add(time.Hour), IssuerKeyId: &e.PrimaryKey.KeyId}
		h := m.hash.New()
		h.Write(content)
		if err := sig.Sign(h, e.PrivateKey, &packet.Config{NonDeterministicSignaturesViaNotation: new(bool)}); err != nil {
			t.Fatal(err)
		}
		if err := sig.Serialize(&p); err != nil {
			t.Fatal(err)
		}
	}
	content = binary.BigEndian.AppendUint16(content, uint16(p.Len()))
	content = append(content, p.Bytes()...)
	content = append(content, m.after...)
	if len(content) > sectionSize {
		t.Fatalf("%d octets", len(content))
	}
	copy(b[at:], content)
}

func verify(b []byte, k *KeyRing, at time.Time) (*Result, error) {
	return Verify(context.Background(), bytes.NewReader(b), int64(len(b)), k, at)
}

func TestVerify(t *testing.T) {
	e := newEntity()
	k := ring(t, e)
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, wide := range []bool{false, true} {
			m := newImage()
			m.order, m.wide = order, wide
			r, err := verify(m.build(t, e), k, time.Time{})
			if err != nil || r.Version != "0.4.5" || r.User != "Old Signer <old@example.org>" || len(r.Key) != 40 || !r.Created.Equal(then.Add(time.Hour)) {
				t.Errorf("%v, wide %v: %+v, %v", order, wide, r, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	e := newEntity()
	k := ring(t, e)
	for _, c := range []struct {
		name string
		edit func(*image)
		is   error
		want string
	}{
		{"unsigned", func(m *image) { m.sectionKind = 1 }, ErrNone, ""},
		{"altered", func(m *image) { m.bad = true }, ErrBroken, "SHA-1"},
		{"two sections", func(m *image) { m.twice = true }, ErrHazard, "2 sections"},
		{"loaded", func(m *image) { m.flags = 2 }, ErrHazard, "loaded"},
		// bsign would zero it all for the hash and find its packet at the beginning.
		{"section over the code", func(m *image) { m.from, m.size = codeAt, sectionSize }, ErrHazard, "lies over section 1"},
		{"section from the code on", func(m *image) { m.from, m.size = codeAt+codeSize-1, sectionSize }, ErrHazard, "lies over section 1"},
		{"section over the header", func(m *image) { m.from, m.size = 0, sectionSize }, ErrHazard, "lies over the ELF header"},
		{"section over the program headers", func(m *image) { m.from, m.size = 60, sectionSize }, ErrHazard, "lies over"},
		{"section over the section table", func(m *image) { m.from, m.size = codeAt+codeSize+8, sectionSize }, ErrHazard, "lies over the section table"},
		{"bigger section", func(m *image) { m.from, m.size = codeAt+codeSize, sectionSize+40 }, ErrHazard, "552 octets"},
		{"smaller section", func(m *image) { m.from, m.size = codeAt+codeSize, sectionSize-1 }, ErrHazard, "511 octets"},
		{"section beyond the file", func(m *image) { m.from, m.size = 1<<30, sectionSize }, ErrHazard, "not within the file"},
		{"behind the packet", func(m *image) { m.after = []byte{0, 1} }, ErrHazard, "behind its packet"},
		{"text signature", func(m *image) { m.kind = packet.SigTypeText }, ErrBroken, "no OpenPGP signature of a file"},
		{"another header", func(m *image) { m.header = "#2; bsign v0.4.5\n" }, nil, "does not begin"},
		{"header without end", func(m *image) { m.header = headerStart + strings.Repeat("0", 70) + "\n" }, nil, "does not begin"},
	} {
		m := newImage()
		c.edit(m)
		r, err := verify(m.build(t, e), k, time.Time{})
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v: want %v, %q", c.name, r, err, c.is, c.want)
		}
	}
}

func TestKeys(t *testing.T) {
	e := newEntity()
	b := newImage().build(t, e)
	other := ring(t, entity(then, 0))
	if _, err := verify(b, other, time.Time{}); !errors.Is(err, ErrUnknownKey) {
		t.Error(err)
	}
	brief := entity(then, 7200)
	b = newImage().build(t, brief)
	k := ring(t, brief)
	if _, err := verify(b, k, time.Time{}); err != nil {
		t.Errorf("when it was signed: %v", err)
	}
	if _, err := verify(b, k, then.Add(24*time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("a day later: %v", err)
	}
	if _, err := ParseKeyRing(nil); err == nil {
		t.Error("an empty key ring")
	}
	if _, err := ParseKeyRing([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")); err == nil {
		t.Error("half a key ring")
	}
}

// Hash functions that are too weak are refused before the key is looked for. No library makes such signatures any more,
// so the octet that names the function is changed.
func TestWeak(t *testing.T) {
	b := newImage().build(t, newEntity())
	s, err := Find(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	// The packet's body begins behind its header of two or three octets: version, kind, algorithm, hash function.
	body := 2
	if s.packet[1] >= 192 {
		body = 3
	}
	for _, hash := range []byte{1, 3} { // MD5, RIPEMD-160
		p := bytes.Clone(s.packet)
		p[body+3] = hash
		weak := *s
		weak.packet = p
		if _, err := weak.check(ring(t, newEntity()), time.Time{}); err == nil {
			t.Errorf("hash function %d was taken", hash)
		}
	}
}

// Whatever single octet of the file changes, the signature is no longer good. Of the packet itself OpenPGP leaves some
// octets open (the form of a length, the two octets for quick rejection): what is signed and by whom stays the same.
func TestEveryOctetCounts(t *testing.T) {
	e := newEntity()
	k := ring(t, e)
	good := newImage().build(t, e)
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << rand.N(8)
		inPacket := i >= codeAt+codeSize+len(headerStart)+6+hashSize+2 && i < codeAt+codeSize+sectionSize
		if r, err := verify(b, k, time.Time{}); err == nil && !inPacket {
			t.Errorf("octet %d of %d: %+v", i, len(good), r)
		}
	}
	for _, b := range [][]byte{append(bytes.Clone(good), 0), good[:len(good)-1], nil, good[:51], good[:4]} {
		if _, err := verify(b, k, time.Time{}); err == nil {
			t.Errorf("with %d octets", len(b))
		}
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := newImage().build(t, newEntity())
	if _, err := Verify(ctx, bytes.NewReader(b), int64(len(b)), ring(t, newEntity()), time.Time{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	e := newEntity()
	k := ring(f, e)
	good := newImage().build(f, e)
	m := newImage()
	m.wide, m.order = true, binary.BigEndian
	f.Add(good)
	f.Add(m.build(f, e))
	signed := [][]byte{blank(good), blank(m.build(f, e))}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := verify(b, k, time.Time{})
		if err == nil && !slices.ContainsFunc(signed, func(s []byte) bool { return bytes.Equal(s, blank(b)) }) {
			t.Errorf("%+v of a file that nobody signed", r)
		}
	})
}

// blank is a file of ours without the content of its signature section.
func blank(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= codeAt+codeSize+sectionSize {
		clear(b[codeAt+codeSize:][:sectionSize])
	}
	return b
}

var rewrite = flag.Bool("rewrite", false, "write the files in testdata anew")

// The files of testdata are for tests of others, too: signed, and its key ring.
func TestFiles(t *testing.T) {
	signed, keys := filepath.Join("testdata", "signed.elf"), filepath.Join("testdata", "keyring.pgp")
	if *rewrite {
		e := newEntity()
		var b bytes.Buffer
		if err := e.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(signed, newImage().build(t, e), 0o644), os.WriteFile(keys, b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	k, err := ReadKeyRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(signed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(context.Background(), f, fi.Size(), k, time.Time{}); err != nil || r.User != "Old Signer <old@example.org>" {
		t.Errorf("%+v, %v", r, err)
	}
}
