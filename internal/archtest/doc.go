// Package archtest has no code, only tests: that the packages of this module import each other in one direction, that
// cores stay pure, and that whoever imports a public package does not pay for the binary. The rules are in
// rules_test.go, with their reasons.
package archtest
