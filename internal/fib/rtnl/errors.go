package rtnl

import "fmt"

// Reason says why a message was refused.
type Reason uint8

// Reasons.
const (
	BadFraming   Reason = iota // the length of a message: what follows it cannot be found
	BadSize                    // a fixed part or an attribute is too short or too long
	BadAttribute               // the chain of attributes does not add up
	BadFamily                  // an address family other than IPv4 and IPv6
	BadPrefix                  // a prefix length that the family does not have, or no address with it
	BadValue                   // a number out of its range
	TooMany                    // more paths or members than MaxPaths, MaxMembers
	NumReasons   = int(iota)
)

var reasonNames = [NumReasons]string{"framing", "size", "attribute", "family", "prefix", "value", "too-many"}

// String returns a short name, fit for a counter.
func (r Reason) String() string {
	if int(r) < NumReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Error says what in a message was wrong.
type Error struct {
	Reason Reason
	Field  string // by its name in the kernel's headers
	Got    uint64 // as found
	Want   string // what would be right
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("netlink: %s %d: want %s", e.Field, e.Got, e.Want) }

func refuse(r Reason, field string, got int, want string) error {
	return &Error{r, field, uint64(got), want}
}
