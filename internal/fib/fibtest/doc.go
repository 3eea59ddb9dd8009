// Package fibtest has what tests and benchmarks of FIBs share: a reference table that is slow and obvious, the prefixes of
// the Internet's routing table, and updates as routing brings them. Everything in it is the same in each run.
package fibtest
