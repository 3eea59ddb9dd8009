package digsig

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// hundredThousand makes a Verifier with a manifest of 100,000 files.
func hundredThousand(t testing.TB) (*Verifier, *Signer) {
	key := testKey(t, 1)
	entries := make([]ManifestEntry, 100_000)
	for i := range entries {
		entries[i] = ManifestEntry{Digest: sha256.Sum256(fmt.Append(nil, i)), Size: 5, Kind: KindFile, Roles: RoleData, Name: fmt.Sprintf("usr/share/file%d", i)}
	}
	list, err := SignManifest(ManifestHeader{Name: "big", Issued: now}, entries, key)
	if err != nil {
		t.Fatal(err)
	}
	return verifier(t, Config{Trust: trusting(t, key), Manifests: [][]byte{list}}), key
}

// BenchmarkLoad decodes and checks a manifest of 100,000 files.
func BenchmarkLoad(b *testing.B) {
	v, _ := hundredThousand(b)
	for b.Loop() {
		verifier(b, v.config)
	}
}

// BenchmarkRevocation puts a revocation list in force beside that manifest.
func BenchmarkRevocation(b *testing.B) {
	v, key := hundredThousand(b)
	list := revoking(b, 1, key, func(l *Revocations) { l.Digests[[32]byte{}] = "CVE" })
	for b.Loop() {
		if _, err := v.WithRevocations(list, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkListed verifies a small file that the manifest lists.
func BenchmarkListed(b *testing.B) {
	v, _ := hundredThousand(b)
	for b.Loop() {
		if got := v.bytes(b, []byte("77777"), UseAny); !got.Allow {
			b.Fatal(got)
		}
	}
}
