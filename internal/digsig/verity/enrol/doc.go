// Package enrol makes files immutable by fs-verity once their signature has been verified, and asks the kernel for the
// digests of those that are.
package enrol
