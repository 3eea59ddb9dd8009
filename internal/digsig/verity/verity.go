// Package verity computes what fs-verity calls a file's digest: the hash of a descriptor that holds the file's size and the
// root of a Merkle tree over its blocks. It is what the kernel answers for a file whose fs-verity is enabled
// (FS_IOC_MEASURE_VERITY, package enrol), what `fsverity digest` prints, and what a signed statement may carry.
//
// Sources: Linux Documentation/filesystems/fsverity.rst; fs/verity/{enable,hash_algs,measure}.c.
package verity

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/bits"
	"strings"
)

// Algorithm is a hash of fs-verity, by its number in the kernel's interface.
type Algorithm uint8

// The algorithms.
const (
	SHA256 Algorithm = 1
	SHA512 Algorithm = 2
)

// Size is the length of a digest, in octets; 0 for what is no algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA256:
		return sha256.Size
	case SHA512:
		return sha512.Size
	}
	return 0
}

// String is the name as fsverity(1) writes it.
func (a Algorithm) String() string {
	switch a {
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	}
	return fmt.Sprintf("algorithm(%d)", uint8(a))
}

// What the format allows.
const (
	MinBlockSize = 1024
	MaxBlockSize = 64 << 10
	MaxSalt      = 32
	// DefaultBlockSize fits every file system whose own blocks are not smaller.
	DefaultBlockSize = 4096
)

// Params are the parameters of a tree. The zero value is fsverity's default: SHA-256, blocks of 4096 octets, no salt.
type Params struct {
	Algorithm Algorithm // 0: SHA256
	BlockSize int       // a power of two from MinBlockSize to MaxBlockSize; 0: DefaultBlockSize. The kernel takes none above its page size and the file system's block size
	Salt      []byte    // up to MaxSalt octets
}

// normal fills in defaults and refuses what the format does not have.
func (p Params) normal() (Params, error) {
	if p.Algorithm == 0 {
		p.Algorithm = SHA256
	}
	if p.BlockSize == 0 {
		p.BlockSize = DefaultBlockSize
	}
	switch {
	case p.Algorithm.Size() == 0:
		return p, fmt.Errorf("fs-verity: hash %d is neither 1 (sha256) nor 2 (sha512)", uint8(p.Algorithm))
	case p.BlockSize < MinBlockSize || p.BlockSize > MaxBlockSize || p.BlockSize&(p.BlockSize-1) != 0:
		return p, fmt.Errorf("fs-verity: block size %d is not a power of two from %d to %d", p.BlockSize, MinBlockSize, MaxBlockSize)
	case len(p.Salt) > MaxSalt:
		return p, fmt.Errorf("fs-verity: salt of %d octets is longer than %d", len(p.Salt), MaxSalt)
	}
	return p, nil
}

// Digest is a file's digest, comparable with ==. The zero value is no digest.
type Digest struct {
	Algorithm Algorithm
	octets    [sha512.Size]byte
}

// NewDigest makes a digest of its octets.
func NewDigest(a Algorithm, octets []byte) (Digest, error) {
	d := Digest{Algorithm: a}
	if a.Size() == 0 || len(octets) != a.Size() {
		return Digest{}, fmt.Errorf("fs-verity: %d octets are no digest of %v", len(octets), a)
	}
	copy(d.octets[:], octets)
	return d, nil
}

// Bytes are the octets of the digest, the caller's to keep.
func (d Digest) Bytes() []byte { return append([]byte(nil), d.octets[:d.Algorithm.Size()]...) }

// SHA256 returns the octets of a digest by SHA-256; ok is false for another.
func (d Digest) SHA256() (sum [sha256.Size]byte, ok bool) {
	copy(sum[:], d.octets[:])
	return sum, d.Algorithm == SHA256
}

// String is the form of fsverity(1): sha256:0123….
func (d Digest) String() string {
	return d.Algorithm.String() + ":" + hex.EncodeToString(d.octets[:d.Algorithm.Size()])
}

// ParseDigest reads what String wrote.
func ParseDigest(s string) (Digest, error) {
	name, text, ok := strings.Cut(s, ":")
	for _, a := range []Algorithm{SHA256, SHA512} {
		if !ok || name != a.String() {
			continue
		}
		octets, err := hex.DecodeString(text)
		if err != nil {
			return Digest{}, fmt.Errorf("fs-verity digest %q: %w", s, err)
		}
		return NewDigest(a, octets)
	}
	return Digest{}, fmt.Errorf("fs-verity digest %q: want sha256: or sha512: and hexadecimal digits", s)
}

// maxLevels is enough for 2^64 octets in the smallest blocks with the largest hashes: 54 bits of block number, 4 a level,
// and the data.
const maxLevels = 16

// Digester computes a digest of what is written to it, in any pieces. Its memory is a block for each level of the tree,
// whatever the file's size. Not safe for concurrent use.
type Digester struct {
	p      Params
	hash   hash.Hash
	salt   []byte // padded to the hash's own block
	size   uint64
	levels []level // data first
}

// level is one row of the tree: the block that is being filled, and how many are behind it.
type level struct {
	block  []byte // length: what is filled; capacity: a whole block
	blocks uint64
	last   []byte // hash of the last block
}

// NewDigester returns a digester of nothing yet. The error is about p.
func NewDigester(p Params) (*Digester, error) {
	p, err := p.normal()
	if err != nil {
		return nil, err
	}
	d := &Digester{p: p, hash: sha256.New(), levels: make([]level, 0, maxLevels)}
	if p.Algorithm == SHA512 {
		d.hash = sha512.New()
	}
	if len(p.Salt) > 0 {
		d.salt = make([]byte, d.hash.BlockSize())
		copy(d.salt, p.Salt)
	}
	d.level(0)
	return d, nil
}

// level returns row i, which is at most one above the highest so far.
func (d *Digester) level(i int) *level {
	if i == len(d.levels) {
		d.levels = append(d.levels, level{block: make([]byte, 0, d.p.BlockSize), last: make([]byte, 0, sha512.Size)})
	}
	return &d.levels[i]
}

// Write never fails.
func (d *Digester) Write(b []byte) (int, error) {
	n := len(b)
	d.size += uint64(n)
	data := &d.levels[0]
	if len(data.block) > 0 {
		k := min(len(b), cap(data.block)-len(data.block))
		data.block = append(data.block, b[:k]...)
		b = b[k:]
		if len(data.block) == cap(data.block) {
			d.close(0, data.block)
		}
	}
	for len(b) >= d.p.BlockSize { // straight from the caller's memory
		d.close(0, b[:d.p.BlockSize])
		b = b[d.p.BlockSize:]
	}
	if len(b) > 0 {
		data.block = append(data.block, b...)
	}
	return n, nil
}

// close hashes a whole block of row i into the row above, which may be whole then.
func (d *Digester) close(i int, block []byte) {
	for {
		l := &d.levels[i]
		d.hash.Reset()
		d.hash.Write(d.salt)
		d.hash.Write(block)
		l.last = d.hash.Sum(l.last[:0])
		l.block = l.block[:0]
		l.blocks++
		above := d.level(i + 1)
		above.block = append(above.block, d.levels[i].last...)
		if len(above.block) < cap(above.block) {
			return
		}
		i, block = i+1, above.block
	}
}

// Sum ends the file and returns its digest. The digester is then of no more use.
func (d *Digester) Sum() Digest {
	var descriptor [descriptorSize]byte
	descriptor[0] = 1
	descriptor[1] = byte(d.p.Algorithm)
	descriptor[2] = byte(bits.TrailingZeros(uint(d.p.BlockSize)))
	descriptor[3] = byte(len(d.p.Salt))
	binary.LittleEndian.PutUint64(descriptor[8:], d.size)
	copy(descriptor[16:80], d.root())
	copy(descriptor[80:112], d.p.Salt)
	d.hash.Reset()
	d.hash.Write(descriptor[:])
	r := Digest{Algorithm: d.p.Algorithm}
	d.hash.Sum(r.octets[:0])
	return r
}

// descriptorSize is that of struct fsverity_descriptor.
const descriptorSize = 256

// root closes the rows from the data up, and returns the hash of the first that is one block. Of an empty file it is
// zeros.
func (d *Digester) root() []byte {
	if d.size == 0 {
		return nil
	}
	for i := 0; ; i++ {
		if l := &d.levels[i]; len(l.block) > 0 {
			filled := len(l.block)
			l.block = l.block[:cap(l.block)]
			clear(l.block[filled:])
			d.close(i, l.block)
		}
		if d.levels[i].blocks == 1 {
			return d.levels[i].last
		}
	}
}

// Sum reads r to its end and returns the digest.
func Sum(r io.Reader, p Params) (Digest, error) {
	d, err := NewDigester(p)
	if err != nil {
		return Digest{}, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{d}, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return Digest{}, err
	}
	return d.Sum(), nil
}
