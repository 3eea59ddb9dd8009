//go:build !unix

package pkcs11

func isPipe(error) bool { return false }
