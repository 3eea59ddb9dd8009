// Package digsig is runtime authenticity of binaries: the administrator signs, and what is unsigned, altered or revoked is
// told from what is good. It needs no privilege and no daemon; midplane digsig enforce is what acts on its verdicts.
//
// # The model
//
// A [Signer] holds a key and says of a file's content what it may be used for, under which name and version, and how long: a
// [Statement]. [Embed] and [SignFile] put it inside an ELF file, [SignManifest] says it of many files at once, and
// [SignStatement] of one file from beside it. All of them are an [Envelope], whose layout, like those of the rest, is in
// docs/digsig.md.
//
// A [Verifier] answers whether a content may be used so: [Verifier.Verify] reads it once and returns a [Verdict], which says
// why in words. It is a snapshot of four things: the keys that are trusted and for what ([TrustStore], [Key]), manifests,
// [Revocations], and a [Policy]. The last three are signed themselves, by keys that are trusted for that. A snapshot never
// changes; when a list does, there is a new one ([Store.Reload], [Verifier.WithRevocations], …), of the next generation, and
// [Verifier.Recheck] renews a verdict by it without reading the content again. So a cache of verdicts is brought up to date in
// microseconds a file.
//
// What was in force once is not undone by putting an older list in its place: versions only grow, and [State], which a
// [Store] keeps in a directory, remembers them and the latest time that is known to have been, so that a clock that is set
// back makes nothing valid again.
//
// # Verdicts
//
// The zero Verdict denies, and whatever cannot be read, understood or found is denied. A file that has a signature which
// does not fit is [Broken], not [Unsigned], also when a tool rewrote it. Modes [Permissive] and [Learn] allow what is denied, and
// the verdict says for which cause; a [Learner] makes a manifest of it for somebody to read and sign.
//
// A verdict is about a content. Whether the file still has that content when it is used is for the caller to see to, by
// leases, fs-verity or a copy that nobody else can write to; a path, an inode or a time is no evidence.
//
// # Cost
//
// Verifying costs one pass of SHA-256 over the content in blocks of 256 KiB, some small reads before it, and a signature
// (some 70 µs with Ed25519). Memory is bounded whatever a file claims to be; files bigger than the policy's limit (2 GiB where it
// says nothing) are denied unread.
//
// # Trees
//
// [Verifier.VerifyTree], [SignTree] and [ManifestTree] work on directories by several goroutines, and tell of their progress.
package digsig
