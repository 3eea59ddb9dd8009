// Package proto is what midplane and its helper midplane-pkcs11 say to each other over two pipes: frames of a length in
// four octets, network order, and JSON. The client asks, the helper answers, one after the other; the end of the
// helper's input ends it.
package proto

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxFrame bounds a frame without its length. Messages to sign are much smaller.
const MaxFrame = 256 << 10

// Operations.
const (
	OpOpen     = "open"     // find a token and a key and log in; answer: Public
	OpGenerate = "generate" // make a key in a token; answer: Public. The key is open then
	OpSign     = "sign"     // with the open key; answer: Signature
)

// Algorithms of keys.
const (
	Ed25519 = "ed25519"
	P256    = "p256"
)

// Request is what the client says.
type Request struct {
	Op        string `json:"op"`
	Module    string `json:"module,omitempty"`    // path of the library
	Match     Match  `json:"match"`               // token and key
	Login     bool   `json:"login,omitempty"`     // PIN is there
	PIN       []byte `json:"pin,omitempty"`       //
	Algorithm string `json:"algorithm,omitempty"` // of a key to make
	Data      []byte `json:"data,omitempty"`      // what to sign: a message for Ed25519, a SHA-256 digest for P-256
}

// Match are the attributes by which a token and a key in it are found. Empty ones match all.
type Match struct {
	Token        string  `json:"token,omitempty"`
	Manufacturer string  `json:"manufacturer,omitempty"`
	Serial       string  `json:"serial,omitempty"`
	Model        string  `json:"model,omitempty"`
	Slot         *uint64 `json:"slot,omitempty"`
	Object       string  `json:"object,omitempty"`
	ID           []byte  `json:"id,omitempty"`
}

// Response is what the helper says.
type Response struct {
	Code      Code   `json:"code,omitempty"`  // empty: done
	Error     string `json:"error,omitempty"` // in words
	Public    []byte `json:"public,omitempty"`
	Signature []byte `json:"signature,omitempty"` // 64 octets: of Ed25519 as it is, of P-256 r and s
}

// Code says which kind of error it is.
type Code string

const (
	CodeUsage  Code = "usage"  // the request makes no sense
	CodeModule Code = "module" // the library cannot be loaded or started
	CodeToken  Code = "token"  // no token, or more than one, fits
	CodeKey    Code = "key"    // no key, or more than one, fits, or it is of another kind
	CodeNoPIN  Code = "nopin"  // the token wants a PIN
	CodePIN    Code = "pin"    // the PIN is wrong
	CodeLocked Code = "locked" // the PIN is locked after too many wrong ones
	CodeDevice Code = "device" // anything else that the token refused
)

// ErrTooLong says that a frame is longer than MaxFrame.
var ErrTooLong = fmt.Errorf("frame of more than %d octets", MaxFrame)

// Write writes v as a frame.
func Write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	defer clear(b)
	if len(b) > MaxFrame {
		return ErrTooLong
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	frame = append(frame, b...)
	defer clear(frame)
	_, err = w.Write(frame)
	return err
}

// Read reads a frame into v. It returns io.EOF when there is none any more; members that v lacks are an error.
func Read(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > MaxFrame {
		return ErrTooLong
	}
	b := make([]byte, n)
	defer clear(b)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("frame of %d octets: %w", n, io.ErrUnexpectedEOF)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	if d.More() {
		return errors.New("frame: more than one value")
	}
	return nil
}
