// Package interop has the tests of our node against Linux's own TIPC: guests with a real kernel on one side of a
// bridge, our node on the other, the same programs both ways. It contains no code of the product.
package interop
