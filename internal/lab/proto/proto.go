// Package proto is the conversation between a test and the agent inside a guest: frames on a serial line.
//
// A frame is a big-endian uint32 length of what follows, a uint32 stream number, one octet of kind, and data.
// The host numbers streams; one stream is one program in the guest. The line is reliable and in order.
package proto

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Kind says what a frame's data is.
type Kind byte

// The kinds. The arrow says who sends it.
const (
	Hello    Kind = iota + 1 // guest → host: the guest is up; data is the boot report, one line each
	Start                    // host → guest: data is a Command in JSON
	Stdin                    // host → guest: octets for standard input, answered by Taken
	EOF                      // host → guest: close standard input
	Signal                   // host → guest: one octet, the signal for the program's process group
	Stdout                   // guest → host: octets of standard output
	Stderr                   // guest → host: octets of standard error
	Taken                    // guest → host: the program's pipe took one Stdin frame
	Exit                     // guest → host: the last frame of a stream; data is a Status in JSON
	Poweroff                 // host → guest: sync and switch off
	Credit                   // guest → host: data is the number of octets taken off the line, a big-endian uint32
)

// MaxData bounds the data of one frame, in octets. Small, so that many programs share the line fairly.
const MaxData = 16 << 10

// Window bounds the octets that the host has on the line and that the guest has not credited: a User-Mode Linux loses
// what is more than its terminal's buffer of 4096 octets. Towards the host the line blocks by itself.
const Window = 2048

const overhead = 5

// Frame is one message on the line.
type Frame struct {
	Stream uint32
	Kind   Kind
	Data   []byte
}

// Command is a program to run in the guest.
type Command struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // added to the agent's own
	Dir  string   `json:"dir,omitempty"`
}

// Status is how a program ended. Code is the exit code, or 128 plus the signal that ended it, or 127 with Err set
// when it did not start.
type Status struct {
	Code int    `json:"code"`
	Err  string `json:"err,omitempty"`
}

// Write writes f with one call of w.Write. Data longer than MaxData is an error.
func Write(w io.Writer, f Frame) error {
	if len(f.Data) > MaxData {
		return fmt.Errorf("lab frame of %d octets is longer than %d", len(f.Data), MaxData)
	}
	b := make([]byte, 4+overhead, 4+overhead+len(f.Data))
	binary.BigEndian.PutUint32(b, uint32(overhead+len(f.Data)))
	binary.BigEndian.PutUint32(b[4:], f.Stream)
	b[8] = byte(f.Kind)
	_, err := w.Write(append(b, f.Data...))
	return err
}

// Read reads one frame. The data is the caller's.
func Read(r io.Reader) (Frame, error) {
	var h [4 + overhead]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n < overhead || n > overhead+MaxData {
		return Frame{}, fmt.Errorf("lab frame says it is %d octets long", n)
	}
	f := Frame{Stream: binary.BigEndian.Uint32(h[4:]), Kind: Kind(h[8]), Data: make([]byte, n-overhead)}
	_, err := io.ReadFull(r, f.Data)
	return f, err
}
