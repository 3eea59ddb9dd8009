// Command midplane-pkcs11 is the helper of midplane for keys in PKCS #11 tokens: it loads the token's library, which
// midplane itself, one static program, does not. midplane starts it; it talks on standard input and output (package
// proto of internal/digsig/pkcs11) and is of no use to people.
package main

import (
	"fmt"
	"os"

	"midplane/internal/digsig/pkcs11/cryptoki"
)

func main() {
	noCoreDump() // one would hold the PIN
	if err := cryptoki.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "midplane-pkcs11:", err)
		os.Exit(1)
	}
}
