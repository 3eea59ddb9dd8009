package proto

import (
	"bytes"
	"io"
	"testing"
)

func TestFramesComeBackAsSent(t *testing.T) {
	var line bytes.Buffer
	sent := []Frame{
		{Stream: 1, Kind: Start, Data: []byte(`{"argv":["true"]}`)},
		{Stream: 0xffffffff, Kind: EOF, Data: []byte{}},
		{Stream: 2, Kind: Stdout, Data: bytes.Repeat([]byte{0, 255}, MaxData/2)},
	}
	for _, f := range sent {
		if err := Write(&line, f); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range sent {
		got, err := Read(&line)
		if err != nil {
			t.Fatal(err)
		}
		if got.Stream != want.Stream || got.Kind != want.Kind || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("frame %d came back as %d %d with %d octets", i, got.Stream, got.Kind, len(got.Data))
		}
	}
	if _, err := Read(&line); err != io.EOF {
		t.Errorf("after the last frame: %v, want EOF", err)
	}
}

func TestLengthsOutOfRangeAreRefused(t *testing.T) {
	if err := Write(io.Discard, Frame{Data: make([]byte, MaxData+1)}); err == nil {
		t.Error("a frame longer than MaxData was written")
	}
	for _, n := range []byte{0, 1, 4} {
		if _, err := Read(bytes.NewReader([]byte{0, 0, 0, n, 0, 0, 0, 0, 1, 0, 0})); err == nil {
			t.Errorf("a frame of length %d was read", n)
		}
	}
	if _, err := Read(bytes.NewReader([]byte{255, 255, 255, 255, 0, 0, 0, 0, 1})); err == nil {
		t.Error("a frame of 4 GiB was read")
	}
}
