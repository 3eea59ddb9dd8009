package fib

import "syscall"

const mapNoReserve = syscall.MAP_NORESERVE
