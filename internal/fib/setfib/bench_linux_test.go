package setfib

import (
	"os/exec"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/binding"
)

// BenchmarkExec is the whole of starting a program in a FIB, until it has ended; "none" is the same program in none.
func BenchmarkExec(b *testing.B) {
	for _, backend := range append([]binding.Backend{"none"}, native...) {
		b.Run(string(backend), func(b *testing.B) {
			var box *box
			argv := []string{"true"}
			if backend == "none" {
				box = newNativeBox(b, binding.Rules, 1)
				argv = append([]string{box.self, "fib-child"}, argv...) // a Go program that starts it, as fib-exec is
			} else {
				box = newNativeBox(b, backend, 1)
				argv = box.execArgs("blue", argv...)
			}
			b.ResetTimer()
			for range b.N {
				if err := box.do(exec.Command(argv[0], argv[1:]...).Run); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSocket is socket(2) and close(2) of a program in a FIB.
func BenchmarkSocket(b *testing.B) {
	const program = `
import socket, sys, time
n = 20000
t = time.perf_counter()
for _ in range(n):
    socket.socket().close()
print("%d" % ((time.perf_counter() - t) / n * 1e9))
`
	for _, backend := range append([]binding.Backend{"none"}, native...) {
		b.Run(string(backend), func(b *testing.B) {
			box := newNativeBox(b, binding.Rules, 1)
			argv := []string{"/usr/bin/python3", "-c", program}
			if backend != "none" {
				box = newNativeBox(b, backend, 1)
				argv = box.execArgs("blue", argv...)
			}
			for range b.N {
				ns := strings.TrimSpace(box.run(argv...))
				b.Logf("%s ns a socket", ns)
			}
		})
	}
}

// BenchmarkDial is the dial of a UDP socket, which sends nothing.
func BenchmarkDial(b *testing.B) {
	for _, backend := range native {
		b.Run(string(backend), func(b *testing.B) {
			box := newNativeBox(b, backend, 1)
			d := fib.Dialer{FIB: "blue", Dir: box.dir}
			err := box.do(func() error {
				b.ResetTimer()
				for range b.N {
					c, err := d.Dial("udp4", clientAddr+":9")
					if err != nil {
						return err
					}
					_ = c.Close()
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
