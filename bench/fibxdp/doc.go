//go:build linux && amd64

package main

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -tags linux -target amd64 bench bpf/bench.c -- -O2 -Wall -Werror -Wno-parentheses -mcpu=v3 -I/usr/include/x86_64-linux-gnu
