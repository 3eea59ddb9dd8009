// Package cryptoki calls a PKCS #11 library (OASIS PKCS #11 2.40) without cgo: finds a token and a key in it, logs in,
// signs, and makes keys. Only the program midplane-pkcs11 links it, since it makes a program dynamically linked.
//
// A Module is for one goroutine, which must be locked to its thread.
package cryptoki
