package fib

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"

	"midplane/internal/fib/binding"
)

// resolver asks the name servers of a FIB through the FIB. The first query goes to the first of them, each further
// one (Go repeats what was not answered) to the next.
func resolver(b binding.Binding) *net.Resolver {
	d := net.Dialer{Control: func(_, address string, c syscall.RawConn) error { return enterSocket(b, "", c, target(address)) }}
	var queries atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		if n := uint32(len(b.DNS)); n > 0 {
			server = net.JoinHostPort(b.DNS[(queries.Add(1)-1)%n], "53")
		}
		return d.DialContext(ctx, network, server)
	}}
}

// Resolver returns a resolver that asks the name servers of a FIB through the FIB, as [Dialer] does: for programs that
// look names up by themselves. dir is where the record of FIBs is, "" for the default.
func Resolver(fib, dir string) (*net.Resolver, error) {
	b, err := find(fib, dir)
	if err != nil {
		return nil, err
	}
	return resolver(b), nil
}
