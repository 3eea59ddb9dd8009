package setfib

import (
	"context"
	"strings"
	"testing"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// finish waits for the end of a program and returns its exit code and outputs.
func finish(t testing.TB, p *lab.Proc) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return code, p.Stdout.String(), p.Stderr.String()
}

// fetch runs fib-get in FIB i and returns what it got.
func (b *box) fetch(i int, args ...string) string {
	b.t.Helper()
	code, out, errs := finish(b.t, b.tool(i, append([]string{"fib-get"}, args...)...))
	if code != 0 {
		return "error: " + strings.TrimSpace(errs)
	}
	return strings.TrimSpace(out)
}

var native = []binding.Backend{binding.Rules, binding.Netns}

func TestIntegrationExecServesInItsFIBOnly(t *testing.T) {
	for _, backend := range native {
		t.Run(string(backend), func(t *testing.T) {
			b := newNativeBox(t, backend, 1)
			for i, name := range fibNames {
				b.tool(i, "fib-serve", "tcp4", ":80", name).ExpectLine("listening")
				b.tool(i, "fib-serve", "tcp6", "[::]:80", name+"6").ExpectLine("listening")
			}
			for i, name := range fibNames {
				if got := strings.TrimSpace(b.clients[i].Run(b.self, "fib-get", "tcp", serverAddr+":80")); got != name {
					t.Errorf("client %d got %q, want %q", i, got, name)
				}
				if got := b.fetch(i, "tcp", serverAddr+":80"); got != name {
					t.Errorf("a process in %s got %q from its own address", name, got)
				}
			}
			// A process that is in no FIB reaches neither.
			if code, out, _ := finish(t, b.start(b.self, "fib-get", "tcp", serverAddr+":80")); code == 0 {
				t.Errorf("a process in no FIB got %q", out)
			}
		})
	}
}
