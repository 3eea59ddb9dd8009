// Command midplane gives any Linux the server features that mission-critical clusters need; see docs/cli.md.
package main

import (
	"os"

	"midplane/internal/cli"
	"midplane/internal/digsig/enforcer"
)

func main() {
	enforcer.Main() // the enforcer's processes are this program
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
