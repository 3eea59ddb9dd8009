package wire_test

import (
	"testing"

	"midplane/internal/tipc/wire"
)

// Bits whose meaning depends on the user.
func TestUserDependentBits(t *testing.T) {
	for u := wire.User(0); u < 16; u++ {
		m := make(wire.Msg, 80)
		wire.Init(m, 1, u, 0, wire.IntHeaderSize, 2)
		m.SetWord(5, 1<<14)
		want := u == wire.UserBcastProtocol || u == wire.UserNameDistr || u == wire.UserLinkProtocol
		if m.BcAckInvalid() != want {
			t.Errorf("%v: BcAckInvalid = %v", u, !want)
		}
	}
	m := make(wire.Msg, 80)
	wire.Init(m, 1, wire.UserFragmenter, 0, wire.IntHeaderSize, 2)
	m.SetSize(80)
	m.SetWord(4, 2)
	m.InnerHdr().SetWord(4, 7)
	if m.LinkSelector() != 1 {
		t.Error("selector of a fragment is not that of the message inside")
	}
	m.SetUser(wire.UserLow)
	if m.LinkSelector() != 0 {
		t.Error("selector of a data message is not its port")
	}
}
