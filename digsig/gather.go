package digsig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/envelope"
)

// evidence is what is known of a content whatever trust, lists and policy are: with it a verdict is renewed without
// reading. It is immutable.
type evidence struct {
	size   int64
	kind   Kind
	file   [32]byte // SHA-256 of all
	signed [32]byte // with the slot as zeros; without a slot the same
	proofs []proof  // embedded and detached statements
	bad    Reason   // why the embedded signature is none, if there are traces of one
	why    string
}

// proof is a statement and its signatures, of which some were verified.
type proof struct {
	carrier Carrier
	st      *Statement
	env     *Envelope
	good    map[KeyID]bool // by what was found; a key that is not there was not trusted then
}

// blockSize is what is read at once. To read one block while another is hashed gains nothing where the processor has
// instructions for SHA-256 (docs/performance.md).
const blockSize = 256 << 10

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// readError is a failure to read all of the content.
type readError struct{ error }

// gather reads the content once, after the few parts that lead to its signature.
func (v *Verifier) gather(ctx context.Context, r io.ReaderAt, size int64, detached []byte, carrier Carrier) (*evidence, error) {
	e := &evidence{size: size}
	var slot int64
	var payload [elfsig.SlotSize]byte
	info, err := elfsig.Find(r, size)
	var bad *elfsig.SlotError
	var format *elfsig.FormatError
	var read *elfsig.ReadError
	switch {
	case err == nil:
		e.kind = KindELF
		slot = info.Slot
	case errors.As(err, &read):
		return nil, readError{read.Err}
	case errors.As(err, &bad):
		e.kind, e.bad, e.why = KindELF, Broken, err.Error()
	case errors.As(err, &format):
		e.kind, e.bad, e.why = KindELF, Malformed, err.Error()
	default:
		if e.kind, err = sniff(r, size); err != nil {
			return nil, readError{err}
		}
	}
	if slot == 0 && e.bad != Broken {
		left, err := elfsig.Remains(r, size)
		if err != nil {
			return nil, readError{err}
		}
		if left {
			e.bad, e.why = Broken, "the file ends with a signature that no section table leads to: it was changed after it was signed"
		}
	}
	if slot > 0 {
		if err := readAll(r, payload[:], slot); err != nil {
			return nil, readError{err}
		}
		if p, err := decodeSlot(payload[:]); err != nil {
			e.bad, e.why = Broken, "embedded signature: "+err.Error()
		} else {
			p.verify(v.trust)
			e.proofs = append(e.proofs, p)
		}
	}
	if detached != nil {
		if p, err := decodeProof(detached, carrier); err != nil {
			if e.bad == 0 {
				e.bad, e.why = Broken, carrier.String()+" signature: "+err.Error()
			}
		} else {
			p.verify(v.trust)
			e.proofs = append(e.proofs, p)
		}
	}
	return e, e.hash(ctx, r, slot, payload[:])
}

// decodeSlot reads what is in a slot: an envelope and zeros.
func decodeSlot(b []byte) (proof, error) {
	_, rest, err := envelope.DecodePrefix(b)
	if err != nil {
		return proof{}, err
	}
	for _, c := range rest {
		if c != 0 {
			return proof{}, errors.New("the slot is not zero behind the envelope")
		}
	}
	return decodeProof(b[:len(b)-len(rest)], Embedded)
}

// decodeProof reads an envelope about one file. Nothing of b is kept.
func decodeProof(b []byte, c Carrier) (proof, error) {
	env, err := envelope.Decode(bytes.Clone(b))
	if err != nil {
		return proof{}, err
	}
	if env.Domain != envelope.Content {
		return proof{}, fmt.Errorf("it is of domain %s, which says nothing about a file", env.Domain)
	}
	st, err := envelope.DecodeStatement(env.Body)
	if err != nil {
		return proof{}, err
	}
	if c == Embedded && st.Verity != nil {
		return proof{}, errors.New("an fs-verity digest cannot be inside the file that it covers")
	}
	return proof{carrier: c, st: st, env: env}, nil
}

// verify checks the signatures of the keys that are trusted.
func (p *proof) verify(t *TrustStore) {
	p.good = verifyAll(p.env, t)
}

func verifyAll(env *Envelope, t *TrustStore) map[KeyID]bool {
	return verifySum(env, sha256.Sum256(env.Body), t)
}

// verifySum is verifyAll for a body whose SHA-256 is known.
func verifySum(env *Envelope, sum [32]byte, t *TrustStore) map[KeyID]bool {
	good := map[KeyID]bool{}
	signers := envelope.Signers(env.Signatures)
	for _, s := range env.Signatures {
		if k := t.Key(s.Key); k != nil && k.Public.Alg() == s.Alg {
			good[s.Key] = k.Public.Verify(envelope.Message(env.Domain, s.Alg, s.Key, signers, uint64(len(env.Body)), sum), s.Sig)
		}
	}
	return good
}

func sniff(r io.ReaderAt, size int64) (Kind, error) {
	var b [4]byte
	n := min(size, int64(len(b)))
	if err := readAll(r, b[:n], 0); err != nil {
		return 0, err
	}
	switch {
	case string(b[:n]) == "\x7fELF":
		return KindELF, nil
	case n >= 2 && string(b[:2]) == "#!":
		return KindScript, nil
	}
	return KindFile, nil
}

func readAll(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// hash reads the content in order and computes both digests. The last octets are the slot when there is one.
func (e *evidence) hash(ctx context.Context, r io.ReaderAt, slot int64, payload []byte) error {
	h := sha256.New()
	end := e.size
	if slot > 0 {
		end = slot
	}
	if err := hashRange(ctx, h, r, end); err != nil {
		return readError{err}
	}
	if slot == 0 {
		h.Sum(e.file[:0])
		e.signed = e.file
		return nil
	}
	var again, zeros [elfsig.SlotSize]byte
	if err := readAll(r, again[:], slot); err != nil {
		return readError{err}
	}
	if !bytes.Equal(again[:], payload) {
		return readError{errors.New("the file changes while it is read")}
	}
	whole, err := h.(hash.Cloner).Clone()
	if err != nil {
		return readError{err}
	}
	whole.Write(again[:])
	whole.Sum(e.file[:0])
	h.Write(zeros[:])
	h.Sum(e.signed[:0])
	return nil
}

// hashRange hashes the first n octets, or writes them.
func hashRange(ctx context.Context, h io.Writer, r io.ReaderAt, n int64) error {
	buf := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(buf)
	for off := int64(0); off < n; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b := buf[:min(blockSize, n-off)]
		if err := readAll(r, b, off); err != nil {
			return err
		}
		if _, err := h.Write(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// clock returns the later of the clock's time and the latest time that is known to have been.
func (v *Verifier) clock(at time.Time) time.Time {
	if at.Before(v.floor) {
		return v.floor
	}
	return at
}
