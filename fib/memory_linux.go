package fib

import "syscall"

const mapNoReserve = syscall.MAP_NORESERVE

// advise asks for huge pages, as lookups in a large table else miss the TLB more often than the cache. They are taken as
// they are used, 2 MiB at a time.
func advise(b []byte) { _ = syscall.Madvise(b, 14 /* MADV_HUGEPAGE */) } // without, it works too
