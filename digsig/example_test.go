package digsig_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"midplane/digsig"
)

// A manifest vouches for a script; the script with another line in it is unsigned.
func Example() {
	signer, err := digsig.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))) // a real key is drawn, not zeros
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	script := []byte("#!/bin/sh\necho hello\n")

	ctx := context.Background()
	st, err := digsig.StatementOf(ctx, bytes.NewReader(script), int64(len(script)), digsig.Template{Name: "hello", Version: 1, Issued: now})
	if err != nil {
		panic(err)
	}
	manifest, err := digsig.SignManifest(digsig.ManifestHeader{Name: "scripts", Version: 1, Issued: now}, []digsig.ManifestEntry{digsig.EntryOf(st)}, signer)
	if err != nil {
		panic(err)
	}

	trust, err := digsig.NewTrustStore(&digsig.Key{Public: signer.Public(), Comment: "release", Purposes: digsig.PurposeManifest, Roles: digsig.RoleScript})
	if err != nil {
		panic(err)
	}
	v, err := digsig.NewVerifier(digsig.Config{Trust: trust, Manifests: [][]byte{manifest}, Now: now})
	if err != nil {
		panic(err)
	}
	fmt.Println(v.Verify(ctx, bytes.NewReader(script), int64(len(script)), digsig.UseExec, now))
	altered := append(script, "rm -rf /\n"...)
	fmt.Println(v.Verify(ctx, bytes.NewReader(altered), int64(len(altered)), digsig.UseExec, now))
	// Output:
	// allow: signed: by key d2b7699d5ab8b069 (release) (manifest "scripts" version 1)
	// deny: unsigned: it has no signature, and no manifest lists it
}
