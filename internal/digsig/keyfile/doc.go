// Package keyfile keeps a signing key in a file: an Ed25519 or an ECDSA P-256 key, encrypted with a passphrase.
//
// The file is PEM of type "MIDPLANE DIGSIG PRIVATE KEY". Its octets, integers in network order:
//
//	offset  size
//	0       1     format, 1
//	1       1     derivation, 1: argon2id, version 0x13 (RFC 9106)
//	2       1     cipher, 1: ChaCha20-Poly1305 (RFC 8439)
//	3       1     argon2 lanes
//	4       4     argon2 passes
//	8       4     argon2 memory, KiB
//	12      16    salt
//	28      12    nonce
//	40      2     length P of the public key
//	42      P     public key (SubjectPublicKeyInfo, DER)
//	42+P    …     private key (PKCS #8, DER), encrypted; the cipher's additional data is all that stands before
//
// So the public key can be read without the passphrase, and neither it nor the cost can be exchanged unnoticed. A new
// file gets a new salt and nonce. The limits below bound what a hostile file can make a reader spend.
//
// Keys of OpenSSH ("OPENSSH PRIVATE KEY") can be read too, and unencrypted PKCS #8 ("PRIVATE KEY") when the caller asks
// for it in so many words.
package keyfile
