// Package cases has the hostile cases of docs/digsig.md as tests: each is run, and the table that is printed says what was
// expected and what came of it.
package cases
