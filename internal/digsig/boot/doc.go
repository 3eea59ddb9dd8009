// Package boot shows that a whole Debian of which everything is signed boots under enforcement, does its work, and runs
// nothing else. It has nothing but tests.
package boot
