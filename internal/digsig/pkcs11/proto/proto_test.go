package proto

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	slot := uint64(7)
	q := Request{Op: OpOpen, Module: "/m", Match: Match{Token: "t", Slot: &slot, ID: []byte{0}}, Login: true, PIN: []byte("1")}
	for range 2 {
		if err := Write(&b, &q); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		var got Request
		if err := Read(&b, &got); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if err := Read(&b, &q); err != io.EOF {
		t.Error(err)
	}
	if err := Write(&b, &Request{Data: make([]byte, MaxFrame)}); !errors.Is(err, ErrTooLong) || b.Len() > 0 {
		t.Errorf("%v, %d octets written", err, b.Len())
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, &Response{Public: []byte("p"), Signature: []byte("s"), Code: CodePIN, Error: "e"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, again Response
		if Read(bytes.NewReader(data), &a) != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, &a); errors.Is(err, ErrTooLong) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if err := Read(&b, &again); err != nil || again.Code != a.Code || !bytes.Equal(again.Public, a.Public) || !bytes.Equal(again.Signature, a.Signature) {
			t.Errorf("%+v -> %+v, %v", a, again, err)
		}
	})
}
