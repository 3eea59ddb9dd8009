package attach

import (
	"errors"
	"syscall"
	"testing"

	"midplane/internal/tipc/sockif"
	"midplane/internal/tipc/sockif/sockiftest"
	"midplane/internal/tipc/wire"
)

// What an accepted connection is claimed with cannot be guessed, and is good for once.
func TestClaimTokens(t *testing.T) {
	c := serve(t, &sockiftest.Node{})
	ls, err := c.Socket(sockif.Stream, sockif.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ls.Bind(service, wire.ScopeCluster), ls.Listen(maxUnclaimed)); err != nil {
		t.Fatal(err)
	}
	for range maxUnclaimed {
		s, err := c.Socket(sockif.Stream, sockif.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Connect(t.Context(), serviceDest(sockif.ServiceDest)); err != nil {
			t.Fatal(err)
		}
	}
	l := ls.(*Socket)
	var tokens []token
	eventually(t, "all connections are announced", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		tokens = nil
		for _, a := range l.accepts {
			tokens = append(tokens, a.token)
		}
		return len(tokens) == maxUnclaimed
	})
	// Each bit of 64 random tokens is both 0 and 1 in some.
	var zeros, ones token
	for _, tok := range tokens {
		for i, b := range tok {
			zeros[i] |= ^b
			ones[i] |= b
		}
	}
	for i := range zeros {
		if zeros[i] != 0xff || ones[i] != 0xff {
			t.Fatalf("octet %d of the tokens is not random: %x", i, tokens)
		}
	}

	claim := func() error {
		s, err := c.open(sockif.Stream, kClaim, enc(nil).u8(version).token(tokens[0]))
		if err == nil {
			t.Cleanup(func() { s.Close() })
		}
		return err
	}
	if err := claim(); err != nil {
		t.Fatal(err)
	}
	if err := claim(); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("claimed for the second time: %v", err)
	}
}
