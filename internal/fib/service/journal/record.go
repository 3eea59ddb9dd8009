package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxRecord bounds the payload of one record, in octets.
const MaxRecord = 32 << 20

const headSize = 8

// Both files begin with eight octets that say what they are, and their generation in eight more, little-endian.
const (
	journalMagic  = "MPFIBJ1\n"
	snapshotMagic = "MPFIBS1\n"
	fileHead      = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum covers the generation as well, so that what is left of another file's blocks does not pass.
func sum(generation uint64, payload []byte) uint32 {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], generation)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(payload)))
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload)
}

// appendRecord appends length, checksum and payload.
func appendRecord(b []byte, generation uint64, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, sum(generation, payload))
	return append(b, payload...)
}

// errTorn says that the rest of a file is not a record.
var errTorn = errors.New("the rest is no record")

// scan reads records until the end and hands each to f; payloads are valid until f returns. It returns how many octets
// were right, and errTorn if there are others behind them; or the error of r or f.
func scan(r io.Reader, generation uint64, f func(payload []byte) error) (good int64, err error) {
	var head [headSize]byte
	var payload []byte
	for {
		switch _, err := io.ReadFull(r, head[:]); {
		case err == io.EOF:
			return good, nil
		case err == io.ErrUnexpectedEOF:
			return good, errTorn
		case err != nil:
			return good, err
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 || n > MaxRecord { // zeros are what a file system leaves of a write that did not happen
			return good, errTorn
		}
		// The length may be damaged: memory grows with what is there, not with what is announced.
		if payload, err = readN(r, payload[:0], int(n)); err == io.ErrUnexpectedEOF || err == io.EOF {
			return good, errTorn
		} else if err != nil {
			return good, err
		}
		if sum(generation, payload) != binary.LittleEndian.Uint32(head[4:]) {
			return good, errTorn
		}
		if err := f(payload); err != nil {
			return good, fmt.Errorf("record at %d: %w", good, err)
		}
		good += headSize + int64(n)
	}
}

// readN appends n octets of r to b.
func readN(r io.Reader, b []byte, n int) ([]byte, error) {
	for n > 0 {
		k := min(n, 64<<10)
		at := len(b)
		b = append(b, make([]byte, k)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return b, err
		}
		n -= k
	}
	return b, nil
}
