package digsig

import (
	"bytes"
	"testing"

	"midplane/internal/digsig/elfsig/elftest"
)

// FuzzVerify gives a Verifier any content and any signature beside it. It ends; only what was signed is allowed; and the
// verdict renewed is the same.
func FuzzVerify(f *testing.F) {
	key, hardware := testKey(f, 1), p256Key(f)
	script := []byte("#!/bin/sh\n")
	good := map[string]bool{string(script): true}
	v := verifier(f, Config{Trust: trusting(f, key, hardware), Manifests: [][]byte{manifestOf(f, key, script)}})
	st, err := StatementOf(f.Context(), bytes.NewReader(script), int64(len(script)), Template{Issued: now})
	if err != nil {
		f.Fatal(err)
	}
	detached, err := SignStatement(st, key, hardware)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(script, []byte(nil))
	f.Add([]byte("altered"), detached)
	for _, m := range elftest.Every(program) {
		b := embed(f, m.Bytes, Template{Name: "seed"}, key)
		good[string(b)] = true
		f.Add(b, []byte(nil))
		f.Add(m.Bytes, detached)
	}
	f.Fuzz(func(t *testing.T, content, beside []byte) {
		q := Request{Use: UseAny, At: now, Carrier: Detached}
		if len(beside) > 0 {
			q.Signature = beside
		}
		got := v.Check(t.Context(), bytes.NewReader(content), int64(len(content)), q)
		if got.Allow != good[string(content)] {
			t.Fatal(got)
		}
		if again := v.RecheckRequest(got, q); again != got {
			t.Fatalf("%+v, was %+v", again, got)
		}
	})
}
